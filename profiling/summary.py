"""The figures of one launch, from its trace: traffic, work, memory maps, modelled times. Plain JSON types."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from profiling import rates
from profiling.replay import Replay, Timeline, peak_bytes, prefetched_bytes, steady_bytes
from profiling.trace import ClusterTrace, Load, Multiply, Recorder

READ_OPERANDS = ("a", "b", "sfa", "sfb")
_RESERVED_SHARED = 0x400


def kind_of(operand: str) -> str:
    """ "b[3]" -> "b"."""
    return operand.partition("[")[0]


def summarize(recorder: Recorder) -> tuple[dict[str, Any], list[Timeline]]:
    """Everything the report shows of a launch, and the timelines for the picture."""
    grid = recorder.grid
    assert grid is not None
    traffic = _traffic(recorder)
    work = _work(recorder.clusters)
    bounds = _bounds(traffic, work)
    timelines = _timelines(recorder, traffic, bounds)
    summary = {
        "launch": {
            "grid": list(grid.size),
            "block": list(grid.block),
            "cluster": list(grid.cluster),
            "pdl": grid.pdl,
            "working_clusters": sum(bool(timeline.flights) for timeline in timelines),
            "shared_bytes": grid.shared_end - _RESERVED_SHARED,
            "tensor_columns": max((trace.tensor_columns for trace in recorder.clusters), default=0),
        },
        "schedule": _schedule(recorder.clusters, timelines),
        "traffic": traffic,
        "work": work,
        "memory_map": _memory_map(recorder.clusters),
        "bounds": bounds,
        "model": _model(timelines, traffic),
    }
    return summary, timelines


# -- traffic ----------------------------------------------------------------------------------------------


def _loads(trace: ClusterTrace) -> list[Load]:
    return [event.data for event in trace.events if event.what == "load"]


def _traffic(recorder: Recorder) -> dict[str, Any]:
    """Bytes by operand. `minimum`: the tensors' bytes (scales with their padding). `once`: different bytes
    read. `read`: bytes read from L2, a multicast once. `into_sms`: bytes that arrive in SMs."""
    read: Counter[str] = Counter()
    into: Counter[str] = Counter()
    boxes: Counter[str] = Counter()
    per_sm: Counter[int] = Counter()
    box_per_sm: Counter[int] = Counter()
    loads = 0
    for trace in recorder.clusters:
        for load in _loads(trace):
            kind = kind_of(load.operand)
            loads += 1
            read[kind] += load.inside_bytes
            into[kind] += load.inside_bytes * len(load.receivers)
            boxes[kind] += load.box_bytes * len(load.receivers)
            for rank in load.receivers:
                per_sm[trace.sms[rank]] += load.inside_bytes
                box_per_sm[trace.sms[rank]] += load.box_bytes
    minimum: Counter[str] = Counter()
    once: Counter[str] = Counter()
    for name, touched in recorder.touched.items():
        minimum[kind_of(name)] += recorder.sizes[name]
        once[kind_of(name)] += min(int(touched.sum()) * 16, recorder.sizes[name])
    operands = {
        kind: {
            "minimum": minimum[kind],
            "once": once[kind],
            "read": read[kind],
            "into_sms": into[kind],
            "boxes": boxes[kind],
        }
        for kind in sorted(read)
    }
    stores = sum(e.data for trace in recorder.clusters for e in trace.events if e.what == "store")
    return {
        "operands": operands,
        "loads": loads,
        "stored": stores,
        "once": sum(once.values()),
        "read": sum(read.values()),
        "into_sms": sum(into.values()),
        "sms": len(per_sm),
        "largest_sm": max(per_sm.values(), default=0),
        "smallest_sm": min(per_sm.values(), default=0),
        "largest_sm_boxes": max(box_per_sm.values(), default=0),
    }


# -- work -------------------------------------------------------------------------------------------------


def _work(clusters: list[ClusterTrace]) -> dict[str, Any]:
    """MMAs by shape, and the cycles of the SM that has most. Both CTAs of a pair are busy with an MMA."""
    shapes: Counter[tuple[int, int]] = Counter()
    cycles: dict[int, float] = defaultdict(float)
    port: dict[int, float] = defaultdict(float)
    copies: Counter[int] = Counter()
    for trace in clusters:
        for event in trace.events:
            if event.what == "mma":
                multiply: Multiply = event.data
                shapes[multiply.m, multiply.n] += 1
                for sm in trace.sms:
                    cycles[sm] += rates.mma_cycles(multiply.m, multiply.n)
                    port[sm] += _port_cycles(multiply, len(trace.sms))
            elif event.what == "scales":
                for sm in trace.sms:
                    copies[sm] += 1
                    port[sm] += 512 / rates.SMEM_BYTES_PER_CYCLE
            elif event.what == "load":
                for rank in event.data.receivers:
                    port[trace.sms[rank]] += event.data.box_bytes / rates.SMEM_BYTES_PER_CYCLE
    busiest = max(cycles.values(), default=0.0)
    return {
        "mmas": sum(shapes.values()),
        "mmas_by_shape": {f"{m}x{n}x64": count for (m, n), count in sorted(shapes.items())},
        "mma_flops": sum(2 * m * n * 64 * count for (m, n), count in shapes.items()),
        "scale_copies_largest_sm": max(copies.values(), default=0),
        "mma_cycles_largest_sm": busiest,
        "mma_balance": sum(cycles.values()) / len(cycles) / busiest if busiest else 0.0,
        "shared_port_cycles_largest_sm": max(port.values(), default=0.0),
    }


def _port_cycles(multiply: Multiply, ctas: int) -> float:
    """Shared memory cycles of an MMA in each CTA: rows (unless in the collector) and tokens, 32 B each."""
    rows = multiply.m // ctas if multiply.reads_a else 0
    return (rows + multiply.n // ctas) * 32 / rates.SMEM_BYTES_PER_CYCLE


# -- memory maps ------------------------------------------------------------------------------------------


def _memory_map(clusters: list[ClusterTrace]) -> dict[str, Any]:
    """Shared memory places that loads write, by operand; tensor memory columns that MMAs use; in CTA 0."""
    places: dict[str, set[tuple[int, int]]] = defaultdict(set)
    columns: dict[str, set[int]] = defaultdict(set)
    for trace in clusters:
        for event in trace.events:
            if event.what == "load" and 0 in event.data.receivers:
                places[kind_of(event.data.operand)].add((event.data.offset, event.data.box_bytes))
            elif event.what == "mma":
                columns["accumulators"].add(event.data.d_column)
                columns["row scales"].add(event.data.scale_columns[0])
                columns["token scales"].add(event.data.scale_columns[1])
    weights = sorted(offset for offset, _ in places.get("b", ()))
    return {
        "stages": len(weights),
        "stage_bytes": weights[1] - weights[0] if len(weights) > 1 else 0,
        "shared": {kind: [list(place) for place in sorted(found)] for kind, found in sorted(places.items())},
        "tensor_columns": {name: sorted(found) for name, found in columns.items()},
    }


# -- schedule and models ----------------------------------------------------------------------------------


def _schedule(clusters: list[ClusterTrace], timelines: list[Timeline]) -> dict[str, Any]:
    per_cluster = Counter(len(timeline.tiles) for timeline in timelines)
    return {
        "tiles": sum(len(timeline.tiles) for timeline in timelines),
        "tiles_per_cluster": {str(tiles): count for tiles, count in sorted(per_cluster.items())},
        "assignment": {
            str(trace.number): [span.label for span in timeline.tiles]
            for trace, timeline in zip(clusters, timelines, strict=True)
            if timeline.tiles
        },
    }


def _bounds(traffic: dict[str, Any], work: dict[str, Any]) -> dict[str, Any]:
    """Microseconds that each resource needs at least, from counts and measured rates."""
    parts = {
        "dram_reads": traffic["once"] / rates.DRAM_BYTES_PER_S * 1e6,
        "into_one_sm": traffic["largest_sm"] / rates.SM_INGEST_BYTES_PER_S * 1e6,
        "l2_to_sms": traffic["into_sms"] / rates.L2_BYTES_PER_S * 1e6,
        "mma": rates.microseconds(work["mma_cycles_largest_sm"]),
    }
    return {**parts, "bound": max(parts.values())}


def _timelines(recorder: Recorder, traffic: dict[str, Any], bounds: dict[str, Any]) -> list[Timeline]:
    """Every SM gets the same bandwidth: what it may take in, or its share of L2 or DRAM. A byte that several
    SMs read is shared between them on the way from DRAM."""
    sms = max(1, traffic["sms"])
    from_dram = rates.DRAM_BYTES_PER_S / sms * max(1.0, traffic["into_sms"] / max(1, traffic["once"]))
    per_second = min(rates.SM_INGEST_BYTES_PER_S, rates.L2_BYTES_PER_S / sms, from_dram)
    per_cycle = per_second / rates.CLOCK_HZ
    prefetched: dict[tuple[str, tuple[int, ...]], float] = {}
    return [
        Replay(trace, recorder.barrier_kinds, per_cycle, prefetched).run()
        for trace in sorted(recorder.clusters, key=lambda trace: trace.number)
    ]


def _model(timelines: list[Timeline], traffic: dict[str, Any]) -> dict[str, Any]:
    busy = [timeline for timeline in timelines if timeline.flights]
    if not busy:
        return {}
    longest = max(busy, key=lambda timeline: timeline.end)
    waits: dict[str, list[list[float]]] = defaultdict(list)  # name -> per warp, its waits
    for timeline in busy:
        for name, warps in timeline.waits.items():
            waits[name] += warps.values()
    return {
        "kernel_us": rates.microseconds(longest.end),
        "first_bytes_us": rates.microseconds(longest.first_landing),
        "last_bytes_us": rates.microseconds(longest.last_landing),
        "last_mma_us": rates.microseconds(longest.last_mma),
        "steady_bytes_in_flight": round(min(steady_bytes(timeline) for timeline in busy)),
        "prefetch_bytes_in_flight_all_sms": round(prefetched_bytes(busy)),
        "peak_bytes_in_flight": max(peak_bytes(timeline) for timeline in busy),
        "waits": {
            name: {
                "per_warp": sum(len(warp) for warp in warps) / len(warps),
                "blocked": sum(c > 0 for warp in warps for c in warp) / sum(len(warp) for warp in warps),
                "us_per_warp": rates.microseconds(sum(sum(warp) for warp in warps) / len(warps)),
            }
            for name, warps in sorted(waits.items())
        },
    }
