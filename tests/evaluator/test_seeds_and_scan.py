"""Unpredictable, replayable seeds; a text scan that warns; cases nobody announced."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st

import reference
from evaluator import held_out, problem, session
from evaluator.cases import parse_line
from evaluator.processes import ROOT
from evaluator.reasons import MEANING, Reason
from evaluator.scan import scan
from evaluator.seeds import Seeds
from evaluator.verdict import Status, Verdict, unfair

WORDS = st.lists(st.text(max_size=8) | st.integers(), max_size=4)


@given(WORDS, WORDS)
def test_no_two_purposes_share_a_seed(one: list[object], other: list[object]) -> None:
    seeds = Seeds(b"key")
    assert 0 <= seeds.draw(*one) < 2**62
    if [str(x) for x in one] != [str(x) for x in other] and not any("\0" in str(x) for x in (*one, *other)):
        assert seeds.draw("p", *one) != seeds.draw("p", *other)


def test_a_published_key_draws_the_same_seeds_again() -> None:
    first = Seeds()
    again = Seeds.replay(first.publish())
    assert [first.draw("x", i) for i in range(5)] == [again.draw("x", i) for i in range(5)]
    assert Seeds().draw("x") != Seeds().draw("x")
    assert again.replayed and not first.replayed
    assert Seeds.replay("any words").draw("x") == Seeds.replay("any words").draw("x")


def test_held_out_cases_are_valid_and_replayable() -> None:
    cases = held_out.draw(Seeds(b"1"), "cpu", 6)
    assert cases == held_out.draw(Seeds(b"1"), "cpu", 6) != held_out.draw(Seeds(b"2"), "cpu", 6)
    assert {case.distribution for case in cases} == {"official", "full", "nan_padding"}
    for case in cases:
        assert all(n % 128 == 0 for n in case.n) and all(k % 256 == 0 for k in case.k)
        assert parse_line(case.spec).m == case.m
    reference.generate_input(**cases[1].arguments(), device="cpu")


def test_one_cheap_case_is_probed_on_the_simulator_and_every_case_elsewhere() -> None:
    cases = tuple(parse_line(f"m: [{m}]; n: [128]; k: [256]; g: 1; seed: 1", number=m) for m in (1, 2, 3, 4))
    simulated = session.probe_counts(cases, "sim", Seeds(b"1"))
    assert sorted(simulated.values()) == [0, 0, 0, 2]
    assert all(count >= 2 for count in session.probe_counts(cases, "cuda", Seeds(b"1")).values())


def test_the_scan_points_at_lines_and_spares_the_kernel() -> None:
    text = b"import torch\nx = sys._getframe(1)\ntorch.cuda.Event.elapsed_time = fake\n"
    remarks = scan(text)
    assert [remark.line for remark in remarks] == [2, 3]
    assert "walks the call stack" in str(remarks[0])
    assert len(scan(b"exec('x')\n" * 100)) == 20
    assert scan((ROOT / "submission.py").read_bytes()) == []


def test_every_reason_has_a_meaning_and_every_failure_a_reason() -> None:
    assert set(MEANING) == set(Reason)
    for status in Status:
        if status not in (Status.PASS, Status.UNFAIR):
            assert Verdict(status).reason is not None
    assert unfair(Reason.DEFERRED, "x").label == "UNFAIR (E_DEFERRED)"
    assert Verdict(Status.RAISED, "x", because=Reason.RAISED).label == "RAISED"


def test_documented_reasons_are_those_that_exist() -> None:
    page = Path(ROOT / "docs" / "integrity.md")
    if page.exists():
        text = page.read_text()
        assert [reason for reason in Reason if f"`{reason}`" not in text] == []


def test_an_altered_input_differs_in_one_byte_of_one_a() -> None:
    case = parse_line("m: [40, 72]; n: [16, 8]; k: [64, 128]; g: 2; seed: 5")
    hit = set()
    for seed in range(12):
        before, after = (problem.generate(case, "cpu") for _ in range(2))
        problem.alter(after, random.Random(seed))
        found = [
            (group, name, int((old.view(torch.uint8) != new.view(torch.uint8)).sum()))
            for group, (olds, news) in enumerate(zip(before[0], after[0], strict=True))
            for name, old, new in zip("ab", olds[:2], news[:2], strict=True)
        ]
        changed = [entry for entry in found if entry[2]]
        assert len(changed) == 1 and changed[0][1:] == ("a", 1)
        hit.add(changed[0][0])
    assert hit == {0, 1}
