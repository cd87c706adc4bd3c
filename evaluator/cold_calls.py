"""Single cold calls, as the strict lane, `--compare` and `scripts/restarts` time them (judge side).

`c` is poisoned, twice the L2 is written, the queue is held until the launch is through, and one call is
timed; what its output held at return is copied, and can be checked afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from evaluator import conduct, problem
from evaluator.handle import Worker
from evaluator.messages import Done, Window
from evaluator.probe import Content, Stop, collect, expect
from evaluator.windows import window_command

#: How long the queue is held before a call: at first, and at most.
HOLD_NS, _MOST_HOLD_NS = 200_000.0, 20e6
_FLUSH = {"cuda": "l2"}  # other devices have none


def next_hold_ns(hold_ns: float, window: Window) -> float:
    """How long to hold the queue after a window that was held for so long: no less, and long enough for a
    launch that takes the host twice as long as that one."""
    return min(_MOST_HOLD_NS, max(hold_ns, 2 * window.host_nanoseconds))


@dataclass
class ColdCalls:
    """Calls on any number of workers. `hold_ns` grows with what launches were seen to take on the host."""

    device: str
    limit: float
    hold_ns: float = HOLD_NS

    def call(self, worker: Worker, slot: int, learn: bool = True) -> tuple[Window, int]:
        """Time one call on the inputs held in `slot`; also returns the poison that was in its outputs.
        `learn` false: it may compile, which says nothing about launches. Raises `Stop` if the submission
        replaced functions or set L2 aside."""
        poison = problem.poison_word()
        expect(worker, Done, {"do": "refill", "slots": [slot], "word": poison}, self.limit)
        window = self._window(worker, [slot])
        if learn:
            self.hold_ns = next_hold_ns(self.hold_ns, window)
        return window, poison

    def empty(self, worker: Worker) -> Window:
        """What two stamps with nothing between them measure, to be shown beside the times."""
        return self._window(worker, [])

    def check(
        self, worker: Worker, window: Window, poison: int, content: Content, inputs: bool = True
    ) -> None:
        """All elements of the last call's output, and all else that is checked of a call; `inputs` false: not
        whether its inputs are as before. Raises `Stop` with the verdict of a bad one."""
        [ran] = collect(worker, 1, self.limit, inputs)
        ran = replace(ran, conduct=window.conduct)
        checked = problem.check(content.data, content.arena, ran, poison, self.device, content.truth, inputs)
        if not checked.verdict.passed:
            raise Stop(checked.verdict)

    def _window(self, worker: Worker, slots: list[int]) -> Window:
        flush = _FLUSH.get(self.device, "none")
        command = window_command(slots, self.limit, flush=flush, copy="last", hold_ns=self.hold_ns)
        window = expect(worker, Window, command, self.limit)
        assert isinstance(window, Window)
        foul = conduct.patched(window.conduct) or conduct.persisting(window.conduct)
        if foul:
            raise Stop(foul)
        return window
