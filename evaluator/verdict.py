"""What can be said about a case: status words, verdicts, process exit codes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from evaluator.reasons import Reason


class Status(str, Enum):
    """One word per case. Everything but `PASS` fails the run."""

    PASS = "PASS"
    IMPORT_ERROR = "IMPORT_ERROR"  # importing the submission raised
    NO_ENTRY = "NO_ENTRY"  # the submission has no callable custom_kernel
    RAISED = "RAISED"  # custom_kernel raised
    FAULT = "FAULT"  # the simulated GPU stopped the kernel: an illegal or unsupported act
    HAZARD = "HAZARD"  # the sanitizer found a race, a hazard or a hang; the values may be right
    EXITED = "EXITED"  # the submission ended its own process: sys.exit, os._exit
    TIMEOUT = "TIMEOUT"  # no answer within the limit
    CRASHED = "CRASHED"  # the process died of a signal: a segmentation fault, the out-of-memory killer
    BAD_OUTPUT = "BAD_OUTPUT"  # what came back has the wrong structure: count, type, dtype, shape, aliasing
    WRONG_RESULT = "WRONG_RESULT"  # the right structure, wrong values
    INPUT_CHANGED = "INPUT_CHANGED"  # an input differs after the call
    UNFAIR = "UNFAIR"  # not a plain call that computes its result: deferred, replayed, patched, ...
    PROTOCOL = "PROTOCOL"  # the worker's messages are malformed: the submission tampered with them
    NOT_RUN = "NOT_RUN"  # the run ended before this case's turn
    JUDGE_ERROR = "JUDGE_ERROR"  # a defect of the evaluator itself, never of the submission

    def __str__(self) -> str:
        return self.value


#: The reason that goes without saying. UNFAIR has none: it must name one.
_PLAIN: dict[Status, Reason] = {
    Status.IMPORT_ERROR: Reason.IMPORT,
    Status.NO_ENTRY: Reason.NO_ENTRY,
    Status.RAISED: Reason.RAISED,
    Status.FAULT: Reason.FAULT,
    Status.HAZARD: Reason.HAZARD,
    Status.EXITED: Reason.EXIT,
    Status.TIMEOUT: Reason.TIMEOUT,
    Status.CRASHED: Reason.CRASH,
    Status.BAD_OUTPUT: Reason.LAYOUT,
    Status.WRONG_RESULT: Reason.WRONG_RESULT,
    Status.INPUT_CHANGED: Reason.INPUT_CHANGED,
    Status.PROTOCOL: Reason.PROTOCOL,
    Status.NOT_RUN: Reason.NOT_RUN,
    Status.JUDGE_ERROR: Reason.JUDGE,
}


class ExitCode(IntEnum):
    """Exit codes of `eval.py`, as the official runner reads them."""

    OK = 0
    USAGE = 2
    NO_DEVICE = 110
    NO_FD = 111
    CHECK_FAILED = 112
    BAD_CASES = 113
    INTERRUPTED = 130


@dataclass(frozen=True)
class Verdict:
    """The outcome of one case.

    `message` is one line for the table; `detail` is what the author needs to find the fault: a trimmed
    traceback, the simulator's report, the end of what the submission printed. `because` names a reason more
    telling than the status alone.
    """

    status: Status
    message: str = ""
    detail: str = ""
    because: Reason | None = None

    @property
    def passed(self) -> bool:
        return self.status is Status.PASS

    @property
    def reason(self) -> Reason | None:
        """Why it failed; None for a pass."""
        return self.because or _PLAIN.get(self.status)

    @property
    def label(self) -> str:
        """`WRONG_RESULT`, or with a reason that says more, `WRONG_RESULT (E_STALE_OUTPUT)`."""
        telling = self.because is not None and self.because is not _PLAIN.get(self.status)
        return f"{self.status} ({self.because})" if telling else self.status.value


PASSED = Verdict(Status.PASS)


def unfair(because: Reason, message: str) -> Verdict:
    return Verdict(Status.UNFAIR, message, because=because)
