"""What warps wait for: mbarriers, named barriers, the cluster barrier, tensor memory, bulk groups.

A blocked warp re-runs its instruction when it is woken, so a wait is only a list of warps and a way to say
what is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from b200sim.faults import Fault

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp
    from b200sim.ptx.syntax import Instruction

RESULTS_KEPT = 4  # of the last generations of a named barrier: its warps read them before they arrive again
COUNT_LIMIT = 1 << 20  # PTX ISA 9.7.13.15.2: pending counts and the transaction count stay below this


class Wait:
    """Something warps can block on."""

    def __init__(self) -> None:
        self.waiters: list[Warp] = []

    def block(self, warp: Warp) -> None:
        warp.blocked_on = self
        self.waiters.append(warp)

    def wake(self) -> None:
        """Make every waiting warp runnable again."""
        if self.waiters:
            for warp in self.waiters:
                warp.blocked_on = None
                warp.cta.cluster.runnable.append(warp)
            self.waiters = []

    def forget(self, warp: Warp) -> None:
        self.waiters.remove(warp)
        warp.blocked_on = None

    def describe(self) -> str:
        """State for a deadlock report."""
        raise NotImplementedError


class MBarrier(Wait):
    """An mbarrier object in shared memory (PTX ISA 9.7.13.15).

    `phase` counts completed phases. A phase completes when no arrivals are pending and the transaction
    count is zero; the transaction count may be negative in between, when bytes land before their expect_tx.
    """

    def __init__(self, name: str, count: int) -> None:
        super().__init__()
        if not 0 < count < COUNT_LIMIT:
            raise Fault(
                "mbarrier_count", f"mbarrier.init of {name} with count {count}, must be 1..{COUNT_LIMIT - 1}"
            )
        self.name = name
        self.expected = count
        self.pending = count
        self.transactions = 0
        self.phase = 0
        self.events = 0  # arrivals and completions so far

    def arrive(self, count: int = 1) -> None:
        if count < 1:
            raise Fault("mbarrier_count", f"arrival on {self.name} with count {count}, must be at least 1")
        if count > self.pending:
            raise Fault(
                "mbarrier_overflow",
                f"{count} arrival(s) on {self.name}, which expects only {self.pending} more "
                f"in phase {self.phase}",
            )
        self.pending -= count
        self.events += 1
        self._settle()

    def drop(self, count: int) -> None:
        """Expect `count` arrivals less from the next phase on."""
        if count > self.expected:
            raise Fault(
                "mbarrier_overflow",
                f"{count} arrival(s) dropped from {self.name}, which expects {self.expected}",
            )
        self.expected -= count

    def expect(self, nbytes: int) -> None:
        self.transactions += nbytes
        self._check()
        self._settle()

    def arrive_and_expect(self, nbytes: int) -> None:
        self.transactions += nbytes
        self._check()
        self.arrive()

    def complete(self, nbytes: int) -> None:
        """`nbytes` of an asynchronous copy have arrived."""
        self.transactions -= nbytes
        self.events += 1
        self._check()
        self._settle()

    def passed(self, parity: int) -> bool:
        """Whether the phase of this parity has completed: try_wait.parity."""
        return (self.phase & 1) != parity

    def _check(self) -> None:
        if abs(self.transactions) >= COUNT_LIMIT:
            raise Fault(
                "mbarrier_tx", f"transaction count of {self.name} is {self.transactions}, beyond 2^20"
            )

    def _settle(self) -> None:
        if self.pending == 0 and self.transactions == 0:
            self.phase += 1
            self.pending = self.expected
            self.wake()

    def describe(self) -> str:
        missing = []
        if self.pending:
            missing.append(f"{self.pending} of {self.expected} arrivals")
        if self.transactions > 0:
            missing.append(f"{self.transactions} bytes that were expected (expect_tx) and never arrived")
        if self.transactions < 0:
            missing.append(f"an expect_tx for {-self.transactions} bytes that did arrive")
        state = " and ".join(missing) or "nothing"
        return f"{self.name}: phase {self.phase} (parity {self.phase & 1}) is incomplete, it lacks {state}"


class NamedBarrier(Wait):
    """One of the 16 barriers of a CTA (`bar`, `barrier.cta`): warps arrive, the last one lets all go."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.generation = 0
        self.arrived: list[str] = []
        self.threads = 0
        self.expected = 0
        self.whole_cta = False  # no count was given: all warps that have not exited
        self.votes: list[tuple[int, int]] = []  # bar.red: per arrival, lanes that hold and lanes that voted
        self.results: dict[int, tuple[int, int]] = {}  # generation completed -> sums of its votes

    def arrive(self, warp: Warp, count: int | None) -> None:
        """A warp arrives; `count` threads are expected, or all of the CTA's."""
        expected = 32 * warp.cta.live_warps() if count is None else count
        if expected <= 0 or expected % 32:
            raise Fault(
                "barrier_count", f"{self.name}: thread count {expected} is not a positive multiple of 32"
            )
        if self.threads and expected != self.expected:
            raise Fault(
                "barrier_count",
                f"{self.name}: {warp.name} names {expected} threads, "
                f"{', '.join(self.arrived)} named {self.expected}",
            )
        self.expected = expected
        self.whole_cta = count is None
        self.threads += 32
        self.arrived.append(f"warp {warp.index}")
        self._settle()

    def leave(self) -> None:
        """A warp of the CTA has exited."""
        if self.threads and self.whole_cta:
            self.expected -= 32
            self._settle()

    def _settle(self) -> None:
        if self.threads == self.expected:
            self.generation += 1
            self.results[self.generation] = sum(v[0] for v in self.votes), sum(v[1] for v in self.votes)
            self.results.pop(self.generation - RESULTS_KEPT, None)
            self.threads = 0
            self.arrived = []
            self.votes = []
            self.wake()

    def describe(self) -> str:
        who = ", ".join(self.arrived) or "nobody"
        return f"{self.name}: {self.threads} of {self.expected} threads have arrived ({who})"


class ClusterBarrier(Wait):
    """`barrier.cluster`: every warp of the cluster arrives once per phase."""

    def __init__(self, warps: int) -> None:
        super().__init__()
        self.expected = warps
        self.arrived = 0
        self.phase = 0

    def arrive(self) -> None:
        self.arrived += 1
        self._settle()

    def leave(self, arrived: bool) -> None:
        """A warp has exited, which counts as arriving from now on (PTX ISA 9.7.13.3).

        `arrived`: it had already arrived in this phase.
        """
        self.expected -= 1
        self.arrived -= arrived
        if self.arrived:
            self._settle()

    def _settle(self) -> None:
        if self.arrived >= self.expected:
            self.phase += 1
            self.arrived = 0
            self.wake()

    def describe(self) -> str:
        return f"cluster barrier: {self.arrived} of {self.expected} warps have arrived"


class TensorMemoryWait(Wait):
    """`tcgen05.alloc` with no free columns."""

    def describe(self) -> str:
        return "tcgen05.alloc: no free tensor memory columns of that size"


@dataclass
class AllocationRequest:
    """What one CTA of a pair asked for: columns, and where in its shared memory their address goes."""

    warp: Warp
    ins: Instruction
    columns: int
    place: int


class PairAllocation(Wait):
    """`tcgen05.alloc.cta_group::2`: a warp of each CTA of a pair performs it together (PTX ISA 9.7.16.5)."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[int, AllocationRequest] = {}  # by CTA rank
        self.served: set[Warp] = set()  # got their columns when the other CTA asked, and have yet to go on

    def describe(self) -> str:
        ranks = " and ".join(str(rank) for rank in sorted(self.asked))
        short = "no free tensor memory columns of that size" if len(self.asked) > 1 else "the other has not"
        return f"tcgen05.alloc.cta_group::2: CTA rank {ranks} of the pair asked, {short}"
