# ruff: noqa: E501  (one PTX statement after the other reads best on its line)
"""Cases of mbarriers, bulk copies, TMA tiles and tensor map updates."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from silicon_case import Case, random_of

from b200sim.tma.encoding import encode
from b200sim.tma.tensor_map import ELEMENT_BITS, FLOAT_TYPES, SWIZZLE_SPAN, ElementType, Swizzle, TensorMap

SMEM = ".extern .shared .align 1024 .b8 smem[];"
TILE_BYTES = 4096  # of the copied-out shared memory
BARRIER = 0  # the mbarrier's place in shared memory
TILE = 1024
START = """
.reg .b64 %in, %out, %map, %g; .reg .b32 %t, %s, %bar, %tile, %x<8>; .reg .pred %first, %p, %more;
ld.param.u64 %in, [p0]; ld.param.u64 %out, [p1]; ld.param.u64 %map, [p2];
mov.u32 %t, %tid.x; mov.u32 %bar, smem; add.s32 %tile, %bar, 1024; setp.eq.s32 %first, %t, 0;
"""
INIT = "@%first mbarrier.init.shared::cta.b64 [%bar], 1; fence.proxy.async; bar.sync 0;\n"
WAIT = """
WAIT: mbarrier.try_wait.parity.shared::cta.b64 %p, [%bar], 0; @!%p bra WAIT;
"""


def copy_out(count: int, source: str = "%tile") -> str:
    """All threads: shared memory to the output."""
    return f"""
bar.sync 0; shl.b32 %x7, %t, 2;
COPY: add.s32 %s, {source}, %x7; ld.shared.b32 %x0, [%s]; cvt.u64.u32 %g, %x7; add.s64 %g, %out, %g;
st.global.b32 [%g], %x0; add.s32 %x7, %x7, 128; setp.lt.u32 %more, %x7, {count}; @%more bra COPY;
ret;
"""


def fill_shared(count: int, start: int = 0) -> str:
    """All threads: input from `start` on to shared memory."""
    return f"""
shl.b32 %x7, %t, 2;
FILL: cvt.u64.u32 %g, %x7; add.s64 %g, %in, %g; ld.global.b32 %x0, [%g+{start}]; add.s32 %s, %tile, %x7;
st.shared.b32 [%s], %x0; add.s32 %x7, %x7, 128; setp.lt.u32 %more, %x7, {count}; @%more bra FILL;
fence.proxy.async; bar.sync 0;
"""


def asynchronous(name: str, body: str, data: np.ndarray, output_bytes: int, **more: object) -> Case:
    return Case(
        name, START + body, data, output_bytes, shared_bytes=TILE + TILE_BYTES + 1024, shared=SMEM, **more
    )  # type: ignore[arg-type]


def noise(name: str, count: int) -> np.ndarray:
    return random_of(name).integers(0, 256, count).astype(np.uint8)


# ---- mbarrier ----------------------------------------------------------------------------------------------


def mbarrier_cases() -> Iterator[Case]:
    """Thread 0 runs steps; after each, the output gets whether phases of parity 0 and 1 count as complete."""
    look = (
        "mbarrier.test_wait.parity.shared::cta.b64 %p, [%bar], 0; selp.b32 %x0, 1, 0, %p;"
        " mbarrier.test_wait.parity.shared::cta.b64 %p, [%bar], 1; selp.b32 %x1, 2, 0, %p;"
        " or.b32 %x0, %x0, %x1; st.global.b32 [%out], %x0; add.s64 %out, %out, 4;"
    )
    steps = {
        "arrive": "mbarrier.arrive.shared::cta.b64 %g, [%bar];",
        "arrive2": "mbarrier.arrive.shared::cta.b64 %g, [%bar], 2;",
        "drop": "mbarrier.arrive_drop.shared::cta.b64 %g, [%bar];",
        "expect": "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%bar], 64;",
        "complete": "mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%bar], 64;",
        "complete16": "mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%bar], 16;",
        "arrive_expect": "mbarrier.arrive.expect_tx.shared::cta.b64 %g, [%bar], 64;",
    }
    sequences = [
        (1, ["arrive"] * 5),
        (3, ["arrive"] * 8),
        (4, ["arrive2", "arrive", "arrive", "arrive2", "arrive2"]),
        (2, ["arrive", "drop", "arrive", "arrive"]),
        (3, ["drop", "drop", "arrive", "arrive", "arrive"]),
        (1, ["arrive_expect", "complete", "arrive_expect", "complete"]),
        (2, ["expect", "arrive", "arrive", "complete", "arrive", "arrive"]),
        (2, ["expect", "complete", "arrive", "arrive", "expect", "arrive", "arrive", "complete"]),
        (1, ["arrive_expect", "complete16", "complete16", "complete16", "complete16", "arrive"]),
        (2, ["complete", "expect", "arrive", "arrive"]),
        (2, ["complete", "arrive", "arrive_expect", "arrive", "arrive"]),
        (2**20 - 1, ["arrive", "arrive2", "drop"]),
        (4, ["drop", "arrive2", "arrive", "arrive", "arrive", "arrive"]),
    ]  # fmt: skip
    for number, (count, sequence) in enumerate(sequences):
        body = f"@!%first ret; mbarrier.init.shared::cta.b64 [%bar], {count}; {look}\n"
        body += "\n".join(steps[step] + look for step in sequence) + "\nret;"
        yield asynchronous(f"mbarrier/{number}-{count}-{sequence[0]}", body, noise("mbarrier", 128), 256)
    for count in (2, 31):
        body = f"@!%first ret; mbarrier.init.shared::cta.b64 [%bar], {count};"
        body += "mbarrier.arrive.shared::cta.b64 %g, [%bar]; mbarrier.test_wait.shared::cta.b64 %p, [%bar], %g; selp.b32 %x0, 1, 0, %p; st.global.b32 [%out], %x0;"
        body += f"mbarrier.arrive.shared::cta.b64 %g, [%bar], {count - 1}; mbarrier.test_wait.shared::cta.b64 %p, [%bar], %g; selp.b32 %x0, 1, 0, %p; st.global.b32 [%out+4], %x0; ret;"
        yield asynchronous(f"mbarrier/state-{count}", body, noise("mbarrier", 128), 128)


# ---- Bulk copies -------------------------------------------------------------------------------------------


def bulk_cases() -> Iterator[Case]:
    for size in (16, 48, 128, 1008, 4096):
        for offset in (0, 16, 112):
            if size + offset > TILE_BYTES:
                continue
            data = noise(f"bulk{size}", 8192)
            load = (
                f"@!%first bra WAIT; mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], {size}; add.s32 %s, %tile, {offset};"
                f" cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%s], [%in+{offset + 32}], {size}, [%bar];"
            )
            body = fill_shared(TILE_BYTES, 4096) + INIT + load + WAIT + copy_out(TILE_BYTES)
            yield asynchronous(f"bulk/load-{size}+{offset}", body, data, TILE_BYTES)
            store = (
                f"@!%first ret; add.s32 %s, %tile, {offset}; cp.async.bulk.global.shared::cta.bulk_group [%out+{offset + 16}], [%s], {size};"
                " cp.async.bulk.commit_group; cp.async.bulk.wait_group 0; ret;"
            )
            yield asynchronous(f"bulk/store-{size}+{offset}", fill_shared(TILE_BYTES) + store, data, 4352)
    kinds = ("add.u32", "add.s32", "add.u64", "min.u32", "min.s32", "max.u32", "max.s32", "min.s64", "max.u64", "inc.u32", "dec.u32",
             "and.b32", "or.b32", "xor.b32", "and.b64", "or.b64", "xor.b64", "add.f16", "add.bf16", "add.f32", "min.f16", "max.bf16")  # fmt: skip
    for kind in kinds:
        operation, number = kind.split(".")
        data = noise(f"reduce{kind}", 8192)
        if number == "f32":  # moderate numbers: what happens to NaN is another matter
            data[:] = (random_of(kind).standard_normal(2048) * 100).astype(np.float32).view(np.uint8)
        if number in ("f16", "bf16"):
            data[:] = random_of(kind).integers(0x2000, 0x5000, 4096).astype(np.uint16).view(np.uint8)
        noftz = ".noftz" if kind in ("add.f16", "add.bf16") else ""
        # The output first takes the second half of the input, then the reduction.
        body = fill_shared(2048) + (
            "shl.b32 %x7, %t, 2;\nPUT: cvt.u64.u32 %g, %x7; add.s64 %g, %in, %g; ld.global.b32 %x0, [%g+4096];"
            " cvt.u64.u32 %g, %x7; add.s64 %g, %out, %g; st.global.b32 [%g], %x0; add.s32 %x7, %x7, 128;"
            " setp.lt.u32 %more, %x7, 2048; @%more bra PUT; fence.proxy.async; bar.sync 0;"
            f"@!%first ret; cp.reduce.async.bulk.global.shared::cta.bulk_group.{operation}{noftz}.{number} [%out], [%tile], 2048;"
            " cp.async.bulk.commit_group; cp.async.bulk.wait_group 0; ret;"
        )
        yield asynchronous(f"bulk/reduce-{kind}", body, data, 2048)


# ---- TMA tiles ---------------------------------------------------------------------------------------------

ELEMENTS = (ElementType.U8, ElementType.U16, ElementType.U32, ElementType.S32, ElementType.U64, ElementType.F16,
            ElementType.BF16, ElementType.F32)  # fmt: skip
REDUCTIONS = {
    "add": (ElementType.U32, ElementType.S32, ElementType.U64),
    "min": (ElementType.U32, ElementType.S32),
    "max": (ElementType.U32, ElementType.S32),
    "inc": (ElementType.U32,),
    "dec": (ElementType.U32,),
    "and": (ElementType.U32,),
    "or": (ElementType.U32,),
    "xor": (ElementType.U32,),
}


def random_tile(name: str, operation: str) -> tuple[TensorMap, tuple[int, ...], int]:
    """A tensor of at most 8 KB, a box of at most 3 KB, coordinates inside, across and beyond the edges, and a
    place for the box in shared memory, relative to the tile."""
    random = random_of(name)
    while True:
        rank = int(random.integers(1, 6))
        elements = ELEMENTS if operation in ("load", "store") else REDUCTIONS[operation]
        element = elements[random.integers(len(elements))]
        size = ELEMENT_BITS[element] // 8
        swizzle = list(Swizzle)[random.integers(4)]
        span = SWIZZLE_SPAN.get(swizzle, 128)
        row = int(16 * random.integers(1, span // 16 + 1)) if random.random() < 0.4 else span
        if row // size > 256:
            continue
        dims, box, strides = [int(random.integers(1, 2 * row // size + 5))], [row // size], []
        element_strides = [1]
        stride = -(-dims[0] * size // 16) * 16
        for i in range(1, rank):
            stride += int(16 * random.integers(0, 3))
            strides.append(stride)
            dims.append(int(random.integers(1, (0, 24, 5, 3, 3)[i])))
            stride *= dims[i]
            box.append(int(random.integers(1, (0, 24, 4, 3, 2)[i] + 1)))
            element_strides.append(int(random.choice([1, 1, 1, 2, 3])))
        if stride > 8192:
            continue
        nan_fill = element in FLOAT_TYPES and random.random() < 0.4
        tile = TensorMap(
            0,
            element,
            tuple(dims),
            tuple(strides),
            tuple(box),
            tuple(element_strides),
            swizzle,
            nan_fill=nan_fill,
        )
        place = int(128 * random.integers(0, 9))
        rows = tile.shared_bytes
        if rows + place > TILE_BYTES:
            continue
        low = -2 if operation == "load" else 0
        per16 = 16 // size
        first = int(per16 * random.integers(low, max(dims[0] // per16, 1) + 1))
        if operation != "load" and first >= dims[0]:
            continue
        others = (int(random.integers(low * 2, dims[i] + 1)) for i in range(1, rank))
        return tile, (first, *others), place


def tile_cases(loads: int = 160, stores: int = 80, reductions: int = 40) -> Iterator[Case]:
    for number in range(loads):
        name = f"tma/load-{number}"
        tile, coordinates, place = random_tile(name, "load")
        numbers = ", ".join(map(str, coordinates))
        load = (
            f"@!%first bra WAIT; mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], {tile.box_bytes}; add.s32 %s, %tile, {place};"
            f" cp.async.bulk.tensor.{tile.rank}d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%s], [%map, {{{numbers}}}], [%bar];"
        )
        body = fill_shared(TILE_BYTES) + INIT + load + WAIT + copy_out(TILE_BYTES)
        yield asynchronous(name, body, noise(name, 8192), TILE_BYTES, map=tile)
    plan = [("store", i) for i in range(stores)] + [
        (list(REDUCTIONS)[i % len(REDUCTIONS)], i) for i in range(reductions)
    ]
    for operation, number in plan:
        name = f"tma/{operation}-{number}"
        tile, coordinates, place = random_tile(name, operation)
        numbers = ", ".join(map(str, coordinates))
        head = "cp.async.bulk.tensor" if operation == "store" else "cp.reduce.async.bulk.tensor"
        tail = "" if operation == "store" else f".{operation}"
        store = (
            f"@!%first ret; add.s32 %s, %tile, {place};"
            f" {head}.{tile.rank}d.global.shared::cta{tail}.tile.bulk_group [%map, {{{numbers}}}], [%s];"
            " cp.async.bulk.commit_group; cp.async.bulk.wait_group 0; ret;"
        )
        yield asynchronous(
            name, fill_shared(TILE_BYTES) + store, noise(name, 8192), 8192, map=tile, map_over="out"
        )


# ---- Tensor map updates ------------------------------------------------------------------------------------


def update_cases() -> Iterator[Case]:
    """A map is copied to shared memory, one field replaced, and its 64 bytes of content copied out."""
    fields = [("global_address.b64", (0x7F12_3456_7890, 0x10))]
    fields += [("rank.b32", (0, 2, 4)), ("elemtype.b32", (0, 3, 6, 10)), ("interleave_layout.b32", (0, 1)),
               ("swizzle_mode.b32", (0, 1, 2, 3)), ("fill_mode.b32", (0, 1))]  # fmt: skip
    ordinals = [("global_dim.b32", range(5), (1, 77, 2**31)), ("box_dim.b32", range(5), (1, 64, 256)),
                ("element_stride.b32", range(5), (1, 8)), ("global_stride.b64", range(4), (16, 4096, 2**36 + 48))]  # fmt: skip
    jobs = [(field, "", value) for field, values in fields for value in values]
    jobs += [
        (field, f"{i}, ", value) for field, places, values in ordinals for i in places for value in values
    ]
    for field, ordinal, value in jobs:
        name = f"tensormap/{field}-{ordinal.strip(', ')}-{value:#x}"
        kind, width = field.split(".")
        data = np.zeros(4096, np.uint8)
        start = TensorMap(
            0x7F00_0000_0000,
            ElementType.F16,
            (64, 48, 5, 4, 3),
            (128, 8192, 65536, 262144),
            (64, 8, 2, 1, 1),
            kind=0,
            swizzle=Swizzle.B64,
        )
        data[:128] = np.frombuffer(encode(start), np.uint8)
        body = fill_shared(128) + (
            f"@%first tensormap.replace.tile.{kind}.shared::cta.b1024.{width} [%tile], {ordinal}{value};"
            + copy_out(128).replace("128; setp.lt.u32 %more, %x7, 128", "128; setp.lt.u32 %more, %x7, 64")
        )
        yield asynchronous(name, body, data, 128)


def cases() -> list[Case]:
    return [*mbarrier_cases(), *bulk_cases(), *tile_cases(), *update_cases()]
