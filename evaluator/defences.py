"""What stood between a submission and a false verdict in this run: every defence ON, OFF or N-A, and why.

A defence that some worker went without is OFF for the run. One that nobody reported is OFF too: silence is
no defence.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import Enum


class State(str, Enum):
    ON = "ON"
    OFF = "OFF"
    NA = "N-A"


#: Every defence, in the order of the report: name -> what it does.
CATALOGUE: dict[str, str] = {
    # who knows what
    "judge apart": "the judge never imports the submission; seeds, truth, checks, clock and keys are its own",
    "strict messages": "fixed fields with bounds, one answer per command; nothing is unpickled",
    "secrets scrubbed": "POPCORN_* is in no environment of a living process",
    "environment": "the worker gets an allow-list of variables",
    "private copies": "read-only submission, private home and temporary folders; hashes compared at the end",
    "judge closed": "the judge cannot be traced or read through /proc",
    # what a worker can reach
    "no new privileges": "no set-uid program can raise the worker",
    "capabilities": "the worker has none",
    "user namespace": "no power over the judge's processes, even as root",
    "pid namespace": "sees its own processes only; all of them die together",
    "network namespace": "no network",
    "ipc namespace": "no shared memory or queues of others",
    "mount namespace": "file systems read-only, private /dev/shm",
    "landlock": "writes only in its private folders, reads no /tmp, no disks",
    "own user": "another user id than the judge's",
    "limits": "bounded files, core dumps, processes, memory; output drained and cut",
    # what is checked
    "structure": "count, exact type, dtype, shape, strides, device, aliasing",
    "all elements": "every element against exact ground truth",
    "at return": "outputs are copied the moment custom_kernel returns, and compared with what they became",
    "poisoned outputs": "c holds random NaNs before every call",
    "poisoned free memory": "freed blocks of an output's size hold NaNs",
    "inputs unchanged": "compared with the judge's originals",
    "fresh inputs": "contents drawn from unpredictable seeds after the call before",
    "rewritten inputs": "contents change between the calls of one window, under the same objects",
    "rotated addresses": "equal contents at new addresses, other objects",
    "determinism": "equal inputs give equal bytes",
    "held-out shapes": "cases nobody announced",
    "second distribution": "all codes and scales, NaN padding",
    "processes": "no process outlives the call",
    "threads": "no thread of the submission outlives the call",
    "other queues": "nothing is left running when the current queue is done",
    "patched functions": "functions of torch, Python and the worker are what they were before the import",
    "text scan": "suspicious words; warns only",
    # time
    "official lane": "windows of 15 calls as the official runner has them",
    "strict lane": "single calls on inputs that did not exist before, cold L2, no launch cost",
    "restarts": "the strict lane repeats in fresh processes",
    "cold L2": "twice the L2 is written before a timed call",
    "persisting L2": "its limit is set to zero and read back",
    "judge's clock": "the wall clock outside the worker bounds the times from inside",
    "roofline": "no time below what the GPU can move or compute",
    "clock log": "GPU clocks, power, temperature and throttling are recorded",
    "independent profiler": "a CUPTI pass that counts kernels",
}


@dataclass(frozen=True)
class Entry:
    """One line of the report."""

    name: str
    state: State
    reason: str

    @property
    def meaning(self) -> str:
        return CATALOGUE[self.name]


class Ledger:
    """Collects what was on and off. Thread-safe; OFF is never overwritten by ON."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._lock = threading.Lock()

    def on(self, name: str, reason: str = "") -> None:
        self._set(name, State.ON, reason)

    def off(self, name: str, reason: str) -> None:
        self._set(name, State.OFF, reason)

    def not_applicable(self, name: str, reason: str) -> None:
        self._set(name, State.NA, reason)

    def take(self, reported: dict[str, str]) -> None:
        """What a worker reported before it loaded the submission: "" for on, else why it is off."""
        for name, reason in reported.items():
            if name in CATALOGUE:
                self._set(name, State.OFF if reason else State.ON, reason)

    def entries(self) -> list[Entry]:
        """All defences in catalogue order."""
        with self._lock:
            return [
                self._entries.get(name, Entry(name, State.OFF, "did not come into play"))
                for name in CATALOGUE
            ]

    def _set(self, name: str, state: State, reason: str) -> None:
        if name not in CATALOGUE:
            raise KeyError(name)
        rank = {State.NA: 0, State.ON: 1, State.OFF: 2}
        with self._lock:
            known = self._entries.get(name)
            if known is None or rank[state] > rank[known.state]:
                self._entries[name] = Entry(name, state, reason)
