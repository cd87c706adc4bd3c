"""Who waits for whom when nothing can run: the wait-for cycle of a deadlock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from b200sim.machine.waiting import ClusterBarrier, MBarrier, NamedBarrier
from b200sim.sanitizer.state import ClusterState

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp


def wait_cycle(state: ClusterState) -> list[str]:
    """Lines that say, from warp to warp, who waits for whom; the cycle if there is one.

    An mbarrier waits for those that have arrived on it before, or who would after what they stand at. One
    that nobody has ever arrived on waits for anybody: it ends the chain.
    """
    blocked = {warp.name: warp for warp in state.warps if warp.blocked_on}
    for start in blocked:
        path, lines = [start], []
        name = start
        while True:
            line, following = _step(state, blocked[name], blocked)
            lines.append(line)
            if following is None:
                break
            if following in path:
                first = path.index(following)
                return ["wait-for cycle:", *[f"  {text}" for text in lines[first:]]]
            path.append(following)
            name = following
    return [f"  {_step(state, warp, blocked)[0]}" for warp in blocked.values()]


def _step(state: ClusterState, warp: Warp, blocked: dict[str, Warp]) -> tuple[str, str | None]:
    wait = warp.blocked_on
    place = warp.program.blocks[warp.pc].instructions[0]
    source = f"{place.source[0]}:{place.source[1]}" if place.source else f"PTX line {place.line}"
    if isinstance(wait, MBarrier):
        target = state.barriers.get(wait)
        known = target.arrivers if target else {}
        names = {who.split(" lane")[0] for who in known.values()} - {warp.name}
        waits = next((name for name in sorted(names) if name in blocked), None)
        who = (
            f"arrivals come from {', '.join(sorted(set(known.values())))}"
            if known
            else "nobody ever arrived there"
        )
        name = target.name if target else wait.name
        return f"{warp.name} ({source}) waits on {name}, phase {wait.phase}: {who}", waits
    if isinstance(wait, (NamedBarrier, ClusterBarrier)):
        others = [w for w in blocked.values() if w is not warp and w.blocked_on is not wait]
        label = wait.describe()
        return f"{warp.name} ({source}) waits at {label}", others[0].name if others else None
    return f"{warp.name} ({source}) waits for {wait.describe() if wait else 'nothing'}", None
