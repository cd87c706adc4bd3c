"""Four warps that drive a tensor core together (wgmma, PTX ISA 9.7.15), and the registers it works on.

A wgmma.mma_async belongs to the four warps of a warpgroup: it is under way once all of them have issued it.
From its issue on, a warp's accumulators hold `InFlight` values, which know where they come from and have no
bits yet. They can be moved, and accumulated into; whoever asks for their bits before a wgmma.wait_group has
covered them is stopped with the place of both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import is_
from typing import TYPE_CHECKING, Any

import numpy as np

from b200sim.faults import Fault
from b200sim.machine.asynchronous import AsyncOperation
from b200sim.machine.values import UNSIGNED, Value
from b200sim.machine.waiting import Wait
from b200sim.tensor_core.wgmma import Accumulators, Shape
from b200sim.tensor_core.wgmma_layouts import WARPS, d_matrix, d_registers, d_words

if TYPE_CHECKING:
    from b200sim.machine.cta import Cta
    from b200sim.machine.warp import Warp
    from b200sim.ptx.syntax import Instruction


@dataclass(eq=False)
class Joint:
    """One wgmma.mma_async of a warpgroup. `arguments`, of every warp that has issued it, must agree; the
    registers of A and of D before it are by warp of the group."""

    number: int  # counted from 1 in the warpgroup
    ins: Instruction
    shape: Shape
    arguments: dict[str, Any]
    operation: AsyncOperation
    fragments: dict[int, list[Value]] = field(default_factory=dict)
    accumulators: dict[int, list[Value | InFlight]] = field(default_factory=dict)
    result: Accumulators | None = None
    in_flight: list[InFlight] = field(default_factory=list)  # what the registers of D hold meanwhile
    _words: np.ndarray | None = None

    def __post_init__(self) -> None:
        self.in_flight = [InFlight(self, i) for i in range(d_registers(self.shape.n, self.shape.d_format))]

    def finish(self, result: Accumulators) -> None:
        self.result = result
        self.accumulators.clear()  # which end the chain of operations that lead here

    def words(self) -> np.ndarray:
        """D's words (4 warps, registers, 32 lanes), once complete."""
        assert self.result is not None
        if self._words is None:
            self._words = d_words(self.result.matrix)
        return self._words

    def before(self) -> Accumulators:
        """D before the operation, when its turn has come: all that its registers wait for is complete."""
        chained = self._chained()
        if chained is not None:
            return chained
        count = len(self.accumulators[0])
        words = np.empty((WARPS, count, 32), np.uint32)
        for rank in range(WARPS):
            for row, value in zip(words[rank], self.accumulators[rank], strict=True):
                row[:] = value.lanes(rank) if isinstance(value, InFlight) else value
        return Accumulators(d_matrix(words, self.shape.d_format))

    def _chained(self) -> Accumulators | None:
        """The result of the operation before, if these registers hold just that."""
        first = self.accumulators[0][0]
        if type(first) is not InFlight or first.joint.shape != self.shape:
            return None
        source = first.joint
        same = (all(map(is_, values, source.in_flight)) for values in self.accumulators.values())
        return source.result if all(same) else None

    def describe(self) -> str:
        missing = [rank for rank in range(WARPS) if rank not in self.fragments]
        if not missing:
            return f"{self.ins.place()}, which is under way"
        return f"{self.ins.place()}, which warps {missing} of its warpgroup have not issued"


@dataclass(eq=False)
class Use:
    """One mma_async of one warp, until the warp has waited for it. Registers are bit sets of slots."""

    joint: Joint
    accumulators: int
    fragments: int
    group: int | None = None  # number of its commit
    fenced: bool = False  # a wgmma.fence came after it


class InFlight:
    """Register `index` of a warp's part of D, or one half of it: a value that is still being computed.

    The four warps share these objects, as their program does.
    """

    __slots__ = ("half", "index", "joint")

    def __init__(self, joint: Joint, index: int, half: int | None = None) -> None:
        self.joint = joint
        self.index = index
        self.half = half

    def lanes(self, rank: int) -> np.ndarray:
        """The bits in a warp of the group, once the operation is complete."""
        word: np.ndarray = self.joint.words()[rank][self.index]
        return word if self.half is None else (word >> np.uint32(16 * self.half)).astype(UNSIGNED[16])

    def halves(self) -> list[InFlight]:
        return [InFlight(self.joint, self.index, half) for half in (0, 1)]

    @staticmethod
    def whole(parts: Sequence[object]) -> InFlight | None:
        """The word whose halves these are, low half first; None if they are not that."""
        if len(parts) != 2:
            return None
        low, high = parts
        if not (isinstance(low, InFlight) and isinstance(high, InFlight)):
            return None
        together = low.joint is high.joint and low.index == high.index and (low.half, high.half) == (0, 1)
        return low.joint.in_flight[low.index] if together else None


class Warpgroup:
    """Warps 4 number .. 4 number + 3 of a CTA."""

    def __init__(self, cta: Cta, number: int) -> None:
        self.cta = cta
        self.number = number
        self.warps = cta.warps[WARPS * number : WARPS * number + WARPS]
        self.forming: deque[Joint] = deque()  # that some of the warps have issued
        self.issued = [0] * WARPS
        self.formed = 0  # joints that all have issued

    @property
    def name(self) -> str:
        return f"warpgroup {self.number} of {self.cta.name}"

    def issue(
        self,
        warp: Warp,
        ins: Instruction,
        shape: Shape,
        arguments: dict[str, Any],
        fragment: list[Value],
        accumulators: list[Value | InFlight],
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
            self.forming.append(Joint(self.issued[rank], ins, shape, arguments, operation))
        joint = self.forming[place]
        self._check_same(joint, warp, ins, arguments)
        joint.fragments[rank], joint.accumulators[rank] = fragment, accumulators
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


class RegisterUse(Wait):
    """Which of a warp's registers its warpgroup's tensor core uses, and the warp's wgmma-groups."""

    def __init__(self, warp: Warp) -> None:
        super().__init__()
        self.warp = warp
        self.uses: list[Use] = []
        self.committed = 0  # groups
        self.waited_for = 0  # number of the last operation that the warp has waited for
        self.busy = 0  # slots in `uses`
        self.unfenced = -1  # slots that threads may have touched since the last wgmma.fence

    # -- what threads do ------------------------------------------------------------------------------

    def touch(self, slots: int, ins: Instruction) -> None:
        """A thread of the warp reads or writes these registers. Fault: wgmma_register."""
        self.check_free(slots, ins)
        self.unfenced |= slots

    def check_free(self, slots: int, ins: Instruction) -> None:
        """Fault: wgmma_register."""
        if slots & self.busy:
            use = next(use for use in self.uses if slots & (use.accumulators | use.fragments))
            self._refuse(use, ins, "an accumulator" if slots & use.accumulators else "part of the A fragment")

    def refuse_value(self, value: InFlight, ins: Instruction) -> None:
        """A thread asks for the bits of a value. Fault: wgmma_register."""
        self._refuse(next(use for use in self.uses if use.joint is value.joint), ins)

    @staticmethod
    def _refuse(use: Use, ins: Instruction, what: str = "an accumulator") -> None:
        missing = "wgmma.wait_group" if use.group is not None else "wgmma.commit_group and wgmma.wait_group"
        raise Fault(
            "wgmma_register",
            f"{ins.mnemonic} touches a register that is {what} of a wgmma still in flight, issued at "
            f"{use.joint.ins.place()}; a {missing} that covers it is missing before it",
        )

    def fence(self) -> None:
        self.unfenced = 0
        for use in self.uses:
            use.fenced = True

    # -- mma_async, commit and wait -------------------------------------------------------------------

    def check_issue(self, ins: Instruction, shape: Shape, accumulators: int, fragments: int) -> None:
        """Faults: wgmma_fence, wgmma_register."""
        if self.unfenced & (accumulators | fragments):
            why = "is the warp's first" if self.unfenced == -1 else "uses registers that the warp touched"
            raise Fault("wgmma_fence", f"{ins.mnemonic} {why}: wgmma.fence is missing before it")
        for use in self.uses:
            if fragments & use.accumulators:
                self._refuse(use, ins)
            if accumulators & use.fragments:
                self._refuse(use, ins, "part of the A fragment")
            if accumulators & use.accumulators and use.joint.shape != shape and not use.fenced:
                raise Fault(
                    "wgmma_fence",
                    f"{ins.mnemonic} accumulates into registers of a wgmma of another shape, issued at "
                    f"{use.joint.ins.place()}: wgmma.fence is missing between them",
                )

    def add(self, joint: Joint, slots: Sequence[int], accumulators: int, fragments: int) -> None:
        """The warp has issued `joint`, whose D goes to the registers `slots`."""
        self.uses.append(Use(joint, accumulators, fragments))
        self.busy |= accumulators | fragments
        regs = self.warp.regs
        for slot, value in zip(slots, joint.in_flight, strict=True):
            regs[slot] = value
        joint.operation.then.append(self.wake)

    def commit(self) -> None:
        self.committed += 1
        for use in self.uses:
            if use.group is None:
                use.group = self.committed

    def reached(self, newest_allowed: int) -> bool:
        """Whether all groups but the `newest_allowed` most recent are complete. Their results are then in the
        registers."""
        last = self.committed - newest_allowed
        waited = [use for use in self.uses if use.group is not None and use.group <= last]
        if not all(use.joint.operation.done for use in waited):
            return False
        if waited:
            self.uses = [use for use in self.uses if use.group is None or use.group > last]
            self._deliver(waited)
        return True

    def _deliver(self, waited: list[Use]) -> None:
        self.busy = 0
        for use in self.uses:
            self.busy |= use.accumulators | use.fragments
        over = {use.joint for use in waited}
        self.waited_for = max(self.waited_for, *(joint.number for joint in over))
        regs, rank = self.warp.regs, self.warp.index % WARPS
        for slot in self.warp.program.fragments:
            value = regs[slot]
            if type(value) is InFlight and value.joint in over:
                regs[slot] = value.lanes(rank)

    def describe(self) -> str:
        pending = [use.joint for use in self.uses if use.group is not None and not use.joint.operation.done]
        return f"wgmma groups: {len(pending)} operations are not complete; the first: {pending[0].describe()}"
