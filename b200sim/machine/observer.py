"""What a launch tells those who watch it: every access, every act of synchronisation, all asynchronous work.

A `Grid` has at most one observer. Instructions look for it only where they touch memory, synchronise or
start asynchronous work, so a launch that nobody watches pays for a test per such instruction. Events come
from the instruction that acts, before its effect unless said otherwise; `ins` names its place in the PTX
and in the CuTe-DSL source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from b200sim.faults import Fault
    from b200sim.machine.asynchronous import AsyncOperation
    from b200sim.machine.cta import Cluster, Cta
    from b200sim.machine.grid import Grid
    from b200sim.machine.waiting import MBarrier, NamedBarrier
    from b200sim.machine.warp import Warp
    from b200sim.ptx.syntax import Instruction
    from b200sim.tensor_core.touch import Touch
    from b200sim.tma.tensor_map import TensorMap

Target = tuple["Cta", int]  # a CTA and an offset in its shared memory
Rectangle = tuple[int, int, int, int]  # lane, lanes, column, columns of tensor memory

READ, WRITE, ATOMIC = "read", "write", "atomic"


# -- what asynchronous operations do; built only when someone watches -------------------------------------


@dataclass(frozen=True)
class TensorLoad:
    """A box from global memory to `offset` in every receiver; its bytes complete on `signals`."""

    tensor_map: TensorMap
    map_address: int
    coords: Sequence[int]
    offset: int
    nbytes: int
    receivers: Sequence[Cta]
    signals: Sequence[Target]


@dataclass(frozen=True)
class BulkLoad:
    """`nbytes` from global memory (`address`) or the issuer's shared memory (`source`) to shared memory."""

    address: int | None
    source: int | None
    offset: int
    nbytes: int
    receivers: Sequence[Cta]
    signals: Sequence[Target]


@dataclass(frozen=True)
class TensorStore:
    """A box from the issuer's shared memory to global memory, or combined into it."""

    tensor_map: TensorMap
    map_address: int
    coords: Sequence[int]
    offset: int
    lanes: int
    reduction: str | None


@dataclass(frozen=True)
class BulkStore:
    """`nbytes` from the issuer's shared memory to global memory, or combined into it."""

    address: int
    offset: int
    nbytes: int
    lanes: int
    reduction: str | None


@dataclass(frozen=True)
class TensorCoreWork:
    """tcgen05.mma, cp or shift on one CTA or a pair. `touches` computes what it reads and writes; `key`
    says when two operations touch the same. `descriptors`: operand name -> shared memory descriptor."""

    ctas: Sequence[Cta]
    key: tuple[object, ...]
    touches: Callable[[], list[Touch]]
    descriptors: dict[str, int]
    accumulate: bool = False


@dataclass(frozen=True)
class WarpgroupWork:
    """wgmma.mma_async `number` of a warpgroup, on its CTA; the rest as for `TensorCoreWork`."""

    number: int
    key: tuple[object, ...]
    touches: Callable[[], list[Touch]]
    descriptors: dict[str, int]


@dataclass(frozen=True)
class Commit:
    """tcgen05.commit: one arrival on each target when the thread's earlier tensor core work is complete."""

    targets: Sequence[Target]


@dataclass(frozen=True)
class TryCancel:
    """clusterlaunchcontrol.try_cancel: 16 bytes to `offset` in every receiver, complete on `signals`."""

    offset: int
    receivers: Sequence[Cta]
    signals: Sequence[Target]


@dataclass(frozen=True)
class ThreadStore:
    """st.async or red.async of one thread: `nbytes` to `offset` in `receiver`, complete on `signal`."""

    offset: int
    nbytes: int
    receiver: Cta
    signal: Target
    reduction: str | None


@dataclass(frozen=True)
class ThreadCopies:
    """cp.async of a warp: `nbytes` to each of `offsets` in the issuer's shared memory, read from each of the
    addresses `sources` (those that only write zeros have none)."""

    offsets: np.ndarray
    nbytes: int
    sources: np.ndarray


@dataclass(frozen=True)
class CopiesArrive:
    """cp.async.mbarrier.arrive: an arrival when the thread's earlier cp.async are complete."""

    target: Target


Detail = (
    TensorLoad
    | BulkLoad
    | TensorStore
    | BulkStore
    | TensorCoreWork
    | Commit
    | TryCancel
    | ThreadStore
    | ThreadCopies
    | CopiesArrive
)


class Observer:
    """Every event, ignored. Observers override what they care for."""

    # -- the launch -----------------------------------------------------------------------------------

    def launch_began(self, grid: Grid) -> None: ...

    def launch_ended(self, grid: Grid) -> None: ...

    def faulted(self, grid: Grid, fault: Fault) -> None:
        """The launch stops with a fault: an illegal act, a deadlock, the time limit."""

    def cluster_began(self, cluster: Cluster) -> None: ...

    def cluster_ended(self, cluster: Cluster) -> None: ...

    def warp_turn(self, warp: Warp) -> None:
        """The schedule lets this warp run."""

    def warp_paused(self, warp: Warp) -> None:
        """The warp blocks, yields or has exited."""

    def warp_exited(self, warp: Warp) -> None: ...

    # -- memory accesses of threads -------------------------------------------------------------------

    def shared_access(
        self, warp: Warp, ins: Instruction, cta: Cta, offsets: int | np.ndarray, nbytes: int, kind: str
    ) -> None:
        """`nbytes` at each of `offsets` (of the active lanes) in the shared memory of `cta`."""

    def global_access(
        self, warp: Warp, ins: Instruction, addresses: int | np.ndarray, nbytes: int, kind: str
    ) -> None: ...

    def tensor_access(self, warp: Warp, ins: Instruction, rectangles: Sequence[Rectangle], kind: str) -> None:
        """tcgen05.ld and tcgen05.st, on the warp's own CTA."""

    def tensor_map_edited(self, warp: Warp, ins: Instruction, address: int) -> None:
        """A tensor map in global memory is written by tensormap.cp_fenceproxy or tensormap.replace."""

    # -- ordering by one warp -------------------------------------------------------------------------

    def fence(self, warp: Warp, ins: Instruction) -> None:
        """fence, membar, tcgen05.fence, tcgen05.wait, griddepcontrol, bar.warp.sync."""

    def tensor_map_acquired(self, warp: Warp, ins: Instruction, address: int) -> None: ...

    # -- barriers -------------------------------------------------------------------------------------

    def barrier_arrive(self, warp: Warp, ins: Instruction, barrier: NamedBarrier) -> None: ...

    def barrier_passed(self, warp: Warp, ins: Instruction, barrier: NamedBarrier, generation: int) -> None:
        """`generation` is the barrier's when the warp arrived."""

    def cluster_arrive(self, warp: Warp, ins: Instruction) -> None: ...

    def cluster_passed(self, warp: Warp, ins: Instruction) -> None: ...

    def mbarrier_init(self, warp: Warp, ins: Instruction, cta: Cta, offset: int) -> None:
        """After the effect: the object is `cta.barriers[offset]`."""

    def mbarrier_inval(self, warp: Warp, ins: Instruction, cta: Cta, offset: int) -> None: ...

    def mbarrier_arrive(
        self, warp: Warp, ins: Instruction, barrier: MBarrier, arrivals: int, nbytes: int
    ) -> None:
        """One thread arrives (`arrivals` may be 0: expect_tx alone) and expects `nbytes` more."""

    def mbarrier_arrived(self, warp: Warp, ins: Instruction, barrier: MBarrier) -> None:
        """After the effect of `mbarrier_arrive`."""

    def mbarrier_passed(self, warp: Warp, ins: Instruction, barrier: MBarrier, phase: int) -> None:
        """A wait answered true: for `phase` or, by parity, for the phase that completed last."""

    # -- asynchronous work ----------------------------------------------------------------------------

    def issued(self, operation: AsyncOperation) -> None: ...

    def performing(self, operation: AsyncOperation) -> None:
        """It happens now, before its effect."""

    def performed(self, operation: AsyncOperation) -> None: ...

    def prefetched(self, warp: Warp, ins: Instruction, tensor_map: TensorMap, coords: Sequence[int]) -> None:
        """cp.async.bulk.prefetch.tensor: the box may be fetched into L2. A hint; nothing else happens."""

    def bulk_commit(self, warp: Warp, ins: Instruction, lanes: int) -> None: ...

    def bulk_passed(self, warp: Warp, ins: Instruction, lanes: int, allowed: int, read: bool) -> None:
        """wait_group: at most `allowed` of the newest groups of these lanes are not complete."""

    def copies_commit(self, warp: Warp, ins: Instruction) -> None:
        """cp.async.commit_group."""

    def copies_passed(self, warp: Warp, ins: Instruction, allowed: int | None) -> None:
        """cp.async.wait_group; None: wait_all."""

    def wgmma_issued(self, warp: Warp, ins: Instruction, detail: WarpgroupWork) -> None:
        """One of the four warps issues its part of a wgmma.mma_async."""

    def wgmma_passed(self, warp: Warp, ins: Instruction, number: int) -> None:
        """wgmma.wait_group: the warpgroup's operations up to `number` are complete."""

    # -- tensor memory and cluster launch control -----------------------------------------------------

    def tensor_allocated(
        self, warp: Warp, ins: Instruction, column: int, columns: int, destination: int
    ) -> None:
        """After the allocation; its address goes to shared offset `destination`."""

    def tensor_freed(self, warp: Warp, ins: Instruction, column: int, columns: int) -> None: ...

    def relinquished(self, warp: Warp, ins: Instruction) -> None: ...

    def cancel_queried(self, warp: Warp, ins: Instruction, success: bool) -> None:
        """query_cancel.is_canceled on a response."""


class Observers(Observer):
    """Several observers as one, told in order."""

    def __init__(self, *members: Observer) -> None:
        self.members = members


def _forward(name: str) -> Callable[..., None]:
    def tell(self: Observers, *arguments: object) -> None:
        for member in self.members:
            getattr(member, name)(*arguments)

    return tell


for _name in [name for name in vars(Observer) if not name.startswith("_")]:
    setattr(Observers, _name, _forward(_name))
