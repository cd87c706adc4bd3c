"""Times against what bounds them: the judge's own clock, the hardware's peak, and each other (judge side)."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from evaluator.cases import Case
from evaluator.handle import Worker
from evaluator.intervals import slope
from evaluator.messages import Window
from evaluator.probe import expect
from evaluator.reasons import MEANING, Reason
from evaluator.speed_limits import IMPOSSIBLE, Limits, least_microseconds
from evaluator.strict import StrictTimes
from evaluator.timing import CALLS_PER_WINDOW
from evaluator.verdict import Verdict, unfair
from evaluator.windows import window_command

#: The device's clock may claim this share of what the judge saw pass, not less.
_CLOCK_SHARE = 0.8
#: Signals: official over strict, official over a window of fresh inputs, launch cost over the time of a call.
_GAP, _FRESH_GAP, _LAUNCH_BOUND = 0.6, 0.8, 0.7
_DRIFT = 0.03
_ROUNDS, _MOST_ROUNDS = 4, 20  # more only where no round agrees, as on a busy host
_SHORT = 15
_MOST_CALLS = 450
_WANTED_NS = 4e6
_MOST_HOLD_NS = 40e6


@dataclass(frozen=True)
class JudgeClock:
    """Nanoseconds per call: as the judge saw it from outside, and as the device said of the same windows."""

    seen: float
    claimed: float


def judge_clock(worker: Worker, slots: list[int], call_ns: float, host_ns: float, limit: float) -> JudgeClock:
    """Windows of few and of many calls, timed from outside: the difference is the calls themselves.

    Both kinds keep the queue busy equally long before the first call, long enough to launch the longer one,
    so that the host's launches are no part of the difference unless they are slower than the GPU throughout.
    """
    many = int(min(_MOST_CALLS, max(4 * _SHORT, _SHORT + _WANTED_NS / max(call_ns, 1.0))))
    hold = min(_MOST_HOLD_NS, 1.5 * many * host_ns + 100_000)
    short: list[float] = []
    long: list[tuple[float, float]] = []
    clock = JudgeClock(0.0, 0.0)
    for number in range(_MOST_ROUNDS):
        for calls in (_SHORT, many):
            cycle = [slots[i % len(slots)] for i in range(calls)]
            command = window_command(cycle, limit, hold_ns=hold)
            started = time.perf_counter_ns()
            window = expect(worker, Window, command, limit)
            seen = float(time.perf_counter_ns() - started)
            assert isinstance(window, Window)
            if calls == many:
                long.append((seen, window.nanoseconds / calls))
            else:
                short.append(seen)
        clock = most_favourable(short, long, many - _SHORT)
        if number + 1 >= _ROUNDS and clock_verdict(clock) is None:
            break
    return clock


def most_favourable(short: list[float], long: list[tuple[float, float]], calls: int) -> JudgeClock:
    """The round in which the claim comes closest to what was seen: delays between the two processes only add
    to what the judge sees, so one round that agrees is enough, and a false claim agrees in none."""
    rounds = [JudgeClock(slope(short, [seen], calls), claimed) for seen, claimed in long]
    return max(rounds, key=lambda clock: clock.claimed / max(clock.seen, 1.0))


def clock_verdict(clock: JudgeClock) -> Verdict | None:
    """Whether the device's clock contradicts the judge's."""
    if clock.claimed >= _CLOCK_SHARE * clock.seen:
        return None
    text = (
        f"the device's clock claims {clock.claimed / 1e3:.3f} µs per call of windows in which "
        f"{clock.seen / 1e3:.3f} µs per call passed on the judge's"
    )
    return unfair(Reason.CLOCK, text)


def roofline_verdict(
    case: Case, limits: Limits, official_ns: float | None, strict_ns: float | None, l2_bytes: int
) -> Verdict | None:
    """Whether a time is below what this GPU can do."""
    for lane, nanoseconds, calls in (("official", official_ns, CALLS_PER_WINDOW), ("strict", strict_ns, 1)):
        if nanoseconds is None:
            continue
        # A strict call follows a flush of its own: nothing of its inputs is cached.
        cached = l2_bytes if lane == "official" else 0
        least = least_microseconds(case, limits, cached, calls)
        if nanoseconds / 1e3 < IMPOSSIBLE * least:
            text = (
                f"{nanoseconds / 1e3:.3f} µs in the {lane} lane; moving the bytes and computing the products "
                f"takes this GPU {least:.3f} µs at its peak"
            )
            return unfair(Reason.IMPOSSIBLE_TIME, text)
    return None


def signals(
    official_ns: float | None,
    strict: StrictTimes | None,
    fresh_window_ns: float | None,
    host_ns: float | None,
) -> list[str]:
    """What a reader should look at; nothing here refuses a submission."""
    found: list[str] = []
    if strict is not None:
        alone = strict.interval().value - statistics.median(strict.empty)
        if official_ns is not None and official_ns < _GAP * alone:
            found.append(_signal(Reason.GAP, f"{official_ns / 1e3:.2f} against {alone / 1e3:.2f} µs"))
        seen, fresh = strict.seen_before(), strict.interval().value
        if seen < _FRESH_GAP * fresh:
            text = f"{seen / 1e3:.2f} µs on inputs timed before, {fresh / 1e3:.2f} on fresh ones"
            found.append(_signal(Reason.FRESH_GAP, text))
        moved = strict.record()["drift"]
        if abs(moved) > _DRIFT:
            found.append(_signal(Reason.DRIFT, f"by {100 * moved:+.1f} %"))
    if official_ns is not None and fresh_window_ns is not None and official_ns < _FRESH_GAP * fresh_window_ns:
        text = f"{official_ns / 1e3:.2f} against {fresh_window_ns / 1e3:.2f} µs"
        found.append(_signal(Reason.FRESH_GAP, text))
    if official_ns is not None and host_ns is not None and host_ns > _LAUNCH_BOUND * official_ns:
        text = f"{host_ns / 1e3:.1f} µs of launching per call of {official_ns / 1e3:.2f} µs"
        found.append(_signal(Reason.LAUNCH_BOUND, text))
    return found


def _signal(reason: Reason, text: str) -> str:
    return f"{reason}: {MEANING[reason]}: {text}"
