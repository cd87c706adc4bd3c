"""`profiling`: counts of a real run against arithmetic on the sizes, the time model against times by hand."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from profiling import binary, rates, text
from profiling.replay import Replay, Span, Timeline, peak_bytes, steady_bytes
from profiling.run import host_times, profile
from profiling.summary import kind_of
from profiling.trace import ClusterTrace, Event, Load, Multiply

ROOT = Path(__file__).parents[1]
SUBMISSION = ROOT / "submission.py"
SIZES = [(200, 512, 320), (40, 264, 64)]  # an M and a K tail; 2 + 2 tiles of 256 rows x 128 tokens, then 2


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    return {**profile(SUBMISSION, SIZES)[0], "host_us": host_times(SUBMISSION, SIZES)}


# -- counts of the run ------------------------------------------------------------------------------------


@pytest.mark.heavy
def test_traffic_is_that_of_the_tiling(figures: dict[str, Any]) -> None:
    operands = figures["traffic"]["operands"]
    rows_bytes = 512 * 160 + 264 * 32
    assert operands["b"]["minimum"] == operands["b"]["once"] == rows_bytes
    assert operands["b"]["read"] == operands["b"]["into_sms"] == 2 * 512 * 160 + 264 * 32, (
        "once per token tile"
    )
    assert operands["a"]["minimum"] == operands["a"]["once"] == 200 * 160 + 40 * 32
    assert operands["a"]["read"] == 2 * 200 * 160 + 2 * 40 * 32, "once per tile of 256 rows, no token twice"
    atoms = 5 * 512  # of 128 rows, group 0
    assert operands["sfb"]["read"] == 2 * 4 * atoms + 3 * 512
    assert operands["sfa"]["into_sms"] == 2 * operands["sfa"]["read"], "to both CTAs"
    assert operands["sfa"]["read"] == 2 * 2 * atoms + 2 * 512
    assert figures["traffic"]["stored"] == 2 * (200 * 512 + 40 * 264)


@pytest.mark.heavy
def test_work_is_as_wide_as_the_tokens(figures: dict[str, Any]) -> None:
    k_blocks = 2 * 4, 4  # K tiles of 256, with 4 MMAs each
    assert figures["work"]["mmas_by_shape"] == {
        "256x48x64": 2 * k_blocks[1],
        "256x80x64": 2 * k_blocks[0],
        "256x128x64": 2 * k_blocks[0],
    }
    assert figures["work"]["mma_cycles_largest_sm"] == pytest.approx(k_blocks[0] * 64.2)


@pytest.mark.heavy
def test_launch_schedule_and_memory_map(figures: dict[str, Any]) -> None:
    assert figures["launches"] == 1
    assert figures["launch"]["working_clusters"] == figures["schedule"]["tiles"] == 6
    assert figures["schedule"]["tiles_per_cluster"] == {"1": 6}
    memory = figures["memory_map"]
    assert memory["stages"] == 2, "the case has two K tiles"
    assert memory["stage_bytes"] == 28 * 1024
    places = sorted(tuple(place) for found in memory["shared"].values() for place in found)
    ends = [offset + nbytes for offset, nbytes in places]
    assert all(end <= following[0] for end, following in zip(ends, places[1:], strict=False)), "no overlap"
    assert memory["tensor_columns"]["accumulators"] == [0]
    assert min(memory["tensor_columns"]["row scales"]) >= 128


@pytest.mark.heavy
def test_code_and_host_time(figures: dict[str, Any]) -> None:
    assert set(figures["binary"]["ptx_loops"]) == {"load", "mma", "store"}
    if binary.find_tool("ptxas"):
        assert figures["binary"]["spill_store_bytes"] == figures["binary"]["stack_bytes"] == 0
    host = figures["host_us"]
    assert 0 < host["compiled_host_code"] < host["call"] < 5000
    parts = sum(host[name] for name in ("checks", "plan", "arguments", "compiled_host_code", "rest"))
    assert host["call"] == pytest.approx(parts, abs=0.05)


@pytest.mark.heavy
def test_report_shows_every_section(figures: dict[str, Any]) -> None:
    shown = text.report("case", figures)
    for expected in (
        "B (weights)",
        "256x80x64",
        "stages",
        "registers",
        "bound",
        "for a free stage",
        "host time",
    ):
        assert expected in shown, expected


# -- the model --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("m", "n", "cycles"), [(256, 16, 43.5), (256, 72, 44.85), (256, 128, 64.2), (128, 64, 48)]
)
def test_mma_rates(m: int, n: int, cycles: float) -> None:
    assert rates.mma_cycles(m, n) == pytest.approx(cycles)


def test_a_timeline_crosses_processes_as_a_picture_needs_it() -> None:
    drawn = Timeline((3, 4), tiles=[Span(0.0, 2.5, "[0]")], stores=[Span(2.5, 3.0, "1")])
    assert Timeline.from_dict(json.loads(json.dumps(drawn.as_dict()))) == drawn


LOADER, MULTIPLIER = (0, 0), (0, 1)
PER_CYCLE = 50.0


def _load(number: int, nbytes: int) -> Load:
    return Load(number, "b[0]", (256 * (number - 1), 0), nbytes, nbytes, 0, (0,))


def _replayed(events: list[Event], prefetched: dict[Any, float] | None = None) -> Any:
    return Replay(ClusterTrace(0, (0,), events), {0: "bytes"}, PER_CYCLE, prefetched or {}).run()


def test_loads_share_the_port_and_waits_end_with_the_last_byte() -> None:
    events = [
        Event("load", LOADER, 10, _load(1, 5000)),
        Event("load", LOADER, 10, _load(2, 5000)),
        Event("landed", LOADER, 10, (1, [(0, 0)])),
        Event("landed", LOADER, 10, (2, [(0, 0)])),
        Event("wait", MULTIPLIER, 0, (0, 0)),
        Event("mma", MULTIPLIER, 5, Multiply(256, 128, True, False, 0, (0, 0))),
        Event("commit", MULTIPLIER, 5, 3),
        Event("committed", MULTIPLIER, 5, (3, [(1, 0)])),
        Event("wait", LOADER, 10, (1, 0)),
    ]
    line = _replayed(events)
    first = 10 * rates.INSTRUCTION_CYCLES
    landed = first + rates.TMA_LATENCY_CYCLES + 2 * 5000 / PER_CYCLE
    assert line.waits["mma: for the bytes of a stage"][MULTIPLIER] == [landed]
    done = landed + 5 * rates.INSTRUCTION_CYCLES + 64.2 + rates.COMMIT_CYCLES
    assert line.end == pytest.approx(done)
    assert line.waits["load: for a free stage"][LOADER] == [
        pytest.approx(done - first - rates.TMA_ISSUE_CYCLES)
    ]
    assert peak_bytes(line) == 10000


def test_a_prefetched_box_comes_from_l2() -> None:
    fetched = {("b[0]", (0, 0)): 0.0}
    events = [Event("load", LOADER, 0, _load(1, 5000)), Event("landed", LOADER, 0, (1, [(0, 0)]))]
    assert _replayed(events, fetched).last_landing == rates.TMA_L2_LATENCY_CYCLES + 5000 / PER_CYCLE
    assert _replayed(events).last_landing == rates.TMA_LATENCY_CYCLES + 5000 / PER_CYCLE


def test_steady_bytes_are_a_mean_over_time() -> None:
    line = _replayed([])
    line.flights[0] = [
        (0.0, 100.0, 8),
        (50.0, 150.0, 8),
        (200.0, 300.0, 8),
    ]  # from 100 to 200: 8 for half of it
    assert steady_bytes(line) == pytest.approx(4.0)


# -- the binary -------------------------------------------------------------------------------------------


def test_numbers_of_ptxas() -> None:
    log = """ptxas info : Function properties for kernel
    16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info : Used 64 registers, used 1 barriers, 16 bytes cumulative stack size"""
    assert binary.resources(log) == {
        "registers": 64, "stack_bytes": 16, "spill_store_bytes": 8, "spill_load_bytes": 4,
    }  # fmt: skip


def test_innermost_loops_of_machine_code() -> None:
    sass = """
.L_x_0:
        /*0000*/                   MOV R0, R1 ;
.L_x_1:
        /*0010*/                   UTMALDG.2D.2CTA [UR4], [UR36], desc[UR34] ;
        /*0020*/               @P0 BRA `(.L_x_1) ;
        /*0030*/               @P1 BRA `(.L_x_0) ;
        /*0040*/                   LDTM.x32 R4, tmem[UR4] ;
        /*0050*/                   EXIT ;"""
    assert binary.sass_loops(sass) == {"load": 2}, "the outer loop has 4, LDTM is in no loop"


def test_operands_by_name() -> None:
    assert kind_of("sfb[12]") == "sfb"


# -- the front door ---------------------------------------------------------------------------------------


def _evaluate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "eval.py"), "--mode", "profile", "--cases", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.heavy
def test_mode_profile_shows_the_figures(tmp_path: Path) -> None:
    cases = tmp_path / "cases.txt"
    cases.write_text("m: [40]; n: [264]; k: [64]; g: 1; seed: 1\n")
    done = _evaluate(str(cases))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "256x48x64" in done.stdout and "B (weights)" in done.stdout


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is not None, reason="matplotlib is here")
def test_a_picture_without_matplotlib_is_refused_at_once(tmp_path: Path) -> None:
    done = _evaluate(str(ROOT / "task.yml"), "--plot", str(tmp_path / "x.png"))
    assert done.returncode == 2
    assert "nvfp4-group-gemm[plot]" in done.stderr


def test_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from profiling import plot

    figures, timelines = profile(SUBMISSION, [(40, 264, 64)])
    plot.draw(tmp_path / "x.png", [("case", figures, timelines)])
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
