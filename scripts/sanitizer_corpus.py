"""Run the sanitizer's corpus of defects and write the tables of docs/sanitizer.md.

python scripts/sanitizer_corpus.py            all defects, about two minutes
python scripts/sanitizer_corpus.py --dry      print the table, change nothing
python scripts/sanitizer_corpus.py --tables   write the tables of rules and codes only, without a run
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from b200sim.machine.schedule import ProgramOrder, exploration, schedule  # noqa: E402
from b200sim.ptx.sections import TITLES, VERSION, cited  # noqa: E402
from b200sim.sanitizer.codes import HAZARDS  # noqa: E402
from b200sim.sanitizer.rules import RULES  # noqa: E402
from tests.sanitizer.corpus_global import GLOBAL_DEFECTS  # noqa: E402
from tests.sanitizer.corpus_kernel import KERNEL_DEFECTS  # noqa: E402
from tests.sanitizer.corpus_ptx import PIPELINE_DEFECTS  # noqa: E402
from tests.sanitizer.corpus_small import SMALL_DEFECTS  # noqa: E402
from tests.sanitizer.run import Make, Outcome, mutated, run_kernel, run_ptx  # noqa: E402

BEGIN, END = "<!-- table of defects: written by scripts/sanitizer_corpus.py -->", "<!-- end of table -->"
CODES, CODES_END = "<!-- codes: written by scripts/sanitizer_corpus.py -->", "<!-- end of codes -->"
ORDER, ORDER_END = "<!-- rules: written by scripts/sanitizer_corpus.py -->", "<!-- end of rules -->"
PAGE = ROOT / "docs" / "sanitizer.md"
SCHEDULES = 24


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dry", action="store_true", help="print the table only")
    parser.add_argument("--tables", action="store_true", help="only the tables of rules and codes")
    options = parser.parse_args(arguments)
    if options.tables:
        PAGE.write_text(with_tables(PAGE.read_text()))
        return 0
    runs: list[tuple[str, str, str, Callable[[Make], Outcome]]] = []
    for kernel in KERNEL_DEFECTS:
        source = mutated(kernel)
        runs.append(("GEMM", kernel.name, kernel.code, partial(run_kernel, source)))
    for kind, defects in (("pipeline", PIPELINE_DEFECTS), ("small", SMALL_DEFECTS), ("CTAs", GLOBAL_DEFECTS)):
        for defect in defects:
            name = defect.name.removeprefix("pipeline: ")
            runs.append((kind, name, defect.code, partial(run_ptx, defect)))
    rows, counts = [], Counter[str]()
    for kind, name, code, run in runs:
        rows.append(_row(kind, name, code, run, counts))
        print(rows[-1], flush=True)
    table = "\n".join([*_header(len(rows), counts), *rows])
    if not options.dry:
        PAGE.write_text(with_tables(_between(PAGE.read_text(), BEGIN, END, table)))
    return int(counts["missed"] > 0)


def _between(text: str, begin: str, end: str, new: str) -> str:
    before, rest = text.split(begin)
    return f"{before}{begin}\n\n{new}\n\n{end}{rest.split(end)[1]}"


def with_tables(page: str) -> str:
    """The page with its tables of rules and codes as the code has them."""
    return _between(_between(page, ORDER, ORDER_END, _rules()), CODES, CODES_END, _codes())


def _rules() -> str:
    lines = [f"| rule | PTX ISA {VERSION} | backed by | shown by |", "|---|---|---|---|"]
    for rule in RULES:
        sections = ", ".join(f"{number} {TITLES[number]}" for number in cited(rule.section))
        shown = ", ".join(name if name.startswith("'") else f"`{name}`" for name in rule.shown)
        lines.append(f"| {rule.rule} | {sections} | {rule.basis} | {shown} |")
    return "\n".join(lines)


def _codes() -> str:
    lines = [f"| code | severity | PTX ISA {VERSION} | backed by | meaning |", "|---|---|---|---|---|"]
    lines += [
        f"| `{h.code}` | {h.severity} | {', '.join(cited(h.section)) or 'none'} | {h.basis} | {h.meaning} |"
        for h in HAZARDS.values()
    ]
    return "\n".join(lines)


def _header(total: int, counts: Counter[str]) -> list[str]:
    found, default, right = total - counts["missed"], counts["default"], counts["right"]
    return [
        f"{total} defects: {found} found under their code, {default} of them under the default schedule. "
        f"The values alone (or a hang) give away {total - right}; in {right} the run ends with right values.",
        "",
        "| kernel | defect | values alone | sanitizer | code |",
        "|---|---|---|---|---|",
    ]


def _row(kind: str, name: str, code: str, run: Callable[[Make], Outcome], counts: Counter[str]) -> str:
    outcome = run(ProgramOrder)
    values, found = outcome.values, code in outcome.findings.codes()
    how = "yes"
    if found:
        counts["default"] += 1
    else:
        how = "MISSED"
        for order in exploration(SCHEDULES, 0)[1:]:
            if code in run(lambda order=order: schedule(order)).findings.codes():  # type: ignore[misc]
                how = f"under `{order}`"
                break
        else:
            counts["missed"] += 1
    counts["right"] += values == "right"
    told = {"right": "no", "wrong": "yes: wrong"}.get(values, f"stopped: {values}")
    note = " (note)" if HAZARDS[code].severity == "note" else ""
    return f"| {kind} | {name} | {told} | {how} | `{code}`{note} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
