"""printf on the device: the text against Python's own formatting and against what C prescribes."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ptx_harness import make_grid

from b200sim.faults import Fault
from b200sim.printf import formatted, to_stdout

STRINGS = {0x1000: b"name", 0x2000: b""}


def c_text(template: bytes, packed: bytes = b"") -> bytes:
    return formatted(template, lambda at, size: packed[at : at + size], STRINGS.__getitem__)[0]


def shown(template: str, layout: str, *values) -> str:
    """`layout` is a struct format; native alignment is the alignment of C varargs in the buffer."""
    return c_text(template.encode(), struct.pack("@" + layout, *values)).decode()


@pytest.mark.parametrize(
    "template, layout, values, text",
    [
        ("plain %% text\n", "", (), "plain % text\n"),
        ("%d %i", "ii", (-5, 7), "-5 7"),
        ("%u %x %X %o", "IIII", (4000000000, 0xBEEF, 0xBEEF, 8), "4000000000 beef BEEF 10"),
        ("%d", "I", (0xFFFFFFFF,), "-1"),
        ("%lld|%llu|%ld|%lu", "qQqQ", (-(2**40), 2**63, -1, 5), "-1099511627776|9223372036854775808|-1|5"),
        ("%d %lld %d", "iqi", (1, -2, 3), "1 -2 3"),
        ("%hd", "i", (0x12345,), "9029"),
        ("%5d|%-5d|%05d|%+d|% d", "iiiii", (42, 42, 42, 42, 42), "   42|42   |00042|+42| 42"),
        ("%.3d|%8.3d|%08.3d|%.0d|", "iiii", (5, 5, 5, 0), "005|     005|     005||"),
        ("%#x %#o", "II", (255, 8), "0xff 010"),
        ("%*d|%-*d|%.*f", "iiiiid", (6, 42, 4, 7, 2, 3.14159), "    42|7   |3.14"),
        ("%.*f", "id", (-1, 0.5), "0.500000"),
        ("%f %.2f %8.3f", "ddd", (1.5, 2.675, -3.14159), "1.500000 2.67   -3.142"),
        ("%e %E %g %G", "dddd", (12345.678, 1e-10, 1e20, 0.0001), "1.234568e+04 1.000000E-10 1e+20 0.0001"),
        ("%f %F %g %010f", "dddd", (float("inf"), float("-inf"), float("nan"), float("inf")),
         "inf -INF nan        inf"),
        ("%a", "d", (1.0,), "0x1p+0"),
        ("%d %f %d", "idi", (1, 2.5, 3), "1 2.500000 3"),
        ("[%s] [%8s] [%-6s] [%.2s] [%s]", "QQQQQ", (0x1000, 0x1000, 0x1000, 0x1000, 0x2000),
         "[name] [    name] [name  ] [na] []"),
        ("%s", "Q", (0,), "(null)"),
        ("%c%c|%3c", "iii", (72, 105, 33), "Hi|  !"),
        ("%p %p", "QQ", (0x7F0000001234, 0), "0x7f0000001234 (nil)"),
    ],
)  # fmt: skip
def test_what_c_prescribes(template, layout, values, text):
    assert shown(template, layout, *values) == text


@given(st.integers(-(2**31), 2**31 - 1), st.integers(0, 12), st.sampled_from(["", "-", "+", " ", "0"]))
def test_integers_as_python_formats_them(value, width, flag):
    template = f"%{flag}{width or ''}d"
    assert shown(template, "i", value) == template % value


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 17), st.sampled_from("feEgG"))
def test_floats_as_python_formats_them(value, precision, kind):
    template = f"%.{precision}{kind}"
    assert shown(template, "d", value) == template % value


@given(st.integers(0, 2**64 - 1), st.sampled_from(["llx", "llX", "llu", "lo"]))
def test_64_bit_patterns_as_python_formats_them(value, kind):
    assert shown(f"%{kind}", "Q", value) == f"%{kind.strip('l')}" % value


def test_the_number_of_arguments_and_what_is_beyond_32():
    template, packed = b"%d" * 33, struct.pack("33i", *([7] * 33))
    text, count = formatted(template, lambda at, size: packed[at : at + size], STRINGS.__getitem__)
    assert (text, count) == (b"7" * 32 + b"%d", 32)
    assert formatted(b"%*d\n", lambda at, size: b"\1\0\0\0", STRINGS.__getitem__)[1] == 2


@pytest.mark.parametrize("template", [b"%k", b"50%", b"%n", b"%zu", b"%ls", b"%9%"])
def test_unknown_conversions_are_refused(template):
    with pytest.raises(Fault, match="printf_format"):
        c_text(template, bytes(8))


def test_a_field_of_absurd_width_is_refused():
    with pytest.raises(Fault, match="2000000000 bytes"):
        shown("%2000000000d", "i", 1)


def test_the_default_goes_to_standard_output_in_order(capfd):
    print("before ", end="")
    to_stdout(b"kernel\n")
    print("after")
    assert capfd.readouterr().out == "before kernel\nafter\n"


# -- vprintf ----------------------------------------------------------------------------------------------


def ptx(template: bytes, body: str, extra: str = "") -> str:
    codes = ", ".join(str(byte) for byte in template + b"\0")
    return f"""
.version 8.8
.target sm_100a
.address_size 64
.extern .func (.param .b32 func_retval0) vprintf (.param .b64 a, .param .b64 b);
.extern .func __assertfail (.param .b64 m, .param .b64 f, .param .b32 l, .param .b64 n, .param .b64 s);
.global .align 1 .b8 text[{len(template) + 1}] = {{{codes}}};
{extra}
.visible .entry kernel(.param .u64 p0) {{
  .local .align 8 .b8 depot[32];
  .reg .b64 %SPL, %SP, %out, %rd<9>; .reg .b32 %r<9>; .reg .f64 %fd<3>; .reg .pred %p<3>;
  mov.u64 %SPL, depot; cvta.local.u64 %SP, %SPL; mov.u32 %r1, %tid.x; ld.param.u64 %out, [p0];
  mov.u64 %rd1, text; cvta.global.u64 %rd1, %rd1;
  {body}
  ret;
}}"""


CALL = """{ .param .b64 param0; st.param.b64 [param0], %rd1; .param .b64 param1; st.param.b64 [param1], %SP;
  .param .b32 retval0; call.uni (retval0), vprintf, (param0, param1); ld.param.b32 %r8, [retval0]; }"""


def printed(template: bytes, body: str, **launch) -> bytes:
    pieces: list[bytes] = []
    out = np.zeros(64, np.uint32)
    extra = launch.pop("extra", "")
    make_grid(ptx(template, body, extra), [out], printf=pieces.append, **launch).run()
    return b"".join(pieces)


def test_threads_print_in_lane_order_what_they_hold():
    body = f"""mul.lo.u32 %r2, %r1, %r1; cvt.rn.f64.u32 %fd1, %r2; st.local.b32 [%SPL], %r1;
      st.local.f64 [%SPL+8], %fd1; {CALL}"""
    want = b"".join(b"%d: %.1f\n" % (i, i * i) for i in range(40))
    assert printed(b"%d: %.1f\n", body, block=(40, 1, 1)) == want


def test_only_the_lanes_of_a_branch_print_and_get_a_count():
    out = np.full(32, 99, np.uint32)
    pieces: list[bytes] = []
    body = f"""mov.b32 %r8, 5; setp.gt.u32 %p1, %r1, 3; st.local.b32 [%SPL], %r1;
      @%p1 bra DONE; {CALL} DONE: mul.wide.u32 %rd2, %r1, 4; add.u64 %rd2, %out, %rd2;
      st.global.b32 [%rd2], %r8;"""
    make_grid(ptx(b"<%u>", body), [out], printf=pieces.append).run()
    assert b"".join(pieces) == b"<0><1><2><3>"
    assert out.tolist() == [1] * 4 + [5] * 28


def test_strings_of_a_thread_and_of_shared_memory():
    body = f"""st.local.b32 [%SPL+24], 0x00004241; add.u64 %rd2, %SP, 24; st.local.b64 [%SPL], %rd2;
      mov.u64 %rd3, words; cvta.shared.u64 %rd3, %rd3; st.shared.b32 [words], 0x00434241;
      st.local.b64 [%SPL+8], %rd3; setp.ne.u32 %p1, %r1, 0; @%p1 bra DONE; {CALL} DONE:"""
    assert printed(b"%s %s", body, extra=".shared .align 8 .b8 words[8];") == b"AB ABC"


def test_a_null_format_gives_minus_one():
    out = np.zeros(32, np.uint32)
    pieces: list[bytes] = []
    body = f"mov.u64 %rd1, 0; {CALL} st.global.b32 [%out], %r8;"
    make_grid(ptx(b"", body), [out], printf=pieces.append).run()
    assert (b"".join(pieces), out[0]) == (b"", 0xFFFFFFFF)


def test_arguments_beyond_the_frame_are_a_fault_of_their_thread():
    body = f"setp.ne.u32 %p1, %r1, 5; @%p1 bra DONE; add.u64 %SP, %SP, 28; {CALL} DONE:"
    with pytest.raises(Fault) as caught:
        printed(b"%lld", body)
    assert caught.value.code == "local_out_of_bounds"
    assert "thread (5, 0, 0)" in str(caught.value)


# -- assertions -------------------------------------------------------------------------------------------


def test_assertfail_names_everything():
    extra = "\n".join(
        f".global .align 1 .b8 {name}[{len(text) + 1}] = {{{', '.join(map(str, [*text, 0]))}}};"
        for name, text in (("message", b"i < n"), ("file", b"kernel.cu"), ("function", b"k()"))
    )
    body = """setp.lt.u32 %p1, %r1, 30; @%p1 bra DONE;
      mov.u64 %rd2, message; mov.u64 %rd3, file; mov.u64 %rd4, function;
      { .param .b64 m; st.param.b64 [m], %rd2; .param .b64 f; st.param.b64 [f], %rd3; .param .b32 l;
        st.param.b32 [l], 77; .param .b64 n; st.param.b64 [n], %rd4; .param .b64 s; st.param.b64 [s], 1;
        call.uni __assertfail, (m, f, l, n, s); } DONE:"""
    with pytest.raises(Fault) as caught:
        printed(b"", body, extra=extra, grid=(3, 1, 1))
    assert caught.value.code == "assert_failed"
    assert "kernel.cu:77: assertion failed: `i < n` in k()" in str(caught.value)
    assert "CTA (0,0,0) thread (30, 0, 0) and 1 more of its warp" in str(caught.value)


def test_a_trap_after_a_cutedsl_assertion_is_an_assertion_and_another_one_is_not():
    template = b'\nLocation: loc("cute.testing.assert_(t < n)"("/a/k.py":8:4))\nAssertion Error: t below n'
    with pytest.raises(Fault) as caught:
        printed(template, f"setp.ne.u32 %p1, %r1, 3; @%p1 bra DONE; {CALL} trap; DONE:")
    assert caught.value.code == "assert_failed"
    assert "/a/k.py:8: assertion failed: t below n; CTA (0,0,0) thread (3, 0, 0)" in str(caught.value)
    with pytest.raises(Fault) as caught:
        printed(b"gone wrong", f"{CALL} trap;")
    assert caught.value.code == "trap"
    assert "executed trap after it printed 'gone wrong'" in str(caught.value)
    far = "add.u32 %r2, %r2, 1;" * 40
    with pytest.raises(Fault) as caught:
        printed(template, f"{CALL} {far} trap;")
    assert caught.value.code == "trap"
    assert "printed" not in str(caught.value)
