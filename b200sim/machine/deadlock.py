"""The report of a launch in which nothing can run any more, or which never ends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from b200sim.machine.registers import RegisterPool
from b200sim.machine.waiting import MBarrier, Wait

if TYPE_CHECKING:
    from b200sim.machine.cta import Cluster
    from b200sim.machine.spinning import Poll
    from b200sim.machine.warp import Warp

SHOWN = 8


def deadlock_report(clusters: list[Cluster]) -> str:
    """Who waits where for what in the first stuck cluster, the likely cause first.

    A barrier whose arrivals are complete and whose bytes are not is a cause rather than a consequence: an
    expect_tx that does not match the copies. So is a register pool with too little in it. Warps that stand at
    the same place are one entry.
    """
    stuck = [cluster for cluster in clusters if any(warp.blocked_on for warp in cluster.all_warps())]
    blocked = [warp for warp in stuck[0].all_warps() if warp.blocked_on]
    entries = sorted(_groups(blocked), key=lambda entry: not _is_cause(entry[1]))
    lines = [f"deadlock: no warp can run and nothing is in flight in {len(stuck)} cluster(s)"]
    for warps, wait in entries[:SHOWN]:
        mark = " (likely cause)" if _is_cause(wait) else ""
        lines.append(f"  {_names(warps)} at {_place(warps[0])}\n    waits for {wait.describe()}{mark}")
    if len(entries) > SHOWN:
        lines.append(f"  and {len(entries) - SHOWN} more places")
    lines += register_accounts(blocked)
    gone = [warp for warp in stuck[0].all_warps() if not warp.alive]
    if gone:
        lines.append(f"  exited already: {', '.join(_names(group) for group in _by_cta(gone))}")
    return "\n".join(lines)


def spinning_report(polls: list[Poll], clusters: list[Cluster], waiting: int) -> str:
    """Who polls what, if nothing else will ever happen. `waiting`: clusters that have not started."""
    lines = [f"deadlock: {len(polls)} warp(s) poll memory that nobody will change, and nothing else can run"]
    places: dict[tuple[int, int, object], list[Poll]] = {}
    for poll in polls:
        places.setdefault((poll.ins.line, poll.address, poll.cta), []).append(poll)
    for there in list(places.values())[:SHOWN]:
        who = ", ".join(_names(group) for group in _by_cta([poll.warp for poll in there])[:SHOWN])
        poll = there[0]
        lines.append(
            f"  {who} at {poll.ins.place()}\n    reads {poll.nbytes} bytes of {poll.place()} again and "
            f"again, which hold {poll.value():#x}"
        )
    blocked = [warp for cluster in clusters for warp in cluster.all_warps() if warp.blocked_on]
    for warps, wait in _groups(blocked)[:SHOWN]:
        lines.append(f"  {_names(warps)} at {_place(warps[0])}\n    waits for {wait.describe()}")
    lines += register_accounts(blocked)
    if waiting:
        lines.append(f"  {waiting} cluster(s) have not started: all SMs are taken")
    return "\n".join(lines)


def endless_report(clusters: Iterable[Cluster]) -> str:
    """Where the warps of the running clusters stand when the time limit has passed."""
    warps = [warp for cluster in clusters for warp in cluster.all_warps() if warp.alive]
    places: dict[str, list[Warp]] = {}
    for warp in warps:
        places.setdefault(_place(warp), []).append(warp)
    lines = ["the simulation's time limit has passed and the kernel was still running"]
    for place, there in sorted(places.items(), key=lambda item: -len(item[1]))[:SHOWN]:
        waits = f", waits for {there[0].blocked_on.describe()}" if there[0].blocked_on else ", running"
        lines.append(f"  {len(there)} warp(s), such as {there[0].name}, at {place}{waits}")
    return "\n".join(lines)


def _groups(warps: list[Warp]) -> list[tuple[list[Warp], Wait]]:
    groups: dict[tuple[int, int], list[Warp]] = {}
    for warp in warps:
        groups.setdefault((id(warp.blocked_on), warp.pc), []).append(warp)
    return [(group, group[0].blocked_on) for group in groups.values() if group[0].blocked_on]


def _is_cause(wait: Wait) -> bool:
    if isinstance(wait, RegisterPool):
        return True
    return isinstance(wait, MBarrier) and wait.pending == 0 and wait.transactions != 0


def register_accounts(blocked: list[Warp]) -> list[str]:
    """Lines on every register pool that some of these warps wait for."""
    pools = dict.fromkeys(warp.blocked_on for warp in blocked if isinstance(warp.blocked_on, RegisterPool))
    return [f"  {line}" for pool in list(pools)[:SHOWN] for line in pool.account()]


def _by_cta(warps: list[Warp]) -> list[list[Warp]]:
    groups: dict[str, list[Warp]] = {}
    for warp in warps:
        groups.setdefault(warp.cta.name, []).append(warp)
    return list(groups.values())


def _names(warps: list[Warp]) -> str:
    numbers = ", ".join(str(warp.index) for warp in warps)
    return f"{warps[0].cta.name} warp{'s' if len(warps) > 1 else ''} {numbers}"


def _place(warp: Warp) -> str:
    return warp.program.blocks[warp.pc].instructions[0].place()
