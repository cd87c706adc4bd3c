"""`eval.py` as a user and as the official runner calls it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from misbehaving import MISBEHAVING, PASSING, case_line

from evaluator.processes import ROOT

RIGHT_CASES = case_line("right") + "\n" + case_line("fresh_tensors") + "\n"
BROKEN_CASES = case_line("right") + "\n" + case_line("raises") + "\n"


def run(
    *arguments: object, env: dict[str, str] | None = None, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "eval.py"), *map(str, arguments)]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("POPCORN")}
    return subprocess.run(
        command, env=clean | (env or {}), cwd=cwd, capture_output=True, text=True, timeout=120
    )


def official(folder: Path, mode: str, cases: str, seed: str = "") -> tuple[int, dict[str, str], str]:
    """Run the official form in `folder`, which holds submission.py, as the runner does; what it wrote."""
    (folder / "cases.txt").write_text(cases)
    reader, writer = os.pipe()
    env = {k: v for k, v in os.environ.items() if not k.startswith("POPCORN")} | {"POPCORN_FD": str(writer)}
    env |= {"POPCORN_SEED": seed} if seed else {}
    done = subprocess.run(
        [sys.executable, str(ROOT / "eval.py"), mode, "cases.txt"],
        cwd=folder,
        env=env,
        pass_fds=[writer],
        capture_output=True,
        text=True,
        timeout=120,
    )
    os.close(writer)
    with os.fdopen(reader) as file:
        lines = file.read().splitlines()
    pairs = [tuple(part.strip() for part in line.split(":", 1)) for line in lines]
    assert len({key for key, _ in pairs}) == len(pairs), "a key was written twice"
    return done.returncode, dict(pairs), done.stdout + done.stderr  # type: ignore[arg-type]


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    path = tmp_path / "cases.txt"
    path.write_text(BROKEN_CASES)
    return path


def test_a_run_by_hand_with_json(tmp_path: Path, cases: Path) -> None:
    submission = tmp_path / "mine.py"
    submission.write_text(MISBEHAVING)
    out = tmp_path / "out.json"
    done = run(
        "--mode", "test", "--device", "cpu", "--submission", submission, "--cases", cases, "--json", out
    )
    assert done.returncode == 112, done.stderr
    assert "test 1: RAISED: ValueError: k = 64 is not supported" in done.stdout
    assert "1 of 2 passed" in done.stdout
    assert "\x1b" not in done.stdout
    record = json.loads(out.read_text())
    assert record["schema"] == "nvfp4_group_gemm.evaluation/1"
    assert record["exit_code"] == 112 and record["passed"] is False and record["score_us"] is None
    assert len(record["submission"]["sha256"]) == 64 and len(record["harness_sha256"]) == 64
    assert record["device"]["name"] == "cpu" and record["versions"]["torch"]
    first, second = record["cases"]
    assert (first["status"], first["bit_exact"], first["seed"], first["m"]) == ("PASS", True, 1, [1, 16])
    assert first["measured_ns"] is None, "no time may be given that was not measured"
    assert first["spec"] == case_line("right")
    assert (second["status"], second["groups"]) == ("RAISED", 2)
    assert "submission.py" in second["detail"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--mode", "test", "--submission", "/nowhere/at_all.py"], 2),
        (["--mode", "nonsense"], 2),
        (["--mode", "test", "--only", "no such case"], 2),
        (["--mode", "test", "--timeout", "-1"], 2),
        (["--mode", "test", "--cases", "/nowhere/cases.yml"], 113),
        (["test", "cases.txt"], 111),
        (["--mode", "test", "--sanitize", "--schedule", "backwards"], 2),
        (["--mode", "test", "--sanitize", "--sms", "149"], 2),
        (["--mode", "test", "--sanitize", "--trace", "/nowhere/trace.json"], 2),
        (["--mode", "test", "--sanitize", "--device", "cpu"], 2),
        (["--mode", "test", "--sanitize", "--seed", "some key"], 2),
    ],
)
def test_wrong_usage(arguments: list[str], code: int) -> None:
    done = run(*arguments)
    assert done.returncode == code, done.stderr
    assert done.stderr.strip()


def test_cuda_without_a_gpu_is_refused() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    done = run("--mode", "test", "--device", "cuda")
    assert done.returncode == 110 and "no CUDA GPU" in done.stderr


def test_official_test_mode(tmp_path: Path) -> None:
    (tmp_path / "submission.py").write_text(MISBEHAVING)
    code, keys, output = official(tmp_path, "test", BROKEN_CASES)
    assert code == 112, output
    own = {key: value for key, value in keys.items() if not key.startswith("env.")}
    error = own.pop("test.1.error")
    assert own == {
        "test-count": "2",
        "test.0.spec": case_line("right"),
        "test.0.status": "pass",
        "test.1.spec": case_line("raises"),
        "test.1.status": "fail",
        "check": "fail",
    }
    assert error == "RAISED: ValueError: k = 64 is not supported: expected a multiple of 256"
    assert list(keys)[-1] == "check"


def test_official_benchmark_mode_without_a_gpu(tmp_path: Path) -> None:
    (tmp_path / "submission.py").write_text(PASSING.replace("return [c", "return [c.contiguous()"))
    code, keys, output = official(tmp_path, "benchmark", RIGHT_CASES, seed="7")
    assert code == 0, output
    assert keys["benchmark-count"] == "2" and keys["check"] == "pass"
    assert keys["benchmark.1.status"] == "pass" and "no time" in keys["benchmark.1.message"]
    assert "benchmark.1.mean" not in keys
    code, keys, output = official(tmp_path, "leaderboard", case_line("right"))
    assert code == 112 and keys["check"] == "fail", output
    assert "measured time" in keys["benchmark.0.error"]


@pytest.mark.parametrize(
    ("mode", "cases", "code"),
    [("test", "m: [1]; n: [8]", 113), ("test", case_line("right") + "\n\n", 113), ("dance", RIGHT_CASES, 2)],
)
def test_official_refusals(tmp_path: Path, mode: str, cases: str, code: int) -> None:
    (tmp_path / "submission.py").write_text(PASSING)
    got, keys, output = official(tmp_path, mode, cases)
    assert got == code, output
    assert "check" not in keys


@pytest.mark.parametrize("how", [["--device", "cpu"], pytest.param(["--sanitize"], marks=pytest.mark.heavy)])
def test_an_interrupt_leaves_nothing(tmp_path: Path, how: list[str]) -> None:
    submission = tmp_path / "mine.py"
    seconds = 10**9 + os.getpid()  # what another run of the tests on this machine does not sleep
    submission.write_text(MISBEHAVING.replace("while True:\n        pass", f"os.system('sleep {seconds}')"))
    cases = tmp_path / "cases.txt"
    cases.write_text(case_line("hangs") + "\n" + case_line("right") + "\n")
    command = [sys.executable, str(ROOT / "eval.py"), "--mode", "test", *how]
    command += ["--submission", str(submission), "--cases", str(cases), "--json", str(tmp_path / "out.json")]
    place = tmp_path / "tmp"
    place.mkdir()
    # A shell's background jobs ignore SIGINT, and so would what they start.
    process = subprocess.Popen(
        command,
        env=os.environ | {"TMPDIR": str(place)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not running(f"sleep\x00{seconds}") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert running(f"sleep\x00{seconds}")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, (out, err)
    assert not running(f"sleep\x00{seconds}") and not running(str(place))
    assert list(place.iterdir()) == []
    statuses = [case["status"] for case in json.loads((tmp_path / "out.json").read_text())["cases"]]
    assert statuses[0] == "NOT_RUN"


def running(text: str) -> bool:
    """Whether some process has `text` in its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if int(path.parent.name) != os.getpid() and text.encode() in path.read_bytes():
                return True
        except OSError:
            continue
    return False


def test_it_unpacks_itself_in_the_runners_flat_folder(tmp_path: Path) -> None:
    import yaml

    for entry in yaml.safe_load((ROOT / "task.yml").read_text())["files"]:
        given = entry["source"] == "@SUBMISSION@"
        (tmp_path / entry["name"]).write_text(PASSING if given else (ROOT / entry["source"]).read_text())
    (tmp_path / "cases.txt").write_text(case_line("right"))
    done = subprocess.run(
        [sys.executable, "eval.py", "test", "cases.txt"],
        cwd=tmp_path,
        env=os.environ | {"POPCORN_FD": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "test.0.status: pass\ncheck: pass\n" in done.stdout
    assert (tmp_path / "evaluator" / "session.py").exists(), "it ran from the files beside it"
