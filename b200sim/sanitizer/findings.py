"""What was found: one entry per cause, however often it happened."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from b200sim.sanitizer.codes import ERROR, HAZARDS, Hazard
from b200sim.sanitizer.records import Access, Told


@dataclass
class Finding:
    """A hazard. `first` came before `second` in this run; the order in another run is open.

    `message` says what is wrong in one sentence; `edge` what is missing or what to do; `detail` is the long
    form (a deadlock's cycle); `link` what the two sides have to do with each other. `count` is how often,
    `schedule` under which schedule it was found first.
    """

    code: str
    message: str
    first: Access | Told | None = None
    second: Access | Told | None = None
    edge: str = ""
    detail: str = ""
    link: str = "no order"  # what stands between the two sides
    kernel: str = ""
    launch: int = 0
    schedule: str = ""
    count: int = 1
    ctas: set[str] = field(default_factory=set)

    @property
    def hazard(self) -> Hazard:
        return HAZARDS[self.code]

    @property
    def severity(self) -> str:
        return self.hazard.severity

    def key(self) -> Hashable:
        """Findings with equal keys have one cause: the same instructions in the same roles."""
        sides = tuple(side.cause() if side else None for side in (self.first, self.second))
        if any(sides):
            return (self.code, sides)
        return (self.code, _without_numbers(self.message))

    def as_dict(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "missing": self.edge,
            "between": self.link,
            "detail": self.detail,
            "rule": self.hazard.rule,
            "kernel": self.kernel,
            "launch": self.launch,
            "schedule": self.schedule,
            "count": self.count,
            "ctas": sorted(self.ctas),
            "first": self.first.as_dict() if self.first else None,
            "second": self.second.as_dict() if self.second else None,
        }

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> Finding:
        """A finding that another process reported by `as_dict`. Raises `KeyError` for an unknown code."""
        return Finding(
            HAZARDS[record["code"]].code,
            record["message"],
            first=Told(record["first"]) if record["first"] else None,
            second=Told(record["second"]) if record["second"] else None,
            edge=record["missing"],
            detail=record["detail"],
            link=record["between"],
            kernel=record["kernel"],
            launch=record["launch"],
            schedule=record["schedule"],
            count=record["count"],
            ctas=set(record["ctas"]),
        )


def _without_numbers(text: str) -> str:
    """CTAs, warps, addresses and counts differ between instances of one cause."""
    return re.sub(r"0x[0-9a-f]+|\d+", "#", text.split(" at CTA")[0])


class Findings:
    """Findings by cause, worst first."""

    def __init__(self) -> None:
        self._by_key: dict[Hashable, Finding] = {}

    def add(self, finding: Finding) -> None:
        known = self._by_key.get(finding.key())
        if known is None:
            self._by_key[finding.key()] = finding
            return
        known.count += finding.count
        known.ctas |= finding.ctas

    def merge(self, other: Findings) -> None:
        for finding in other._by_key.values():
            self.add(replace(finding, ctas=set(finding.ctas)))  # counts of `other` stay its own

    def __iter__(self) -> Iterator[Finding]:
        return iter(
            sorted(self._by_key.values(), key=lambda f: (f.severity != ERROR, f.hazard.row, -f.count))
        )

    def __len__(self) -> int:
        return len(self._by_key)

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self if finding.severity == ERROR]

    @property
    def notes(self) -> list[Finding]:
        return [finding for finding in self if finding.severity != ERROR]

    def codes(self) -> set[str]:
        return {finding.code for finding in self}
