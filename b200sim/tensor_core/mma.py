"""tcgen05.mma: one whole instruction on the memories of one CTA or of a CTA pair (PTX ISA 9.7.16.10).

With cta_group::2 every CTA multiplies its own rows of A by all of B; B's first N/2 rows come from the even
CTA's shared memory and the rest from the odd one's, through the same descriptors; scale factors and D are
at the same tensor memory addresses in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from b200sim.faults import Fault, Unsupported
from b200sim.tensor_core import block_scaled, dense
from b200sim.tensor_core.descriptors import K_BYTES, InstructionDescriptor, SmemDescriptor
from b200sim.tensor_core.layouts import Accumulator, ScaleFactors
from b200sim.tensor_core.touch import Touch, shared, tensor
from b200sim.tensor_memory import TensorMemory, split_address


class CtaMemories(Protocol):
    """What the tensor core sees of a CTA: `smem` uint8 by CTA-local offset, and tensor memory."""

    smem: np.ndarray
    tmem: TensorMemory


def mma_flops(idesc: int, kind: str, scale_vec: int | None = None, cta_group: int = 1) -> int:
    """2 M N K of one instruction."""
    shape = InstructionDescriptor.decode(idesc, kind, cta_group, scale_vec)
    return 2 * shape.m * shape.n * shape.k


def mma_block_scaled(
    ctas: Sequence[CtaMemories],
    *,
    kind: str,
    scale_vec: int,
    d_address: int,
    a_descriptor: int,
    b_descriptor: int,
    idesc: int,
    sfa_address: int,
    sfb_address: int,
    accumulate: bool,
    touched: list[Touch] | None = None,
) -> None:
    """D = A B scaled blockwise (+ D), in place in the CTAs' tensor memories.

    `ctas`: one CTA, or the pair with the even rank first. `scale_vec`: 1, 2 or 4 scales per row and
    instruction. `touched` receives every access. Faults: see the descriptor decoders, Accumulator and
    ScaleFactors.
    """
    group = len(ctas)
    what = InstructionDescriptor.decode(idesc, kind, group, scale_vec)
    a_source, b_source = _Source.of("A", a_descriptor, what), _Source.of("B", b_descriptor, what)
    d = Accumulator.at(d_address, what.m, what.n, group)
    sfa = ScaleFactors.at("SFA", sfa_address, d.rows)
    sfb = ScaleFactors.at("SFB", sfb_address, what.n, halves=d.layout == "halves")
    if touched is not None:
        touched += block_scaled_touches(
            group,
            kind=kind,
            scale_vec=scale_vec,
            d_address=d_address,
            a_descriptor=a_descriptor,
            b_descriptor=b_descriptor,
            idesc=idesc,
            sfa_address=sfa_address,
            sfb_address=sfb_address,
            accumulate=accumulate,
        )
    for cta in ctas:
        d.check(cta.tmem)
    b_bytes = _stack([b_source.read(cta, what.n // group) for cta in ctas])
    multiply = _Narrow(what, b_bytes) if kind != "mxf8f6f4" else _Wide(what, b_bytes)
    for cta in ctas:
        a_codes = sfa.read(cta.tmem, what.sfa_id, scale_vec)
        b_codes = sfb.read(cta.tmem, what.sfb_id, scale_vec)
        c = d.read(cta.tmem).view(np.float32) if accumulate else None
        result = multiply(a_source.read(cta, d.rows), a_codes, b_codes, c)
        d.write(cta.tmem, result.view(np.uint32))


def block_scaled_touches(
    group: int,
    *,
    kind: str,
    scale_vec: int,
    d_address: int,
    a_descriptor: int,
    b_descriptor: int,
    idesc: int,
    sfa_address: int,
    sfb_address: int,
    accumulate: bool,
) -> list[Touch]:
    """What `mma_block_scaled` with these arguments reads and writes in each of `group` CTAs."""
    what = InstructionDescriptor.decode(idesc, kind, group, scale_vec)
    a_source, b_source = _Source.of("A", a_descriptor, what), _Source.of("B", b_descriptor, what)
    d = Accumulator.at(d_address, what.m, what.n, group)
    sfa = ScaleFactors.at("SFA", sfa_address, d.rows)
    sfb = ScaleFactors.at("SFB", sfb_address, what.n, halves=d.layout == "halves")
    touched: list[Touch] = []
    for i in range(group):
        touched += [a_source.touch(i, d.rows), b_source.touch(i, what.n // group)]
        touched += [*sfa.touches(i), *sfb.touches(i)]
        touched += [*(d.touches(i, False) if accumulate else []), *d.touches(i, True)]
    return touched


class _Narrow:
    """4-bit operands; B is decoded once for both CTAs, and scaled once if both hold equal scale factors."""

    def __init__(self, what: InstructionDescriptor, b_bytes: np.ndarray) -> None:
        self.what = what
        self.b_elements = block_scaled.decode(b_bytes, what.negate_b)
        self.b_codes = np.empty((0, 0), dtype=np.uint8)
        self.b: block_scaled.Operand

    def __call__(
        self, a_bytes: np.ndarray, a_codes: np.ndarray, b_codes: np.ndarray, c: np.ndarray | None
    ) -> np.ndarray:
        what = self.what
        if not np.array_equal(b_codes, self.b_codes):
            self.b = block_scaled.operand(self.b_elements, _per_block(b_codes), what.scale_format)
            self.b_codes = b_codes
        a_elements = block_scaled.decode(a_bytes, what.negate_a)
        a = block_scaled.operand(a_elements, _per_block(a_codes), what.scale_format)
        return block_scaled.multiply_accumulate(a, self.b, c)


class _Wide:
    """8-bit containers with one scale per row."""

    def __init__(self, what: InstructionDescriptor, b_bytes: np.ndarray) -> None:
        self.what = what
        self.b_bytes = b_bytes

    def __call__(
        self, a_bytes: np.ndarray, a_codes: np.ndarray, b_codes: np.ndarray, c: np.ndarray | None
    ) -> np.ndarray:
        what = self.what
        a = dense.factor(a_bytes, what.a_format, what.negate_a, scale=a_codes)
        b = dense.factor(self.b_bytes, what.b_format, what.negate_b, scale=b_codes)
        return dense.multiply_accumulate(a, b, c, "f32")


def _per_block(codes: np.ndarray) -> np.ndarray:
    """One scale per 16 elements: with scale_vec::2X each serves two blocks."""
    return codes if codes.shape[1] == block_scaled.BLOCKS else np.repeat(codes, 2, axis=1)


def _stack(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


class _Source:
    """A or B in shared memory."""

    def __init__(self, name: str, descriptor: SmemDescriptor, what: InstructionDescriptor) -> None:
        self.name = name
        self.descriptor = descriptor
        self.k = what.k
        self.mn_major = what.mn_major_a if name == "A" else what.mn_major_b

    @staticmethod
    def of(name: str, descriptor: int, what: InstructionDescriptor) -> _Source:
        """Fault mma_major: 32-bit operands are MN-major only with the 32-byte-atom swizzle."""
        source = _Source(name, SmemDescriptor.decode(descriptor), what)
        if source.mn_major and what.kind == "tf32":
            raise Fault(
                "mma_major",
                f"{name} of kind::tf32 is MN-major with swizzle {source.descriptor.swizzle}: must be the "
                "128-byte swizzle with 32-byte atoms",
            )
        return source

    def read(self, cta: CtaMemories, rows: int) -> np.ndarray:
        """uint8 (rows, 32): each row's K bytes. Fault: smem_out_of_bounds."""
        return self.descriptor.read(cta.smem, rows, self.k, self.mn_major, f"{self.name} of tcgen05.mma")

    def touch(self, cta: int, rows: int) -> Touch:
        return shared(self.name, cta, self.descriptor.chunks(rows, self.k, self.mn_major))


def mma_dense(
    ctas: Sequence[CtaMemories],
    *,
    kind: str,
    d_address: int,
    b_descriptor: int,
    idesc: int,
    accumulate: bool,
    a_descriptor: int | None = None,
    a_address: int | None = None,
    disable_lanes: Sequence[int] | None = None,
    scale_d: int = 0,
    touched: list[Touch] | None = None,
) -> None:
    """D = A B (+ D * 2**-scale_d) without block scaling; A from shared memory or from tensor memory.

    `disable_lanes`: 4 mask words per CTA; a set bit keeps that lane of D as it was.
    """
    group = len(ctas)
    what = InstructionDescriptor.decode(idesc, kind, group)
    if (a_descriptor is None) == (a_address is None):
        raise ValueError("give A either by descriptor or by tensor memory address")
    if scale_d and (kind not in ("f16", "tf32") or not 0 <= scale_d <= 15):
        raise Fault("mma_scale_d", f"kind::{kind} with scale-input-d {scale_d}: f16 and tf32 only, 0..15")
    a_source = None if a_descriptor is None else _Source.of("A", a_descriptor, what)
    b_source = _Source.of("B", b_descriptor, what)
    d = Accumulator.at(d_address, what.m, what.n, group)
    if touched is not None:
        touched += dense_touches(
            group,
            kind=kind,
            d_address=d_address,
            b_descriptor=b_descriptor,
            idesc=idesc,
            accumulate=accumulate,
            a_descriptor=a_descriptor,
            a_address=a_address,
        )
    b = dense.factor(
        _stack([b_source.read(cta, what.n // group) for cta in ctas]), what.b_format, what.negate_b
    )
    for i, cta in enumerate(ctas):
        d.check(cta.tmem)
        a_bytes = _a_from_tensor_memory(cta, a_address, d) if a_source is None else a_source.read(cta, d.rows)
        a = dense.factor(a_bytes, what.a_format, what.negate_a)
        before = d.read(cta.tmem)
        c = dense.accumulator(before, what.d_format) if accumulate else None
        if c is not None and scale_d:
            c = np.ldexp(c.astype(np.float64), -scale_d)
        if kind == "i8":
            words = dense.multiply_accumulate_integers(a, b, c, what.saturate)
        else:
            words = dense.words(dense.multiply_accumulate(a, b, c, what.d_format))
        if disable_lanes is not None:
            mask = np.array(disable_lanes[4 * i : 4 * i + 4], dtype="<u4").view(np.uint8)
            disabled = np.unpackbits(mask, bitorder="little").astype(bool)[d.lane_of_row()]
            words = np.where(disabled, before, words)
        d.write(cta.tmem, words)


def dense_touches(
    group: int,
    *,
    kind: str,
    d_address: int,
    b_descriptor: int,
    idesc: int,
    accumulate: bool,
    a_descriptor: int | None = None,
    a_address: int | None = None,
) -> list[Touch]:
    """What `mma_dense` with these arguments reads and writes in each of `group` CTAs."""
    what = InstructionDescriptor.decode(idesc, kind, group)
    a_source = None if a_descriptor is None else _Source.of("A", a_descriptor, what)
    b_source = _Source.of("B", b_descriptor, what)
    d = Accumulator.at(d_address, what.m, what.n, group)
    touched: list[Touch] = []
    for i in range(group):
        if a_source is not None:
            touched.append(a_source.touch(i, d.rows))
        else:
            touched.append(tensor("A", i, False, (0, 128, split_address(a_address or 0)[1], K_BYTES // 4)))
        touched.append(b_source.touch(i, what.n // group))
        touched += [*(d.touches(i, False) if accumulate else []), *d.touches(i, True)]
    return touched


def _a_from_tensor_memory(cta: CtaMemories, address: int | None, d: Accumulator) -> np.ndarray:
    """uint8 (rows, 32): 8 columns of packed elements in the lanes of D's rows."""
    assert address is not None
    if d.layout == "halves":
        raise Unsupported("tcgen05.mma with A in tensor memory and M = 128 over two CTAs")
    lane, column = split_address(address)
    if lane != d.lane:
        raise Fault("mma_lane", f"A at lane {lane} of tensor memory, D at lane {d.lane}: must be the same")
    source = Accumulator(d.layout, d.rows, K_BYTES // 4, lane, column)
    for rectangle in source.rectangles():
        cta.tmem.check_range(*rectangle, "A of tcgen05.mma")
    return source.read(cta.tmem).view(np.uint8)
