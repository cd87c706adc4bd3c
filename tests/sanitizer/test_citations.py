"""Citations of the PTX ISA: sections that exist, one source for the tables, rules that are shown."""

import importlib.util
import re
from itertools import filterfalse
from pathlib import Path
from types import ModuleType

import pytest

from b200sim.ptx.sections import SECTIONS, TITLES, cite, cited, exists
from b200sim.sanitizer.codes import ERROR, HAZARDS, NOTE, PRACTICE
from b200sim.sanitizer.rules import RULES
from tests.sanitizer.corpus_global import GLOBAL_DEFECTS
from tests.sanitizer.corpus_kernel import KERNEL_DEFECTS
from tests.sanitizer.corpus_ptx import PIPELINE_DEFECTS
from tests.sanitizer.corpus_small import SMALL_DEFECTS

ROOT = Path(__file__).parents[2]
ELSEWHERE = {"sections.py", "test_citations.py"}  # these talk about numbers
SOURCES = [
    path
    for folder in ("b200sim", "tests/b200sim", "tests/sanitizer")
    for path in sorted(ROOT.glob(f"{folder}/**/*.py"))
    if path.name not in ELSEWHERE
]
NUMBER = r"\.?\d+(?:\.\d+)*"
LIST = rf"{NUMBER}(?:(?:,? and|,| to)\s+{NUMBER})*"
CITATION = re.compile(rf"PTX ISA\s+(?:9\.1,\s+)?({LIST})")
DEEP = re.compile(r"(?<![\w.])(?:[5-9]|1[01])(?:\.\d+){2,5}(?![\w.]*\w)")  # three parts or more: no float


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sanitizer_corpus", ROOT / "scripts/sanitizer_corpus.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_sections_exist() -> None:
    assert all(exists(number) for number in (*SECTIONS, *TITLES))
    assert exists("9.7.13.15.16") and exists("10.33")
    assert not any(map(exists, ("9.7.13.15.18", "8.12", "9.7.20", "15", "9.7.16.6.5.1", "9.0")))
    assert all(re.fullmatch(r"\d{1,2}(\.\d{1,2}){0,6}", number) for number in TITLES)
    ordered = sorted(TITLES, key=lambda number: [int(part) for part in number.split(".")])
    assert list(TITLES) == ordered and all(TITLES.values())


def test_lists_of_sections() -> None:
    assert cited("9.7.13.15.4, .16") == ["9.7.13.15.4", "9.7.13.15.16"]
    assert cited("8.6, 9.7.9.25.2") == ["8.6", "9.7.9.25.2"] and cited("") == []
    assert cite("8.6, 9.7.13.1") == "PTX ISA 9.1, 8.6 Proxies; 9.7.13.1 bar, barrier"


@pytest.mark.parametrize("where", [*HAZARDS.values(), *RULES], ids=lambda w: getattr(w, "code", None))
def test_codes_and_rules_cite_sections_of_the_manual(where) -> None:  # type: ignore[no-untyped-def]
    assert set(cited(where.section)) <= set(TITLES)
    assert where.section or "no rule of the text" in where.basis


def sections_in(path: Path) -> set[str]:
    text = path.read_text()
    listed = {number for match in CITATION.finditer(text) for number in cited(match[1])}
    return (listed | set(DEEP.findall(text))) - {"9.1"}


def test_comments_cite_sections_that_exist() -> None:
    unknown = {str(path.relative_to(ROOT)): set(filterfalse(exists, sections_in(path))) for path in SOURCES}
    assert {path: numbers for path, numbers in unknown.items() if numbers} == {}


def test_titles_are_of_what_reports_cite() -> None:
    assert set(TITLES) == {number for where in (*HAZARDS.values(), *RULES) for number in cited(where.section)}


def test_what_official_kernels_leave_out_is_no_error() -> None:
    assert {h.severity for h in HAZARDS.values()} == {ERROR, NOTE}
    assert all(h.severity == NOTE for h in HAZARDS.values() if h.basis == PRACTICE)


def test_the_page_has_the_tables_of_the_code() -> None:
    """If not: python scripts/sanitizer_corpus.py --tables."""
    page = (ROOT / "docs" / "sanitizer.md").read_text()
    assert script().with_tables(page) == page


def test_every_rule_is_shown_by_a_test_or_a_defect_that_exists() -> None:
    tests = "\n".join(path.read_text() for path in (ROOT / "tests" / "sanitizer").glob("test_*.py"))
    names = set(re.findall(r"^def (test_\w+)", tests, flags=re.M))
    names |= {
        f"'{d.name.removeprefix('pipeline: ')}'" for d in (*PIPELINE_DEFECTS, *SMALL_DEFECTS, *GLOBAL_DEFECTS)
    }
    names |= {f"'{defect.name}'" for defect in KERNEL_DEFECTS}
    for rule in RULES:
        assert rule.shown and set(rule.shown) <= names, rule.rule
