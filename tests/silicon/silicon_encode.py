"""Cases of cuTensorMapEncodeTiled: the bytes that the driver writes, and what it refuses.

No kernel runs. The output is the driver's CUresult (4 bytes) and the descriptor (128 bytes, zeros where it
refuses).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from silicon_case import random_of

from b200sim.faults import Fault, Unsupported
from b200sim.tma.encoding import encode
from b200sim.tma.tensor_map import ELEMENT_BITS, SWIZZLE_SPAN, ElementType, Swizzle, TensorMap
from b200sim.tma.validation import validate

SHARED_ALIGNMENT = (16, 256, 512, 1024)  # by swizzle code
# CUtensorMapDataType -> element type, tf32
TYPES = [
    (ElementType.U8, False),
    (ElementType.U16, False),
    (ElementType.U32, False),
    (ElementType.S32, False),
    (ElementType.U64, False),
    (ElementType.S64, False),
    (ElementType.F16, False),
    (ElementType.F32, False),
    (ElementType.F64, False),
    (ElementType.BF16, False),
    (ElementType.F32_FTZ, False),
    (ElementType.F32, True),
    (ElementType.F32_FTZ, True),
]
NAMES = ("u8", "u16", "u32", "s32", "u64", "s64", "f16", "f32", "f64", "bf16", "f32_ftz", "tf32", "tf32_ftz")
FLOATS = (6, 7, 8, 9, 10, 11, 12)
REFUSED = 1  # CUDA_ERROR_INVALID_VALUE


@dataclass(frozen=True)
class EncodeCase:
    """Arguments of cuTensorMapEncodeTiled as it takes them; `strides` of dimension 1 on."""

    name: str
    data_type: int
    address: int
    dims: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    element_strides: tuple[int, ...]
    interleave: int = 0
    swizzle: int = 0
    l2_promotion: int = 0
    nan_fill: int = 0
    rank: int = 0  # 0: as many as there are dims
    about: str = ""

    output_bytes = 132

    @property
    def family(self) -> str:
        return self.name.split("/")[0]

    @property
    def arguments(self) -> tuple:
        """(type, rank, address, dims, strides, box, steps, interleave, swizzle, promotion, fill)."""
        return (
            self.data_type,
            self.rank or len(self.dims),
            self.address,
            self.dims,
            self.strides,
            self.box,
            self.element_strides,
            self.interleave,
            self.swizzle,
            self.l2_promotion,
            self.nan_fill,
        )

    def digest(self) -> str:
        return hashlib.sha256(repr(self.arguments).encode()).hexdigest()[:16]

    def tensor_map(self) -> TensorMap:
        """What the arguments say. ValueError for codes without a meaning."""
        limits = (len(TYPES), 3, 4, 4, 2)
        codes = (self.data_type, self.interleave, self.swizzle, self.l2_promotion, self.nan_fill)
        if any(code >= limit for code, limit in zip(codes, limits, strict=True)):
            raise ValueError(f"type, interleave, swizzle, promotion, fill {codes}: not all below {limits}")
        element, tf32 = TYPES[self.data_type]
        return TensorMap(
            address=self.address,
            element=element,
            dims=self.dims,
            strides=self.strides,
            box=self.box,
            element_strides=self.element_strides,
            swizzle=Swizzle(self.swizzle),
            interleave=self.interleave,
            nan_fill=bool(self.nan_fill),
            tf32=tf32,
            l2_promotion=self.l2_promotion,
            large=False,  # never set, whatever the size
            kind=0,
        )

    def driver_half(self) -> bytes:
        """The upper 64 bytes, for which the hardware has no use: the driver notes the bytes of a box, its
        element strides rounded down, and the alignment in shared memory that the swizzle wants."""
        size = ELEMENT_BITS[TYPES[self.data_type][0]] // 8
        box = prod(count // step for count, step in zip(self.box, self.element_strides, strict=True))
        words = np.zeros(16, np.uint32)
        words[[0, 2]] = box * size, SHARED_ALIGNMENT[self.swizzle]
        return words.tobytes()


def simulated(case: EncodeCase) -> tuple[bool | None, bytes]:
    """Whether the simulator takes the arguments (None: it could encode them, but does not know the mode), and
    its descriptor."""
    try:
        tensor_map = case.tensor_map()
    except ValueError:
        return False, b""
    try:
        validate(tensor_map)
    except Unsupported:
        legal = None
    except Fault:
        return False, b""
    else:
        legal = True
    return legal, encode(tensor_map)[:64] + case.driver_half()


def output(legal: bool | None, descriptor: bytes) -> np.ndarray:
    """As it is recorded."""
    code = REFUSED if legal is False else 0
    return np.frombuffer(code.to_bytes(4, "little") + descriptor.ljust(128, b"\0"), np.uint8)


def case(name: str, data_type: int = 6, **arguments: object) -> EncodeCase:
    """A plain 2-D map with some arguments replaced."""
    plain = EncodeCase(f"encode/{name}", data_type, 0x7F12_3456_7800, (256, 100), (4096,), (16, 8), (1, 1))
    return replace(plain, **arguments)  # type: ignore[arg-type]


def systematic_cases() -> Iterator[EncodeCase]:
    for data_type, name in enumerate(NAMES):
        yield case(f"type-{name}", data_type, box=(16, 8))
        if data_type in FLOATS:
            yield case(f"nan-{name}", data_type, nan_fill=1)
    for swizzle in range(4):
        for promotion in range(4):
            yield case(f"swizzle{swizzle}-promotion{promotion}", swizzle=swizzle, l2_promotion=promotion)
    for interleave in (1, 2):
        for swizzle in (0, 1, 2, 3):
            yield case(
                f"interleave{interleave}-swizzle{swizzle}",
                dims=(64, 20, 10, 4),
                strides=(2048, 65536, 1 << 20),
                box=(8 * interleave, 8, 4, 2),
                element_strides=(1, 1, 1, 1),
                interleave=interleave,
                swizzle=swizzle,
            )
    for rank in range(1, 6):
        dims, strides, box = (
            (64, 3, 5, 7, 9)[:rank],
            (128, 1024, 8192, 65536)[: rank - 1],
            (64, 3, 2, 2, 1)[:rank],
        )
        for swizzle in (0, 3):
            yield case(
                f"rank{rank}-swizzle{swizzle}",
                dims=dims,
                strides=strides,
                box=box,
                element_strides=(1,) * rank,
                swizzle=swizzle,
            )
    for i in range(5):
        steps = tuple(8 if j == i else 1 for j in range(5))
        yield case(
            f"step-dim{i}",
            dims=(64, 16, 16, 16, 16),
            strides=(128, 2048, 32768, 1 << 19),
            box=(64, 8, 8, 2, 2),
            element_strides=steps,
        )
    # How large a tensor is: rows, padding, ranks.
    sizes = [
        ((128, 1023), (128,)),
        ((128, 1024), (128,)),
        ((128, 1025), (128,)),
        ((16, 2), (1 << 16,)),
        ((16, 2), (1 << 17,)),
        ((16, 1), (1 << 17,)),
        ((1 << 17,), ()),
        ((131071,), ()),
        ((65536,), ()),
        ((128, 2, 2), (1 << 17, 16)),
        ((128, 512, 2), (128, 1 << 16)),
        ((128, 2, 512), (128, 256)),
        ((128, 2, 511), (128, 256)),
        ((8192, 15), (8192,)),
        ((8192, 16), (8192,)),
        ((8200, 16), (8208,)),
        ((8192, 16), (16,)),
        ((16, 1 << 20), (16,)),
        ((112, 1024), (128,)),
        ((112, 1170), (112,)),
        ((112, 1171), (112,)),
    ]
    for dims, strides in sizes:
        name = "x".join(map(str, dims)) + "-by-" + "-".join(map(str, strides or ("none",)))
        box, steps = (16, *(1,) * (len(dims) - 1)), (1,) * len(dims)
        yield case(f"size-{name}", 0, dims=dims, strides=strides, box=box, element_strides=steps)


def extreme_cases() -> Iterator[EncodeCase]:
    """At the ends of the fields, legal ones and the first illegal ones."""
    for size in (1, 2, (1 << 31), (1 << 32) - 1, 1 << 32, (1 << 32) + 1, 0):
        yield case(f"dim1-{size}", dims=(256, size))
        yield case(f"dim0-{size}", dims=(size, 100))
    for stride in (0, 16, 496, 512, 4080, 4096, 4104, (1 << 40) - 16, 1 << 40, (1 << 36) + 16):
        yield case(f"stride-{stride}", strides=(stride,))
    for box in (0, 1, 255, 256, 257):
        yield case(f"box1-{box}", box=(16, box))
        yield case(f"box0-{box}", 0, box=(box, 2))
    for box in (8, 12, 16, 24, 64, 72, 128, 256):
        yield case(f"row-{2 * box}", box=(box, 2))
    for swizzle, span in ((1, 32), (2, 64), (3, 128)):
        for row in (span - 16, span, span + 16):
            yield case(f"swizzle{swizzle}-row{row}", 0, box=(row, 4), swizzle=swizzle)
    for step in (0, 1, 8, 9):
        yield case(f"step1-{step}", element_strides=(1, step))
        yield case(f"step0-{step}", element_strides=(step, 1))
    for address in (0, 16, 8, 1, (1 << 47) - 16, 1 << 47, 1 << 56, (1 << 57) - 16, 1 << 57, (1 << 64) - 16):
        yield case(f"address-{address:#x}", address=address)
    for strides in ((128, 64), (128, 128), (128, 144), (128, 1 << 20), (48, 4096), (4096, 48), (16, 16)):
        name = "-".join(map(str, strides))
        yield case(
            f"strides-{name}", dims=(64, 5, 7), strides=strides, box=(16, 2, 2), element_strides=(1, 1, 1)
        )


def refused_cases() -> Iterator[EncodeCase]:
    """What the documentation forbids."""
    cube = {"dims": (64, 20, 10), "strides": (2048, 65536), "element_strides": (1, 1, 1)}
    yield case("refused-nan-of-integers", 0, nan_fill=1)
    yield case("refused-nan-of-u64", 4, nan_fill=1)
    yield case("refused-interleave-rank2", interleave=1)
    yield case(
        "refused-interleave-address",
        interleave=2,
        address=0x7F12_3456_7810,
        box=(16, 2, 2),
        swizzle=1,
        **cube,
    )
    yield case(
        "refused-interleave-stride",
        interleave=2,
        box=(16, 2, 2),
        swizzle=1,
        **{**cube, "strides": (2064, 65536)},
    )
    yield case("interleave-box-of-128-bytes", interleave=1, box=(64, 2, 2), **cube)  # accepted, it turned out
    for swizzle in (7, 8):
        yield case(f"refused-swizzle-{swizzle}", swizzle=swizzle)
    for name in ("interleave", "l2_promotion", "nan_fill"):
        yield case(f"refused-{name}-9", **{name: 9})
    yield case("refused-type-16", 16)
    yield case("refused-type-99", 99)
    long = {
        "dims": (64, *(2,) * 5),
        "strides": (128, 256, 512, 1024, 2048),
        "box": (16, *(1,) * 5),
        "element_strides": (1,) * 6,
    }
    yield case("refused-rank-6", **long)


def random_cases(count: int = 100) -> Iterator[EncodeCase]:
    """Legal maps with everything at once."""
    for number in range(count):
        random = random_of(f"encode/{number}")
        rank, data_type = int(random.integers(1, 6)), int(random.integers(len(TYPES)))
        size = ELEMENT_BITS[TYPES[data_type][0]] // 8
        swizzle = int(random.integers(4))
        widest = min(SWIZZLE_SPAN.get(Swizzle(swizzle), 256 * size), 256 * size)
        box = [int(random.integers(1, widest // 16 + 1)) * 16 // size]
        dims = [int(2 ** (random.random() * 20)) + 1]
        strides: list[int] = []
        stride = -(-dims[0] * size // 16) * 16
        for _ in range(1, rank):
            stride += 16 * int(random.integers(0, 3))
            strides.append(stride)
            dims.append(int(2 ** (random.random() * (38 - np.log2(stride)) / 2)) + 1)
            stride *= dims[-1]
            box.append(int(random.integers(1, 257)) if prod(box[1:]) * size * box[0] < 4096 else 1)
        yield EncodeCase(
            f"encode/random-{number}",
            data_type,
            0x7E00_0000_0000 + 16 * int(random.integers(1 << 36)),
            tuple(dims),
            tuple(strides),
            tuple(box),
            tuple(int(random.choice([1, 1, 1, 2, 3, 5, 8])) for _ in range(rank)),
            swizzle=swizzle,
            l2_promotion=int(random.integers(4)),
            nan_fill=int(data_type in FLOATS and random.random() < 0.4),
        )


def cases() -> list[EncodeCase]:
    return [*systematic_cases(), *extreme_cases(), *refused_cases(), *random_cases()]
