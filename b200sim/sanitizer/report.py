"""Findings for people (text with a small timeline of both sides) and for programs (JSON)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from b200sim.sanitizer.codes import ERROR
from b200sim.sanitizer.findings import Finding, Findings


@dataclass
class Explored:
    """One schedule that was run: what came of it, and how many choices it made."""

    schedule: str
    outcome: str = "ran"  # or the code of the fault that ended it
    launches: int = 0
    turns: int = 0  # times the schedule let a warp run
    operations: int = 0  # asynchronous operations that happened
    signature: int = 0  # equal for equal orders of events

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass
class Report:
    """What a sanitized run found and how much of the possible orders it saw."""

    findings: Findings = field(default_factory=Findings)
    explored: list[Explored] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """No error. Notes do not count."""
        return not self.findings.errors

    def distinct_orders(self) -> int:
        return len({(entry.signature, entry.turns, entry.operations) for entry in self.explored})

    def as_dict(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "errors": len(self.findings.errors),
            "notes": len(self.findings.notes),
            "findings": [finding.as_dict() for finding in self.findings],
            "schedules": [entry.as_dict() for entry in self.explored],
            "distinct_orders": self.distinct_orders(),
        }

    def merge(self, other: Report) -> None:
        self.findings.merge(other.findings)
        self.explored += other.explored

    def summary(self) -> str:
        errors, notes = len(self.findings.errors), len(self.findings.notes)
        events = sum(entry.turns + entry.operations for entry in self.explored)
        return (
            f"{_count(errors, 'error')}, {_count(notes, 'note')}; {_count(len(self.explored), 'schedule')}, "
            f"{self.distinct_orders()} distinct orders of {events} events"
        )

    def text(self, notes: bool = True) -> str:
        chosen = list(self.findings) if notes else self.findings.errors
        return "\n\n".join([*(describe(finding) for finding in chosen), f"sanitizer: {self.summary()}"])


def describe(finding: Finding) -> str:
    """A finding with its timeline, a few lines."""
    often = f", {finding.count} times" if finding.count > 1 else ""
    many = f" in {len(finding.ctas)} CTAs" if len(finding.ctas) > 1 else ""
    title = "ERROR" if finding.severity == ERROR else "note"
    lines = [f"{title} {finding.code}{often}{many}: {finding.message}"]
    if finding.edge:
        lines.append(f"  missing: {finding.edge}")
    lines += _timeline(finding)
    if finding.detail:
        lines += [f"  {line}" for line in finding.detail.splitlines()]
    under = f"; first under schedule {finding.schedule}" if finding.schedule else ""
    lines.append(f"  rule: {finding.hazard.meaning} ({finding.hazard.rule}){under}")
    return "\n".join(lines)


def _timeline(finding: Finding) -> list[str]:
    """Both sides in the order of this run; `first` is what the other should have waited for."""
    sides = [side.as_dict() for side in (finding.first, finding.second) if side is not None]
    shown = sorted(sides, key=lambda side: side["time"])
    lines: list[str] = []
    for number, side in enumerate(shown):
        if number:
            lines.append(f"            |  {finding.link}")
        lines += [f"  {side['time']:>8}  {_who(side)}", *[f"            |  {text}" for text in _what(side)]]
    return lines


def _who(side: Mapping[str, Any]) -> str:
    source = f"  [{side['source']}]" if side["source"] else ""
    return f"{side['by']}: {side['what']}{source}"


def _what(side: Mapping[str, Any]) -> list[str]:
    place = [side["where"]] if side["where"] else []
    return [*place, f"PTX line {side['ptx_line']}: {side['ptx'][:90]}"]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
