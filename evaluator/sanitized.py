"""What a case came to in a sanitized run, for the reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from b200sim.sanitizer import Report


@dataclass
class Outcome:
    """What a case came to under each order: "right", or what was wrong; and what was found."""

    report: Report = field(default_factory=Report)
    values: dict[str, str] = field(default_factory=dict)
    trace: str = ""  # where it went, or why it did not

    def as_dict(self) -> dict[str, Any]:
        return {"values": self.values, **self.report.as_dict()}

    def line(self) -> str:
        return self.report.summary()
