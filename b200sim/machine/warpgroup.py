"""Four warps that drive a tensor core together (wgmma, PTX ISA 9.7.15), and the registers it works on.

A wgmma.mma_async belongs to the four warps of a warpgroup: it is under way once all of them have issued it.
Its operation takes A fragments and accumulators out of the four register files and leaves D here; a warp's
part goes back to its registers when the warp has waited for it. In between, the registers belong to the
tensor core: `RegisterUse` stops a thread that touches one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from b200sim.faults import Fault
from b200sim.isa.values import Value
from b200sim.machine.asynchronous import AsyncOperation
from b200sim.machine.waiting import Wait
from b200sim.tensor_core.wgmma import Accumulators
from b200sim.tensor_core.wgmma_layouts import WARPS, d_matrix, d_words

if TYPE_CHECKING:
    from b200sim.machine.cta import Cta
    from b200sim.machine.warp import Warp
    from b200sim.ptx.syntax import Instruction


@dataclass(eq=False)
class Joint:
    """One wgmma.mma_async of a warpgroup. `arguments`, of every warp that has issued it, must agree."""

    ins: Instruction
    arguments: dict[str, Any]
    operation: AsyncOperation
    fragments: dict[int, list[Value]] = field(default_factory=dict)  # warp of the group -> A registers

    def describe(self) -> str:
        there = sorted(self.fragments)
        missing = [rank for rank in range(WARPS) if rank not in self.fragments]
        state = (
            "is under way" if not missing else f"was issued by warps {there} of its four, not by {missing}"
        )
        return f"{self.ins.place()} {state}"


@dataclass(eq=False)
class _Held:
    """Accumulators whose newest values are not in the registers of the warps in `stale` yet."""

    slots: tuple[int, ...]
    bits: int  # the same as a bit set
    result: Accumulators
    stale: set[int] = field(default_factory=lambda: set(range(WARPS)))
    words: np.ndarray | None = None  # of `result`, once asked for

    def store(self, rank: int, warp: Warp) -> None:
        if rank not in self.stale:
            return
        if self.words is None:
            self.words = d_words(self.result.matrix)
        for slot, lanes in zip(self.slots, self.words[rank], strict=True):
            warp.regs[slot] = lanes
        self.stale.discard(rank)


class Warpgroup:
    """Warps 4 number .. 4 number + 3 of a CTA."""

    def __init__(self, cta: Cta, number: int) -> None:
        self.cta = cta
        self.number = number
        self.warps = cta.warps[WARPS * number : WARPS * number + WARPS]
        self.forming: deque[Joint] = deque()  # that some of the warps have issued
        self.issued = [0] * WARPS
        self.formed = 0  # joints that all have issued
        self.held: list[_Held] = []

    @property
    def name(self) -> str:
        return f"warpgroup {self.number} of {self.cta.name}"

    # -- issue ----------------------------------------------------------------------------------------

    def issue(
        self,
        warp: Warp,
        ins: Instruction,
        arguments: dict[str, Any],
        fragment: list[Value],
        perform: Callable[[Joint], None],
    ) -> Joint:
        """A warp issues its next wgmma.mma_async; with the fourth warp the operation is posted.

        Faults: wgmma_warpgroup (fewer than four warps), wgmma_operands (the warps' instructions or
        descriptors differ).
        """
        if len(self.warps) < WARPS:
            raise Fault(
                "wgmma_warpgroup",
                f"{ins.mnemonic} needs the four warps of a warpgroup; {self.name} has {len(self.warps)}",
            )
        rank = warp.index % WARPS
        place = self.issued[rank] - self.formed
        self.issued[rank] += 1
        if place == len(self.forming):
            pipe = ("wgmma", self.cta.rank, self.number)
            operation = AsyncOperation("wgmma", lambda: perform(joint), warp, ins.place(), pipe, ins=ins)
            self.forming.append(Joint(ins, arguments, operation))
        joint = self.forming[place]
        self._check_same(joint, warp, ins, arguments)
        joint.fragments[rank] = fragment
        if len(joint.fragments) == WARPS:
            self.forming.popleft()
            self.formed += 1
            self.cta.cluster.post(joint.operation)
        return joint

    def _check_same(self, joint: Joint, warp: Warp, ins: Instruction, arguments: dict[str, Any]) -> None:
        if ins is not joint.ins:
            raise Fault(
                "wgmma_operands",
                f"{warp.name} issues another wgmma.mma_async than {joint.operation.issuer.name} of its "
                f"warpgroup, which issued {joint.ins.place()}",
            )
        for name, value in arguments.items():
            if value != joint.arguments[name]:
                raise Fault(
                    "wgmma_operands",
                    f"{name} is {value:#x} in {warp.name} and {joint.arguments[name]:#x} in "
                    f"{joint.operation.issuer.name}: it must be the same in all four warps of a warpgroup",
                )

    # -- accumulators ---------------------------------------------------------------------------------

    def load(self, slots: tuple[int, ...], bits: int, d_format: str) -> Accumulators:
        """D before an operation: what is held, or what the registers hold."""
        for held in self.held:
            if held.slots == slots and len(held.stale) == WARPS:
                return held.result
        self._store(bits)
        words = np.empty((WARPS, len(slots), 32), np.uint32)
        for part, warp in zip(words, self.warps, strict=True):
            for row, slot in zip(part, slots, strict=True):
                row[:] = warp.regs[slot]
        return Accumulators(d_matrix(words, d_format))

    def hold(self, slots: tuple[int, ...], bits: int, result: Accumulators) -> None:
        """D after an operation."""
        self.held = [held for held in self.held if held.slots != slots]
        self._store(bits)
        self.held.append(_Held(slots, bits, result))

    def _store(self, bits: int) -> None:
        """What shares registers with `bits` goes to the registers of all warps."""
        for held in self.held:
            if held.bits & bits:
                for rank, warp in enumerate(self.warps):
                    held.store(rank, warp)
        self._forget_stored()

    def store_warp(self, warp: Warp, busy: int) -> None:
        """Bring a warp's registers up to date, those in `busy` excepted."""
        for held in self.held:
            if not held.bits & busy:
                held.store(warp.index % WARPS, warp)
        self._forget_stored()

    def _forget_stored(self) -> None:
        self.held = [held for held in self.held if held.stale]


@dataclass(eq=False)
class _Use:
    """One mma_async of a warp that the warp has not waited for: register slots as bit sets."""

    joint: Joint
    shape: str
    accumulators: int
    fragments: int
    group: int | None = None  # number of its commit
    fenced: bool = False  # a wgmma.fence came after it


class RegisterUse(Wait):
    """Which of a warp's registers its warpgroup's tensor core uses, and the warp's wgmma-groups."""

    def __init__(self) -> None:
        super().__init__()
        self.uses: list[_Use] = []
        self.committed = 0  # groups
        self.busy = 0  # slots in `uses`
        self.unfenced = -1  # slots that threads may have touched since the last wgmma.fence

    def touch(self, slots: int, ins: Instruction) -> None:
        """A thread of the warp reads or writes these registers. Fault: wgmma_register."""
        if slots & self.busy:
            self._refuse(slots, ins)
        self.unfenced |= slots

    def _refuse(self, slots: int, ins: Instruction) -> None:
        use = next(use for use in self.uses if slots & (use.accumulators | use.fragments))
        what = "an accumulator" if slots & use.accumulators else "part of the A fragment"
        newer = self.committed - use.group if use.group is not None else 0
        missing = (
            f"wgmma.wait_group {newer}"
            if use.group is not None
            else "wgmma.commit_group and wgmma.wait_group 0"
        )
        raise Fault(
            "wgmma_register",
            f"{ins.mnemonic} touches a register that is {what} of a wgmma still in flight, issued at "
            f"{use.joint.ins.place()}; {missing} is missing before it",
        )

    def fence(self) -> None:
        self.unfenced = 0
        for use in self.uses:
            use.fenced = True

    def check_issue(self, ins: Instruction, shape: str, accumulators: int, fragments: int) -> None:
        """Faults: wgmma_fence, wgmma_register."""
        if self.unfenced & (accumulators | fragments):
            why = (
                "is the warp's first"
                if self.unfenced == -1
                else "uses registers that the warp touched before"
            )
            raise Fault("wgmma_fence", f"{ins.mnemonic} {why}: wgmma.fence is missing before it")
        for use in self.uses:
            if fragments & use.accumulators:
                self._refuse(fragments & use.accumulators, ins)
            if accumulators & use.fragments:
                self._refuse(accumulators & use.fragments, ins)
            if accumulators & use.accumulators and use.shape != shape and not use.fenced:
                raise Fault(
                    "wgmma_fence",
                    f"{ins.mnemonic} accumulates into registers of a wgmma of another shape ({use.shape}), "
                    f"issued at {use.joint.ins.place()}: wgmma.fence is missing between them",
                )

    def add(self, joint: Joint, shape: str, accumulators: int, fragments: int) -> None:
        self.uses.append(_Use(joint, shape, accumulators, fragments))
        self.busy |= accumulators | fragments
        joint.operation.then.append(self.wake)

    def commit(self) -> None:
        self.committed += 1
        for use in self.uses:
            if use.group is None:
                use.group = self.committed

    def reached(self, newest_allowed: int) -> bool:
        """Whether all groups but the `newest_allowed` most recent are complete; they are then forgotten."""
        last = self.committed - newest_allowed
        waited = [use for use in self.uses if use.group is not None and use.group <= last]
        if not all(use.joint.operation.done for use in waited):
            return False
        self.uses = [use for use in self.uses if use.group is None or use.group > last]
        self.busy = 0
        for use in self.uses:
            self.busy |= use.accumulators | use.fragments
        return True

    def describe(self) -> str:
        pending = [use.joint for use in self.uses if use.group is not None and not use.joint.operation.done]
        return f"wgmma groups: {len(pending)} operations are not complete; the first: {pending[0].describe()}"
