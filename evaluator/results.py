"""What is known about each case after the run; everything the reports show."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from evaluator.cases import Case
from evaluator.defences import Entry
from evaluator.messages import Counter
from evaluator.timing import Stats
from evaluator.verdict import Status, Verdict

if TYPE_CHECKING:
    from evaluator.sanitized import Outcome

#: Counters that add up over launches. Everything else is shown per launch.
_SUMMED = (
    "warp_instructions",
    "mma_instructions",
    "mma_flops",
    "tma_load_bytes",
    "tma_store_bytes",
    "global_load_bytes",
    "global_store_bytes",
)


@dataclass
class CaseResult:
    """One case: verdict, seconds per phase on the judge's clock, counters, statistics of measured times."""

    case: Case
    index: int
    verdict: Verdict = field(default_factory=lambda: Verdict(Status.NOT_RUN))
    elements: int = 0
    inexact: int | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    launches: tuple[dict[str, Counter], ...] = ()
    stats: Stats | None = None
    flush: str = ""
    fresh_worker: bool = False
    probed: int = 0  # inputs that the case was probed with
    held_out: bool = False  # a case that nobody announced
    printed: str = ""  # by the submission, while the call that was checked ran
    signals: list[str] = field(default_factory=list)  # "W_...: text", for a reader to look at
    lanes: dict[str, Any] = field(default_factory=dict)  # measurements beside the official one
    sanitized: Outcome | None = None  # of a sanitized run

    @property
    def bit_exact(self) -> bool | None:
        return None if self.inexact is None else self.inexact == 0

    @property
    def time_us(self) -> float | None:
        """Measured mean time of one call, on a GPU only."""
        return self.stats.mean / 1e3 if self.stats else None

    def total(self, counter: str) -> float | None:
        """A counter summed over the case's launches; None if no launch has it."""
        values = [entry[counter] for entry in self.launches if isinstance(entry.get(counter), (int, float))]
        return sum(values) if values else None  # type: ignore[arg-type]

    def counters(self) -> dict[str, float]:
        found = {name: self.total(name) for name in _SUMMED}
        return {"launches": len(self.launches)} | {k: v for k, v in found.items() if v is not None}


@dataclass
class RunResult:
    """A whole run: its cases in their given order, and what someone else needs to compare it."""

    mode: str
    device: str
    results: list[CaseResult]
    facts: dict[str, Any]
    versions: dict[str, str] = field(default_factory=dict)
    wall_seconds: float = 0.0
    interrupted: bool = False
    defences: list[Entry] = field(default_factory=list)
    seed_key: str = ""  # published when the run is over
    remarks: list[str] = field(default_factory=list)  # of the text scan
    profiles: list[dict[str, Any]] = field(default_factory=list)  # per case, of a profile run
    notes: list[str] = field(default_factory=list)  # where files went, and why one did not come about
    sanitizer: dict[str, Any] | None = None  # findings of all cases, of a sanitized run

    @property
    def passed(self) -> bool:
        return bool(self.results) and all(r.verdict.passed for r in self.results)

    def count_passed(self) -> int:
        return sum(r.verdict.passed for r in self.results)
