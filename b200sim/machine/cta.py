"""A CTA: its warps, shared memory, barriers and tensor memory; and the cluster it belongs to."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from b200sim.faults import Fault
from b200sim.machine.asynchronous import AsyncOperation
from b200sim.machine.registers import RegisterPool
from b200sim.machine.waiting import ClusterBarrier, MBarrier, NamedBarrier, PairAllocation, TensorMemoryWait
from b200sim.machine.warp import Warp
from b200sim.machine.warpgroup import WARPS, Warpgroup
from b200sim.tensor_memory import TensorMemory
from b200sim.tma.encoding import decode
from b200sim.tma.tensor_map import TensorMap

if TYPE_CHECKING:
    from b200sim.machine.grid import Grid

RESERVED_SHARED = 0x400  # the system's part of shared memory, below the kernel's
POISON = 0xFF  # shared memory before the kernel writes it: NaN as e4m3, fp16 and fp32


class Cta:
    """CTA `rank` of `cluster`, at `index` (x, y, z) of the grid."""

    def __init__(self, cluster: Cluster, rank: int, index: tuple[int, int, int]) -> None:
        self.cluster = cluster
        self.grid = cluster.grid
        self.rank = rank
        self.index = index
        self.thread_count: int = self.grid.threads_per_cta
        self.smem: NDArray[np.uint8] = np.full(self.grid.shared_end, POISON, np.uint8)
        self.smem_views = {
            size: self.smem[: len(self.smem) // size * size].view(f"u{size}") for size in (1, 2, 4, 8)
        }
        self.tmem = TensorMemory()
        self.tmem_wait = TensorMemoryWait()
        self.barriers: dict[int, MBarrier] = {}
        self.named: dict[int, NamedBarrier] = {}
        self.named_arrivals: dict[
            int, tuple[NamedBarrier, int]
        ] = {}  # warp -> barrier, generation it waits for
        self.warpgroups: dict[int, Warpgroup] = {}
        self.tensor_maps: dict[int, TensorMap] = {}  # the descriptor cache, emptied by the acquire fence
        launch = self.grid.registers
        self.registers = RegisterPool(self.name, launch, self.grid.warps_per_cta) if launch else None
        self.warps: list[Warp] = []
        self.warps = [self.grid.new_warp(self, i) for i in range(self.grid.warps_per_cta)]

    @property
    def name(self) -> str:
        x, y, z = self.index
        return f"CTA ({x},{y},{z})"

    # -- shared memory --------------------------------------------------------------------------------

    def offset(self, address: int, nbytes: int, what: str) -> int:
        """A `.shared::cta` address to an offset into this CTA's shared memory, checked."""
        offset = address & 0xFFFFFF
        if address >> 24 != self.rank:
            raise Fault(
                "shared_wrong_cta",
                f"{what} at {address:#x}, which lies in CTA rank {address >> 24} of the cluster, not in its "
                f"own (rank {self.rank}); only .shared::cluster accesses reach other CTAs",
            )
        self.check_shared(offset, nbytes, what)
        return offset

    def check_shared(self, offset: int, nbytes: int, what: str) -> None:
        if not RESERVED_SHARED <= offset <= len(self.smem) - nbytes:
            raise Fault(
                "shared_out_of_bounds",
                f"{what} of {nbytes} bytes at shared offset {offset:#x}; the kernel's shared memory is "
                f"{RESERVED_SHARED:#x}..{len(self.smem):#x}",
            )

    # -- barriers -------------------------------------------------------------------------------------

    def init_barrier(self, address: int, count: int) -> None:
        offset = self.offset(address, 8, "mbarrier.init")
        if offset % 8:
            raise Fault(
                "mbarrier_misaligned", f"mbarrier.init at shared offset {offset:#x}, not a multiple of 8"
            )
        old = self.barriers.get(offset)
        if old is not None and (old.expected != count or old.events):
            raise Fault(
                "mbarrier_reinit", f"mbarrier.init of {old.name}, which is in use (no mbarrier.inval before)"
            )
        name = f"mbarrier at shared offset {offset:#x} of {self.name}"
        self.barriers[offset] = MBarrier(name, count)

    def barrier(self, offset: int) -> MBarrier:
        """The mbarrier at a CTA-local offset."""
        barrier = self.barriers.get(offset)
        if barrier is None:
            known = ", ".join(f"{key:#x}" for key in sorted(self.barriers)) or "none"
            raise Fault(
                "mbarrier_uninitialised",
                f"no mbarrier was initialised at shared offset {offset:#x} of {self.name} "
                f"(initialised: {known})",
            )
        return barrier

    def named_barrier(self, number: int) -> NamedBarrier:
        if not 0 <= number < 16:
            raise Fault("barrier_number", f"named barrier {number}; there are 16 (0..15)")
        if number not in self.named:
            self.named[number] = NamedBarrier(f"named barrier {number} of {self.name}")
        return self.named[number]

    def warpgroup(self, warp: Warp) -> Warpgroup:
        """The warpgroup that a warp belongs to."""
        number = warp.index // WARPS
        if number not in self.warpgroups:
            self.warpgroups[number] = Warpgroup(self, number)
        return self.warpgroups[number]

    # -- descriptors ----------------------------------------------------------------------------------

    def tensor_map(self, address: int) -> TensorMap:
        """The tensor map at a generic address, through this CTA's descriptor cache."""
        cached = self.tensor_maps.get(address)
        if cached is None:
            if address % 64:
                raise Fault("tensor_map_misaligned", f"tensor map at {address:#x}, not a multiple of 64")
            cached = decode(self.grid.memory.view(address, 128).tobytes())
            self.tensor_maps[address] = cached
        return cached

    def exited(self) -> bool:
        return all(warp.alive == 0 for warp in self.warps)

    def live_warps(self) -> int:
        return sum(warp.alive != 0 for warp in self.warps)

    def warp_exited(self, warp: Warp) -> None:
        """Nobody waits for a warp that has exited."""
        for barrier in self.named.values():
            barrier.leave()
        cluster = self.cluster
        cluster.barrier.leave(arrived=cluster.barrier_targets.get(warp) == cluster.barrier.phase + 1)


class Cluster:
    """CTAs that reach each other's shared memory, the asynchronous work they asked for, and who can run."""

    def __init__(self, grid: Grid, number: int, first: tuple[int, int, int]) -> None:
        self.grid = grid
        self.number = number
        self.runnable: deque[Warp] = deque()
        self.in_flight: deque[AsyncOperation] = deque()
        self.polling: deque[Warp] = deque()
        cx, cy, cz = grid.cluster
        x, y, z = first
        self.ctas: list[Cta] = []
        for rank in range(cx * cy * cz):
            index = (x + rank % cx, y + rank // cx % cy, z + rank // (cx * cy))
            self.ctas.append(Cta(self, rank, index))
        self.barrier = ClusterBarrier(sum(len(cta.warps) for cta in self.ctas))
        self.barrier_targets: dict[Warp, int] = {}  # warp -> cluster barrier phase it waits for
        self.pair_allocations = [PairAllocation() for _ in self.ctas[1::2]]  # of CTAs 2i and 2i + 1
        self.runnable.extend(warp for cta in self.ctas for warp in cta.warps)
        self.live = len(self.runnable)
        self.steps = 0  # scheduling steps so far: a change says that something happened

    def cta_of(self, address: int, what: str) -> tuple[Cta, int]:
        """A `.shared::cluster` address to a CTA of this cluster and an offset in it."""
        rank = address >> 24
        if rank >= len(self.ctas):
            raise Fault(
                "shared_wrong_cta",
                f"{what} at {address:#x}: the cluster has no CTA rank {rank} (size {len(self.ctas)})",
            )
        return self.ctas[rank], address & 0xFFFFFF

    def live_cta(self, rank: int, what: str) -> Cta:
        """A CTA that must still be running: its shared memory is gone once it has exited."""
        if rank >= len(self.ctas):
            raise Fault("shared_wrong_cta", f"{what} names CTA rank {rank}; the cluster has {len(self.ctas)}")
        cta = self.ctas[rank]
        if cta.exited():
            raise Fault("cta_exited", f"{what} reaches {cta.name} (rank {rank}), which has exited")
        return cta

    def post(self, operation: AsyncOperation) -> None:
        watch = self.grid.observer
        if watch is not None:
            watch.issued(operation)
        self.in_flight.append(operation)

    def all_warps(self) -> list[Warp]:
        return [warp for cta in self.ctas for warp in cta.warps]
