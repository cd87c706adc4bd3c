"""PTX text to kernels: scopes, labels, source lines, operands, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from ptx_harness import lanes, module, run_kernel

from b200sim.faults import Fault, Unsupported
from b200sim.isa.decoder import decode_kernel
from b200sim.ptx.parser import parse
from b200sim.ptx.syntax import Address, Immediate, Pair, Register, Sink, Symbol, Vector


def kernel_of(body: str, **options):
    return parse(module(body, **options))["kernel"]


def only(statement: str, declare: str = ".reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .pred %p<4>;"):
    return kernel_of(f"{declare}\n{statement}").instructions[0]


def test_inline_assembly_blocks_have_their_own_names():
    """The same register and label names in every block, without %, nested, and shadowing outer ones."""
    found = lanes(
        """
        mov.b32 %d, 0; mov.b32 P1, 7;
        { .reg .pred P1; .reg .b32 x; mov.b32 x, %lane;
        AGAIN:
        setp.lt.u32 P1, x, 40; add.u32 x, x, 10; @P1 bra AGAIN;
        { .reg .b32 x; mov.b32 x, 1000; add.u32 %d, %d, x; }
        add.u32 %d, %d, x; }
        {
        .reg .pred P1;
        .reg .b32 x; mov.b32 x, 2;
        AGAIN: sub.u32 x, x, 1; setp.ne.u32 P1, x, 0;
        @P1 bra.uni AGAIN; bra DONE; mov.b32 %d, 0;
        DONE: add.u32 %d, %d, x;
        }
        add.u32 %d, %d, P1;
        """,
        {"%d": 32}, declare=".reg .b32 P1;",
    )  # fmt: skip
    loop = [next(x + 10 for x in range(i, 99, 10) if x >= 40) for i in range(32)]
    assert found["%d"] == [1000 + x + 7 for x in loop]


def test_labels_may_share_a_line_and_be_branched_to_forward_and_backward():
    found = lanes(
        "mov.b32 %d, 0; bra $L2; $L1: add.u32 %d, %d, 1; setp.lt.u32 %p, %d, %lane; @!%p bra $L3; "
        "$L2:bra $L1;\n$L3: // end",
        {"%d": 32}, declare=".reg .pred %p;",
    )  # fmt: skip
    assert found["%d"] == [max(i, 1) for i in range(32)]


def test_locations_give_source_lines():
    text = module(
        """
        .reg .b32 %r<3>;
        .loc 1 17 5
        mov.b32 %r0, 1; mov.b32
            %r1, 2;
            .loc 2 99 0, function_name $L_info, inlined_at 1 17 5
        mov.b32 %r2, 3; .loc 1 20 1
        mov.b32 %r2, 4;
        .loc 1 0 0
        ret;
        """
    )
    text = '.file 1 "/home/user//gemm.py"\n.file 2 "lib.py"\n' + text
    instructions = parse(text)["kernel"].instructions
    assert [ins.source for ins in instructions] == [
        ("/home/user//gemm.py", 17), ("/home/user//gemm.py", 17), ("lib.py", 99),
        ("/home/user//gemm.py", 20), ("/home/user//gemm.py", 20),
    ]  # fmt: skip
    lines = text.split("\n")
    for ins in instructions:
        assert lines[ins.line - 1].strip().startswith((ins.opcode, "mov.b32 %r0"))
    assert instructions[2].place() == f"lib.py:99 (PTX line {instructions[2].line}: mov.b32 %r2, 3)"


def test_comments_and_nul_bytes_change_nothing_but_keep_line_numbers():
    plain = module(".reg .b32 %r<2>;\n\n\nmov.b32 %r0, 1;\nmov.b32 %r1, 2;\nret;")
    noisy = module(
        ".reg .b32 %r<2>; // .reg .b32 %x; "
        "{ \n/* bra NOWHERE;\n*/\nmov.b32 /* one */ %r0, 1;\0\nmov.b32 %r1, 2;\0\nret;"
    )
    first, second = parse(plain)["kernel"], parse("\0" + noisy + "\0\0")["kernel"]
    assert [(i.text, i.line) for i in first.instructions] == [(i.text, i.line) for i in second.instructions]


def test_operands():
    assert only("add.s32 %r1, %r2, -5;").operands == (Register("%r1"), Register("%r2"), Immediate(-5))
    assert only("ld.global.v2.b32 {%r1, _}, [%rd1+-8];").operands == (
        Vector((Register("%r1"), Sink())), Address(Register("%rd1"), -8),
    )  # fmt: skip
    assert only("ld.shared.b32 %r1, [%r2 - 0x10];").operands[1] == Address(Register("%r2"), -16)
    assert only("elect.sync _|%p1, -1;").operands == (Pair(Sink(), Register("%p1")), Immediate(-1))
    assert only("@!%p2 and.pred %p1, %p2, !%p3;").operands[2] == Register("%p3", negated=True)
    assert only("@!%p2 and.pred %p1, %p2, !%p3;").guard == Register("%p2", negated=True)
    tensor = only("cp.async.bulk.tensor.2d.shared::cluster.global [%r1], [%rd1, {%r2, 0}], [%r3], %rd2;")
    assert tensor.operands[1] == Address(Register("%rd1"), 0, (Register("%r2"), Immediate(0)))
    assert tensor.modifiers == ("async", "bulk", "tensor", "2d", "shared::cluster", "global")
    assert only("mov.f32 %r1, 0fBF800000;").operands[1] == Immediate(0xBF800000)
    assert only("mov.b64 %rd1, 0d3FF0000000000000;").operands[1] == Immediate(0x3FF0000000000000)
    assert only("mov.b32 %r1, 0x1FU;").operands[1] == Immediate(31)
    kernel = kernel_of(
        ".reg .b32 %r1; ld.shared.b32 %r1, [smem+8];", shared=".extern .shared .align 16 .b8 smem[];"
    )
    assert kernel.instructions[0].operands[1] == Address(Symbol("smem"), 8)


def test_declarations():
    kernel = kernel_of(".reg .pred %p<3>, q; .reg .b16 h; .reg .f32 %f<2>; .reg .b128 w; .reg .b8 c; ret;")
    assert kernel.register_bits == {
        "%p0": 1,
        "%p1": 1,
        "%p2": 1,
        "q": 1,
        "h": 16,
        "%f0": 32,
        "%f1": 32,
        "w": 128,
        "c": 8,
    }


def test_parameters_are_laid_out_by_their_alignment():
    text = """.version 8.8\n.target sm_100a\n.visible .entry k(
      .param .b8 flag, .param .align 64 .b8 map[128], .param .u16 h,
      .param .u64 .ptr .global .align 16 pointer, .param .align 4 .b8 pad[3], .param .f32 f )
    .maxntid 128 { ret; }"""
    parameters = parse(text)["k"].parameters
    assert [(p.name, p.offset, p.size) for p in parameters] == [
        ("flag", 0, 1), ("map", 64, 128), ("h", 192, 2), ("pointer", 200, 8), ("pad", 208, 3), ("f", 212, 4),
    ]  # fmt: skip


def test_shared_variables_static_and_dynamic():
    out = np.zeros(4, np.uint32)
    run_kernel(
        """.shared .align 4 .b8 own[12]; .reg .b32 %a, %b; .reg .b64 %o;
        ld.param.u64 %o, [p0]; mov.u32 %a, own; mov.b32 %b, smem; st.global.v2.b32 [%o], {%a, %b};
        mov.u32 %a, other; mov.u32 %b, %dynamic_smem_size; st.global.v2.b32 [%o+8], {%a, %b};""",
        [out],
        shared=".shared .align 8 .b64 other[3];\n.extern .shared .align 1024 .b8 smem[];", shared_bytes=64,
    )  # fmt: skip
    own, dynamic, other, _ = out.tolist()
    assert own % 4 == 0 and other % 8 == 0 and dynamic % 1024 == 0
    assert min(own, other) >= 0x400 and abs(own - other) >= 12 and dynamic >= max(own + 12, other + 24)


def test_several_kernels_in_a_module():
    text = module("ret;") + module(".reg .b32 %r1; mov.b32 %r1, 1; ret;").split(".address_size 64")[
        1
    ].replace("kernel", "second")
    kernels = parse(text)
    assert list(kernels) == ["kernel", "second"]
    assert len(kernels["second"].instructions) == 2


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("\n\nfrobnicate.b32 %r1, %r2;", "frobnicate.b32"),
        ("\n\nadd.carry.s32 %r1, %r2, %r3;", ".carry"),
        ("\n\nld.global.wonderful.b32 %r1, [%rd1];", ".wonderful"),
        ("\n\nmov.b32 %r1, %nosuch;", "%nosuch"),
        ("\n\nmov.b32 %r1, nowhere;", "nowhere"),
        ("\n\nbra NOWHERE;", "NOWHERE"),
        ("\n\ncall.uni (%r1), helper, (%r2);", "call"),
        ("\n\n.const .b8 table[16];", ".const"),
        ("\n\ntcgen05.mma.cta_group::1.kind::mxf4nvf4.block_scale.scale_vec::4X.magic [%r1], %rd1, %rd2, "
         "%r2, [%r3], [%r4], %p1;",
         ".magic"),
        ("\n\nadd.s32 %r1, %r2, ?;", "?"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_refused_at_decode_with_its_name_and_line(body, says):
    text = module(".reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .pred %p<4>;" + body)
    line = next(n for n, row in enumerate(text.split("\n"), 1) if says.strip(".") in row)
    with pytest.raises(Unsupported) as caught:
        decode_kernel(parse(text)["kernel"])
    assert says in str(caught.value)
    assert f"PTX line {line}" in str(caught.value)


@pytest.mark.parametrize("text", ["", "hello", ".version 8.8\n.target sm_100a\n"])
def test_no_kernel(text):
    with pytest.raises(Unsupported, match=r"no \.entry"):
        parse(text)


def test_unfinished_kernel():
    with pytest.raises(Fault, match="ends inside a function"):
        parse(module("ret;").rstrip().rstrip("}"))
