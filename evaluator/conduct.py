"""What a submission did besides computing: verdicts on what the worker and the judge saw (judge side)."""

from __future__ import annotations

import statistics

from evaluator.messages import Conduct, Failed
from evaluator.reasons import Reason
from evaluator.verdict import Status, Verdict, unfair

#: Another queue that goes on for longer than this after the current one was not just a late signal.
LATE_NANOSECONDS = 100_000.0
_LATE_SHARE = 0.5


#: Reasons that a worker may give for its submission's exception.
_REPORTABLE = {reason.value: reason for reason in (Reason.OUT_OF_MEMORY, Reason.DEVICE_ERROR)}


def failed(reply: Failed) -> Verdict:
    """The verdict that a worker's `failed` stands for."""
    because = _REPORTABLE.get(reply.code) if reply.status is Status.RAISED else None
    return Verdict(reply.status, reply.message, reply.detail, because)


def patched(seen: Conduct) -> Verdict | None:
    """Functions that were replaced since before the submission was imported."""
    if not seen.patched:
        return None
    return unfair(Reason.PATCHED, f"the submission replaced {', '.join(seen.patched)}")


def unfinished(seen: Conduct, moved: list[int]) -> Verdict | None:
    """Work that went on after the return. `moved`: outputs whose bytes changed after it."""
    late = seen.late_nanoseconds > LATE_NANOSECONDS
    if seen.threads:
        return unfair(Reason.THREAD, f"still running after custom_kernel returned: {', '.join(seen.threads)}")
    if moved and late:
        text = (
            f"another queue worked on for {seen.late_nanoseconds / 1e3:.0f} µs after the current one had "
            f"finished, and {_outputs(moved)} changed meanwhile"
        )
        return unfair(Reason.SIDE_QUEUE, text)
    if moved:
        return unfair(Reason.DEFERRED, f"{_outputs(moved)} changed after custom_kernel had returned")
    return None


def other_queues(late_nanoseconds: list[float]) -> Verdict | None:
    """Windows after which another queue went on; one that does so now and then is chance."""
    late = [value for value in late_nanoseconds if value > LATE_NANOSECONDS]
    if len(late) <= _LATE_SHARE * len(late_nanoseconds):
        return None
    text = (
        f"after {len(late)} of {len(late_nanoseconds)} windows another queue worked on for "
        f"{statistics.median(late) / 1e3:.0f} µs"
    )
    return unfair(Reason.SIDE_QUEUE, text)


def survivors(names: list[str]) -> Verdict | None:
    """Processes alive after the call."""
    if not names:
        return None
    listed = ", ".join(sorted(names)[:6])
    return unfair(Reason.SURVIVOR, f"{len(names)} processes outlived custom_kernel: {listed}")


def persisting(seen: Conduct) -> Verdict | None:
    """L2 set aside for data that survives a flush."""
    if not seen.persisting:
        return None
    text = f"{seen.persisting >> 10} KiB of L2 were reserved for data that survives a flush"
    return unfair(Reason.L2_PERSISTING, text)


def _outputs(indices: list[int]) -> str:
    return f"output{'s' * (len(indices) > 1)} {', '.join(map(str, indices[:6]))}"
