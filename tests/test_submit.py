"""`scripts/submit`: what it refuses, what it shows, and that it uploads only when asked to."""

from __future__ import annotations

import argparse
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "submit"
GOOD = """\
#!POPCORN leaderboard nvfp4_group_gemm
#!POPCORN gpu B200
import torch

def custom_kernel(data):
    return [c for _, _, c in data[0]]
"""


def submit(
    *arguments: str, path: str | None = None, home: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({"PATH": path} if path is not None else {})}
    environment |= {"HOME": str(home)} if home else {}
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)


def written(folder: Path, text: str | bytes) -> str:
    file = folder / "submission.py"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(file)


def recording_cli(folder: Path, name: str = "popcorn", status: int = 0) -> str:
    """A directory with a CLI that writes down its arguments."""
    program = folder / name
    program.write_text(f'#!/bin/sh\necho "$@" > {folder}/called\nexit {status}\n')
    program.chmod(0o755)
    return str(folder)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD + "# " + "x" * 1_000_000, "at most 1,000,000"),
        (GOOD.encode() + b"# \xff", "not UTF-8: byte 137 is 0xff"),
        (GOOD + "# a comment about StReAmK\n", "line 7 contains 'stream'"),
        (GOOD.replace("#!POPCORN gpu B200\n", ""), "no line '#!POPCORN gpu B200'"),
        (GOOD.replace("B200", "H100"), "unexpected '#!POPCORN gpu H100'"),
        (GOOD.replace("nvfp4_group_gemm", "nvfp4_gemm"), "no line '#!POPCORN leaderboard nvfp4_group_gemm'"),
        (GOOD + "def broken(:\n", "line 7: "),
        (GOOD + "import apache_tvm_ffi\n", "line 7 imports apache_tvm_ffi"),
        (GOOD + "from . import helper\n", "line 7 imports ."),
        (GOOD + "def f():\n    import reference\n", "line 8 imports reference"),
        (GOOD.replace("custom_kernel", "my_kernel"), "no function custom_kernel"),
        (GOOD.replace("(data)", "(data, more)"), "takes 2 arguments"),
    ],
)
def test_what_the_server_would_refuse_is_refused_here(tmp_path: Path, text: str | bytes, says: str) -> None:
    done = submit("--no-cases", written(tmp_path, text))
    assert done.returncode == 1
    assert says in done.stdout, done.stdout
    assert "popcorn" not in done.stdout


def test_missing_file(tmp_path: Path) -> None:
    done = submit("--no-cases", str(tmp_path / "none.py"))
    assert done.returncode == 1 and "is not a file" in done.stdout


def test_this_submission_passes_and_nothing_is_uploaded(tmp_path: Path) -> None:
    cli = recording_cli(tmp_path)
    done = submit("--no-cases", path=f"{cli}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("ok  ") == 4
    command = "submit --gpu B200 --leaderboard nvfp4_group_gemm --mode test --no-tui"
    assert f"popcorn {command} {ROOT / 'submission.py'}" in done.stdout
    assert "Nothing was uploaded" in done.stdout
    assert not (tmp_path / "called").exists()


def popcorn_cli() -> argparse.ArgumentParser:
    """What gpu-mode/popcorn-cli v1.3.9 accepts after `submit`: `Commands::Submit` of its src/cmd/mod.rs."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("filepath", nargs="?")
    for option in ("--gpu", "--leaderboard", "--mode", "--benchmark-index"):
        parser.add_argument(option)
    parser.add_argument("-o", "--output")
    for flag in ("--profile-brev", "--no-tui"):
        parser.add_argument(flag, action="store_true")
    return parser


def test_the_cli_understands_the_command_in_every_mode(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    script = runpy.run_path(str(SCRIPT))
    for mode in ("test", "benchmark", "leaderboard", "profile"):
        cli, subcommand, *rest = script["upload_command"]("popcorn", Path("-mine.py"), mode)
        assert (cli, subcommand) == ("popcorn", "submit")
        understood = popcorn_cli().parse_args(rest)
        assert understood.mode == mode and understood.no_tui and not understood.profile_brev
        assert understood.gpu == "B200" and understood.leaderboard == "nvfp4_group_gemm"
        assert understood.filepath == str(tmp_path / "-mine.py"), "a file is never taken for an option"
    assert set(script["MODES"]) == {"test", "benchmark", "leaderboard", "profile"}


def test_an_upload_needs_the_ten_cases() -> None:
    done = submit("--upload", "test", "--no-cases")
    assert done.returncode == 2 and "ten cases" in done.stderr


@pytest.mark.heavy
def test_a_submission_that_fails_a_case_is_not_uploaded(tmp_path: Path) -> None:
    cli = recording_cli(tmp_path)
    done = submit("--upload", "leaderboard", written(tmp_path, GOOD), path=f"{cli}:{os.environ['PATH']}")
    assert done.returncode == 1
    assert "FAIL  the ten official cases: eval.py --mode test ended with 112" in done.stdout
    assert not (tmp_path / "called").exists()


@pytest.mark.heavy
def test_an_upload_runs_the_cli_with_the_command_shown(tmp_path: Path) -> None:
    cli = recording_cli(tmp_path, "popcorn-cli", status=7)
    (tmp_path / ".popcorn.yaml").write_text("cli_id: nobody\n")
    done = submit("--upload", "benchmark", path=f"{cli}:{os.environ['PATH']}", home=tmp_path)
    assert done.returncode == 7, "the CLI's own exit status"
    called = (tmp_path / "called").read_text().strip()
    assert called == (
        f"submit --gpu B200 --leaderboard nvfp4_group_gemm --mode benchmark --no-tui {ROOT / 'submission.py'}"
    )
    assert f"popcorn-cli {called}" in done.stdout


@pytest.mark.heavy
def test_without_the_cli_an_upload_says_where_to_get_it(tmp_path: Path) -> None:
    done = submit("--upload", "test", path=str(tmp_path))
    assert done.returncode == 3 and "popcorn-cli" in done.stderr


def test_an_upload_needs_a_registered_cli(tmp_path: Path, monkeypatch) -> None:
    script = runpy.run_path(str(SCRIPT))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "popcorn register discord" in script["missing_for_upload"]("popcorn")
    (tmp_path / ".popcorn.yaml").write_text("cli_id: nobody\n")
    assert script["missing_for_upload"]("popcorn") == ""
