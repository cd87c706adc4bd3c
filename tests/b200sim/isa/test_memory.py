"""Loads, stores and atomics against a byte-by-byte model of memory."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
from ptx_harness import DYNAMIC, FULL, OLD, aligned, lanes, run_kernel, to_signed

from b200sim.faults import Fault

RNG = random.Random(7)
DATA = bytes(RNG.randrange(256) for _ in range(4096))
MASKS = [FULL, 0x80000001, 0x00F0A5A5]
SHAPES = [("b8", 1), ("u8", 1), ("s8", 1), ("b16", 1), ("s16", 1), ("b32", 1), ("f32", 1), ("b64", 1),
          ("u8", 2), ("u8", 4),
          ("b16", 2), ("b16", 4), ("b32", 2), ("u32", 4), ("b64", 2), ("b32", 8), ("b64", 4)]  # fmt: skip


def prologue(mask: int, stride: int, step: int = 1) -> str:
    """%g: address of p0 for this lane, %s: the same offset in shared memory, %active; 4 KiB of p0 in both."""
    return f"""
    .reg .pred %active, %more; .reg .b64 %g0, %g, %o, %o0, %w; .reg .b32 %s0, %s, %i, %l, %v, %bit, %addr32;
    ld.param.u64 %g0, [p0]; ld.param.u64 %o0, [p1]; mov.u32 %l, %laneid; mov.u32 %s0, smem;
    mov.b32 %i, 0;
    COPY: shl.b32 %v, %l, 2; add.s32 %v, %v, %i; cvt.u64.u32 %w, %v; add.s64 %w, %g0, %w;
    add.s32 %s, %s0, %v; ld.global.b32 %v, [%w]; st.shared.b32 [%s], %v;
    add.s32 %i, %i, 128; setp.lt.s32 %more, %i, 4096; @%more bra COPY;
    mul.lo.s32 %i, %l, {stride * step}; add.s32 %s, %s0, %i; cvt.u64.u32 %w, %i; add.s64 %g, %g0, %w;
    mul.lo.s32 %i, %l, 64; cvt.u64.u32 %w, %i; add.s64 %o, %o0, %w;
    shl.b32 %bit, 1, %l; and.b32 %bit, %bit, {mask}; setp.ne.b32 %active, %bit, 0;
    """


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(
    "space", ["global", "shared", "shared::cta", "shared::cluster", "generic global", "generic shared"]
)
def test_loads_of_every_width(space, mask):
    """Each lane loads from its own place, extended to registers that are wider than the element."""
    lines, expected, place = [], [], 0
    for kind, count in SHAPES:
        size = int(kind[1:]) // 8
        register = max(32, 8 * size)
        names = [f"%r{place}_{i}" for i in range(count)]
        lines.append(f".reg .b{register} {', '.join(names)};")
        lines += [f"mov.b{register} {name}, {OLD[register]};" for name in names]
        base, word = {
            "global": ("%g", ".global"), "shared": ("%s", ".shared"), "shared::cta": ("%s", ".shared::cta"),
            "shared::cluster": ("%s", ".shared::cluster"), "generic global": ("%g", ""),
            "generic shared": ("%w", ""),
        }[space]  # fmt: skip
        if base == "%w":
            lines.append("cvt.u64.u32 %w, %s; cvta.shared.u64 %w, %w;")
        vector = f".v{count}" if count > 1 else ""
        target = f"{{{', '.join(names)}}}" if count > 1 else names[0]
        lines.append(f"@%active ld{word}{vector}.{kind} {target}, [{base}+64];")
        for i, name in enumerate(names):
            lines.append(f"st.global.b{register} [%o0+{place * 2048 + i * 8}], {name};".replace("%o0", "%o"))
        expected.append((kind, size, register, count, place))
        place += 1
    out = np.zeros(place * 2048 + 4096, np.uint8)
    run_kernel(prologue(mask, 32) + "\n".join(lines), [aligned(DATA), out], shared=DYNAMIC,
               shared_bytes=4096)  # fmt: skip
    for kind, size, register, count, at in expected:
        for lane in range(32):
            for i in range(count):
                value = int.from_bytes(DATA[lane * 32 + 64 + i * size :][:size], "little")
                if kind[0] == "s":
                    value = to_signed(value, 8 * size) % (1 << register)
                wanted = value if mask >> lane & 1 else OLD[register]
                start = at * 2048 + lane * 64 + i * 8
                found = int.from_bytes(out[start : start + register // 8].tobytes(), "little")
                assert found == wanted, f"ld {space} {kind} x{count}, lane {lane}, element {i}"


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("space", ["global", "shared", "generic global", "generic shared"])
@pytest.mark.parametrize(("kind", "count"), SHAPES)
def test_stores_of_every_width(space, mask, kind, count):
    size = int(kind[1:]) // 8
    register = max(16, 8 * size)
    names = [f"%r{i}" for i in range(count)]
    values = [[RNG.getrandbits(register) for _ in range(32)] for _ in names]
    base, word = {"global": ("%g", ".global"), "shared": ("%s", ".shared"), "generic global": ("%g", ""),
                  "generic shared": ("%w", "")}[space]  # fmt: skip
    vector = f".v{count}" if count > 1 else ""
    source = f"{{{', '.join(names)}}}" if count > 1 else names[0]
    body = (
        prologue(mask, 32) + f".reg .b{register} {', '.join(names)}; .reg .b64 %p2; ld.param.u64 %p2, [p2];\n"
    )
    body += f"mul.wide.u32 %w, %l, {8 * count}; add.s64 %p2, %p2, %w;\n"
    body += "".join(f"ld.global.b{register} {name}, [%p2+{8 * i}];\n" for i, name in enumerate(names))
    body += "cvt.u64.u32 %w, %s; cvta.shared.u64 %w, %w;\n"
    body += f"@%active st{word}{vector}.{kind} [{base}-0], {source};\n"
    if "shared" in space:  # copy shared memory back
        body += """mov.b32 %i, 0;
        BACK: shl.b32 %v, %l, 2; add.s32 %v, %v, %i; cvt.u64.u32 %w, %v; add.s64 %w, %g0, %w;
        add.s32 %s, %s0, %v; ld.shared.b32 %v, [%s]; st.global.b32 [%w], %v;
        add.s32 %i, %i, 128; setp.lt.s32 %more, %i, 4096; @%more bra BACK;"""
    memory = aligned(DATA)
    table = np.array(values, np.uint64).T.copy()
    run_kernel(body, [memory, np.zeros(2048, np.uint8), table], shared=DYNAMIC, shared_bytes=4096)
    model = bytearray(DATA)
    for lane in range(32):
        if mask >> lane & 1:
            for i in range(count):
                raw = (values[i][lane] % (1 << 8 * size)).to_bytes(size, "little")
                model[lane * 32 + i * size : lane * 32 + (i + 1) * size] = raw
    assert memory.tobytes() == bytes(model)


def test_uniform_addresses_offsets_and_conflicts():
    """All lanes at one address: loads agree, the highest active lane's store stays;
    offsets may be negative."""
    memory = np.arange(64, dtype=np.uint32)
    found = lanes(
        """
        ld.param.u64 %q, [p2];
        ld.global.b32 %a, [%q+40];
        add.s64 %q, %q, 16; ld.global.b32 %b, [%q+-4]; ld.global.b32 %c, [%q-8];
        st.global.b32 [%q], %lane; ld.global.b32 %d, [%q];
        setp.lt.u32 %p, %lane, 9; @%p st.global.b32 [%q+4], %lane; ld.global.b32 %e, [%q+4];
        mul.wide.u32 %w, %lane, 4; add.s64 %q, %q, %w; ld.global.b32 %f, [%q-16];
        st.shared.b32 [smem+8], %lane; ld.shared.b32 %g, [smem+8];
        """,
        {f"%{c}": 32 for c in "abcdefg"},
        declare=".reg .b64 %q, %w; .reg .pred %p;", arrays=[memory], shared_bytes=64,
    )  # fmt: skip
    assert found["%a"] == [10] * 32 and found["%b"] == [3] * 32 and found["%c"] == [2] * 32
    assert found["%d"] == [31] * 32 and found["%e"] == [8] * 32 and found["%g"] == [31] * 32
    assert found["%f"] == [*range(4), 31, 8, *range(6, 32)]


@pytest.mark.parametrize("space", ["global", "shared"])
@pytest.mark.parametrize("uniform", [False, True])
def test_128_bit_accesses(space, uniform):
    wide = [RNG.getrandbits(128) for _ in range(32)]
    memory = aligned(bytes(1024))
    step = "mul.wide.u32 %t, %lane, 16;" if not uniform else "mov.b64 %t, 16;"
    base = "ld.param.u64 %q, [p2];" if space == "global" else "mov.b64 %q, smem;"
    found = lanes(
        f"{base} {step} add.s64 %q, %q, %t; st.{space}.b128 [%q], %w; ld.{space}.b128 %x, [%q]; "
        f"ld.{space}.b64 %y, [%q+8];",
        {"%x": 128, "%y": 64}, {"%w": (128, wide)}, declare=".reg .b64 %q, "
                                                            "%t;", arrays=[memory], shared_bytes=1024,
    )  # fmt: skip
    expected = [wide[31]] * 32 if uniform else wide
    assert found["%x"] == expected
    assert found["%y"] == [value >> 64 for value in expected]


def f32(value: float) -> int:
    return struct.unpack("<I", struct.pack("<f", value))[0]


ATOMS = {
    "add.u32": (32, lambda old, b: old + b), "add.s32": (32, lambda old, b: old + b),
    "add.u64": (64, lambda old, b: old + b),
    "exch.b32": (32, lambda old, b: b), "exch.b64": (64, lambda old, b: b),
    "min.u32": (32, min), "max.u32": (32, max),
    "min.s32": (32, lambda old, b: min(old, b, key=lambda v: to_signed(v, 32))),
    "max.s64": (64, lambda old, b: max(old, b, key=lambda v: to_signed(v, 64))),
    "and.b32": (32, lambda old, b: old & b), "or.b32": (32, lambda old, b: old | b),
    "xor.b64": (64, lambda old, b: old ^ b),
    "inc.u32": (32, lambda old, b: 0 if old >= b else old + 1),
    "dec.u32": (32, lambda old, b: b if old == 0 or old > b else old - 1),
}  # fmt: skip


@pytest.mark.parametrize("space", ["global", "shared", "generic"])
@pytest.mark.parametrize("name", ATOMS)
def test_atomics_serialise_lanes(name, space):
    """Lanes 0..31 add to four words; each sees the value that the lanes before it left."""
    bits, combine = ATOMS[name]
    start = [5, 2**bits - 3, 2 ** (bits - 1), 0]
    operands = [RNG.choice([0, 1, 7, 2**bits - 1, RNG.getrandbits(bits)]) for _ in range(32)]
    mask = 0xFFF0FFF7
    base = "ld.param.u64 %q, [p2];" if space != "shared" else "mov.b64 %q, smem;"
    word = "" if space == "generic" else f".{space}"
    memory = np.zeros(4, f"u{bits // 8}")
    memory[:] = start
    fill = "".join(
        f"mov.b{bits} %v, {v}; st.shared.b{bits} [smem+{i * bits // 8}], %v;\n" for i, v in enumerate(start)
    )
    found = lanes(
        f"""{fill if space == "shared" else ""} {base}
        and.b32 %k, %lane, 3; mul.wide.u32 %t, %k, {bits // 8}; add.s64 %q, %q, %t;
        @%active atom{word}.{name} %d, [%q], %b; ld{word}.b{bits} %after, [%q];""",
        {"%d": bits, "%after": bits},
        {"%b": (bits, operands), "%active": (1, [mask >> i & 1 for i in range(32)])},
        declare=f".reg .b64 %q, %t; .reg .b32 %k; .reg .b{bits} %v;", arrays=[memory], shared_bytes=64,
    )  # fmt: skip
    model = list(start)
    for lane in range(32):
        if mask >> lane & 1:
            assert found["%d"][lane] == model[lane & 3], f"lane {lane}"
            model[lane & 3] = combine(model[lane & 3], operands[lane]) % 2**bits
        else:
            assert found["%d"][lane] == OLD[bits]
    assert found["%after"] == [model[i & 3] for i in range(32)]


def test_compare_and_swap_and_reductions():
    memory = np.array([3, 10, f32(1.5)], np.uint32)
    found = lanes(
        """ld.param.u64 %q, [p2]; atom.global.cas.b32 %d, [%q], %lane, 100; red.global.add.u32 [%q+4], %lane;
        mov.b32 %f, 0f3E800000; red.global.add.f32 [%q+8], %f;""",
        {"%d": 32}, declare=".reg .b64 %q; .reg .b32 %f;", arrays=[memory],
    )  # fmt: skip
    assert found["%d"] == [3, 3, 3, 3, *[100] * 28]
    assert memory.tolist() == [100, 10 + sum(range(32)), f32(1.5 + 32 * 0.25)]


def test_parameters():
    """ld.param of every width, vectors, and a parameter's address through mov and cvta."""
    found = lanes(
        """ld.param.v2.u64 {%a, %b}, [p2]; mov.b64 %q, p2; ld.param.u32 %c, [%q+8]; cvta.param.u64 %q, %q;
        ld.u16 %d, [%q+10]; ld.param.u8 %e, [p3+1];""",
        {"%a": 64, "%b": 64, "%c": 32, "%d": 16, "%e": 32}, declare=".reg .b64 %q;",
        arrays=[np.zeros(1, np.uint64), np.zeros(1, np.uint64)],
    )  # fmt: skip
    assert found["%c"][0] == found["%b"][0] % 2**32
    assert found["%d"][0] == found["%b"][0] >> 16 & 0xFFFF
    assert found["%e"][0] == found["%b"][0] >> 8 & 0xFF
    assert found["%a"][0] != found["%b"][0]


@pytest.mark.parametrize(
    ("code", "snippet"),
    [
        ("misaligned", "ld.global.b32 %v, [%q+2];"),
        ("misaligned", "ld.global.v4.b32 {%v, %v, %v, %v}, [%q+8];"),
        ("misaligned", "add.s64 %q, %q, %w; ld.global.b64 %w, [%q];"),
        ("misaligned", "st.shared.b32 [smem+1], %v;"),
        ("misaligned", "atom.global.add.u32 %v, [%q+1], 1;"),
        ("global_out_of_bounds", "ld.global.b32 %v, [%q+256];"),
        ("global_out_of_bounds", "st.global.b32 [%q-4], %v;"),
        ("global_out_of_bounds", "add.s64 %q, %q, %w; add.s64 %q, %q, %w; ld.global.b32 %v, [%q+8];"),
        ("shared_out_of_bounds", "ld.shared.b32 %v, [smem+64];"),
        (
            "shared_out_of_bounds",
            "mov.b32 %s, smem; shl.b32 %v, %lane, 2; add.s32 %s, %s, %v; st.shared.b32 [%s], %v;",
        ),
        ("shared_out_of_bounds", "ld.shared.b32 %v, [smem-4];"),
        ("shared_wrong_cta", "mov.b32 %s, smem; or.b32 %s, %s, 0x1000000; ld.shared.b32 %v, [%s];"),
        ("shared_wrong_cta", "mov.b32 %s, smem; or.b32 %s, %s, 0x1000000; ld.shared::cluster.b32 %v, [%s];"),
        (
            "shared_wrong_cta",
            "mov.b32 %s, smem; mapa.shared::cluster.u32 %s, %s, 1; st.shared::cluster.b32 [%s], %v;",
        ),
    ],
)
def test_bad_addresses(code, snippet):
    with pytest.raises(Fault) as caught:
        lanes(
            f"ld.param.u64 %q, [p2]; mul.wide.u32 %w, %lane, 4; mov.b32 %v, 0; "
            f"mov.b32 %s, 0;\n{snippet}", {"%v": 32},
            declare=".reg .b64 %q, %w; .reg .b32 %s;", arrays=[np.zeros(64, np.uint32)], shared_bytes=64,
        )  # fmt: skip
    assert caught.value.code == code
    assert "CTA (0,0,0) warp 0" in str(caught.value) and "PTX line" in str(caught.value)


def test_idle_lanes_may_hold_any_address():
    found = lanes(
        """ld.param.u64 %q, [p2]; setp.eq.u32 %p, %lane, 5; mul.wide.u32 %w, %lane, 0x1000001;
            @%p mov.b64 %w, 4;
        add.s64 %q, %q, %w; @%p ld.global.b32 %v, [%q]; cvt.u32.u64 %s, %w; @%p st.shared.b32 [smem], %v;
        @!%p bra END; add.s32 %s, %s, smem; ld.shared.b32 %u, [%s-4]; END:""",
        {"%v": 32, "%u": 32}, declare=".reg .b64 %q, %w; .reg .b32 %s; .reg .pred %p;",
        arrays=[np.array([1, 77], np.uint32)], shared_bytes=64,
    )  # fmt: skip
    assert found["%v"][5] == 77 and found["%u"][5] == 77 and found["%v"][4] == OLD[32]


CLUSTER = """
.reg .b64 %out, %w; .reg .b32 %r, %peer, %a, %v, %n, %l; .reg .pred %p;
ld.param.u64 %out, [p0]; mov.u32 %r, %cluster_ctarank; mov.u32 %l, %laneid; mov.u32 %n, %cluster_nctarank;
mad.lo.s32 %v, %r, 100, %l; shl.b32 %a, %l, 2; add.s32 %a, %a, smem; st.shared.b32 [%a], %v;
barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;
"""


def test_other_ctas_shared_memory():
    """mapa, getctarank, isspacep, remote loads and stores, lanes that reach several CTAs, generic ones."""
    out = np.zeros((4, 6, 32), np.uint32)
    run_kernel(
        CLUSTER
        + """
        .reg .b64 %g, %h; .reg .b32 %t;
        mul.wide.u32 %w, %r, 768; add.s64 %out, %out, %w; mul.wide.u32 %w, %l, 4; add.s64 %out, %out, %w;
        add.s32 %peer, %r, 1; and.b32 %peer, %peer, 3;
        mapa.shared::cluster.u32 %t, %a, %peer; ld.shared::cluster.b32 %v, [%t]; st.global.b32 [%out], %v;
        and.b32 %peer, %l, 3; mapa.shared::cluster.u32 %t, %a, %peer; ld.shared::cluster.b32 %v, [%t];
        st.global.b32 [%out+128], %v;
        getctarank.shared::cluster.u32 %v, %t; st.global.b32 [%out+256], %v;
        cvt.u64.u32 %g, %t; cvta.shared::cluster.u64 %g, %g; ld.b32 %v, [%g]; st.global.b32 [%out+384], %v;
        isspacep.shared::cta %p, %g; selp.b32 %v, 1, 0, %p; isspacep.shared::cluster %p, %g;
        @%p add.s32 %v, %v, 2;
        isspacep.global %p, %out; @%p add.s32 %v, %v, 4; st.global.b32 [%out+512], %v;
        barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;
        add.s32 %peer, %r, 3; and.b32 %peer, %peer, 3; mapa.shared::cluster.u32 %t, %a, %peer;
        mul.lo.s32 %v, %l, %r; st.shared::cluster.b32 [%t], %v;
        barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;
        ld.shared.b32 %v, [%a]; st.global.b32 [%out+640], %v;
        """,
        [out], shared=DYNAMIC, shared_bytes=256, cluster=(4, 1, 1), grid=(4, 1, 1),
    )  # fmt: skip
    lane = np.arange(32)
    for rank in range(4):
        assert (out[rank, 0] == (rank + 1) % 4 * 100 + lane).all()
        assert (out[rank, 1] == lane % 4 * 100 + lane).all()
        assert (out[rank, 2] == lane % 4).all()
        assert (out[rank, 3] == lane % 4 * 100 + lane).all()
        assert (out[rank, 4] == np.where(lane % 4 == rank, 7, 6)).all()
        assert (out[rank, 5] == lane * ((rank + 1) % 4)).all()
