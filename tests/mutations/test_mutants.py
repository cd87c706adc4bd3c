"""Every deliberate defect of the kernel is found, with words that point at it."""

from __future__ import annotations

import re

import pytest

from tests.mutations.mutants import MUTANTS, Mutant
from tests.mutations.run import outcome

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize("case", ["TAIL", "MANY"])
def test_the_kernel_itself_passes(case: str) -> None:
    assert outcome(Mutant("unchanged", "CTAS = 2  #", "CTAS = 2  #", "", case)) == "passed"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_found_and_named(mutant: Mutant) -> None:
    said = outcome(mutant)
    assert said != "passed"
    assert re.search(mutant.says, said, re.S), said
