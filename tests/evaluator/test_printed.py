"""What a submission prints while it runs: captured completely, cut, and shown under its case."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from misbehaving import PASSING

from evaluator import fields, printed, record, session
from evaluator.cases import parse_line
from evaluator.options import Options
from evaluator.processes import ROOT, Tail
from evaluator.results import CaseResult, RunResult

CASES = tuple(parse_line(f"m: [{m}]; n: [8]; k: [64]; g: 1; seed: {m}") for m in (1, 2, 3))


def test_a_tail_gives_out_everything_once() -> None:
    source, sink = os.pipe()
    tail = Tail(os.fdopen(source, "rb"), keep=20)
    try:
        for number in range(50):
            os.write(sink, b"line %d\n" % number)
            assert tail.take() == f"line {number}\n"
        assert tail.take() == ""
        os.write(sink, b"a" * 30 + b"b" * 30)
        assert tail.take() == "a" * 20 + "\n... 20 bytes left out ...\n" + "b" * 20
        os.write(sink, b"more")
        assert tail.take() == "more"
    finally:
        os.close(sink)
        tail.finish(1.0)
    assert tail.take() == ""


def test_what_steers_a_terminal_is_taken_out() -> None:
    assert fields.printable("a\x1b[2Jb\tc\r\nd\x07é\x9b") == "a?[2Jb\tc\nd?é?"


def results(*texts: str) -> RunResult:
    cases = [
        CaseResult(case, i, printed=text) for i, (case, text) in enumerate(zip(CASES, texts, strict=False))
    ]
    return RunResult("test", "sim", cases, {})


def test_the_report_shows_each_text_once_and_not_all_of_a_long_one() -> None:
    text = printed.shown(results("x = 1\n\n", "", "x = 1\n\n"))
    names = f"{CASES[0].name}, {CASES[2].name}"
    assert text == f"{names} printed:\n    | x = 1"
    long = printed.shown(results("".join(f"{i}\n" for i in range(100)), "y" * 1000)).split("\n")
    assert long[1:21] == [f"    | {i}" for i in range(20)]
    assert long[21] == "    | ... 60 lines left out ..."
    assert long[22:42] == [f"    | {i}" for i in range(80, 100)]
    assert long[-1] == "    | " + "y" * printed.KEPT_COLUMNS + "..."


def test_a_case_shows_what_its_own_call_printed(tmp_path: Path) -> None:
    submission = tmp_path / "submission.py"
    submission.write_text(
        PASSING + "\nprint('imported')\n\ndef custom_kernel(data):\n"
        "    import os\n    m = data[0][0][0].shape[0]\n    print('rows', m)\n"
        "    os.write(1, b'forged: 3 of 3 passed\\x1b[1A\\n')\n    return right(data)\n"
    )
    options = Options(mode="test", device="cpu", cases=CASES, jobs=1, timeout=20.0, submission=submission)
    run = session.evaluate(options)
    assert run.passed
    for result, m in zip(run.results, (1, 2, 3), strict=True):
        assert result.printed == f"rows {m}\nforged: 3 of 3 passed?[1A\n"
    assert record.as_record(run, 0)["cases"][1]["printed"] == run.results[1].printed
    assert "    | rows 2\n    | forged: 3 of 3 passed?[1A" in printed.shown(run)


@pytest.mark.heavy
def test_cute_printf_in_the_mma_warp(tmp_path: Path) -> None:
    source = (ROOT / "submission.py").read_text()
    head = source.index("def issue_mmas(")
    body = source.index('"""\n', source.index('"""', head) + 3) + 4
    submission = tmp_path / "submission.py"
    submission.write_text(
        source[:body] + "    thread, _, _ = cute.arch.thread_idx()\n"
        "    if thread % 32 == 0:\n"
        '        cute.printf("MMA warp %d, tmem %x, {}", thread // 32, tmem, stages)\n' + source[body:]
    )
    run = session.evaluate(Options(mode="test", device="sim", only=("test 0",), submission=submission))
    assert run.passed
    lines = [line for line in run.results[0].printed.splitlines() if line.strip()]
    assert lines
    assert all(re.fullmatch(r"MMA warp \d+, tmem [0-9a-f]+, .*", line) for line in lines), lines
