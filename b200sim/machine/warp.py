"""One warp: 32 lanes, a register file, and the PC of every lane.

Lanes that diverge become fragments, each a block number and a lane mask. The fragment with the smallest
block number runs, except that one that stands before an instruction for several lanes together (shfl, bar,
`.aligned`) lets all others come first; fragments that meet at a block join. A write by some of the lanes
must keep the old value of the others only if one of them may still read it: that is what liveness is for,
and why a value that is the same for all lanes mostly stays a plain int even in code that one elected lane
runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from b200sim.faults import Fault
from b200sim.machine.asynchronous import CopyGroups
from b200sim.machine.program import BLOCK_NUMBER, BLOCKED, EXITED, YIELDED, Operation
from b200sim.machine.thread_memory import NO_MEMORY, ThreadMemory
from b200sim.machine.values import FULL, Value, lane, lane_array, spread
from b200sim.machine.warpgroup import RegisterUse

if TYPE_CHECKING:
    from collections.abc import Callable

    from b200sim.machine.cta import Cta
    from b200sim.machine.program import Block, Program
    from b200sim.machine.waiting import Wait

QUANTUM = 10_000  # instructions after which a warp that never blocks gives way


class Warp:
    """Warp `index` of `cta`, with its slots already holding their constants."""

    def __init__(self, cta: Cta, index: int, program: Program, slots: list[Value | None]) -> None:
        self.cta = cta
        self.index = index
        self.program = program
        # A Value per slot (a predicate is always an int); None where it is never read before it is written.
        self.regs: list[Any] = slots
        lanes = min(32, cta.thread_count - 32 * index)
        self.alive = FULL if lanes == 32 else (1 << lanes) - 1
        self.mask = self.alive
        self.pc = 0
        self.ranks = program.ranks
        self.waiting: list[tuple[int, int]] = []  # other fragments: (rank of the block, lane mask), in order
        self.keep = 0  # slots that some waiting fragment may still read
        self.put: Callable[[int, Value], None] = self.regs.__setitem__
        self.executed = 0
        self.blocked_on: Wait | None = None
        self.wait_expired = False  # the time limit of a try_wait has passed: answer, do not block
        self.last_poll: tuple[object, int] = (None, 0)  # operation that last answered no, `executed` then
        kernel = program.kernel
        self.local = ThreadMemory(kernel.local.size) if kernel.local.size else NO_MEMORY
        self.arguments = ThreadMemory(kernel.arguments.size) if kernel.arguments.size else NO_MEMORY
        self.last_words: tuple[bytes, int] = (b"", 0)  # what it last printed, `executed` then
        self.bulk_groups = CopyGroups("bulk")
        self.copy_groups = CopyGroups("cp.async")
        self.registers_in_use = RegisterUse(self)

    # -- running --------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run until the warp blocks, exits or has used its quantum; returns BLOCKED, EXITED or YIELDED."""
        blocks, ranks = self.program.blocks, self.ranks
        pc = self.pc
        limit = self.executed + QUANTUM
        operation: Callable[..., object] | None = None
        block = blocks[pc]
        try:
            while True:
                block = blocks[pc]
                for operation in block.operations:
                    operation(self)
                operation = block.end
                self.executed += block.size
                following = block.end(self)
                if following < 0:
                    if following == BLOCKED:
                        self.executed -= block.size  # it will run again
                        self.pc = pc
                        return BLOCKED
                    following, outcome = self._leave(following, pc)
                    if outcome:
                        return outcome
                pc = following
                if self.waiting and ranks[pc] >= self.waiting[0][0]:
                    pc = self._reconverge(pc)
                if self.executed >= limit:
                    self.pc = pc
                    return YIELDED
        except Fault as fault:
            raise fault.at(self._place(block, operation)) from None
        except Exception as error:
            raise RuntimeError(f"simulator error at {self._place(block, operation)}: {error!r}") from error

    def _leave(self, following: int, pc: int) -> tuple[int, int]:
        """After EXITED or YIELDED: the next block, and what `run` returns (0 to go on)."""
        if following == YIELDED:
            self.pc = pc + 1
            if self.waiting and self.ranks[self.pc] >= self.waiting[0][0]:
                self.pc = self._reconverge(self.pc)
            return 0, YIELDED
        self.alive &= ~self.mask
        if not self.waiting:
            return 0, EXITED
        rank, self.mask = self.waiting.pop(0)
        self._fragments_changed()
        return rank & BLOCK_NUMBER, 0

    # -- divergence -----------------------------------------------------------------------------------

    def diverge(self, taken: int, target: int, fall_through: int) -> int:
        """Split: the lanes of `taken` go to `target`, the rest of the active ones fall through."""
        rest = self.mask & ~taken
        ranks = self.ranks
        if ranks[target] < ranks[fall_through]:
            first, first_mask, other = target, taken, (ranks[fall_through], rest)
        else:
            first, first_mask, other = fall_through, rest, (ranks[target], taken)
        self.waiting.append(other)
        self.mask = first_mask
        self._join_equal()
        self._fragments_changed()
        return first

    def _reconverge(self, pc: int) -> int:
        """Make the fragment that comes first the running one, joined with all that stand there."""
        self.waiting.append((self.ranks[pc], self.mask))
        self._join_equal()
        rank, self.mask = self.waiting.pop(0)
        self._fragments_changed()
        return rank & BLOCK_NUMBER

    def _join_equal(self) -> None:
        """Waiting fragments in order, one for each block."""
        joined: dict[int, int] = {}
        for rank, mask in self.waiting:
            joined[rank] = joined.get(rank, 0) | mask
        self.waiting = sorted(joined.items())

    def _fragments_changed(self) -> None:
        if not self.waiting:
            self.keep = 0
            self.put = self.regs.__setitem__
            return
        keep = 0
        for rank, _ in self.waiting:
            keep |= self.program.blocks[rank & BLOCK_NUMBER].live_in
        self.keep = keep
        self.put = self._merge_live

    def _merge_live(self, slot: int, value: Value) -> None:
        if (self.keep >> slot) & 1:
            self._merge(slot, value)
        else:
            self.regs[slot] = value

    def _merge(self, slot: int, value: Value) -> None:
        """Write the active lanes only."""
        old = self.regs[slot]
        bits = self.program.binder.bits[slot]
        if old is None or bits == 0:  # never read by the others, or a sink
            self.regs[slot] = value
        elif bits == 1:
            self.regs[slot] = (old & ~self.mask) | (value & self.mask)
        elif bits == 128:
            lanes = [lane(value if self.mask >> i & 1 else old, i) for i in range(32)]
            self.regs[slot] = np.array(lanes, object)
        elif type(old) is int and type(value) is int and old == value:
            pass
        else:
            self.regs[slot] = np.where(lane_array(self.mask), spread(value, bits), spread(old, bits))

    def run_masked(self, operation: Operation, mask: int) -> None:
        """Run one guarded operation for some of the active lanes."""
        saved = self.mask, self.put
        self.mask, self.put = mask, self._merge
        try:
            operation(self)
        finally:
            self.mask, self.put = saved

    # -- what operations ask --------------------------------------------------------------------------

    def require_all_lanes(self, what: str) -> None:
        """`.aligned` instructions need every thread of the warp that has not exited."""
        if self.mask != self.alive:
            raise Fault(
                "divergent_aligned",
                f"{what} needs all lanes of the warp to execute it together; active are {self.mask:#010x} "
                f"of {self.alive:#010x}",
            )

    def uniform(self, slot: int, what: str) -> int:
        """A value that must be the same in all active lanes."""
        value = self.regs[slot]
        if type(value) is int:
            return value
        active = value[lane_array(self.mask)]
        first = int(active[0])
        if not (active == first).all():
            raise Fault(
                "not_uniform", f"{what} must be the same in all active lanes, found {active.tolist()}"
            )
        return first

    def active_lanes(self) -> list[int]:
        return [i for i in range(32) if self.mask >> i & 1]

    def thread(self, lane: int) -> tuple[int, int, int]:
        """threadIdx of a lane."""
        bx, by, _ = self.cta.grid.block
        linear = 32 * self.index + lane
        return linear % bx, linear // bx % by, linear // (bx * by)

    # -- places ---------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return f"{self.cta.name} warp {self.index}"

    def _place(self, block: Block, operation: Callable[..., object] | None) -> str:
        place = block.instruction_of(operation).place() if operation else "?"
        return f"{self.name}, {place}"
