"""Processes and files of a run: private copies, captured output, and the end of all that was started."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
_PR_SET_CHILD_SUBREAPER = 36
_TAG = "NVFP4_EVAL_WORKER"


class Tail:
    """Drains a pipe on a thread of its own and keeps its first and last bytes."""

    def __init__(self, pipe: IO[bytes], keep: int = 8192) -> None:
        self.pipe, self.keep = pipe, keep
        self.total = 0
        self._head, self._last = b"", b""
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()

    def text(self) -> str:
        """What was printed, with the middle left out if it is long."""
        with self._lock:
            shown, kept = self._head + self._last, len(self._head) + len(self._last)
            if kept < self.total:
                cut = f"\n... {self.total - kept} bytes left out ...\n".encode()
                shown = self._head + cut + self._last
        return shown.decode(errors="replace")

    def take(self) -> str:
        """What has been printed since the last `take`, or the start; it counts as gone from now on.

        Complete if the writer has been heard from since it printed.
        """
        self._catch_up()
        text = self.text()
        with self._lock:
            self.total, self._head, self._last = 0, b"", b""
        return text

    def _catch_up(self) -> None:
        """Until the pipe is empty. What is read is read under the lock, so then nothing is on its way."""
        waiting = ctypes.c_int(1)
        for _ in range(200):
            if self.pipe.closed or not self._thread.is_alive():
                return
            fcntl.ioctl(self.pipe.fileno(), termios.FIONREAD, waiting)
            if not waiting.value:
                return
            time.sleep(0.005)

    def finish(self, seconds: float) -> None:
        """Wait until the writer's end is closed, at most `seconds`; then close ours."""
        self._thread.join(seconds)
        if not self._thread.is_alive():
            self.pipe.close()

    def _drain(self) -> None:
        descriptor = self.pipe.fileno()
        while True:
            try:
                select.select([descriptor], [], [])
            except (OSError, ValueError):
                return
            with self._lock:
                try:
                    chunk = os.read(descriptor, 1 << 16)
                except OSError:
                    return
                if not chunk:
                    return
                self.total += len(chunk)
                room = self.keep - len(self._head)
                self._head += chunk[:room]
                self._last = (self._last + chunk[room:])[-self.keep :] if room < len(chunk) else self._last


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder, gone afterwards whatever happened in it."""
    place = Path(tempfile.mkdtemp(prefix="nvfp4-eval-"))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def sandbox(submission: Path) -> Iterator[Path]:
    """A private directory with read-only copies of the submission and the problem's types; gone afterwards.

    Layout: `code/` (submission.py, task.py; the worker's working directory), and for every worker a folder of
    its own, `workers/TAG/`, with `home/` and `tmp/`.
    """
    with temporary_folder() as place:
        for name in ("code", "workers"):
            (place / name).mkdir()
        shutil.copyfile(submission, place / "code" / "submission.py")
        if (ROOT / "task.py").exists():
            shutil.copyfile(ROOT / "task.py", place / "code" / "task.py")
        for copy in (place / "code").iterdir():
            copy.chmod(0o444)
        yield place


#: What a worker gets of the caller's environment: where programs, libraries and the device are, and language.
_KEPT_VARIABLES = re.compile(
    r"(PATH|LD_LIBRARY_PATH|VIRTUAL_ENV|LANG|LANGUAGE|LC_\w+|TZ|TERM|CC|CXX|USER|LOGNAME|SYSTEMROOT"
    r"|(CUDA|NVIDIA|NVCC|NCCL|CUTE|CUTLASS|TRITON|TORCH|PYTORCH|OMP|MKL|OPENBLAS|B200SIM)_?\w*)"
)


def private_folder(place: Path, tag: str) -> Path:
    """A worker's own folder, made now: nothing that one worker leaves there is seen by another."""
    private = place / "workers" / tag
    for name in ("home", "tmp"):
        (private / name).mkdir(parents=True)
    return private


def environment(private: Path, device: str, tag: str) -> dict[str, str]:
    """The worker's environment: an allow-list of the caller's, private home and caches, one BLAS thread.

    `tag` is inherited by whatever the worker starts; `kill_session` finds it by that.
    """
    env = {key: value for key, value in os.environ.items() if _KEPT_VARIABLES.fullmatch(key)}
    env |= {
        _TAG: tag,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONUSERBASE": _user_base(),
        "HOME": str(private / "home"),
        "TMPDIR": str(private / "tmp"),
        "XDG_CACHE_HOME": str(private / "home" / "cache"),
        "TRITON_CACHE_DIR": str(private / "home" / "triton"),
        "CUDA_CACHE_PATH": str(private / "home" / "cuda"),
        "CUTE_DSL_DISABLE_FILE_CACHING": "1",
        # Compile in the process itself: a pool of compilers would look like processes left behind.
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
    }
    if device != "cuda":
        env |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        env["CUDA_VISIBLE_DEVICES"] = ""
    return env


def _user_base() -> str:
    import site

    return site.getuserbase()


def become_subreaper() -> bool:
    """Adopt orphaned descendants, so that `kill_orphans` finds daemons too. False if the kernel refuses."""
    return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def descendants(pid: int) -> list[int]:
    """All living descendants of `pid`, parents before children."""
    children: dict[int, list[int]] = {}
    for process, parent, _ in _processes():
        children.setdefault(parent, []).append(process)
    found, queue = [], [pid]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def command_name(pid: int) -> str:
    """The name of a process's program, for reports."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "?"


def kill_session(process: subprocess.Popen[bytes], tag: str) -> None:
    """Kill a worker, its descendants, its session, and what inherited its tag; reap it."""
    leader = process.pid
    for _ in range(50):
        doomed = descendants(leader)
        doomed += [
            pid
            for pid, _, session in _processes()
            if pid != leader and (session == leader or _tagged(pid, tag))
        ]
        if process.poll() is None:
            doomed.append(leader)
        if not doomed:
            break
        for pid in doomed:
            _kill(pid)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
        _reap(doomed)
    process.wait()


def kill_orphans(spared: set[int]) -> int:
    """Kill this process's children that are not `spared`, and their descendants; how many there were."""
    orphans = [pid for pid, parent, _ in _processes() if parent == os.getpid() and pid not in spared]
    everything = [pid for orphan in orphans for pid in (orphan, *descendants(orphan))]
    for pid in everything:
        _kill(pid)
    _reap(everything)
    return len(orphans)


def children() -> set[int]:
    """The direct children of this process."""
    return {pid for pid, parent, _ in _processes() if parent == os.getpid()}


def _processes() -> Iterator[tuple[int, int, int]]:
    """(pid, parent, session) of every process that is not a zombie."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if fields[0] != b"Z":
            yield int(entry), int(fields[1]), int(fields[3])


def _tagged(pid: int, tag: str) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return f"{_TAG}={tag}".encode() in file.read().split(b"\0")
    except OSError:
        return False


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _reap(pids: list[int]) -> None:
    """Collect zombies among `pids` that are our own children (orphans adopted by the subreaper)."""
    deadline = time.monotonic() + 0.5
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(pid, os.WNOHANG)[0] == 0 and time.monotonic() < deadline:
                time.sleep(0.01)


def python_command(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]
