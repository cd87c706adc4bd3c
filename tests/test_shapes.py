"""The shape suites hold what they promise, and mistakes in a suite are named."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
import yaml

from evaluator.cases import CaseError, load_suite, load_task
from reference import generate_input

ROOT = Path(__file__).parent.parent
SUITES = sorted((ROOT / "shapes").glob("*.yml"))


def load_routing():
    spec = importlib.util.spec_from_file_location("routing", ROOT / "shapes" / "routing.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_official_suite_and_the_task_hold_the_same_cases() -> None:
    suite = load_suite(ROOT / "shapes" / "official.yml")
    task = load_task(ROOT / "task.yml")
    told = [(c.arguments(), c.kind, c.speed_of_light_us) for c in suite]
    assert told == [(c.arguments(), c.kind, c.speed_of_light_us) for c in task.tests + task.benchmarks]


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_every_suite_loads_and_is_named_after_its_file(path: Path) -> None:
    assert load_suite(path)
    assert yaml.safe_load(path.read_text())["suite"] == path.stem


def test_edge_covers_what_it_is_for() -> None:
    cases = load_suite(ROOT / "shapes" / "edge.yml")
    sizes = [(m, n, k) for case in cases for m, n, k in zip(case.m, case.n, case.k, strict=True)]
    assert {1, 129, 257} <= {m for m, _, _ in sizes}
    assert min(n for _, n, _ in sizes) == 8 and min(k for _, _, k in sizes) == 64
    assert any(k % 128 for _, _, k in sizes)
    assert {1, 16} <= {case.g for case in cases}
    assert any(len(set(case.k)) > 2 for case in cases)
    assert {case.distribution for case in cases} == {"official", "full", "nan_padding"}
    assert sum(2 * m * n * k for m, n, k in sizes) < 1e9, "the edge suite has to stay quick to simulate"


def test_edge_full_range_holds_every_finite_scale_and_every_code() -> None:
    scales, codes = set(), set()
    for case in load_suite(ROOT / "shapes" / "edge.yml"):
        if case.distribution != "full":
            continue
        abc, sfasfb, _, _ = generate_input(**case.arguments(), device="cpu")
        for (a, b, _), pair in zip(abc, sfasfb, strict=True):
            for scale in pair:
                scales |= set(scale.view(torch.uint8).flatten().tolist())
            for operand in (a, b):
                packed = operand.view(torch.uint8)
                codes |= set((packed & 15).flatten().tolist()) | set((packed >> 4).flatten().tolist())
    assert scales == set(range(0x7F))
    assert codes == set(range(16))


def test_edge_nan_padding_has_padding_in_m_and_n() -> None:
    cases = [c for c in load_suite(ROOT / "shapes" / "edge.yml") if c.distribution == "nan_padding"]
    assert any(m % 128 for case in cases for m in case.m)
    assert any(n % 128 for case in cases for n in case.n)


MODEL_SIZES = {  # (hidden, expert size, experts, top-k)
    "deepseek_v3": (7168, 2048, 256, 8),
    "kimi_k2": (7168, 2048, 384, 8),
    "qwen3_30b_a3b": (2048, 768, 128, 8),
    "qwen3_235b_a22b": (4096, 1536, 128, 8),
    "gpt_oss_120b": (2880, 2880, 128, 4),
    "gpt_oss_20b": (2880, 2880, 32, 4),
}


def test_models_have_both_projections_with_the_models_sizes() -> None:
    cases = {case.name: case for case in load_suite(ROOT / "shapes" / "models.yml")}
    assert set(cases) == {f"{model}_{part}" for model in MODEL_SIZES for part in ("gate_up", "down")}
    for model, (hidden, expert, _, _) in MODEL_SIZES.items():
        up, down = cases[f"{model}_gate_up"], cases[f"{model}_down"]
        assert (set(up.n), set(up.k)) == ({2 * expert}, {hidden})
        assert (set(down.n), set(down.k)) == ({hidden}, {expert})
        assert up.m == down.m


def test_models_m_follow_from_their_origin() -> None:
    routing = load_routing()
    for entry in yaml.safe_load((ROOT / "shapes" / "models.yml").read_text())["cases"]:
        origin = entry["origin"]
        model = entry["name"].removesuffix("_gate_up").removesuffix("_down")
        assert (origin["experts"], origin["top_k"]) == MODEL_SIZES[model][2:]
        law = [origin[field] for field in ("experts", "top_k", "tokens", "seed", "skew")]
        loads = routing.expert_loads(*law)
        assert loads.sum() == origin["tokens"] * origin["top_k"]
        assert loads.max() <= origin["tokens"], "a token picks an expert once"
        assert routing.shown_experts(loads, len(entry["m"])) == origin["groups"]
        assert loads[origin["groups"]].tolist() == entry["m"]
        assert max(entry["m"]) >= 4 * min(entry["m"]), "uneven"


GOOD = "suite: s\ncases:\n  - {name: first, m: [1], n: [8], k: [64], seed: 1}\n"
BAD = {
    "no suite": (GOOD.replace("suite: s\n", ""), "suite"),
    "unknown top field": (GOOD + "extra: 1\n", "extra: unknown field"),
    "no cases": ("suite: s\ncases: []\n", "cases: missing or empty"),
    "not a mapping": ("- 1\n", "expected a mapping at the top"),
    "broken yaml": ("suite: [\n", "is not valid YAML"),
    "entry not a mapping": ("suite: s\ncases: [3]\n", "cases[0]: got 3"),
    "no name": (GOOD.replace("name: first, ", ""), "cases[0]: name: missing"),
    "no seed": (GOOD.replace(", seed: 1", ""), "cases[0] (first): seed: missing"),
    "seed": (GOOD.replace("seed: 1", "seed: -1"), "cases[0] (first): seed: got -1"),
    "unknown field": (GOOD.replace("seed", "sead: 1, seed"), "cases[0] (first): sead: unknown field"),
    "n": (GOOD.replace("n: [8]", "n: [12]"), "cases[0] (first): n: group 0: got 12"),
    "k": (GOOD.replace("k: [64]", "k: [32]"), "cases[0] (first): k: group 0: got 32"),
    "m zero": (GOOD.replace("m: [1]", "m: [0]"), "cases[0] (first): m: group 0: got 0"),
    "m true": (GOOD.replace("m: [1]", "m: [true]"), "cases[0] (first): m: group 0: got True"),
    "m empty": (GOOD.replace("m: [1]", "m: []"), "cases[0] (first): m: is empty"),
    "lengths": (GOOD.replace("n: [8]", "n: [8, 8]"), "cases[0] (first): n: has 2 entries for 1 groups"),
    "g": (GOOD.replace("seed", "g: 2, seed"), "cases[0] (first): m: has 1 entries for 2 groups"),
    "distribution": (GOOD.replace("seed", "distribution: x, seed"), "(first): distribution: got 'x'"),
    "kind": (GOOD.replace("seed", "kind: x, seed"), "(first): kind: got 'x'"),
    "speed": (GOOD.replace("seed", "speed_of_light_us: 0, seed"), "(first): speed_of_light_us: got 0"),
    "limits": (GOOD.replace("seed", "limits: {hours: 1}, seed"), "(first): limits: got"),
    "origin": (GOOD.replace("seed", "origin: here, seed"), "(first): origin: got 'here'"),
    "twice": (GOOD + GOOD.splitlines()[2] + "\n", "cases[1] (first): name: is used by an earlier case"),
    "default name": ("defaults: {name: x}\n" + GOOD, "defaults: expected"),
}


def test_a_good_suite_loads(tmp_path: Path) -> None:
    path = tmp_path / "suite.yml"
    path.write_text(
        "defaults: {kind: benchmark, limits: {seconds: 5}}\n"
        + GOOD.replace("m: [1]", "m: [1, 2]").replace("n: [8]", "n: 8").replace("k: [64]", "k: 64")
    )
    (case,) = load_suite(path)
    assert (case.m, case.n, case.k, case.g) == ((1, 2), (8, 8), (64, 64), 2)
    assert (case.kind, case.limits.seconds, case.distribution) == ("benchmark", 5.0, "official")


@pytest.mark.parametrize("text, message", BAD.values(), ids=BAD.keys())
def test_mistakes_name_file_entry_and_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "suite.yml"
    path.write_text(text)
    with pytest.raises(CaseError) as caught:
        load_suite(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"none\.yml: cannot be read"):
        load_suite(tmp_path / "none.yml")
