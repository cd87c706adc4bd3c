"""The Hopper submission on a simulated H200: official cases, tiles cut along K, and what breaks it."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import reference
from b200sim.device import SimulatedDevice
from b200sim.faults import Fault
from b200sim.gpus import H200
from b200sim.sanitizer import Session
from evaluator import problem, session, speed_of_light
from evaluator.options import Options

PATH = Path(__file__).parents[1] / "submissions" / "hopper.py"
# Two tiles along the weights, tokens of two tiles, stages of K that are only half there or not at all
SMALL = {"m": (72, 250), "n": (520, 128), "k": (192, 2112), "g": 2, "seed": 5}
# One cluster that multiplies a head of six stages and six more, the last two beyond K
ONE_TILE = {"m": (40,), "n": (200,), "k": (1280,), "g": 1, "seed": 5}

pytestmark = pytest.mark.heavy


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("hopper_simulated", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["hopper_simulated"] = module
    spec.loader.exec_module(module)
    return module


def run(
    path: Path,
    change: Callable[[ModuleType], None] = lambda module: None,
    case: dict[str, Any] = SMALL,
    right: bool = True,
) -> tuple[SimulatedDevice, Session]:
    """One call under the sanitizer; if it ends, its values must be right, or wrong. Raises `Fault`."""
    watched = Session()
    with SimulatedDevice(gpu=H200, time_limit=120) as device:
        module = load(path)
        change(module)
        with device.paused():
            data = problem.on_device(device, reference.generate_input(**case, device="cpu"))
        fault = None
        with watched.on_device(device, "program-order"):
            try:
                output = module.custom_kernel(data)
            except Fault as found:
                fault = found
        if fault is not None:
            raise fault
        with device.paused():
            passed, message = reference.check_implementation(data, output)
            assert passed == right, message
    return device, watched


def test_the_official_cases() -> None:
    result = session.evaluate(Options("test", "sim", PATH))
    assert result.passed, [r.verdict for r in result.results]
    assert len(result.results) == 10
    for case in result.results:
        assert case.bit_exact
        assert case.counters()["mma_flops"] >= speed_of_light.flops(case.case)


def plan_of(module: ModuleType, case: dict[str, Any]) -> Any:
    sizes = tuple((m, n, k, 1) for m, n, k in zip(case["m"], case["n"], case["k"], strict=True))
    return module.Plan(sizes, 66)


def cut(module: ModuleType) -> None:
    """A plan for three clusters that cuts a tile, which costs nothing."""
    chosen = module.choose
    module.choose = lambda sizes, _: chosen(sizes, 3)
    module.whole_tiles = lambda tiles, workers: (float("inf"), [])
    module.STORE_NS = module.WRITE_NS = module.ADD_NS = 1, 0
    plan = plan_of(module, SMALL)
    assert plan.config.narrow and module.WRITES in [adds for *_, adds in plan.table]


def with_warpgroups(count: int, change: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
    """The change, and so many warpgroups multiply."""

    def both(module: ModuleType) -> None:
        module.GEOMETRIES = tuple(one for one in module.GEOMETRIES if one.warpgroups == count)
        change(module)

    return both


def uncut(module: ModuleType) -> None:
    module.plan_tiles = lambda *_: None


def one_cluster(module: ModuleType) -> None:
    """Whole tiles for one cluster, one after the other."""
    uncut(module)
    chosen = module.choose
    module.choose = lambda sizes, _: chosen(sizes, 1)


@pytest.mark.parametrize("warpgroups", [2, 3])
def test_tiles_cut_along_k(warpgroups: int) -> None:
    """Official sizes never make the plan cut one. Nothing is to be said about it, only about weights: some
    tiles have rows for one warpgroup only; and with three, of each 256 rows of scales 192 are used."""
    device, watched = run(PATH, with_warpgroups(warpgroups, cut))
    assert device.launches[0].grid == (6, 1, 1)
    assert device.launches[0].counters.tma_multicast_bytes > 0
    assert watched.report.findings.codes() == {"tile_partly_unread"}, watched.report.text()


TWO_PARTS = {"m": (40, 40), "n": (200, 200), "k": (2560, 2560), "g": 2}  # which one cluster writes


@pytest.mark.parametrize("warpgroups", [2, 3])
@pytest.mark.parametrize(
    ("sizes", "adds"),
    [
        ({"m": (40,), "n": (128,), "k": (3840,), "g": 1}, [2, -1, -1]),
        (TWO_PARTS, [1, 1, -1, -1]),
    ],
    ids=["two parts of one tile", "a cluster writes two parts, one after the other"],
)
def test_more_than_one_part(warpgroups: int, sizes: dict[str, Any], adds: list[int]) -> None:
    def change(module: ModuleType) -> None:
        with_warpgroups(warpgroups, cut)(module)
        table = plan_of(module, sizes).table
        assert sorted((count for group, *_, count in table if group >= 0), reverse=True) == adds

    _, watched = run(PATH, change, sizes | {"seed": 5})
    assert watched.report.findings.codes() <= {"tile_partly_unread"}, watched.report.text()


def broken(folder: Path, *changes: str) -> Path:
    """The submission with texts (each there once) replaced: old, new, old, new..."""
    source = PATH.read_text()
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        assert source.count(old) == 1
        source = source.replace(old, new)
    path = folder / "broken.py"
    path.write_text(source)
    return path


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ('*choose(), "wgmma.wait_group.sync.aligned 1; }"]',
         '*choose(), "wgmma.wait_group.sync.aligned 8; }"]',  # a turn of the loop has eight
         "wgmma_register", "part of the A fragment of a wgmma still in flight"),
        ('"wgmma.wait_group.sync.aligned 0;"', '"wgmma.wait_group.sync.aligned 1;"',
         "wgmma_register", "mul.f32 touches a register that is an accumulator"),
        ('lines = ["wgmma.fence.sync.aligned;"]', "lines = []",
         "wgmma_fence", "wgmma.fence is missing before it"),
        ("TOKENS_DESCRIPTOR = 1 << 62 |", "TOKENS_DESCRIPTOR = 1 << 62 | 1 << 46 |",
         "smem_descriptor_reserved", "bits 15:14, 31:30, 48:46 and 61:52 must be zero"),
    ],
)  # fmt: skip
def test_what_the_simulator_refuses(tmp_path: Path, old: str, new: str, code: str, words: str) -> None:
    with pytest.raises(Fault) as caught:
        run(broken(tmp_path, old, new))
    assert caught.value.code == code
    assert words in caught.value.message and "broken.py" in str(caught.value)


def test_a_slot_that_is_given_back_too_early(tmp_path: Path) -> None:
    """Before the multiplication that reads it is complete. In this order of events the values are right."""
    multiply = "fours = multiply(sums, even, even_at, segment.variant, config.variants, rest[:4])\n"
    release = (
        "if thread.lane < CLUSTER:\n"
        "                arrive_in_cluster(released)"
        "  # (For the first stage no condition: it takes instructions.)\n"
    )
    indent = 12 * " "
    early = broken(tmp_path, f"{multiply}{indent}{release}", f"{release}{indent}{multiply}")

    def small_ring(module: ModuleType) -> None:
        module.Geometry.token_ring_bytes = module.WIDEN_WARPS * module.SCRATCH_BYTES

    _, watched = run(early, small_ring, ONE_TILE)
    assert "stage_overwritten" in watched.report.findings.codes()


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (
            "        shared_proxy_fence()\n        cute.arch.sync_warp()\n        if lane == 0:\n",
            "        cute.arch.sync_warp()\n        if lane == 0:\n",
            "proxy_fence_missing",
        ),
        (
            "        shared_proxy_fence()\n        cute.arch.sync_warp()\n        if lane == 0:\n",
            "        shared_proxy_fence()\n        if lane == 0:\n",
            "warp_not_synchronised",
        ),
        ("        wait(shared.own + i * 8, Int32(0))\n", "", "shared_race"),
        ("        wait(shared.head + i * 8, Int32(0))\n", "", "shared_race"),
    ],
    ids=[
        "no fence before copies and wgmma",
        "a lane announces for all, alone",
        "sent before it is there",
        "handed on before it is there",
    ],
)
def test_what_is_missing_in_the_head_of_a_tile(tmp_path: Path, old: str, new: str, code: str) -> None:
    """The stages that a cluster widens for itself. In this order of events the values are right."""
    _, watched = run(broken(tmp_path, old, new), uncut, ONE_TILE)
    assert code in watched.report.findings.codes()


def long_head(module: ModuleType) -> None:
    one_cluster(module)
    module.GEOMETRIES = tuple(dataclasses.replace(one, head_ns=9000) for one in module.GEOMETRIES)


def test_the_head_of_a_tile_where_others_tokens_are_widened(tmp_path: Path) -> None:
    """Of the ring's three stages, the head must leave room for them."""
    case = ONE_TILE | {"m": (192,)}
    run(PATH, long_head, case)
    room = "return self.geometry.token_ring_bytes - beyond * SCRATCH_BYTES\n"
    _, watched = run(
        broken(tmp_path, room, "return self.geometry.token_ring_bytes\n"), long_head, case, right=False
    )
    assert "shared_race" in watched.report.findings.codes()


def test_warps_that_widen_a_head_while_the_others_multiply() -> None:
    """With two warpgroups, and more to widen than all warps do together: those of the third go on alone."""
    case = ONE_TILE | {"m": (128,)}
    change = with_warpgroups(2, one_cluster)
    module = load(PATH)
    change(module)
    plan = plan_of(module, case)
    units = plan.units[0, 0, :, 0] >> 8  # of each warp of a CTA
    first_two = sum(int(word) >> 24 for word in plan.heads[0, :2])  # stages of the head
    together = int(plan.units[0, 0, :, 7].sum()) + first_two
    assert units[8:].min() > units[:8].max() == -(-together // 12) >= 2
    _, watched = run(PATH, change, case)
    assert watched.report.findings.codes() <= {"tile_partly_unread"}, watched.report.text()


@pytest.mark.parametrize("warpgroups", [2, 3])
def test_a_tile_that_is_all_head_and_stored_where_others_tokens_are_widened(
    tmp_path: Path, warpgroups: int
) -> None:
    """By warps that widen two units there and nothing else: with two warpgroups those of the third, for whom
    nobody else waits. That is, unless others' tokens come so early that the multiplications know of them
    when they store: here their answer is that they do not. In this order of events the values are right."""
    case = {"m": (40,) * 6, "n": (200,) * 6, "k": (256,) * 6, "g": 6, "seed": 5}
    change = with_warpgroups(warpgroups, long_head)
    _, watched = run(PATH, change, case)
    assert watched.report.findings.codes() <= {"tile_partly_unread"}, watched.report.text()
    free = "        if i == segment.head - 1:\n            cute.arch.barrier(barrier_id=SCRATCH_IS_FREE"
    asked = "tokens_full = is_complete(following.tokens_full, following.tokens_parity)"
    never = free.replace("segment.head - 1", "99")
    path = broken(tmp_path, free, never, asked, "tokens_full = Int32(0)")
    _, watched = run(path, change, case)
    assert ("shared_race" in watched.report.findings.codes()) == (warpgroups == 2)


# With three warpgroups: rows for one only, more stages than either ring has barriers
NARROW = {"m": (40,), "n": (128,), "k": (3840,), "g": 1, "seed": 5}


@pytest.mark.parametrize(
    "line",
    ["        tokens.await_full(used)\n", "        weights.await_full(used + 1)\n"],
    ids=["tokens", "weights"],
)
def test_a_warpgroup_without_rows_that_does_not_wait(tmp_path: Path, line: str) -> None:
    """Until the one with rows is a phase of the barriers behind: that no longer sees its own."""
    _, watched = run(broken(tmp_path, line, ""), with_warpgroups(3, one_cluster), NARROW)
    assert "phase_skipped" in watched.report.findings.codes()


# In this order, with three warpgroups: three stages of 168 tokens leave 20 KB free at the ring's end, too
# little for one of 104.
HEIGHTS = {"m": (168, 104, 72, 24), "n": (16, 16, 16, 16), "k": (1536, 640, 384, 256), "g": 4, "seed": 7}


def test_stages_of_different_heights_follow_each_other_in_the_ring() -> None:
    device, watched = run(PATH, with_warpgroups(3, one_cluster), HEIGHTS)
    assert device.launches[0].grid == (2, 1, 1)
    assert watched.report.findings.codes() <= {"tile_partly_unread"}, watched.report.text()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("while loaded - emptied >= room:", "while loaded - emptied > room:"),
        ("crowd, crowded = min(crowd, len(inside)), i + 1", "pass"),
    ],
    ids=["a stage too many in the ring", "stages of other heights do not count"],
)
def test_a_stage_loaded_where_another_still_is(tmp_path: Path, old: str, new: str) -> None:
    _, watched = run(broken(tmp_path, old, new), with_warpgroups(3, one_cluster), HEIGHTS, right=False)
    assert "stage_overwritten" in watched.report.findings.codes()


@pytest.mark.parametrize(
    ("old", "new", "code", "right"),
    [
        ("        global_proxy_fence()\n", "", "proxy_fence_missing", True),
        ("        await_count(counter, all_met)", "        pass", "global_read_unordered", False),
        ("        fence_grid()\n        count_in(", "        count_in(", "global_read_unordered", True),
        ("        await_flag(flag)\n", "", "global_read_unordered", True),
        (
            "            fence_grid()\n            flag, _ =",
            "            flag, _ =",
            "global_read_unordered",
            True,
        ),
    ],
    ids=[
        "no proxy fence before bulk copies",
        "no barrier of the grid",
        "counted without fence",
        "no wait for parts",
        "a flag without fence",
    ],
)
def test_what_is_missing_between_ctas(tmp_path: Path, old: str, new: str, code: str, right: bool) -> None:
    """For tokens in the workspace, and for parts of sums. In this order of events, right values or not."""
    _, watched = run(broken(tmp_path, old, new), cut, right=right)
    assert code in watched.report.findings.codes()


def test_a_second_part_while_the_first_one_is_not_yet_announced(tmp_path: Path) -> None:
    """Then who announces may miss a phase, though not in this order of events. Without its wait, it hangs."""
    change, case = with_warpgroups(2, cut), TWO_PARTS | {"seed": 5}
    _, watched = run(broken(tmp_path, "wait(shared.announced, (turn - 1) & 1)", "pass"), change, case)
    assert "phase_skipped" in watched.report.findings.codes()
    with pytest.raises(Fault, match="waits for mbarrier"):
        run(broken(tmp_path, "        wait(shared.written, turn & 1)\n", ""), change, case)


# Of each cluster's tile a head of six stages, then an urgent one and another
TWO_TILES = {"m": (40,), "n": (520,), "k": (1024,), "g": 1, "seed": 5}


@pytest.mark.parametrize("warpgroups", [2, 3])
def test_a_stage_that_is_loaded_before_the_grid_has_met(tmp_path: Path, warpgroups: int) -> None:
    change = with_warpgroups(warpgroups, uncut)
    module = load(PATH)
    change(module)
    plan = plan_of(module, TWO_TILES)
    assert (
        all(map(module.is_urgent, plan.table[: plan.numbers[0] // 2])) and plan.numbers[3] < plan.numbers[0]
    )
    _, watched = run(PATH, change, TWO_TILES)
    assert watched.report.findings.codes() <= {"tile_partly_unread"}, watched.report.text()
    unmet = broken(tmp_path, "            await_count(counter + URGENT_AT, all_met)", "            pass")
    _, watched = run(unmet, change, TWO_TILES, right=False)
    assert "global_read_unordered" in watched.report.findings.codes()
    others = "return torch.cat([found, that_exist(torch.cat(others))]), len(found)"
    too_few = broken(tmp_path, others, others.replace("len(found)", "1"))
    _, watched = run(too_few, change, TWO_TILES, right=False)
    assert "global_read_unordered" in watched.report.findings.codes()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            'load_word("global.u16", unit.scales[0])',
            'load_word("global.nc.u16", unit.scales[0])',
            "as constant (.nc)",
        ),
        (
            "    cute.arch.griddepcontrol_wait()\n    fetched = fetch(first)\n",
            "    fetched = fetch(first)\n    cute.arch.griddepcontrol_wait()\n",
            "nothing orders it",
        ),
        (
            "        cute.arch.griddepcontrol_wait()\n        load_weights(",
            "        load_weights(",
            "nothing orders it",
        ),
    ],
    ids=["a load that ptxas may move", "tokens", "weights"],
)
def test_inputs_read_while_the_previous_launch_may_write_them(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    _, watched = run(broken(tmp_path, old, new))
    found = [finding for finding in watched.report.findings if finding.code == "input_before_dependency"]
    assert found and all(words in finding.message for finding in found)


def check_call(device: SimulatedDevice, module: ModuleType, case: dict[str, Any]) -> None:
    with device.paused():
        data = problem.on_device(device, reference.generate_input(**case, device="cpu"))
    output = module.custom_kernel(data)
    with device.paused():
        assert reference.check_implementation(data, output) == (True, "")


def test_a_second_launch_finds_flags_and_counter_as_it_needs_them() -> None:
    with SimulatedDevice(gpu=H200, time_limit=120) as device:
        module = load(PATH)
        cut(module)
        for seed in (1, 2, 3):
            check_call(device, module, SMALL | {"seed": seed})
    assert len({launch.grid for launch in device.launches}) == 1 and len(device.launches) == 3


def test_the_counters_with_which_the_grid_meets_may_overflow() -> None:
    """After 2^22 launches. (If all CTAs counted alike, it would not come out even, and the grid hang.)"""
    with SimulatedDevice(gpu=H200, time_limit=120) as device:
        module = load(PATH)
        cut(module)
        sizes = tuple((m, n, k, 1) for m, n, k in zip(SMALL["m"], SMALL["n"], SMALL["k"], strict=True))
        _, _, workspace = module.planned(sizes, torch.cuda.current_device())
        counters = workspace[: 2 * module.URGENT_AT].view(torch.int32)[:: module.URGENT_AT // 4]
        counters.fill_(-module.COUNTED_PER_LAUNCH)
        for seed in (1, 2):
            check_call(device, module, SMALL | {"seed": seed})
        assert counters.cpu().tolist() == [module.COUNTED_PER_LAUNCH] * 2
