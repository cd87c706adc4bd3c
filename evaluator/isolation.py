"""What a worker gives up before it loads the submission, as far as this machine lets it.

`enter` is called first thing in the worker's process, before any heavy import. With a pid namespace there are
three processes afterwards:

    relay       in the judge's namespaces: passes SIGUSR1 on, ends as the worker ended
    init        pid 1 of the new namespace: adopts and reaps; when it ends the kernel kills all others there
    the worker  everything below happens here

Nothing of this is required: whatever the kernel refuses is reported with its reason, and the run goes on.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path

from evaluator import kernel_calls as kernel

#: "full": everything. "plain": no namespaces, no Landlock, for a GPU driver that does not start inside them.
LEVELS = ("full", "plain")
_PLAIN_REASON = "the device does not start inside namespaces here"

_FILE_BYTES = 8 << 30
_PROCESSES = 4096
_MEMORY_SHARE = 0.75
_NAMESPACES = {
    "network namespace": kernel.CLONE_NEWNET,
    "ipc namespace": kernel.CLONE_NEWIPC,
    "mount namespace": kernel.CLONE_NEWNS,
    "pid namespace": kernel.CLONE_NEWPID,
}
#: Devices a worker may use. Everything else in /dev, disks first of all, is out of reach under Landlock.
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "nvidia-caps", "dri", "dxg")
#: Folders of / that hold nothing a submission needs to read.
_UNREADABLE = frozenset({"dev", "tmp", "boot", "lost+found"})

Report = dict[str, str]


def enter(device: str, level: str, private: Path, readable: list[Path], keep: int) -> Report:
    """Give up what can be given up; returns in the worker only. `keep` is the channel's descriptor.

    `private` is the one folder that stays writable, `readable` are paths that must stay readable wherever
    they lie. The report has "" for every defence that is on and a reason for every one that is off.
    """
    report: Report = {}
    _attempt(report, "no new privileges", lambda: kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1))
    if level == "full":
        _namespaces(report)
    else:
        for name in ("user namespace", *_NAMESPACES, "landlock"):
            report[name] = _PLAIN_REASON
    if report.get("mount namespace") == "":
        _attempt(report, "mount namespace", lambda: _mounts_outside(private))
    if report.get("pid namespace") == "":
        _become_second(keep)
    if report.get("mount namespace") == "":
        _attempt(report, "mount namespace", lambda: _mounts_inside(private, report["pid namespace"] == ""))
    if level == "full":
        _attempt(report, "landlock", lambda: _landlock(private, readable))
    own_namespace = report["user namespace"] == ""
    _attempt(report, "limits", lambda: _limits(device, own_namespace))
    report["own user"] = "the worker keeps the judge's: another user may not be able to read the interpreter"
    if own_namespace or os.geteuid() != 0:
        _attempt(report, "capabilities", kernel.drop_capabilities)
    else:
        _attempt(report, "capabilities", kernel.drop_capabilities)
        if report["capabilities"] == "":
            report["capabilities"] = "dropped, but the worker is still the user root and owns root's files"
    return report


def _attempt(report: Report, name: str, act: Callable[[], None]) -> None:
    try:
        act()
        report[name] = ""
    except (OSError, ValueError) as error:
        report[name] = f"the kernel refused: {error}"


# ---------------------------------------------------------------------------------------------- namespaces


def _namespaces(report: Report) -> None:
    user, group = os.geteuid(), os.getegid()
    _attempt(report, "user namespace", lambda: kernel.unshare(kernel.CLONE_NEWUSER))
    if report["user namespace"] == "":
        with contextlib.suppress(OSError):
            Path("/proc/self/setgroups").write_text("deny")
        _attempt(report, "user namespace", lambda: _map_ids(user, group))
    for name, flag in _NAMESPACES.items():
        if name == "pid namespace" and report["mount namespace"]:
            report[name] = "useless without a mount namespace: /proc would show other processes' numbers"
            continue
        _attempt(report, name, lambda flag=flag: kernel.unshare(flag))  # type: ignore[misc]


def _map_ids(user: int, group: int) -> None:
    """The same ids inside as outside: files keep their owners, and no other id exists."""
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def _become_second(keep: int) -> None:
    """Fork twice: this process relays, its child is the namespace's init, and its grandchild returns."""
    ended, tell = os.pipe()
    init = os.fork()
    if init:
        os.close(tell)
        os.close(keep)
        _relay(init, ended)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    os.close(ended)
    worker = os.fork()
    if worker:
        os.close(keep)
        _init(worker, tell)
    os.close(tell)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)


def _relay(init: int, ended: int) -> None:
    """Wait for the worker's end and end likewise. Never returns."""
    signal.signal(signal.SIGUSR1, lambda *_: _kill(init, signal.SIGUSR1))
    told = os.read(ended, 4)
    os.waitpid(init, 0)
    status = struct.unpack("=i", told)[0] if len(told) == 4 else signal.SIGKILL
    if os.WIFEXITED(status):
        os._exit(os.WEXITSTATUS(status))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    number = os.WTERMSIG(status)
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # a signal whose default is to be ignored


def _init(worker: int, tell: int) -> None:
    """Reap whatever ends in the namespace until the worker does. Never returns."""
    signal.signal(signal.SIGUSR1, lambda *_: _kill(worker, signal.SIGUSR1))
    with contextlib.suppress(OSError):
        kernel.drop_capabilities()
    while True:
        process, status = os.waitpid(-1, 0)
        if process == worker:
            os.write(tell, struct.pack("=i", status))
            os._exit(0)


def _kill(process: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)


# -------------------------------------------------------------------------------------------------- files


def _mounts_outside(private: Path) -> None:
    """Cut the tree's ties to the judge's; `private` becomes a mount of its own, /dev/shm an empty one."""
    kernel.mount("none", "/", "none", kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount(str(private), str(private), "none", kernel.MS_BIND)
    if os.path.isdir("/dev/shm"):
        flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
        kernel.mount("tmpfs", "/dev/shm", "tmpfs", flags, "size=25%,mode=1777")


def _mounts_inside(private: Path, own_processes: bool) -> None:
    """A /proc of the new namespace's processes; all file systems read-only but the private ones and /proc.

    CUDA does not start with a read-only /proc, nor with one of another pid namespace. Landlock leaves of it
    only the worker's own folder writable.
    """
    if own_processes:
        kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    kernel.set_read_only("/", True, recursive=True)
    for path in (str(private), "/dev/shm", "/proc"):
        if os.path.isdir(path):
            kernel.set_read_only(path, False, recursive=False)
    os.chdir(os.getcwd())  # through the new mounts


def _landlock(private: Path, readable: list[Path]) -> None:
    rules = kernel.Landlock()
    everything = kernel.READ | kernel.WRITE | kernel.TRUNCATE
    rules.allow(str(private), everything)
    rules.allow("/dev/shm", everything)
    rules.allow("/proc/self", everything)  # thread names
    for name in os.listdir("/"):
        if name not in _UNREADABLE:
            rules.allow(f"/{name}", kernel.READ)
    for path in (*readable, *map(Path, (sys.prefix, sys.base_prefix))):
        rules.allow(str(path), kernel.READ)
    for name in os.listdir("/dev"):
        if name in _DEVICES or name.startswith("nvidia"):
            rules.allow(f"/dev/{name}", everything)
    rules.enforce()


# ------------------------------------------------------------------------------------------------- limits


def _limits(device: str, own_namespace: bool) -> None:
    """No core dumps, bounded files, and where it can be bounded without harm, processes and memory."""
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, _FILE_BYTES)
    if own_namespace:  # elsewhere the count would include the user's other processes
        _lower(resource.RLIMIT_NPROC, _PROCESSES)
    if device != "cuda":  # CUDA reserves address space far beyond what it uses
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        _lower(resource.RLIMIT_AS, max(16 << 30, int(_MEMORY_SHARE * total)))
    with contextlib.suppress(OSError):  # short of memory, the kernel shall pick the worker
        Path("/proc/self/oom_score_adj").write_text("1000")


def _lower(which: int, wanted: int) -> None:
    _, hard = resource.getrlimit(which)
    value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(which, (value, value))
