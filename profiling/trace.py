"""An observer that writes down, per cluster, what the kernel does and in which order.

Events carry how many instructions their warp had executed, and mbarriers with the phase they act on. So
`replay` can compute when each would happen on hardware, whatever order the simulator chose.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

import numpy as np

from b200sim.machine.asynchronous import AsyncOperation
from b200sim.machine.cta import Cluster, Cta
from b200sim.machine.grid import Grid
from b200sim.machine.observer import Commit, Observer, TensorCoreWork, TensorLoad
from b200sim.machine.waiting import MBarrier
from b200sim.machine.warp import Warp
from b200sim.ptx.syntax import Instruction
from b200sim.tma.tensor_map import TensorMap

GRANULE = 16  # bytes; boxes begin and end at multiples
WarpKey = tuple[int, int]  # CTA rank, warp
Phase = tuple[int, int]  # mbarrier (by identity), phase


class Event(NamedTuple):
    """`what` is one of wait, arrive, load, landed, prefetch, mma, scales, commit, committed, read,
    store, sync, synced."""

    what: str
    warp: WarpKey
    executed: int
    data: Any


@dataclass(frozen=True)
class Load:
    """One TMA load: bytes of its box, those inside the tensor, and who gets them."""

    number: int
    operand: str
    coordinates: tuple[int, ...]
    box_bytes: int
    inside_bytes: int
    offset: int
    receivers: tuple[int, ...]


@dataclass(frozen=True)
class Multiply:
    m: int
    n: int
    reads_a: bool  # from shared memory; else from the collector buffer
    accumulate: bool
    d_column: int
    scale_columns: tuple[int, int]


@dataclass
class ClusterTrace:
    number: int
    sms: tuple[int, ...]
    events: list[Event] = field(default_factory=list)
    tensor_columns: int = 0


class Recorder(Observer):
    """One launch. `operands`: address -> name of an input tensor, such as "b[2]"."""

    def __init__(self) -> None:
        self.grid: Grid | None = None
        self.clusters: list[ClusterTrace] = []
        self.touched: dict[str, np.ndarray] = {}
        self.sizes: dict[str, int] = {}
        self.barrier_kinds: dict[int, str] = {}
        self._numbers: dict[int, int] = {}
        self._names: list[tuple[int, int, str]] = []
        self._current: dict[int, ClusterTrace] = {}
        self._keep_alive: list[MBarrier] = []
        self._in_flight: dict[AsyncOperation, int] = {}
        self._issued = 0

    # -- the launch -----------------------------------------------------------------------------------

    def launch_began(self, grid: Grid) -> None:
        self.grid = grid
        self._names = sorted((a.address, a.address + a.nbytes, a.name) for a in grid.memory.allocations)

    def cluster_began(self, cluster: Cluster) -> None:
        sms = tuple(cluster.grid.sm_of(cta) for cta in cluster.ctas)
        self._current[cluster.number] = ClusterTrace(cluster.number, sms)

    def cluster_ended(self, cluster: Cluster) -> None:
        self.clusters.append(self._current.pop(cluster.number))

    def _note(self, warp: Warp, what: str, data: Any = None) -> None:
        cta = warp.cta
        event = Event(what, (cta.rank, warp.index), warp.executed, data)
        self._current[cta.cluster.number].events.append(event)

    def _phase(self, barrier: MBarrier, phase: int) -> Phase:
        number = self._numbers.get(id(barrier))
        if number is None:
            number = self._numbers[id(barrier)] = len(self._numbers)
            self._keep_alive.append(barrier)  # so that the identity is not given to another one
        return number, phase

    # -- warps ----------------------------------------------------------------------------------------

    def mbarrier_arrive(
        self, warp: Warp, ins: Instruction, barrier: MBarrier, arrivals: int, nbytes: int
    ) -> None:
        key = self._phase(barrier, barrier.phase)
        if nbytes:
            self.barrier_kinds[key[0]] = "bytes"
        self._note(warp, "arrive", key)

    def mbarrier_passed(self, warp: Warp, ins: Instruction, barrier: MBarrier, phase: int) -> None:
        self._note(warp, "wait", self._phase(barrier, phase))

    def cluster_arrive(self, warp: Warp, ins: Instruction) -> None:
        self._note(warp, "sync", warp.cta.cluster.barrier.phase)

    def cluster_passed(self, warp: Warp, ins: Instruction) -> None:
        self._note(warp, "synced", warp.cta.cluster.barrier.phase - 1)

    def global_access(
        self, warp: Warp, ins: Instruction, addresses: int | np.ndarray, nbytes: int, kind: str
    ) -> None:
        lanes = 1 if isinstance(addresses, int) else len(addresses)
        self._note(warp, "store" if kind == "write" else "global " + kind, lanes * nbytes)

    def tensor_access(
        self, warp: Warp, ins: Instruction, rectangles: Sequence[tuple[int, int, int, int]], kind: str
    ) -> None:
        self._note(warp, "read", sum(columns for _, _, _, columns in rectangles))

    def tensor_allocated(
        self, warp: Warp, ins: Instruction, column: int, columns: int, destination: int
    ) -> None:
        self._current[warp.cta.cluster.number].tensor_columns = columns

    # -- asynchronous work ----------------------------------------------------------------------------

    def issued(self, operation: AsyncOperation) -> None:
        detail, warp = operation.detail, operation.issuer
        if isinstance(detail, TensorLoad):
            self._note(warp, "load", self._load(self._number(operation), detail))
        elif isinstance(detail, Commit):
            self._note(warp, "commit", self._number(operation))
        elif isinstance(detail, TensorCoreWork):
            multiply = _multiply(operation, detail)
            self._note(warp, "scales" if multiply is None else "mma", multiply)

    def performing(self, operation: AsyncOperation) -> None:
        detail = operation.detail
        if isinstance(detail, TensorLoad):
            phases = [self._signalled(*target) for target in detail.signals]
            for number, _ in phases:
                self.barrier_kinds[number] = "bytes"
            self._note(operation.issuer, "landed", (self._in_flight.pop(operation), phases))
        elif isinstance(detail, Commit):
            phases = [self._signalled(*target) for target in detail.targets]
            self._note(operation.issuer, "committed", (self._in_flight.pop(operation), phases))

    def _number(self, operation: AsyncOperation) -> int:
        self._issued += 1
        self._in_flight[operation] = self._issued
        return self._issued

    def _signalled(self, cta: Cta, offset: int) -> Phase:
        barrier = cta.barrier(offset)
        return self._phase(barrier, barrier.phase)

    def prefetched(self, warp: Warp, ins: Instruction, tensor_map: TensorMap, coords: Sequence[int]) -> None:
        name, _ = self._operand(tensor_map)
        rows, width = _extent(_spans(tensor_map, coords), tensor_map)
        self._note(warp, "prefetch", (name, tuple(coords), rows * width))

    # -- loads ----------------------------------------------------------------------------------------

    def _load(self, number: int, detail: TensorLoad) -> Load:
        tensor_map = detail.tensor_map
        name, start = self._operand(tensor_map)
        inside = self._mark(name, start, tensor_map, detail.coords)
        ranks = tuple(cta.rank for cta in detail.receivers)
        return Load(number, name, tuple(detail.coords), detail.nbytes, inside, detail.offset, ranks)

    def _operand(self, tensor_map: TensorMap) -> tuple[str, int]:
        place = bisect_right(self._names, (tensor_map.address, 1 << 64, "")) - 1
        start, end, name = self._names[place]
        if name not in self.touched:
            self.sizes[name] = end - start
            self.touched[name] = np.zeros(-(-(end - start) // GRANULE), bool)
        return name, tensor_map.address - start

    def _mark(self, name: str, start: int, tensor_map: TensorMap, coords: Sequence[int]) -> int:
        """Mark the bytes of the box that lie in the tensor as read; their number."""
        spans = _spans(tensor_map, coords)
        rows, width = _extent(spans, tensor_map)
        if not rows or not width:
            return 0
        offsets = np.array([start + spans[0].start * tensor_map.bits // 8])
        for span, stride in zip(spans[1:], tensor_map.strides, strict=True):
            offsets = np.add.outer(offsets, np.arange(span.start, span.stop) * stride).ravel()
        granules = np.add.outer(offsets // GRANULE, np.arange(-(-width // GRANULE)))
        self.touched[name][granules] = True
        return rows * width


def _spans(tensor_map: TensorMap, coords: Sequence[int]) -> list[range]:
    """The part of the box that lies in the tensor, per dimension."""
    return [
        range(max(at, 0), min(at + count, size))
        for at, count, size in zip(coords, tensor_map.box, tensor_map.dims, strict=True)
    ]


def _extent(spans: list[range], tensor_map: TensorMap) -> tuple[int, int]:
    """Rows (of dimension 0) and bytes of each."""
    return prod(len(span) for span in spans[1:]), len(spans[0]) * tensor_map.bits // 8


def _multiply(operation: AsyncOperation, detail: TensorCoreWork) -> Multiply | None:
    """What an MMA does, from its operands; None for tcgen05.cp and shift."""
    if operation.kind != "tcgen05.mma" or "A" not in detail.descriptors:
        return None
    _, _, _, d_address, _, _, idesc, sfa, sfb, accumulate = detail.key
    assert operation.ins is not None
    reads_a = not (operation.ins.has("collector::a::lastuse") or operation.ins.has("collector::a::use"))
    word, columns = int(str(idesc)), (int(str(sfa)) & 0xFFFF, int(str(sfb)) & 0xFFFF)
    m, n = (word >> 24 & 0x1F) * 16, (word >> 17 & 0x3F) * 8
    return Multiply(m, n, reads_a, bool(accumulate), int(str(d_address)) & 0xFFFF, columns)
