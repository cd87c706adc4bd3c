"""Case lines, task.yml, and task.yml as the official runner reads it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from evaluator.cases import DISTRIBUTIONS, Case, CaseError, load_cases, load_task, parse_line, parse_lines
from reference_inputs import DISTRIBUTIONS as DRAWN_DISTRIBUTIONS

ROOT = Path(__file__).parent.parent.parent
LINE = "m: [96, 128]; n: [128, 256]; k: [256, 512]; g: 2; seed: 1111"


def test_the_official_line() -> None:
    case = parse_line(LINE)
    assert case.arguments() == {"m": (96, 128), "n": (128, 256), "k": (256, 512), "g": 2, "seed": 1111}
    assert case.spec == LINE
    assert case.distribution == "official"


@pytest.mark.parametrize(
    "line",
    [
        "m:(96,128);n:(128,256);k:(256,512);g:2;seed:1111",
        "  seed : +1111 ; g: 2;m: [ 96 , 128 ]; n: [128, 256]; k: (256, 512,)",
    ],
)
def test_the_official_syntax_is_free_in_blanks_order_and_brackets(line: str) -> None:
    assert parse_line(line).arguments() == parse_line(LINE).arguments()
    assert parse_line(line).spec == line, "the text is echoed as it was"


def test_a_case_prints_as_the_runner_prints_it() -> None:
    """The runner joins "key: value" of a task.yml entry with "; ", lists as Python prints them."""
    content = yaml.safe_load((ROOT / "task.yml").read_text())
    task = load_task(ROOT / "task.yml")
    entries = content["tests"] + content["benchmarks"]
    for entry, case in zip(entries, task.tests + task.benchmarks, strict=True):
        assert case.spec == "; ".join(f"{key}: {value}" for key, value in entry.items())


def test_distribution_is_an_addition_to_the_line() -> None:
    case = parse_line(LINE + "; distribution: nan_padding")
    assert case.arguments()["distribution"] == "nan_padding"
    plain = Case(name="x", m=(1,), n=(8,), k=(64,), g=1, seed=1, distribution="full")
    assert parse_line(plain.spec).arguments() == plain.arguments()
    assert DISTRIBUTIONS == DRAWN_DISTRIBUTIONS


def test_seed_change_keeps_the_text() -> None:
    case = parse_line(LINE).with_seed(5)
    assert (case.seed, case.spec) == (5, LINE)


BAD_LINES = {
    LINE.replace("; seed: 1111", ""): "line 1: seed: missing",
    LINE.replace("; g: 2", ""): "line 1: g: missing",
    LINE.replace("[96, 128]", "[96, x]"): "line 1: m: got [96, x]",
    LINE.replace("[96, 128]", "[96, 128"): "line 1: cannot read 'm: [96, 128'",
    LINE.replace("g: 2", "g: 3"): "line 1: m: has 2 entries for 3 groups",
    LINE.replace("g: 2", "g: two"): "line 1: g: got 'two'",
    LINE.replace("[256, 512]", "[256, 500]"): "line 1: k: group 1: got 500",
    LINE.replace("1111", "1.5"): "line 1: cannot read 'seed: 1.5'",
    LINE + "; g: 2": "line 1: g: given twice",
    LINE + "; colour: red": "line 1: colour: unknown field",
    LINE + ";": "line 1: cannot read ''",
    "": "holds no case",
    LINE + "\n\n" + LINE: "line 2: cannot read ''",
}


@pytest.mark.parametrize("text, message", BAD_LINES.items())
def test_mistakes_in_lines_name_the_line_and_field(text: str, message: str) -> None:
    with pytest.raises(CaseError) as caught:
        parse_lines(text, where="cases.txt")
    assert str(caught.value).startswith("cases.txt: ")
    assert message in str(caught.value)


def test_load_cases_tells_the_three_kinds_of_file_apart(tmp_path: Path) -> None:
    lines = tmp_path / "cases.txt"
    lines.write_text(f"{LINE}\n{LINE}\n")
    assert [case.name for case in load_cases(lines)] == ["test 0", "test 1"]
    assert len(load_cases(ROOT / "task.yml")) == 14
    assert len(load_cases(ROOT / "shapes" / "official.yml")) == 14
    with pytest.raises(CaseError, match="cannot be read"):
        load_cases(tmp_path / "none.txt")


# ------------------------------------------------------------------------------------------- task.yml


def test_the_task_holds_the_official_problem() -> None:
    task = load_task(ROOT / "task.yml")
    assert (len(task.tests), len(task.benchmarks)) == (10, 4)
    assert [case.speed_of_light_us for case in task.benchmarks] == [18.833, 10.667, 2.406, 1.525]
    assert {case.seed for case in task.tests + task.benchmarks} == {1111}
    assert (task.ranking_by, task.ranked_timeout) == ("geom", 300)
    # Two numbers that change if any size does: sums of 2mnk as the official file has them.
    assert flops(task.tests) == 1_075_838_976
    assert flops(task.benchmarks) == 109_521_666_048


def flops(cases: tuple[Case, ...]) -> int:
    return sum(2 * m * n * k for case in cases for m, n, k in zip(case.m, case.n, case.k, strict=True))


def test_the_task_refuses_other_fields_in_its_cases(tmp_path: Path) -> None:
    path = tmp_path / "task.yml"
    path.write_text(
        (ROOT / "task.yml").read_text().replace('"g": 2, "seed"', '"g": 2, "kind": "test", "seed"', 1)
    )
    with pytest.raises(CaseError, match=r"task\.yml: tests\[0\]: kind: unknown field"):
        load_task(path)


def test_a_target_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "task.yml"
    path.write_text((ROOT / "task.yml").read_text().replace(", 1.525]", "]"))
    with pytest.raises(CaseError, match=r"files: speed_of_light_us: .* expected one per benchmark"):
        load_task(path)


def read_as_the_runner_does(path: Path) -> dict[str, str]:
    """What kernelbot makes of a task.yml: {file name: text}; fails where it would fail."""
    content = yaml.safe_load(path.read_text())
    known = {"lang", "config", "libraries", "tests", "test_timeout", "benchmarks", "benchmark_timeout"}
    known |= {
        "ranked_timeout",
        "ranking_by",
        "seed",
        "multi_gpu",
        "files",
        "templates",
        "description",
        "gpus",
    }
    assert set(content) <= known, "the runner refuses other top-level keys"
    assert content["lang"] == "py" and set(content["config"]) == {"main"}
    assert content["ranking_by"] in ("last", "mean", "geom")
    for language, source in content["templates"].items():
        assert language in ("CUDA", "Python", "Triton", "HIP", "CuteDSL")
        assert (path.parent / source).read_text()
    files = {}
    for entry in content["files"]:
        given = entry["source"] == "@SUBMISSION@"
        files[entry["name"]] = "" if given else (path.parent / entry["source"]).read_text()
    assert content["config"]["main"] in files
    return files


def test_the_runner_can_read_the_task_folder() -> None:
    files = read_as_the_runner_does(ROOT / "task.yml")
    assert not [name for name in files if "/" in name], "the runner creates no folders"
    modules = {path.relative_to(ROOT) for path in (ROOT / "evaluator").rglob("*.py")}
    expected = {".".join(path.with_suffix("").parts) + ".py" for path in modules}
    listed = {name for name in files if name.startswith("evaluator.")}
    assert listed == expected, "every module of evaluator/ is listed in task.yml under its dotted name"


def test_the_problem_works_in_the_runners_flat_folder(tmp_path: Path) -> None:
    """Only the reference files, nothing of the repository on the path, as with the official eval.py."""
    for name, text in read_as_the_runner_does(ROOT / "task.yml").items():
        if name == "task.py" or name.startswith("reference"):
            (tmp_path / name).write_text(text)
    program = (
        "from reference import check_implementation, generate_input, ref_kernel\n"
        "data = generate_input(m=(8, 40), n=(16, 8), k=(64, 128), g=2, seed=1)\n"
        "print(check_implementation(data, ref_kernel(data)))\n"
    )
    run = subprocess.run(
        [
            sys.executable,
            "-P" if sys.version_info >= (3, 11) else "-s",
            "-c",
            f"import sys; sys.path[:0] = ['.']\n{program}",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "(True, '')"
