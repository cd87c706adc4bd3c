"""What a submission printed during a case (`cute.printf`, `print`), cut for the report."""

from __future__ import annotations

from evaluator.results import RunResult

KEPT_LINES = 40  # per case: the first and the last
KEPT_COLUMNS = 200


def shown(run: RunResult) -> str:
    """Every text once, under the cases that printed it. The margin tells its lines from the report's own."""
    alike: dict[str, list[str]] = {}
    for result in run.results:
        if result.printed.strip():
            alike.setdefault(result.printed, []).append(result.case.name)
    parts = []
    for text, names in alike.items():
        lines = _shortened([line for line in text.splitlines() if line.strip()])
        parts.append("\n".join([f"{', '.join(names)} printed:", *(f"    | {line}" for line in lines)]))
    return "\n\n".join(parts)


def _shortened(lines: list[str]) -> list[str]:
    if len(lines) > KEPT_LINES:
        half = KEPT_LINES // 2
        left_out = f"... {len(lines) - 2 * half} lines left out ..."
        lines = [*lines[:half], left_out, *lines[-half:]]
    return [line if len(line) <= KEPT_COLUMNS else line[:KEPT_COLUMNS] + "..." for line in lines]
