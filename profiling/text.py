"""A profile for human eyes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from profiling import rates

OPERANDS = {"a": "A (tokens)", "b": "B (weights)", "sfa": "SFA", "sfb": "SFB"}


def report(name: str, figures: dict[str, Any]) -> str:
    """All figures of one case as text."""
    groups = len(figures["sizes"])
    lines = [
        f"{name}: {groups} groups, {figures['launches']} launch{'es' if figures['launches'] != 1 else ''}"
    ]
    if "launch" in figures:
        for section in (_launch, _schedule, _traffic, _work, _memory, _binary, _bounds, _model):
            lines += section(figures)
    if "host_us" in figures:
        lines += _host(figures["host_us"])
    return "\n".join(lines)


def _title(text: str) -> str:
    return f"  {text}"


def _rows(rows: Iterable[tuple[str, str]]) -> list[str]:
    return [f"    {name:<37} {value}" for name, value in rows]


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(row: list[str]) -> str:
        first, *rest = row
        return (
            "    "
            + first.ljust(widths[0])
            + "".join("  " + c.rjust(w) for c, w in zip(rest, widths[1:], strict=True))
        )

    return [line(row) for row in (head, *rows)]


def _kb(count: float) -> str:
    return f"{count / 1024:.1f} KB"


def _mb(count: float) -> str:
    return f"{count / 1e6:.2f}"


def _launch(figures: dict[str, Any]) -> list[str]:
    launch = figures["launch"]
    ctas = launch["grid"][0] * launch["grid"][1] * launch["grid"][2]
    clusters = launch["working_clusters"]
    size = "x".join(map(str, launch["cluster"]))
    rows = [
        ("CTAs", f"{ctas} in clusters of {size}; {clusters} clusters have work"),
        ("threads per CTA", str(launch["block"][0] * launch["block"][1] * launch["block"][2])),
        ("may overlap the launch before (PDL)", "yes" if launch["pdl"] else "no"),
        ("shared memory per CTA", _kb(launch["shared_bytes"])),
        ("tensor memory columns", str(launch["tensor_columns"])),
    ]
    return [_title("launch"), *_rows(rows)]


def _schedule(figures: dict[str, Any]) -> list[str]:
    schedule = figures["schedule"]
    spread = ", ".join(f"{count} clusters with {n}" for n, count in schedule["tiles_per_cluster"].items())
    kinds: dict[str, list[int]] = {}
    for cluster, tiles in schedule["assignment"].items():
        kinds.setdefault(" then ".join(f"group {tile.strip('[]')}" for tile in tiles), []).append(
            int(cluster)
        )
    rows = [("output tiles", f"{schedule['tiles']}: {spread}")]
    rows += [(f"clusters {_ranges(clusters)}", tiles) for tiles, clusters in list(kinds.items())[:12]]
    if len(kinds) > 12:
        rows.append(("...", f"{len(kinds) - 12} more sequences (in the JSON record)"))
    return [_title("schedule"), *_rows(rows)]


def _ranges(numbers: list[int]) -> str:
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def _traffic(figures: dict[str, Any]) -> list[str]:
    traffic = figures["traffic"]
    rows = [
        [
            OPERANDS.get(kind, kind),
            _mb(counts["minimum"]),
            f"{counts['once'] / counts['minimum']:.2f}x",
            f"{counts['read'] / counts['minimum']:.2f}x",
            _mb(counts["into_sms"]),
            _mb(counts["boxes"]),
        ]
        for kind, counts in traffic["operands"].items()
    ]
    head = ["MB", "tensors", "read once", "read from L2", "into SMs", "boxes"]
    share = traffic["into_sms"] / max(1, traffic["sms"])
    rest = [
        (
            "into one SM, most",
            f"{_kb(traffic['largest_sm'])}, {traffic['largest_sm'] / share:.2f} of the mean",
        ),
        ("TMA loads", f"{traffic['loads']:,}"),
        ("stored", f"{_mb(traffic['stored'])} MB"),
    ]
    return [_title("traffic (counted)"), *_table(head, rows), *_rows(rest)]


def _work(figures: dict[str, Any]) -> list[str]:
    work = figures["work"]
    shapes = ", ".join(f"{count:,} of {shape}" for shape, count in work["mmas_by_shape"].items())
    rows = [
        ("MMAs (counted)", f"{work['mmas']:,}: {shapes}"),
        (
            "MMA cycles of the busiest SM",
            f"{work['mma_cycles_largest_sm']:,.0f} (model), balance {work['mma_balance']:.2f}",
        ),
        ("scale copies of the busiest SM", f"{work['scale_copies_largest_sm']:,}"),
        (
            "shared memory port, busiest SM",
            f"{work['shared_port_cycles_largest_sm']:,.0f} cycles, if reads and writes share it",
        ),
    ]
    return [_title("work"), *_rows(rows)]


def _memory(figures: dict[str, Any]) -> list[str]:
    memory = figures["memory_map"]
    rows = [("stages", f"{memory['stages']} of {_kb(memory['stage_bytes'])}")]
    for kind, places in memory["shared"].items():
        first = ", ".join(f"{offset:#x} ({nbytes:,} B)" for offset, nbytes in places[:3])
        rows.append(
            (
                f"shared memory, {OPERANDS.get(kind, kind)}",
                f"{len(places)} places: {first}{', ...' * (len(places) > 3)}",
            )
        )
    rows += [
        (f"tensor memory, {name}", "columns " + ", ".join(map(str, columns)))
        for name, columns in memory["tensor_columns"].items()
    ]
    return [_title("memory map of CTA 0 (as written and read)"), *_rows(rows)]


def _binary(figures: dict[str, Any]) -> list[str]:
    binary = figures["binary"]
    rows = []
    if "registers" in binary:
        spills = binary["spill_store_bytes"] + binary["spill_load_bytes"]
        rows.append(
            (
                "registers per thread",
                f"{binary['registers']}, {binary['stack_bytes']} B stack, {spills} B of spills",
            )
        )
    for key, what in (("sass_loops", "machine instructions"), ("ptx_loops", "PTX instructions")):
        if key in binary:
            loops = ", ".join(f"{name} {count}" for name, count in binary[key].items())
            rows.append((f"{what} per loop turn", loops))
            break
    return [_title(f"code ({binary['source']})"), *_rows(rows)]


def _bounds(figures: dict[str, Any]) -> list[str]:
    names = {
        "dram_reads": f"each byte once from DRAM at {rates.DRAM_BYTES_PER_S / 1e12:g} TB/s",
        "into_one_sm": f"most loaded SM at {rates.SM_INGEST_BYTES_PER_S / 1e9:g} GB/s",
        "l2_to_sms": f"L2 to all SMs at {rates.L2_BYTES_PER_S / 1e12:g} TB/s",
        "mma": f"MMAs of the busiest SM at {rates.CLOCK_HZ / 1e9:g} GHz",
        "bound": "bound: the largest",
    }
    bounds = figures["bounds"]
    return [
        _title("bounds (counts over measured rates)"),
        *_rows((names[key], f"{bounds[key]:.2f} µs") for key in names),
    ]


def _model(figures: dict[str, Any]) -> list[str]:
    model = figures["model"]
    if not model:
        return []
    rows = [
        ("kernel, first CTA to last store", f"{model['kernel_us']:.2f} µs"),
        (
            "first bytes / last bytes / last MMA",
            " / ".join(f"{model[k]:.2f}" for k in ("first_bytes_us", "last_bytes_us", "last_mma_us")),
        ),
        (
            "bytes in flight into an SM",
            f"{_kb(model['steady_bytes_in_flight'])} in the steady state, "
            f"{_kb(model['peak_bytes_in_flight'])} at most",
        ),
    ]
    if model["prefetch_bytes_in_flight_all_sms"]:
        share = model["prefetch_bytes_in_flight_all_sms"] / figures["traffic"]["sms"]
        rows.append(("... and into L2 by prefetches", f"{_kb(share)} per SM"))
    for name, wait in model["waits"].items():
        told = f"{wait['per_warp']:.0f} per warp, {wait['blocked']:.0%} block, {wait['us_per_warp']:.2f} µs"
        rows.append((name, told))
    return [_title("model of the run (see profiling/rates.py; no B200 measured this)"), *_rows(rows)]


def _host(host: dict[str, float]) -> list[str]:
    rows = [(name.replace("_", " "), f"{value:.1f} µs") for name, value in host.items()]
    return [_title("host time of a call on this CPU, launch stubbed out"), *_rows(rows)]
