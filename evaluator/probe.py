"""Is every result computed in its own call, from what the inputs hold then? (judge side, any device)

A probe holds a few inputs, as the official runner does, and lets them be called three times:

1. as they are;
2. with new contents, written in place between the windows, and once more between the calls of the window:
   what input i held when the window began is replaced just before call i. The first and the last call get
   what they had in window 1 with one byte of one A changed: a look at samples is likely to miss it, and
   hardly sees it twice. A result of window 1 was replayed (E_STALE_OUTPUT), one that belongs to the contents
   before the call was computed ahead, in another call (E_COMPUTED_AHEAD);
3. the final contents of window 2 under other objects at other addresses, in another order: equal inputs
   must give equal bytes (E_NONDETERMINISTIC).

Outputs are poisoned before every window, and copied the moment each call returns: what a later call fills in
counts as not written. All seeds are drawn when they are needed, so nothing can be known before.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import torch

from evaluator import problem
from evaluator.arena import Arena, Groups
from evaluator.cases import Case
from evaluator.conduct import failed, patched, survivors
from evaluator.handle import Worker
from evaluator.messages import Collected, Failed, Ran, Reply, Window
from evaluator.reasons import Reason
from evaluator.seeds import Seeds
from evaluator.verdict import Status, Verdict, unfair
from evaluator.windows import window_command

_STAGED = 100  # slots from here on hold contents that are to be put into the others


class Stop(Exception):
    """Ends a procedure with a verdict."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.message)
        self.verdict = verdict


def expect(
    worker: Worker, kind: type[Reply], command: dict[str, object], limit: float, arena: Arena | None = None
) -> Reply:
    """The reply to a command. Raises `Stop` if it is another kind, `WorkerFailure` if there is none."""
    reply = worker.request(command, limit, arena)
    if isinstance(reply, Failed):
        raise Stop(failed(reply))
    if not isinstance(reply, kind):
        raise Stop(Verdict(Status.PROTOCOL, f"the worker broke the protocol: expected {kind.__name__}"))
    return reply


def collect(worker: Worker, calls: int, limit: float, inputs: bool = True) -> tuple[Ran, ...]:
    """What the calls of the last window gave, one for each of its slots; `inputs` false: without what their
    inputs hold now. Raises `Stop` if some are missing."""
    collected = expect(worker, Collected, {"do": "collect", "inputs": inputs}, limit)
    assert isinstance(collected, Collected)
    if len(collected.outputs) != calls:
        raise Stop(Verdict(Status.PROTOCOL, "the worker broke the protocol: outputs are missing"))
    return tuple(collected.outputs)


@dataclass
class Content:
    """One set of inputs: the judge's copy, the shared memory it travels in, its truth."""

    data: Groups
    arena: Arena
    truth: problem.Truth


class Probe:
    """The three windows on one case. `known`: contents that the submission saw before."""

    def __init__(
        self,
        worker: Worker,
        device: str,
        case: Case,
        seeds: Seeds,
        limit: float,
        known: list[problem.Past] | None = None,
    ) -> None:
        self.known = known or []
        self.worker, self.device, self.case, self.seeds, self.limit = worker, device, case, seeds, limit
        self.random: random.Random = seeds.choices("probe", case.name)
        self._contents: list[Content] = []
        self._outputs: list[list[torch.Tensor]] = []
        self._slots: set[int] = set()
        self.elements = 0

    def run(self, inputs: int) -> Verdict:
        """The verdict of three windows over this many inputs. Raises `WorkerFailure`."""
        try:
            self._three_windows(inputs)
            return Verdict(Status.PASS)
        except Stop as stop:
            return stop.verdict
        finally:
            for content in self._contents:
                content.arena.close()

    def _three_windows(self, count: int) -> None:
        slots = list(range(count))
        first = [self._content("first", slot) for slot in slots]
        for slot, content in zip(slots, first, strict=True):
            self._hold(slot, content)
        order = self.random.sample(slots, count)
        before_that = [self.known for _ in slots]
        self._window(order, [-1] * count, [first[i] for i in order], [first[i] for i in order], before_that)

        order = self.random.sample(slots, count)
        before = {slot: self._content("before", slot) for slot in order[1:]}
        before[order[0]] = self._content("first", order[0], altered=True)
        for slot in slots:
            self._do({"do": "rewrite", "slot": slot}, before[slot].arena)
        final = {order[0]: before[order[0]]}
        for slot in order[1:]:
            last = slot == order[-1]
            final[slot] = self._content("first" if last else "final", slot, altered=last)
            self._hold(_STAGED + slot, final[slot])
        past = [
            [
                problem.Past(Reason.COMPUTED_AHEAD, before[slot].truth, "before its own call began"),
                *(problem.Past(Reason.STALE_OUTPUT, one.truth, "in an earlier window") for one in first),
            ]
            for slot in order
        ]
        staged = [-1, *(_STAGED + slot for slot in order[1:])]
        self._window(order, staged, [final[i] for i in order], [first[i] for i in order], past)
        outputs = dict(zip(order, self._outputs, strict=True))

        self._do({"do": "drop", "slots": sorted(self._slots)})
        self._slots.clear()
        order = self.random.sample(slots, count)
        for slot in order:
            self._hold(slot, final[slot])
        self._window(order, [-1] * count, [final[i] for i in order], [final[i] for i in order])
        for slot, again in zip(order, self._outputs, strict=True):
            self._same(outputs[slot], again)
        self._do({"do": "drop", "slots": sorted(self._slots)})

    def _content(self, purpose: str, slot: int, altered: bool = False) -> Content:
        seed = self.seeds.draw("probe", self.case.name, purpose, slot)
        data = problem.generate(self.case.with_seed(seed), self.device)
        if altered:
            problem.alter(data, self.random)
        content = Content(data, Arena(data), problem.Truth(data))
        self._contents.append(content)
        return content

    def _hold(self, slot: int, content: Content) -> None:
        self._do({"do": "hold", "slot": slot}, content.arena)
        self._slots.add(slot)

    def _do(self, command: dict[str, object], arena: Arena | None = None) -> None:
        reply = self.worker.request(command, self.limit, arena)
        if isinstance(reply, Failed):
            raise Stop(failed(reply))

    def _window(
        self,
        order: list[int],
        staged: list[int],
        contents: list[Content],
        homes: list[Content],
        past: list[list[problem.Past]] | None = None,
    ) -> None:
        """One window over the slots in `order`; the results must be those of `contents`.

        `homes` are the contents in whose arenas the slots' outputs are reported.
        """
        poison = problem.poison_word(self.random)
        self._do({"do": "refill", "slots": order, "word": poison})
        command = window_command(order, self.limit, copy="each", staged=staged)
        window = expect(self.worker, Window, command, self.limit)
        assert isinstance(window, Window)
        foul = patched(window.conduct) or survivors(self.worker.survivors())
        if foul:
            raise Stop(foul)
        outputs = collect(self.worker, len(order), self.limit)
        self._outputs = []
        for place, (content, home, ran) in enumerate(zip(contents, homes, outputs, strict=True)):
            ran = replace(ran, conduct=window.conduct)
            earlier = past[place] if past else []
            checked = problem.check(
                content.data, home.arena, ran, poison, self.device, content.truth, content is home, earlier
            )
            self.elements += checked.elements
            if not checked.verdict.passed:
                raise Stop(_located(checked.verdict, place, len(order)))
            self._outputs.append([problem.snapshot(output, home.arena) for output in ran.outputs])

    def _same(self, one: list[torch.Tensor], two: list[torch.Tensor]) -> None:
        for group, (first, second) in enumerate(zip(one, two, strict=True)):
            if not problem.same_bits(first, second):
                count = int((first.view(torch.int16) != second.view(torch.int16)).sum())
                text = (
                    f"output {group}: {count} of {first.numel()} elements differ in a second call "
                    "with equal inputs at other addresses"
                )
                raise Stop(unfair(Reason.NONDETERMINISTIC, text))


def _located(verdict: Verdict, place: int, calls: int) -> Verdict:
    text = f"call {place + 1} of {calls} in one window, inputs not seen before: {verdict.message}"
    return Verdict(verdict.status, text, verdict.detail, verdict.because)
