"""Clusters of one launch side by side in forked processes.

Only where it cannot be noticed: the clusters must not print and must not talk to each other (atomics,
reductions, acquire and volatile accesses to global memory, cluster launch control), and all writable device
memory must be mapped shared, so that every process's stores are seen. Otherwise the launch runs in this
process alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import re
import signal
from collections.abc import Iterable
from pathlib import Path

from b200sim.faults import Fault
from b200sim.machine.counters import Counters
from b200sim.machine.grid import Grid

MIN_CLUSTERS_PER_PROCESS = 2
ORDERED = {"acquire", "release", "acq_rel", "volatile", "relaxed"}  # accesses made to be seen by others
_PR_SET_PDEATHSIG = 1
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) ...(.)")


def run_grid(grid: Grid, processes: int) -> int:
    """Run all clusters of a grid in up to `processes` processes. Returns how many it took.

    Raises the `Fault` of the first process that reports one; no process survives the call.
    """
    count = min(processes, grid.cluster_count // MIN_CLUSTERS_PER_PROCESS)
    if count < 2 or grid.observer is not None or _clusters_communicate(grid) or not _memory_is_shared(grid):
        grid.run()
        return 1
    children: list[_Child] = []
    try:
        for part in range(1, count):
            children.append(_Child(grid, part, count))
        grid.keep_part(0, count)
        tell = grid.progress
        if tell is not None:  # this process's part stands for all
            grid.progress = lambda done, total: tell(count * done, count * total)
        grid.run()
        for child in children:
            grid.counters.add(child.result())
    finally:
        for child in children:
            child.stop()
    return count


def _clusters_communicate(grid: Grid) -> bool:
    return any(_may_reach_other_clusters(mnemonic.split(".")) for mnemonic in grid.program.opcodes())


def _may_reach_other_clusters(words: list[str]) -> bool:
    if words[0] in ("clusterlaunchcontrol", "call") or words[:2] == ["cp", "reduce"]:
        return True
    if any(word.startswith("shared") for word in words):
        return False
    return words[0] in ("atom", "red") or (words[0] in ("ld", "st") and not ORDERED.isdisjoint(words))


def _memory_is_shared(grid: Grid) -> bool:
    """Whether every writable allocation lies in a MAP_SHARED mapping of this process."""
    shared = [
        (int(match[1], 16), int(match[2], 16))
        for match in map(_MAPPING.match, Path("/proc/self/maps").read_text().splitlines())
        if match and match[3] == "s"
    ]
    return all(
        _covered(allocation.address, allocation.address + allocation.nbytes, shared)
        for allocation in grid.memory.allocations
        if allocation.writable
    )


def _covered(start: int, end: int, ranges: Iterable[tuple[int, int]]) -> bool:
    for low, high in sorted(ranges):
        if low <= start < high:
            start = high
        if start >= end:
            return True
    return False


class _Child:
    """A forked process that runs one part of a grid and reports counters or a fault through a pipe."""

    def __init__(self, grid: Grid, part: int, count: int) -> None:
        self._pipe, write_end = os.pipe()
        self._process = os.fork()
        if self._process == 0:
            os.close(self._pipe)
            self._run(grid, part, count, write_end)
        os.close(write_end)

    @staticmethod
    def _run(grid: Grid, part: int, count: int, write_end: int) -> None:
        """In the child: never returns, and never runs what the parent registered for its own exit."""
        status = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            grid.progress = None
            grid.keep_part(part, count)
            message: tuple[object, ...]
            try:
                message = ("counters", grid.run())
            except Fault as fault:
                message = ("fault", fault.code, fault.message, fault.where)
            except BaseException as error:
                message = ("error", repr(error))
            with os.fdopen(write_end, "wb") as pipe:
                pipe.write(pickle.dumps(message))
            status = 0
        finally:
            os._exit(status)

    def result(self) -> Counters:
        with os.fdopen(self._pipe, "rb") as pipe:
            data = pipe.read()
        self._pipe = -1
        if not data:
            raise RuntimeError("a simulator process ended without a result")
        kind, *content = pickle.loads(data)
        if kind == "fault":
            code, message, where = content
            raise Fault(code, message).at(where)
        if kind == "error":
            raise RuntimeError(f"a simulator process failed: {content[0]}")
        assert isinstance(content[0], Counters)
        return content[0]

    def stop(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
