"""The run for human eyes: a header, one row per case, what failed and why, the verdict."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TextIO

from evaluator import speed_of_light
from evaluator.defences import State
from evaluator.reasons import Reason
from evaluator.record import score_us
from evaluator.results import CaseResult, RunResult
from evaluator.verdict import Status

_DETAIL_LINES = 40
#: Columns that a narrow terminal does without, in this order.
_EXPENDABLE = ("launches", "k", "n", "m", "groups", "MMA", "traffic")
_DIGITS = re.compile(r"\d+")
Row = list[str]


def header(run: RunResult) -> str:
    submission = run.facts["submission"]
    return (
        f"{submission['path']} ({submission['sha256'][:12]})\n"
        f"device: {run.facts['device']['description']}; mode: {run.mode}; {len(run.results)} cases"
    )


def finished_line(result: CaseResult, device: str) -> str:
    """One line, as soon as a case is done."""
    parts = [f"{result.case.name}: {result.verdict.label}"]
    if result.verdict.passed:
        parts.append(exactness(result))
        if result.time_us is not None:
            parts.append(f"{result.time_us:.3f} µs")
    else:
        parts.append(result.verdict.message[:200])
    if result.sanitized:
        parts.append(result.sanitized.line())
    if (device == "sim" and result.launches) or (device == "cpu" and "run" in result.seconds):
        parts.append(f"{_doing(device)} took {call_seconds(result):.1f} s on this CPU")
    return ", ".join(part for part in parts if part)


def call_seconds(result: CaseResult) -> float:
    """Seconds of simulation if kernels were simulated (compilation left out), else of the whole call."""
    simulated = result.total("seconds")
    return result.seconds["run"] if simulated is None else simulated


def exactness(result: CaseResult) -> str:
    if result.inexact is None:
        return ""
    if result.inexact == 0:
        return "bit-exact"
    return f"{result.inexact} of {result.elements} elements differ in the last bits"


def table(run: RunResult, out: TextIO = sys.stdout) -> None:
    """Print the cases. Rich draws the table on a terminal; elsewhere columns are aligned with blanks."""
    names, rows = columns(run), [row(run, result) for result in run.results]
    if out.isatty() and _rich_table(names, rows, run):
        return
    print("\n".join(plain_table(names, rows)), file=out)


def plain_table(columns: Sequence[str], rows: Sequence[Row]) -> list[str]:
    widths = [max(len(line[i]) for line in (list(columns), *rows)) for i in range(len(columns))]
    lines = [
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) for line in (columns, *rows)
    ]
    rule = "  ".join("-" * w for w in widths)
    return [line.rstrip() for line in (lines[0], rule, *lines[1:])]


def failures(run: RunResult) -> str:
    """What went wrong: once for all cases to which it happened alike, in detail once for each kind."""
    alike: dict[tuple[str, str, str], list[CaseResult]] = {}
    for result in run.results:
        verdict = result.verdict
        if not verdict.passed and verdict.status is not Status.NOT_RUN:
            alike.setdefault((verdict.label, verdict.message, verdict.detail), []).append(result)
    parts: list[str] = []
    kinds: dict[tuple[str, str], str] = {}
    for (status, message, detail), results in alike.items():
        lines = [f"{', '.join(r.case.name for r in results)}: {status}: {message}"]
        kind = (status, _DIGITS.sub("", message))
        if kind in kinds and not status.startswith(Status.WRONG_RESULT.value):
            lines.append(f"    like {kinds[kind]}")
        else:
            lines += [f"    {line}" for line in _shortened(detail.splitlines()) if line.strip() != message]
        kinds.setdefault(kind, results[0].case.name)
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def lanes(run: RunResult) -> str:
    """The times of each lane side by side, for a run that measured."""
    lines = []
    for result in run.results:
        strict = result.lanes.get("strict_ns")
        if not strict or not result.stats:
            continue
        value, low, high = (x / 1e3 for x in strict["median_and_95_interval"])
        clock, host = result.lanes["judge_clock_ns"]["seen"] / 1e3, result.lanes["host_ns"] / 1e3
        fresh = result.lanes.get("fresh_window_ns")
        parts = [
            f"{result.case.name}: official {result.stats.mean / 1e3:.3f} µs ± {result.stats.err / 1e3:.3f}",
            f"strict {value:.3f} [{low:.3f}, {high:.3f}]",
            f"empty window {strict['empty_window_median'] / 1e3:.3f}",
            f"judge's clock {clock:.3f} (warm)",
            f"launching {host:.1f}",
        ]
        lines.append(", ".join(parts + ([f"fresh window {fresh / 1e3:.3f}"] if fresh else [])))
    return "\n".join(lines)


def defences(run: RunResult) -> str:
    """What a reader must know before trusting the run: signals, words in the text, what was not on."""
    lines = [f"{result.case.name}: {signal}" for result in run.results for signal in result.signals]
    if run.remarks:
        lines.append(f"{Reason.TEXT}, worth a look in the source:")
        lines += [f"    {remark}" for remark in run.remarks]
    count = {state: sum(entry.state is state for entry in run.defences) for state in State}
    off = [entry for entry in run.defences if entry.state is State.OFF]
    lines.append(
        f"defences: {count[State.ON]} on, {count[State.OFF]} off, {count[State.NA]} not applicable "
        "(--json lists all)"
    )
    lines += [f"    OFF {entry.name}: {entry.reason}" for entry in off]
    if run.seed_key:
        lines.append(f"seeds: --seed {run.seed_key} draws them again")
    return "\n".join(lines)


def summary(run: RunResult) -> str:
    """The last lines: how many passed, the score or why there is none."""
    passed, count = run.count_passed(), len(run.results)
    exact = sum(r.verdict.passed and bool(r.bit_exact) for r in run.results)
    exactly = "all bit-exact" if exact == passed == count else f"{exact} bit-exact"
    lines = [f"{passed} of {count} passed, {exactly}, {run.wall_seconds:.1f} s"]
    score = score_us(run)
    if score is not None:
        lines.append(f"geometric mean of the benchmarks: {score:.3f} µs")
    elif run.passed and run.device != "cuda" and run.mode in ("benchmark", "leaderboard"):
        lines.append("verified, not timed: only a GPU's time counts, so there is no score")
    if run.interrupted:
        lines.append("interrupted")
    return "\n".join(lines)


def notes(run: RunResult) -> str:
    """What the columns mean where that is not plain."""
    machine = speed_of_light.machine_of(run.facts)
    lines = [
        f"speed of light: lower bound on {machine.name}; ~ marks our model where the task states no target"
    ]
    if run.device == "sim":
        lines.append("simulated in: wall time on this CPU, which says nothing about the kernel's speed")
        lines.append(
            "MMA, traffic: products computed and bytes loaded by TMA (L2 hits too), over what is needed"
        )
    return "\n".join(lines)


def launch_notes(run: RunResult) -> str:
    """What the simulator found worth knowing about the kernels that ran, each note once."""
    cases: dict[str, list[str]] = {}
    for result in run.results:
        for note in dict.fromkeys(str(entry["notes"]) for entry in result.launches if "notes" in entry):
            cases.setdefault(note, []).append(result.case.name)
    return "\n".join(f"note ({', '.join(names)}): {note}" for note, names in cases.items())


def launch_report(result: CaseResult) -> str:
    """Every launch of a case with its counters and where the simulation's time went, for `--mode profile`."""
    lines = [
        f"{result.case.name}: {result.case.spec}",
        f"  {result.verdict.status.value} {result.verdict.message}",
    ]
    if not result.launches:
        lines.append("  no launches were seen")
    elif "run" in result.seconds:
        host = result.seconds["run"] - call_seconds(result)
        lines.append(
            f"  imports, compilation and host code {host:.2f} s, simulation {call_seconds(result):.2f} s"
        )
    for number, counters in enumerate(result.launches):
        lines.append(f"  launch {number}")
        width = max(map(len, counters), default=0)
        for name, value in counters.items():
            lines.append(f"    {name.ljust(width)}  {_counter_text(value)}")
        rate = instruction_rate(result, number)
        if rate:
            lines.append(
                f"    the simulation ran {rate:,.0f} warp instructions per second: {_shares(counters)}"
            )
    return "\n".join(lines)


def _shares(counters: Mapping[str, object]) -> str:
    """Where a launch's seconds went: the named parts, and the rest, which is warps and scheduling."""
    suffix = "_seconds"
    parts = {
        name.removesuffix(suffix).replace("_", " "): float(value)
        for name, value in counters.items()
        if name.endswith(suffix) and isinstance(value, (int, float))
    }
    processes = counters.get("processes", 1)
    total = float(counters["seconds"]) * (processes if isinstance(processes, int) else 1)  # type: ignore[arg-type]
    parts["warps and scheduling"] = max(0.0, total - sum(parts.values()))
    return ", ".join(f"{name} {100 * spent / total:.0f} %" for name, spent in parts.items())


def instruction_rate(result: CaseResult, launch: int) -> float | None:
    counters = result.launches[launch]
    done, seconds = counters.get("warp_instructions"), counters.get("seconds")
    if isinstance(done, (int, float)) and isinstance(seconds, (int, float)) and seconds > 0:
        return done / seconds
    return None


def sizes(values: Iterable[int]) -> str:
    """`"4096"` if all are alike, all of them if that is short, else their range."""
    listed = list(values)
    if len(set(listed)) == 1:
        return str(listed[0])
    text = " ".join(map(str, listed))
    return text if len(text) <= 11 else f"{min(listed)}..{max(listed)}"


def columns(run: RunResult) -> Row:
    shared = ["case", "groups", "m", "n", "k", "result", "bit-exact"]
    if run.device == "sim":
        return [*shared, "simulated in", "launches", "MMA", "traffic", "speed of light"]
    if run.device == "cuda":
        return [*shared, "time", "speed of light", "ratio"]
    return [*shared, "call", "speed of light"]


def row(run: RunResult, result: CaseResult) -> Row:
    case, floor = result.case, speed_of_light.floor(result.case, speed_of_light.machine_of(run.facts))
    exact = {True: "yes", False: "no", None: ""}[result.bit_exact]
    row = [
        case.name,
        str(case.g),
        sizes(case.m),
        sizes(case.n),
        sizes(case.k),
        result.verdict.status.value,
        exact,
    ]
    bound = f"{'~' if floor.source == 'model' else ''}{floor.microseconds:.3f} µs"
    if run.device == "cuda":
        time = f"{result.time_us:.3f} µs" if result.time_us is not None else "not measured"
        ratio = f"{result.time_us / floor.microseconds:.2f}x" if result.time_us is not None else ""
        return [*row, time, bound, ratio]
    took = f"{call_seconds(result):.1f} s" if "run" in result.seconds else ""
    if run.device != "sim":
        return [*row, took, bound]
    launches = str(len(result.launches)) if result.launches else ""
    work, loads = result.total("mma_flops"), result.total("tma_load_bytes")
    arithmetic = f"{work / speed_of_light.flops(case):.2f}x" if work is not None else ""
    traffic = f"{loads / speed_of_light.compulsory_loads(case):.2f}x" if loads is not None else ""
    return [*row, took, launches, arithmetic, traffic, bound]


def _rich_table(columns: Row, rows: list[Row], run: RunResult) -> bool:
    """Draw the table with Rich; False if Rich is not installed. A narrow terminal gets fewer columns."""
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        return False
    console = Console()
    kept = fitting(columns, rows, console.width)
    drawn = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1), pad_edge=False)
    for index in kept:
        drawn.add_column(columns[index], justify="left" if columns[index] in ("case", "result") else "right")
    for cells, result in zip(rows, run.results, strict=True):
        colour = "green" if result.verdict.passed else "red"
        coloured = [
            f"[{colour}]{cell}[/{colour}]" if columns[i] == "result" else cell for i, cell in enumerate(cells)
        ]
        drawn.add_row(*(coloured[index] for index in kept))
    console.print(drawn)
    return True


def fitting(columns: Row, rows: list[Row], width: int) -> list[int]:
    """Indices of the columns that fit in `width`; the least needed are left out first."""
    widths = [max(len(cells[i]) for cells in (columns, *rows)) + 2 for i in range(len(columns))]
    kept = list(range(len(columns)))
    for name in _EXPENDABLE:
        if sum(widths[i] for i in kept) <= width:
            break
        kept = [i for i in kept if columns[i] != name]
    return kept


def _shortened(lines: list[str]) -> list[str]:
    if len(lines) <= _DETAIL_LINES:
        return lines
    half = _DETAIL_LINES // 2
    return [*lines[:half], f"... {len(lines) - 2 * half} lines ...", *lines[-half:]]


def _counter_text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _doing(device: str) -> str:
    return "simulation" if device == "sim" else "the call"
