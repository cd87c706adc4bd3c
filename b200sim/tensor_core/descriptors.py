"""Descriptors of tensor core operands: where one lies in shared memory (tcgen05 and wgmma), and what a
tcgen05 instruction does.

Sources: PTX ISA 9.7.15.5.1.2 (wgmma), 9.7.16.4 (tables 40-44), 9.7.16.3 (canonical layouts), 9.7.16.2 table
39 (legal shapes); CUTLASS include/cute/arch/mma_sm100_desc.hpp.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from b200sim.faults import Fault, Unsupported

CHUNK = 16  # bytes: swizzling moves 16-byte chunks and keeps them whole
K_BYTES = 32  # of one row of A or B in one instruction, whatever the element type

# Code in bits 63:61 -> span of the swizzle pattern's rows in bytes.
_SWIZZLE_SPANS = {0: 16, 2: 128, 4: 64, 6: 32}
_WGMMA_SWIZZLES = (0, 128, 64, 32)  # by bits 63:62


@dataclass(frozen=True)
class SmemDescriptor:
    """A matrix in shared memory. All lengths in bytes; `swizzle` is 0, 32, 64 or 128.

    base_offset: the swizzle pattern begins where address bits 9:7 have this value; 0 for one anchored at
    absolute addresses, as TMA writes it.
    """

    start: int
    leading_offset: int
    stride_offset: int
    swizzle: int
    base_offset: int = 0

    @staticmethod
    @lru_cache(maxsize=4096)
    def decode(bits: int) -> SmemDescriptor:
        """Faults: smem_descriptor_version, _swizzle, _reserved. Unsupported: sm_103 and rotated layouts."""
        if bits >> 46 & 7 != 1:
            raise Fault(
                "smem_descriptor_version",
                f"shared-memory descriptor {bits:#018x}: bits 48:46 are {bits >> 46 & 7:#05b}, must be 0b001",
            )
        code = bits >> 61 & 7
        if code == 1:
            raise Unsupported(
                f"shared-memory descriptor {bits:#018x}: 128-byte swizzle with 32-byte atoms (code 1)"
            )
        if code not in _SWIZZLE_SPANS:
            raise Fault(
                "smem_descriptor_swizzle",
                f"descriptor {bits:#018x}: swizzle code {code} is none of 0 (none), 1, 2 (128B), "
                "4 (64B), 6 (32B)",
            )
        if bits >> 52 & 1:
            raise Unsupported(f"shared-memory descriptor {bits:#018x}: absolute leading address (sm_103)")
        if bits >> 53 & 0xFF or bits >> 14 & 3 or bits >> 30 & 3:
            raise Fault(
                "smem_descriptor_reserved",
                f"shared-memory descriptor {bits:#018x}: bits 15:14, 31:30 and 60:53 must be zero",
            )
        if bits >> 49 & 7:
            raise Unsupported(
                f"shared-memory descriptor {bits:#018x}: base offset {bits >> 49 & 7}; only swizzle patterns "
                "anchored at absolute addresses (base offset 0) are simulated"
            )
        return SmemDescriptor(
            start=(bits & 0x3FFF) << 4,
            leading_offset=(bits >> 16 & 0x3FFF) << 4,
            stride_offset=(bits >> 32 & 0x3FFF) << 4,
            swizzle=_SWIZZLE_SPANS[code] if code else 0,
        )

    @staticmethod
    @lru_cache(maxsize=4096)
    def decode_wgmma(bits: int) -> SmemDescriptor:
        """The matrix descriptor of sm_90 (PTX ISA 9.7.15.5.1.2.2). Fault: smem_descriptor_reserved."""
        if bits >> 14 & 3 or bits >> 30 & 3 or bits >> 46 & 7 or bits >> 52 & 0x3FF:
            raise Fault(
                "smem_descriptor_reserved",
                f"matrix descriptor {bits:#018x} of wgmma: bits 15:14, 31:30, 48:46 and 61:52 must be zero",
            )
        swizzle = _WGMMA_SWIZZLES[bits >> 62 & 3]
        return SmemDescriptor(
            start=(bits & 0x3FFF) << 4,
            leading_offset=(bits >> 16 & 0x3FFF) << 4,
            stride_offset=(bits >> 32 & 0x3FFF) << 4,
            swizzle=swizzle,
            base_offset=bits >> 49 & 7 if swizzle else 0,
        )

    def row_chunks(self, rows: int, row_bytes: int) -> np.ndarray:
        """Byte offsets (rows, row_bytes/16) of the 16-byte chunks of a K-major operand.

        Eight rows form a group, groups lie `stride_offset` apart. Swizzled, a row is a run inside a pattern
        row of 32, 64 or 128 bytes; unswizzled, row r of a group lies at 16 r and the chunks
        `leading_offset` apart.
        """
        row = np.arange(rows)[:, None]
        chunk = np.arange(row_bytes // CHUNK)[None, :]
        pitch = self.swizzle or CHUNK
        step = CHUNK if self.swizzle else self.leading_offset
        return self._swizzled(self.start + row % 8 * pitch + row // 8 * self.stride_offset + chunk * step)

    def column_chunks(self, k: int, columns_bytes: int) -> np.ndarray:
        """Byte offsets (k, columns_bytes/16) of the 16-byte chunks of an MN-major operand.

        A chunk holds consecutive M or N indices of one k. Eight k form a group. Swizzled: chunks of a
        pattern row lie side by side, pattern rows `leading_offset` apart, groups `stride_offset` apart;
        unswizzled: chunks `stride_offset` apart, groups `leading_offset` apart.
        """
        index = np.arange(k)[:, None]
        chunk = np.arange(columns_bytes // CHUNK)[None, :]
        if not self.swizzle:
            offset = chunk * self.stride_offset + index % 8 * CHUNK + index // 8 * self.leading_offset
            return self._swizzled(self.start + offset)
        per_row = self.swizzle // CHUNK
        offset = chunk % per_row * CHUNK + chunk // per_row * self.leading_offset
        return self._swizzled(
            self.start + offset + index % 8 * self.swizzle + index // 8 * self.stride_offset
        )

    def _swizzled(self, address: np.ndarray) -> np.ndarray:
        """XOR chunk index bits with address bits from 7 up: on the absolute address, as TMA writes tiles,
        or counted from where the pattern begins."""
        if not self.swizzle:
            return address
        return address ^ ((address >> 7) - self.base_offset & self.swizzle // CHUNK - 1) << 4

    def read(self, smem: np.ndarray, rows: int, k: int, mn_major: bool, what: str) -> np.ndarray:
        """uint8 (rows, 32), each row's K bytes, of an operand of `k` elements along K, in either order.

        Fault: smem_out_of_bounds.
        """
        if not mn_major:
            return self.read_rows(smem, rows, K_BYTES, what)
        element = K_BYTES // k
        columns = self.read_columns(smem, k, _columns_bytes(rows, element), what)
        elements = columns.reshape(k, -1, element)[:, :rows]
        return np.ascontiguousarray(elements.transpose(1, 0, 2)).reshape(rows, K_BYTES)

    def chunks(self, rows: int, k: int, mn_major: bool) -> np.ndarray:
        """Byte offsets of every 16-byte chunk that `read` touches, for observers."""
        if not mn_major:
            return chunk_offsets(self, False, rows, K_BYTES)
        return chunk_offsets(self, True, k, _columns_bytes(rows, K_BYTES // k))

    def read_rows(self, smem: np.ndarray, rows: int, row_bytes: int, what: str) -> np.ndarray:
        """uint8 (rows, row_bytes) of a K-major operand, a fresh array. Fault: smem_out_of_bounds."""
        return _gather(smem, self, False, rows, row_bytes, what)

    def read_columns(self, smem: np.ndarray, k: int, columns_bytes: int, what: str) -> np.ndarray:
        """uint8 (k, columns_bytes) of an MN-major operand, a fresh array. Fault: smem_out_of_bounds."""
        return _gather(smem, self, True, k, columns_bytes, what)


def _columns_bytes(rows: int, element: int) -> int:
    """Of `rows` elements that lie side by side, in whole chunks."""
    return -(-rows * element // CHUNK) * CHUNK


@lru_cache(maxsize=2048)
def _chunk_indices(
    descriptor: SmemDescriptor, mn_major: bool, rows: int, row_bytes: int
) -> tuple[np.ndarray, int, int]:
    """Flat chunk numbers, and the first and last byte that they cover."""
    offsets = (descriptor.column_chunks if mn_major else descriptor.row_chunks)(rows, row_bytes)
    chunks = np.ascontiguousarray(offsets >> 4, dtype=np.intp).reshape(-1)
    chunks.setflags(write=False)
    return chunks, int(offsets.min()), int(offsets.max()) + CHUNK - 1


def chunk_offsets(descriptor: SmemDescriptor, mn_major: bool, rows: int, row_bytes: int) -> np.ndarray:
    """Byte offsets of every 16-byte chunk that a read touches, for observers."""
    return _chunk_indices(descriptor, mn_major, rows, row_bytes)[0] << 4


def _gather(
    smem: np.ndarray, descriptor: SmemDescriptor, mn_major: bool, rows: int, row_bytes: int, what: str
) -> np.ndarray:
    chunks, first, last = _chunk_indices(descriptor, mn_major, rows, row_bytes)
    size = smem.size & -CHUNK
    if last >= size:
        raise Fault(
            "smem_out_of_bounds",
            f"{what}: the descriptor (start {descriptor.start:#x}, leading {descriptor.leading_offset:#x}, "
            f"stride {descriptor.stride_offset:#x}, swizzle {descriptor.swizzle}) reads shared memory "
            f"{first:#x}..{last:#x} for {rows} rows of {row_bytes} bytes, but the CTA's shared memory "
            f"ends at {size:#x}",
        )
    # complex128 stands for "16 bytes": take() copies items, whatever they mean.
    return smem[:size].view(np.complex128).take(chunks).view(np.uint8).reshape(rows, row_bytes)


_FORMATS_16 = {0: "f16", 1: "bf16"}
_FORMATS_8 = {0: "e4m3", 1: "e5m2", 3: "e2m3", 4: "e3m2", 5: "e2m1"}
_FORMATS = {
    "f16": _FORMATS_16,
    "tf32": {2: "tf32"},
    "f8f6f4": _FORMATS_8,
    "i8": {0: "u8", 1: "s8"},
    "mxf8f6f4": _FORMATS_8,
    "mxf4": {1: "e2m1"},
    "mxf4nvf4": {1: "e2m1"},
}
_D_FORMATS = {
    "f16": {0: "f16", 1: "f32"},
    "tf32": {1: "f32"},
    "f8f6f4": {0: "f16", 1: "f32"},
    "i8": {2: "s32"},
}
_K = {"f16": 16, "tf32": 8, "f8f6f4": 32, "i8": 32, "mxf8f6f4": 32, "mxf4": 64, "mxf4nvf4": 64}
BLOCK_SCALED_KINDS = ("mxf8f6f4", "mxf4", "mxf4nvf4")
_SCALE_FORMATS = {
    ("mxf8f6f4", 1): ("ue8m0",),
    ("mxf4", 2): ("ue8m0",),
    ("mxf4nvf4", 2): ("ue8m0",),
    ("mxf4nvf4", 4): ("ue4m3", "ue8m0"),
}
_SF_IDS = {1: (0, 1, 2, 3), 2: (0, 2), 4: (0,)}


@dataclass(frozen=True)
class InstructionDescriptor:
    """What one tcgen05.mma computes: `m` and `n` of the whole instruction (both CTAs), formats, flags."""

    kind: str
    m: int
    n: int
    k: int
    a_format: str
    b_format: str
    d_format: str
    negate_a: bool
    negate_b: bool
    mn_major_a: bool
    mn_major_b: bool
    scale_format: str = ""
    sfa_id: int = 0
    sfb_id: int = 0
    saturate: bool = False

    @staticmethod
    @lru_cache(maxsize=1024)
    def decode(bits: int, kind: str, cta_group: int, scale_vec: int | None = None) -> InstructionDescriptor:
        """Faults idesc_* name the field and its value; mma_scale_vec a scale vector that the kind lacks."""
        if kind not in _K:
            raise Unsupported(f"tcgen05.mma.kind::{kind}: simulated kinds are {', '.join(_K)}")
        return (
            _BlockScaled(bits, kind, cta_group, scale_vec).decode()
            if kind in BLOCK_SCALED_KINDS
            else (_Dense(bits, kind, cta_group).decode())
        )


class _Fields:
    """Field access and the checks common to every kind."""

    def __init__(self, bits: int, kind: str, cta_group: int) -> None:
        self.bits = bits
        self.kind = kind
        self.cta_group = cta_group
        self.where = f"instruction descriptor {bits:#010x} of kind::{kind}, cta_group::{cta_group}"

    def field(self, high: int, low: int) -> int:
        return self.bits >> low & (1 << high - low + 1) - 1

    def reserved(self, *ranges: tuple[int, int]) -> None:
        for high, low in ranges:
            if self.field(high, low):
                raise Fault(
                    "idesc_reserved",
                    f"{self.where}: bits {high}:{low} are {self.field(high, low):#x}, must be zero",
                )

    def dense_only(self) -> None:
        if self.field(2, 2):
            raise Unsupported(f"{self.where}: sparse A (bit 2)")

    def named(self, name: str, high: int, low: int, table: dict[int, str]) -> str:
        value = self.field(high, low)
        if value not in table:
            legal = ", ".join(f"{code} ({text})" for code, text in table.items())
            raise Fault(
                "idesc_format", f"{self.where}: {name} (bits {high}:{low}) is {value}, must be {legal}"
            )
        return table[value]

    def majors(self, a_format: str, b_format: str) -> tuple[bool, bool]:
        """(A, B) is MN-major: the transpose bits, which 4- and 6-bit operands must leave clear."""
        for name, bit, format_ in (("A", 15, a_format), ("B", 16, b_format)):
            if self.field(bit, bit) and format_ in ("e2m1", "e2m3", "e3m2"):
                raise Fault(
                    "idesc_transpose",
                    f"{self.where}: bit {bit} transposes {name}, but {format_} is K-major only",
                )
        return bool(self.field(15, 15)), bool(self.field(16, 16))

    def shape(self, legal_m: tuple[int, ...], first_n: int, step_n: int) -> tuple[int, int]:
        m, n = self.field(28, 24) << 4, self.field(22, 17) << 3
        if m not in legal_m:
            legal = " or ".join(map(str, legal_m))
            raise Fault("idesc_m", f"{self.where}: M (bits 28:24) is {m}, must be {legal}")
        if n < first_n or n > 256 or n % step_n:
            raise Fault(
                "idesc_n",
                f"{self.where}: N (bits 22:17) is {n}, must be {first_n}..256 in steps of {step_n}",
            )
        return m, n


class _BlockScaled(_Fields):
    """Tables 43 and 44: kind::mxf8f6f4, kind::mxf4, kind::mxf4nvf4."""

    def __init__(self, bits: int, kind: str, cta_group: int, scale_vec: int | None) -> None:
        super().__init__(bits, kind, cta_group)
        self.scale_vec = scale_vec

    def decode(self) -> InstructionDescriptor:
        if self.scale_vec is None or (self.kind, self.scale_vec) not in _SCALE_FORMATS:
            legal = ", ".join(f"{vec}X" for kind, vec in _SCALE_FORMATS if kind == self.kind)
            raise Fault(
                "mma_scale_vec", f"kind::{self.kind} with scale_vec::{self.scale_vec}X: must be {legal}"
            )
        self.reserved((1, 0), (3, 3), (6, 6))
        self.dense_only()
        narrow = self.kind != "mxf8f6f4"
        if self.bits >> 31:
            if narrow:
                raise Unsupported(f"{self.where}: K = 96 (bit 31), which is sm_103 only")
            self.reserved((31, 31))
        step = 8 * self.cta_group
        m, n = self.shape((128,) if self.cta_group == 1 else (128, 256), step, step)
        a_format = self.named("A format", 9, 7, _FORMATS[self.kind])
        b_format = self.named("B format", 12, 10, _FORMATS[self.kind])
        mn_major_a, mn_major_b = self.majors(a_format, b_format)
        return InstructionDescriptor(
            kind=self.kind,
            m=m,
            n=n,
            k=_K[self.kind],
            a_format=a_format,
            b_format=b_format,
            d_format="f32",
            negate_a=bool(self.field(13, 13)),
            negate_b=bool(self.field(14, 14)),
            mn_major_a=mn_major_a,
            mn_major_b=mn_major_b,
            scale_format=self.scale_format(),
            sfa_id=self.scale_id("SFA", 30, 29),
            sfb_id=self.scale_id("SFB", 5, 4),
        )

    def scale_format(self) -> str:
        assert self.scale_vec is not None
        name = ("ue4m3", "ue8m0")[self.field(23, 23)]
        legal = _SCALE_FORMATS[self.kind, self.scale_vec]
        if name not in legal:
            raise Fault(
                "idesc_scale_format",
                f"{self.where}: scale format (bit 23) is {name}; scale_vec::{self.scale_vec}X takes "
                f"{' or '.join(legal)}",
            )
        return name

    def scale_id(self, name: str, high: int, low: int) -> int:
        assert self.scale_vec is not None
        legal = _SF_IDS[self.scale_vec]
        value = self.field(high, low)
        if value not in legal:
            raise Fault(
                "idesc_sf_id",
                f"{self.where}: {name} id (bits {high}:{low}) is {value}; with scale_vec::{self.scale_vec}X "
                f"it must be {' or '.join(map(str, legal))}",
            )
        return value


class _Dense(_Fields):
    """Table 42: kind::f16, kind::tf32, kind::f8f6f4, kind::i8."""

    def decode(self) -> InstructionDescriptor:
        self.reserved((6, 6), (23, 23), (29, 29), (31, 30))
        self.dense_only()
        a_format = self.named("A format", 9, 7, _FORMATS[self.kind])
        b_format = self.named("B format", 12, 10, _FORMATS[self.kind])
        d_format = self.named("D format", 5, 4, _D_FORMATS[self.kind])
        if d_format == "f16" and "bf16" in (a_format, b_format):
            raise Fault(
                "idesc_format", f"{self.where}: bf16 operands need an f32 accumulator, D format is f16"
            )
        if self.kind == "i8":
            if self.field(14, 13):
                raise Fault(
                    "idesc_format", f"{self.where}: negate bits 14:13 are set; kind::i8 has no negation"
                )
        else:
            self.reserved((3, 3))
        mn_major_a, mn_major_b = self.majors(a_format, b_format)
        m, n = self.shape((64, 128) if self.cta_group == 1 else (128, 256), *self.n_rule())
        return InstructionDescriptor(
            kind=self.kind,
            m=m,
            n=n,
            k=_K[self.kind],
            a_format=a_format,
            b_format=b_format,
            d_format=d_format,
            negate_a=bool(self.field(13, 13)),
            negate_b=bool(self.field(14, 14)),
            mn_major_a=mn_major_a,
            mn_major_b=mn_major_b,
            saturate=bool(self.field(3, 3)),
        )

    def n_rule(self) -> tuple[int, int]:
        """(first, step) of N: table 39, and table 52 for 8-bit transposed B."""
        if self.kind == "i8":
            small = self.cta_group == 1 and self.field(22, 17) << 3 <= 32 and not self.field(16, 16)
            return (8, 8) if small else (16 * self.cta_group, 16 * self.cta_group)
        if self.kind == "f8f6f4" and self.field(16, 16):
            return 16 * self.cta_group, 16 * self.cta_group
        return 8 * self.cta_group, 8 * self.cta_group
