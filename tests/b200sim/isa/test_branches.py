"""brx.idx: lanes that go different ways by a table of labels, and what is refused (PTX ISA 9.7.12)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ptx_harness import make_grid

from b200sim.faults import Fault, Unsupported

HEAD = ".version 8.8\n.target sm_90a\n.address_size 64\n"
ENTRY = """
.visible .entry kernel(.param .u64 p0, .param .u64 p1)
{{
  .reg .b32 %r<20>; .reg .b64 %rd<8>; .reg .pred %p<4>;
  ld.param.u64 %rd1, [p0]; ld.param.u64 %rd2, [p1]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd3, %r1, 4;
  add.u64 %rd4, %rd1, %rd3; add.u64 %rd5, %rd2, %rd3; ld.global.b32 %r2, [%rd4]; mov.b32 %r9, 0;
  {body}
  st.global.b32 [%rd5], %r9; ret;
}}
"""
# Each way adds another digit, and one more for who comes by; a loop takes each lane three ways.
THREE_WAYS = """
WAYS: .branchtargets ONE, TWO, THREE;
mov.b32 %r3, 0;
AGAIN:
  setp.ge.u32 %p1, %r3, 3; @%p1 bra DONE;
  add.u32 %r4, %r2, %r3; rem.u32 %r4, %r4, 3; add.u32 %r3, %r3, 1; mul.lo.u32 %r9, %r9, 10;
  brx.idx %r4, WAYS;
  add.u32 %r9, %r9, 9;
ONE: add.u32 %r9, %r9, 1; bra AGAIN;
TWO: add.u32 %r9, %r9, 2; bra AGAIN;
THREE: add.u32 %r9, %r9, 3; bra AGAIN;
DONE:
"""


def results(body: str, values: list[int], functions: str = "") -> list[int]:
    given = np.array(values, np.uint32)
    out = np.zeros(len(values), np.uint32)
    make_grid(HEAD + functions + ENTRY.format(body=body), [given, out], block=(len(values), 1, 1)).run()
    return out.tolist()


def ways(value: int) -> int:
    return int("".join(str((value + turn) % 3 + 1) for turn in range(3)))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=64))
def test_each_lane_goes_where_its_index_says(values: list[int]) -> None:
    assert results(THREE_WAYS, values) == [ways(value) for value in values]


def test_lanes_that_a_predicate_keeps_from_it_go_on() -> None:
    body = """
    WAYS: .branchtargets ONE, TWO;
    setp.lt.u32 %p1, %r2, 2;
    @%p1 brx.idx.uni %r2, WAYS;
    mov.b32 %r9, 7; bra DONE;
    ONE: mov.b32 %r9, 1; bra DONE;
    TWO: mov.b32 %r9, 2;
    DONE: add.u32 %r9, %r9, 10;
    """
    assert results(body, [0, 1, 2, 9, 1, 0] * 5) == [11, 12, 17, 17, 12, 11] * 5


def test_tables_of_scopes_and_functions_are_their_own() -> None:
    """Inline assembly repeats labels in each `{ }`; a function is there once for each of its calls."""
    function = """
.func (.param .b32 func_retval0) pick(.param .b32 pick_param_0)
{
  .reg .b32 %r<4>;
  ld.param.b32 %r1, [pick_param_0]; and.b32 %r2, %r1, 1;
  WAYS: .branchtargets ONE, TWO;
  brx.idx %r2, WAYS;
  ONE: st.param.b32 [func_retval0], 100; ret;
  TWO: st.param.b32 [func_retval0], 200; ret;
}
"""
    call = """{ .param .b32 param0; st.param.b32 [param0], %r2; .param .b32 retval0;
      call.uni (retval0), pick, (param0); ld.param.b32 %r4, [retval0]; add.u32 %r9, %r9, %r4; }"""
    scope = """{ .reg .b32 t; shr.u32 t, %r2, SHIFT; and.b32 t, t, 1; WAYS: .branchtargets ONE, TWO;
      brx.idx t, WAYS; ONE: add.u32 %r9, %r9, 1; bra END; TWO: add.u32 %r9, %r9, STEP; END: }"""
    scopes = [
        scope.replace("SHIFT", "0").replace("STEP", "20"),
        scope.replace("SHIFT", "1").replace("STEP", "30"),
    ]
    values = list(range(32))
    want = [2 * (200 if v & 1 else 100) + (20 if v & 1 else 1) + (30 if v & 2 else 1) for v in values]
    assert results("\n".join([call, *scopes, call]), values, function) == want


def test_an_index_beyond_the_table() -> None:
    with pytest.raises(Fault, match="index 3 into a table of 3 branch targets") as caught:
        results(THREE_WAYS.replace("rem.u32 %r4, %r4, 3;", ""), [0, 1, 1])
    assert caught.value.code == "branch_index"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("WAYS: .branchtargets", "OTHERS: .branchtargets", "names no .branchtargets before it"),
        ("ONE, TWO, THREE;", "ONE, TWO, FOUR;", "branch to unknown label FOUR"),
    ],
)
def test_a_table_that_is_not_there(old: str, new: str, message: str) -> None:
    with pytest.raises(Unsupported, match=message):
        results(THREE_WAYS.replace(old, new), [0])
