"""Every defect of the corpus is found under its own code; every code has a defect."""

import pytest

from b200sim.sanitizer.codes import FAULTS, HAZARDS
from tests.sanitizer.corpus_global import GLOBAL_DEFECTS
from tests.sanitizer.corpus_kernel import KERNEL_DEFECTS
from tests.sanitizer.corpus_ptx import PIPELINE_DEFECTS, PtxDefect
from tests.sanitizer.corpus_small import SMALL_DEFECTS
from tests.sanitizer.run import VICTIM, mutated, run_kernel, run_ptx

PTX_DEFECTS = [*PIPELINE_DEFECTS, *SMALL_DEFECTS, *GLOBAL_DEFECTS]


def explain(outcome) -> str:
    return "\n".join(f"{f.code}: {f.message}" for f in outcome.findings) or "nothing found"


@pytest.mark.parametrize("defect", PTX_DEFECTS, ids=lambda d: d.name)
def test_ptx_defect(defect: PtxDefect) -> None:
    outcome = run_ptx(defect)
    assert defect.code in outcome.findings.codes(), explain(outcome)


@pytest.mark.heavy
@pytest.mark.parametrize("defect", KERNEL_DEFECTS[::4], ids=lambda d: d.name)
def test_kernel_defect(defect) -> None:
    """A quarter of them; scripts/sanitizer_corpus.py runs all."""
    outcome = run_kernel(mutated(defect))
    assert defect.code in outcome.findings.codes() or defect.by_schedules, explain(outcome)


@pytest.mark.heavy
def test_the_kernel_itself_is_clean() -> None:
    outcome = run_kernel(VICTIM.read_text())
    assert outcome.values == "right"
    assert not len(outcome.findings), explain(outcome)


def test_every_code_has_a_defect() -> None:
    covered = {defect.code for defect in (*PTX_DEFECTS, *KERNEL_DEFECTS)}
    assert set(HAZARDS) - covered == set()


def test_the_corpus_is_large_enough() -> None:
    assert len(PTX_DEFECTS) + len(KERNEL_DEFECTS) >= 40


def test_faults_map_to_known_codes() -> None:
    assert set(FAULTS.values()) <= set(HAZARDS)
