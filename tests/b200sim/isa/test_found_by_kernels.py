"""What published kernels do that the ISA leaves open or that is easily got wrong."""

from __future__ import annotations

import numpy as np
from ptx_harness import lanes


def test_a_register_that_a_path_leaves_undefined_may_be_read() -> None:
    snippet = """
        setp.ge.u32 %p, %x, 100;
        @%p bra skip;
        mov.u32 %maybe, 5;
    skip:
        add.s32 %d, %maybe, -1;
        selp.b32 %d, 7, %d, %p;
    """
    declare = ".reg .b32 %maybe; .reg .pred %p;"
    assert lanes(snippet, {"%d": 32}, {"%x": (32, 100)}, declare=declare)["%d"] == [7] * 32
    mixed = [99 + i % 2 for i in range(32)]
    assert lanes(snippet, {"%d": 32}, {"%x": (32, mixed)}, declare=declare)["%d"] == [4, 7] * 16


def test_division_by_zero_yields_all_ones() -> None:
    for kind in ("s32", "u32"):
        for opcode in ("div", "rem"):
            found = lanes(
                f"{opcode}.{kind} %d, %a, %b;", {"%d": 32}, {"%a": (32, 7), "%b": (32, [0, 2] * 16)}
            )
            assert found["%d"] == [0xFFFFFFFF, 3 if opcode == "div" else 1] * 16


def test_mad_of_a_uniform_product_wraps_before_it_meets_lanes() -> None:
    inputs = {"%a": (32, 0xFFFFFFF0), "%b": (32, 0xFFFFFC58), "%c": (32, list(range(32)))}
    product = 0xFFFFFFF0 * 0xFFFFFC58
    found = lanes("mad.lo.s32 %d, %a, %b, %c;", {"%d": 32}, inputs)
    assert found["%d"] == [(product + i) % 2**32 for i in range(32)]
    inputs["%c"] = (64, list(range(32)))
    found = lanes("mad.wide.s32 %d, %a, %b, %c;", {"%d": 64}, {**inputs, "%b": (32, 3)})
    assert found["%d"] == [(-16 * 3 + i) % 2**64 for i in range(32)]


def test_a_negative_offset_from_lane_addresses() -> None:
    snippet = """
        mov.u32 %base, smem;
        shl.b32 %t, %i, 2;
        add.u32 %base, %base, %t;
        st.shared.u32 [%base], %i;
        add.u32 %base, %base, 1024;
        ld.shared.u32 %d, [%base+-1024];
    """
    declare = ".reg .b32 %base, %t;"
    found = lanes(snippet, {"%d": 32}, {"%i": (32, list(range(32)))}, declare=declare, shared_bytes=2048)
    assert found["%d"] == list(range(32))


def _matrices(count: int) -> np.ndarray:
    return np.arange(count * 64, dtype=np.uint16).reshape(count, 8, 8)


def _fragments(matrices: np.ndarray, transposed: bool) -> list[list[int]]:
    """Register j of lane t: elements (t//4, 2*(t%4)) and the next one of matrix j or of its transpose."""
    rows = matrices.transpose(0, 2, 1) if transposed else matrices
    return [
        [int(m[t // 4, 2 * (t % 4)]) | int(m[t // 4, 2 * (t % 4) + 1]) << 16 for t in range(32)] for m in rows
    ]


def test_stmatrix_and_ldmatrix_place_fragments() -> None:
    for transposed in (False, True):
        trans = ".trans" if transposed else ""
        matrices = _matrices(4)
        fragments = _fragments(matrices, transposed)
        # Row r of matrix j lies at 48*(8*j + r): neither dense nor a power of two.
        snippet = f"""
            mov.u32 %s, smem;
            mad.lo.u32 %s, %lane, 48, %s;
            stmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 [%s], {{%a, %b, %c, %d}};
            ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%w, %x, %y, %z}}, [%s];
            ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {{%u, %v}}, [%s];
        """
        inputs = {
            name: (32, fragment) for name, fragment in zip(("%a", "%b", "%c", "%d"), fragments, strict=True)
        }
        outputs = dict.fromkeys(("%w", "%x", "%y", "%z", "%u", "%v"), 32)
        found = lanes(snippet, outputs, inputs, declare=".reg .b32 %s;", shared_bytes=4096)
        assert [found[name] for name in ("%w", "%x", "%y", "%z")] == _fragments(matrices, False)
        assert [found[name] for name in ("%u", "%v")] == _fragments(matrices[:2], True)
