"""When the recorded events of a launch would happen on a B200: a model, built on measured rates.

Each warp runs its instructions at a fixed rate and waits where it waited. A load takes a slot of its CTA's
TMA engine, then the latency, then its bytes at the CTA's share of bandwidth. MMAs run one after the other. A
phase of an mbarrier completes with its last arrival. Not modelled: contention inside L2, DRAM pages and
refresh, clock changes, write-back of what was in L2 before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from profiling import rates
from profiling.trace import ClusterTrace, Load, Multiply, Phase, WarpKey

#: Waits by the role of the waiting warp and by whether the barrier counts bytes.
_WAIT_NAMES = {
    ("load", False): "load: for a free stage",
    ("mma", True): "mma: for the bytes of a stage",
    ("mma", False): "mma: for a free accumulator",
    ("store", False): "store: for a finished accumulator",
}


@dataclass
class Span:
    """Something that takes time, in cycles: loads of one tile, or stores of one accumulator."""

    start: float
    end: float
    label: str = ""

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass
class Timeline:
    """One cluster. Cycles from its start; `flights` are (issue, landing, bytes) of each load, by receiver;
    `prefetches` the same of boxes fetched into L2."""

    sms: tuple[int, ...]
    end: float = 0.0
    mma_busy: float = 0.0
    first_landing: float = 0.0
    last_landing: float = 0.0
    last_mma: float = 0.0
    tiles: list[Span] = field(default_factory=list)
    stores: list[Span] = field(default_factory=list)
    prefetches: list[tuple[float, float, int]] = field(default_factory=list)
    flights: dict[int, list[tuple[float, float, int]]] = field(default_factory=lambda: defaultdict(list))
    waits: dict[str, dict[WarpKey, list[float]]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """What a picture shows."""
        spans = {"tiles": self.tiles, "stores": self.stores}
        return {"sms": self.sms} | {name: [s.as_dict() for s in found] for name, found in spans.items()}

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> Timeline:
        tiles, stores = ([Span(**span) for span in record[name]] for name in ("tiles", "stores"))
        return Timeline(tuple(record["sms"]), tiles=tiles, stores=stores)


def roles(trace: ClusterTrace) -> dict[WarpKey, str]:
    """What each warp is there for, from what it did."""
    telling = {"load": "load", "mma": "mma", "read": "store"}
    found: dict[WarpKey, str] = {}
    for event in trace.events:
        role = telling.get(event.what)
        if role:
            found.setdefault(event.warp, role)
    return found


class Replay:
    """Runs one cluster's events in the recorded order, which respects every dependency.

    `prefetched`: boxes that some cluster has fetched into L2, and when L2 has them; shared by all clusters.
    """

    def __init__(
        self,
        trace: ClusterTrace,
        barrier_kinds: dict[int, str],
        bytes_per_cycle: float,
        prefetched: dict[tuple[str, tuple[int, ...]], float],
    ) -> None:
        self.trace = trace
        self.rate = bytes_per_cycle
        self.kinds = barrier_kinds
        self.roles = roles(trace)
        self.time: dict[WarpKey, float] = defaultdict(float)
        self.executed: dict[WarpKey, int] = defaultdict(int)
        self.done: dict[Phase, float] = defaultdict(float)
        self.engine_free: dict[int, float] = defaultdict(float)  # per CTA: TMA issue
        self.port_free: dict[int, float] = defaultdict(float)  # per CTA: arriving bytes
        self.prefetched = prefetched
        self.pipe_free = 0.0
        self.copy_free = 0.0
        self.finish: dict[int, float] = {}  # loads and commits by number
        self.synced: dict[int, float] = defaultdict(float)
        self.stored: dict[WarpKey, Span] = {}
        self.result = Timeline(trace.sms)
        self._tile: tuple[str, tuple[int, ...]] | None = None

    def run(self) -> Timeline:
        for what, warp, executed, data in self.trace.events:
            self.time[warp] += (executed - self.executed[warp]) * rates.INSTRUCTION_CYCLES
            self.executed[warp] = executed
            handler = getattr(self, f"_{what}", None)
            if handler is not None:
                handler(warp, data)
        ends = [*self.time.values(), *(span.end for span in self.result.stores)]
        self.result.end = max(ends, default=0.0)
        return self.result

    # -- warps ----------------------------------------------------------------------------------------

    def _wait(self, warp: WarpKey, phase: Phase) -> None:
        ready = self.done.get(phase, 0.0)
        role = self.roles.get(warp, "other")
        name = _WAIT_NAMES.get((role, self.kinds.get(phase[0]) == "bytes"), f"{role}: other")
        waits = self.result.waits.setdefault(name, {})
        waits.setdefault(warp, []).append(max(0.0, ready - self.time[warp]))
        self.time[warp] = max(self.time[warp], ready)
        self.stored.pop(warp, None)

    def _arrive(self, warp: WarpKey, phase: Phase) -> None:
        self.done[phase] = max(self.done[phase], self.time[warp])

    def _sync(self, warp: WarpKey, phase: int) -> None:
        self.synced[phase] = max(self.synced[phase], self.time[warp] + rates.CLUSTER_BARRIER_CYCLES)

    def _synced(self, warp: WarpKey, phase: int) -> None:
        self.time[warp] = max(self.time[warp], self.synced[phase])

    def _read(self, warp: WarpKey, columns: int) -> None:
        self.time[warp] += rates.TENSOR_LOAD_CYCLES

    def _store(self, warp: WarpKey, nbytes: int) -> None:
        span = self.stored.get(warp)
        if span is None:
            span = self.stored[warp] = Span(self.time[warp], self.time[warp], str(warp[0]))
            self.result.stores.append(span)
        span.end = self.time[warp] + rates.STORE_DRAIN_CYCLES

    # -- asynchronous work ----------------------------------------------------------------------------

    def _load(self, warp: WarpKey, load: Load) -> None:
        rank = warp[0]
        start = max(self.time[warp], self.engine_free[rank])
        self.engine_free[rank] = start + rates.TMA_ISSUE_CYCLES
        self.time[warp] = start
        in_l2 = self.prefetched.get((load.operand, load.coordinates))
        first, cycles = start + rates.TMA_LATENCY_CYCLES, load.inside_bytes / self.rate
        if in_l2 is not None:
            first = max(start + rates.TMA_L2_LATENCY_CYCLES, min(first, in_l2))
        landing = first
        for receiver in load.receivers:
            if receiver == rank:
                end = self.port_free[rank] = max(first, self.port_free[rank]) + cycles
            else:  # its own loads of that time may not have been seen yet: take bandwidth, no place in line
                end = first + cycles
                self.port_free[receiver] += cycles
            self.result.flights[receiver].append((start, end, load.inside_bytes))
            landing = max(landing, end)
        self.finish[load.number] = landing
        if rank == 0:
            self._count_tile(load, start, landing)

    def _prefetch(self, warp: WarpKey, data: tuple[str, tuple[int, ...], int]) -> None:
        start = max(self.time[warp], self.engine_free[warp[0]])
        self.engine_free[warp[0]] = start + rates.TMA_ISSUE_CYCLES
        self.time[warp] = start
        arrival = self.prefetched.setdefault((data[0], data[1]), start + rates.TMA_LATENCY_CYCLES)
        self.result.prefetches.append((start, arrival, data[2]))

    def _count_tile(self, load: Load, start: float, landing: float) -> None:
        """A tile's loads go on until the weights of other rows, or of the first K again, are loaded."""
        if load.operand.startswith("b["):
            tile = load.operand, load.coordinates[1:]
            if self._tile != tile or load.coordinates[0] == 0:
                self.result.tiles.append(Span(start, landing, load.operand[1:]))
            self._tile = tile
        if self.result.tiles:
            self.result.tiles[-1].end = max(self.result.tiles[-1].end, landing)

    def _landed(self, warp: WarpKey, data: tuple[int, list[Phase]]) -> None:
        self._complete(data)
        landing = self.finish[data[0]]
        self.result.first_landing = min(self.result.first_landing or landing, landing)
        self.result.last_landing = max(self.result.last_landing, landing)

    def _complete(self, data: tuple[int, list[Phase]]) -> None:
        number, phases = data
        for phase in phases:
            self.done[phase] = max(self.done[phase], self.finish[number])

    def _mma(self, warp: WarpKey, multiply: Multiply) -> None:
        cycles = rates.mma_cycles(multiply.m, multiply.n)
        self.result.mma_busy += cycles
        self.pipe_free = max(self.pipe_free, self.copy_free, self.time[warp]) + cycles
        self.result.last_mma = self.pipe_free

    def _scales(self, warp: WarpKey, _: None) -> None:
        """Copies overlap with earlier MMAs; later MMAs wait for them."""
        self.copy_free = max(self.copy_free, self.time[warp]) + rates.SCALE_COPY_CYCLES

    def _commit(self, warp: WarpKey, number: int) -> None:
        self.finish[number] = max(self.pipe_free, self.time[warp]) + rates.COMMIT_CYCLES

    def _committed(self, warp: WarpKey, data: tuple[int, list[Phase]]) -> None:
        self._complete(data)


def steady_bytes(timeline: Timeline) -> float:
    """Mean bytes on their way into a CTA between the first landing and the last issue, over its CTAs."""
    means = []
    for flights in timeline.flights.values():
        begin, end = min(land for _, land, _ in flights), max(issue for issue, _, _ in flights)
        if end > begin:
            means.append(_held(flights, begin, end) / (end - begin))
        else:  # everything is under way before anything lands
            means.append(float(sum(size for _, _, size in flights)))
    return sum(means) / len(means) if means else 0.0


def prefetched_bytes(timelines: list[Timeline]) -> float:
    """Mean bytes on their way into L2 by prefetches, from the first issue to the last arrival."""
    all_of_them = [each for timeline in timelines for each in timeline.prefetches]
    if not all_of_them:
        return 0.0
    begin, end = min(issue for issue, _, _ in all_of_them), max(arrival for _, arrival, _ in all_of_them)
    return _held(all_of_them, begin, end) / (end - begin)


def _held(flights: list[tuple[float, float, int]], begin: float, end: float) -> float:
    """Bytes times cycles in flight from `begin` to `end`."""
    return sum(max(0.0, min(land, end) - max(issue, begin)) * size for issue, land, size in flights)


def peak_bytes(timeline: Timeline) -> int:
    """Most bytes in flight into one CTA at a time."""
    peak = 0
    for flights in timeline.flights.values():
        changes = sorted(
            [(land, -size) for _, land, size in flights] + [(issue, size) for issue, _, size in flights]
        )
        held = 0
        for _, change in changes:
            held += change
            peak = max(peak, held)
    return peak
