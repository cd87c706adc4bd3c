"""Run the sanitizer's corpus of defects and write its table into docs/sanitizer.md.

python scripts/sanitizer_corpus.py            all defects, about two minutes
python scripts/sanitizer_corpus.py --dry      print the table, change nothing
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from b200sim.machine.schedule import ProgramOrder, exploration, schedule  # noqa: E402
from b200sim.sanitizer.codes import HAZARDS  # noqa: E402
from tests.sanitizer.corpus_kernel import KERNEL_DEFECTS  # noqa: E402
from tests.sanitizer.corpus_ptx import PIPELINE_DEFECTS  # noqa: E402
from tests.sanitizer.corpus_small import SMALL_DEFECTS  # noqa: E402
from tests.sanitizer.run import Make, Outcome, mutated, run_kernel, run_ptx  # noqa: E402

BEGIN, END = "<!-- table of defects: written by scripts/sanitizer_corpus.py -->", "<!-- end of table -->"
SCHEDULES = 24


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dry", action="store_true", help="print the table only")
    dry = parser.parse_args(arguments).dry
    runs: list[tuple[str, str, str, Callable[[Make], Outcome]]] = []
    for kernel in KERNEL_DEFECTS:
        source = mutated(kernel)
        runs.append(("GEMM", kernel.name, kernel.code, lambda make, source=source: run_kernel(source, make)))  # type: ignore[misc]
    for defect in (*PIPELINE_DEFECTS, *SMALL_DEFECTS):
        kind = "pipeline" if defect in PIPELINE_DEFECTS else "small"
        runs.append(
            (
                kind,
                defect.name.removeprefix("pipeline: "),
                defect.code,
                lambda make, d=defect: run_ptx(d, make),
            )
        )  # type: ignore[misc]
    rows, counts = [], Counter[str]()
    for kind, name, code, run in runs:
        rows.append(_row(kind, name, code, run, counts))
        print(rows[-1], flush=True)
    table = "\n".join([*_header(len(rows), counts), *rows])
    if not dry:
        page = ROOT / "docs" / "sanitizer.md"
        text = page.read_text()
        before, rest = text.split(BEGIN)
        page.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.split(END)[1]}")
    return int(counts["missed"] > 0)


def _header(total: int, counts: Counter[str]) -> list[str]:
    return [
        f"{total} defects: {total - counts['missed']} found under their code, {counts['default']} of them under the "
        f"default schedule. The values alone (or a hang) give away {total - counts['right']}; in {counts['right']} "
        "the run ends with right values.",
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
