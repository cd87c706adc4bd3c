"""Functions of a PTX module, inlined, against the same arithmetic in Python; and who refuses what."""

from __future__ import annotations

import numpy as np
import pytest
from ptx_harness import make_grid

from b200sim.faults import Fault, Unsupported
from b200sim.ptx.parser import parse

HEAD = ".version 8.8\n.target sm_100a\n.address_size 64\n"
ENTRY = """
.visible .entry kernel(.param .u64 p0)
{{
  .reg .b32 %r<20>; .reg .b64 %rd<8>; .reg .pred %p<4>;
  ld.param.u64 %rd1, [p0]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 4; add.u64 %rd3, %rd1, %rd2;
  {body}
  st.global.b32 [%rd3], %r9; ret;
}}
"""
# collatz steps of a, by a loop that lanes leave at different times; returns steps and the largest number
COLLATZ = """
.func (.param .align 8 .b8 func_retval0[8]) collatz(.param .b32 collatz_param_0)
.noinline
{
  .local .align 4 .b8 __local_depot1[8];
  .reg .b32 %r<9>; .reg .b64 %SPL; .reg .pred %p<3>;
  mov.u64 %SPL, __local_depot1;
  ld.param.b32 %r1, [collatz_param_0]; mov.b32 %r2, 0; st.local.b32 [%SPL+4], %r1;
$L__BB1_1:
  setp.le.u32 %p1, %r1, 1; @%p1 bra $L__BB1_3;
  and.b32 %r3, %r1, 1; setp.eq.u32 %p2, %r3, 0; add.u32 %r2, %r2, 1;
  @%p2 bra $L__BB1_2;
  mad.lo.u32 %r1, %r1, 3, 1;
  ld.local.b32 %r4, [%SPL+4]; max.u32 %r4, %r4, %r1; st.local.b32 [%SPL+4], %r4;
  bra $L__BB1_1;
$L__BB1_2:
  shr.u32 %r1, %r1, 1; bra $L__BB1_1;
$L__BB1_3:
  ld.local.b32 %r4, [%SPL+4];
  st.param.b32 [func_retval0], %r2; st.param.b32 [func_retval0+4], %r4;
  ret;
}
"""
# twice calls once for each of two arguments, and returns early for odd lanes
TWICE = """
.func (.param .b32 func_retval0) once(.param .b32 once_param_0, .param .b32 once_param_1)
{
  .reg .b32 %r<5>; .reg .pred %p1;
  ld.param.b32 %r1, [once_param_0]; ld.param.b32 %r2, [once_param_1];
  setp.gt.u32 %p1, %r1, 20; st.param.b32 [func_retval0], 1000; @%p1 ret;
  mad.lo.u32 %r3, %r1, %r2, 7; st.param.b32 [func_retval0], %r3; ret;
}
.func (.param .b32 func_retval0) twice(.param .b32 twice_param_0)
{
  .reg .b32 %r<5>;
  ld.param.b32 %r1, [twice_param_0];
  { .param .b32 param0; st.param.b32 [param0], %r1; .param .b32 param1; st.param.b32 [param1], 3;
    .param .b32 retval0; call.uni (retval0), once, (param0, param1); ld.param.b32 %r2, [retval0]; }
  { .param .b32 param0; st.param.b32 [param0], %r2; .param .b32 param1; st.param.b32 [param1], %r1;
    .param .b32 retval0; call.uni (retval0), once, (param0, param1); ld.param.b32 %r3, [retval0]; }
  st.param.b32 [func_retval0], %r3; ret;
}
"""


def results(functions: str, body: str, threads: int = 32) -> list[int]:
    out = np.zeros(threads, np.uint32)
    make_grid(HEAD + functions + ENTRY.format(body=body), [out], block=(threads, 1, 1)).run()
    return out.tolist()


def collatz(a: int) -> tuple[int, int]:
    steps, largest = 0, a
    while a > 1:
        a = a // 2 if a % 2 == 0 else 3 * a + 1
        steps, largest = steps + 1, max(largest, a)
    return steps, largest


CALL = """{ .param .b32 param0; st.param.b32 [param0], %r2; .param .align 8 .b8 retval0[8];
  call.uni (retval0), collatz, (param0); ld.param.b32 %r3, [retval0]; ld.param.b32 %r4, [retval0+4]; }"""


def test_a_function_whose_lanes_diverge():
    body = f"add.u32 %r2, %r1, 1; {CALL} mad.lo.u32 %r9, %r3, 100000, %r4;"
    want = [collatz(i + 1) for i in range(64)]
    assert results(COLLATZ, body, 64) == [steps * 100000 + largest for steps, largest in want]


def test_a_call_that_only_some_lanes_make_and_two_calls():
    body = f"""mov.b32 %r3, 0; mov.b32 %r4, 1; add.u32 %r2, %r1, 5; setp.lt.u32 %p1, %r1, 11;
      @%p1 bra SKIP; {CALL} SKIP: mov.b32 %r5, %r3; add.u32 %r2, %r1, 2; {CALL}
      mad.lo.u32 %r9, %r5, 1000, %r3;"""
    want = [(collatz(i + 5)[0] if i >= 11 else 0) * 1000 + collatz(i + 2)[0] for i in range(32)]
    assert results(COLLATZ, body) == want


def test_a_function_that_calls_and_returns_early():
    def once(a, b):
        return 1000 if a > 20 else a * b + 7

    body = """{ .param .b32 param0; st.param.b32 [param0], %r1; .param .b32 retval0;
      call.uni (retval0), twice, (param0); ld.param.b32 %r9, [retval0]; }"""
    assert results(TWICE, body) == [once(once(i, 3), i) for i in range(32)]


def test_a_guarded_call():
    body = """setp.lt.u32 %p1, %r1, 7; mov.b32 %r9, 3;
      { .param .b32 param0; st.param.b32 [param0], %r1; .param .b32 retval0; st.param.b32 [retval0], 9;
      @%p1 call (retval0), twice, (param0); ld.param.b32 %r9, [retval0]; }"""

    def once(a, b):
        return 1000 if a > 20 else a * b + 7

    assert results(TWICE, body) == [once(once(i, 3), i) if i < 7 else 9 for i in range(32)]


@pytest.mark.parametrize(
    "functions, body, message",
    [
        (
            ".func f() { .reg .b32 %x; call.uni f; ret; }",
            "call.uni f;",
            "recursion: f calls f",
        ),
        ("", "call.uni elsewhere;", "a call of elsewhere, which this PTX module does not define"),
        (
            ".extern .func (.param .b64 r) malloc(.param .b64 a);",
            "{ .param .b64 a; .param .b64 r; call.uni (r), malloc, (a); }",
            "malloc in a kernel: the simulated B200 has no device heap",
        ),
        ("", "call (%r9), %rd1, (%r1), prototype;", "an indirect call through %rd1"),
        (
            ".func f(.param .b64 a) { ret; }",
            "{ .param .b32 param0; call.uni f, (param0); }",
            "passes Symbol(name='param0#1', offset=0) for a",
        ),
    ],
)
def test_what_cannot_be_called(functions, body, message):
    with pytest.raises(Unsupported) as caught:
        results(functions, body)
    assert message in str(caught.value)


def test_variables_of_the_module():
    variables = """
.global .align 4 .u32 table[4] = {10, 20, 0x1E, 40};
.const .align 8 .f64 half = 0d3FE0000000000000;
.visible .global .align 4 .b8 counter[8];
"""
    body = """and.b32 %r2, %r1, 3; mul.wide.u32 %rd4, %r2, 4; mov.u64 %rd5, table; add.u64 %rd5, %rd5, %rd4;
      ld.global.u32 %r9, [%rd5]; ld.const.b32 %r3, [half+4]; add.u32 %r9, %r9, %r3;
      cvta.global.u64 %rd6, counter; atom.add.u32 %r4, [%rd6], 1; ld.global.u32 %r4, [counter];
      add.u32 %r9, %r9, %r4;"""
    assert results(variables, body) == [[10, 20, 30, 40][i % 4] + 0x3FE00000 + 32 for i in range(32)]


def test_constants_are_read_only():
    with pytest.raises(Fault, match="global_write_to_input"):
        results(".const .u32 c = 1;", "cvta.const.u64 %rd4, c; st.b32 [%rd4], 2; mov.b32 %r9, 0;")


def test_a_variable_of_another_module_is_refused():
    with pytest.raises(Unsupported, match="variable far is defined in another module"):
        parse(HEAD + ".extern .global .align 4 .u32 far;\n" + ENTRY.format(body=""))
