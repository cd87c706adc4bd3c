"""What a worker can no longer do, and that what the machine refuses is said."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluator import isolation, processes, session
from evaluator.cases import parse_line
from evaluator.defences import CATALOGUE, Ledger, State
from evaluator.options import Options
from evaluator.results import RunResult

CASES = (parse_line("m: [3]; n: [8]; k: [64]; g: 1; seed: 1"),)

#: Tries everything at import; prints what worked. The run fails on purpose, so that the output is shown.
INTRUDER = """
import ctypes, os, resource, signal, socket, sys
done = []


def attempt(name, act):
    try:
        act()
    except BaseException as error:
        print(name, "refused:", type(error).__name__)
    else:
        print(name, "WORKED")


def loopback():
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen(1)
    socket.create_connection(server.getsockname(), timeout=1)


attempt("write beside", lambda: open("extra.py", "w"))
attempt("write submission", lambda: open("submission.py", "a"))
attempt("write harness", lambda: open(HARNESS, "a"))
attempt("write tmp", lambda: open("/tmp/intruder", "w"))
attempt("read tmp", lambda: open(SECRET).read())
attempt("write sysctl", lambda: open("/proc/sys/kernel/hostname", "w").write("x"))
attempt("read judge", lambda: open(f"/proc/{JUDGE}/environ", "rb").read())
attempt("signal judge", lambda: os.kill(JUDGE, 0))
attempt("network", loopback)
attempt("mount", lambda: 1 / (1 + ctypes.CDLL(None).mount(b"none", b"/mnt", b"tmpfs", 0, b"")))
attempt("private tmp", lambda: open(os.environ["TMPDIR"] + "/x", "w").write("x"))
attempt("private home", lambda: open(os.environ["HOME"] + "/x", "w").write("x"))
attempt("shared memory", lambda: open("/dev/shm/x", "w").write("x"))
print("processes", sorted(int(x) for x in os.listdir("/proc") if x.isdigit()))
print("core", resource.getrlimit(resource.RLIMIT_CORE))
print("variables", [name for name in os.environ if "SECRET" in name or "POPCORN" in name])
raise RuntimeError("shown")
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, str], RunResult, str]]:
    """What the intruder printed, as name -> rest of the line."""
    folder = tmp_path_factory.mktemp("intruder")
    secret = Path("/tmp/nvfp4-isolation-test-secret")
    secret.write_text("7")
    values = f"JUDGE = {os.getpid()}\nSECRET = {str(secret)!r}\nHARNESS = {isolation.__file__!r}\n"
    (folder / "mine.py").write_text(values + INTRUDER.replace('raise RuntimeError("shown")', "os._exit(3)"))
    os.environ["SOME_SECRET"] = "x"
    try:
        run = session.evaluate(
            Options("test", "cpu", folder / "mine.py", cases=CASES, timeout=30.0, seed="0011")
        )
    finally:
        del os.environ["SOME_SECRET"]
        secret.unlink()
    printed = run.results[0].verdict.detail
    lines = [line for line in printed.splitlines() if " " in line]
    yield {line.rsplit(" ", 1)[0].removesuffix(" refused:"): line for line in lines}, run, printed


def state(run: RunResult, name: str) -> State:
    return next(entry.state for entry in run.defences if entry.name == name)


@pytest.mark.parametrize(
    ("attempt", "defence"),
    [
        ("write beside", "mount namespace"),
        ("write submission", "mount namespace"),
        ("write harness", "landlock"),
        ("write tmp", "landlock"),
        ("read tmp", "landlock"),
        ("write sysctl", "landlock"),
        ("read judge", "pid namespace"),
        ("signal judge", "pid namespace"),
        ("network", "network namespace"),
        ("mount", "capabilities"),
    ],
)
def test_it_is_refused_wherever_the_defence_is_on(
    told: tuple[dict[str, str], RunResult, str], attempt: str, defence: str
) -> None:
    lines, run, printed = told
    if state(run, defence) is not State.ON:
        pytest.skip(f"{defence} is not available here")
    assert f"{attempt} refused:" in printed, printed
    assert lines


@pytest.mark.parametrize("attempt", ["private tmp", "private home"])
def test_private_folders_are_writable(told: tuple[dict[str, str], RunResult, str], attempt: str) -> None:
    assert f"{attempt} WORKED" in told[2], told[2]


def test_no_variable_but_those_on_the_list(told: tuple[dict[str, str], RunResult, str]) -> None:
    assert "variables []" in told[2] and "core (0, 0)" in told[2], told[2]


def test_its_own_processes_are_all_it_sees(told: tuple[dict[str, str], RunResult, str]) -> None:
    if state(told[1], "pid namespace") is not State.ON:
        pytest.skip("no pid namespace here")
    assert "processes [1, 2]" in told[2], told[2]


def test_the_exit_code_comes_through_the_relay(told: tuple[dict[str, str], RunResult, str]) -> None:
    assert "code 3 while it was imported" in told[1].results[0].verdict.message


def test_every_defence_is_accounted_for(told: tuple[dict[str, str], RunResult, str]) -> None:
    run = told[1]
    assert [entry.name for entry in run.defences] == list(CATALOGUE)
    assert all(entry.reason for entry in run.defences if entry.state is State.OFF)
    assert run.seed_key == "0011"
    if os.path.exists("/proc/sys/user/max_user_namespaces") and os.geteuid() == 0:
        for name in ("no new privileges", "user namespace", "pid namespace", "limits", "capabilities"):
            assert state(run, name) is State.ON, name


def test_a_worker_isolated_less_says_what_is_off(tmp_path: Path) -> None:
    from evaluator.handle import Worker

    (tmp_path / "mine.py").write_text("def custom_kernel(data): ...\n")
    with processes.sandbox(tmp_path / "mine.py") as place:
        worker = Worker(place, "cpu", 1, "plain")
        reported = worker.wait_started(60.0)
        worker.close()
    assert reported["no new privileges"] == "" and "device does not start" in reported["pid namespace"]
    assert "device does not start" in reported["landlock"]


def test_everything_dies_with_the_relay(tmp_path: Path) -> None:
    """SIGKILL to the process that the judge knows takes the whole pid namespace along."""
    script = (
        "import sys, time; from pathlib import Path; from evaluator import isolation\n"
        "r = isolation.enter('cpu', 'full', Path(sys.argv[1]), [], int(sys.argv[2]))\n"
        "print(r['pid namespace'] or 'on', flush=True); time.sleep(60)\n"
    )
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), str(theirs.fileno())],
        stdout=subprocess.PIPE,
        pass_fds=[theirs.fileno()],
        cwd=processes.ROOT,
        text=True,
    )
    theirs.close()
    assert process.stdout is not None
    if process.stdout.readline().strip() != "on":
        process.kill()
        pytest.skip("no pid namespace here")
    below = processes.descendants(process.pid)
    assert len(below) == 2
    process.kill()
    process.wait()
    ours.settimeout(10)
    assert ours.recv(1) == b"", "the worker is gone, its end of the channel with it"


def test_off_is_never_overwritten_by_on() -> None:
    ledger = Ledger()
    threads = [
        threading.Thread(target=ledger.take, args=({"landlock": reason, "unheard of": ""},))
        for reason in ("", "no such call", "")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entry = next(entry for entry in ledger.entries() if entry.name == "landlock")
    assert (entry.state, entry.reason) == (State.OFF, "no such call")
    assert {e.state for e in Ledger().entries()} == {State.OFF}, "silence is no defence"
