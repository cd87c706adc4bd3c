"""The report of a launch in which nothing can run any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from b200sim.machine.cta import Cluster

SHOWN = 12


def deadlock_report(clusters: list[Cluster]) -> str:
    """Every blocked warp of the first stuck cluster: where it stands, what it waits for and what that lacks."""
    stuck = [c for c in clusters if any(warp.blocked_on for warp in c.all_warps())]
    lines = [f"no warp can run and nothing is in flight ({len(stuck)} cluster(s) are stuck)"]
    warps = [warp for warp in stuck[0].all_warps() if warp.blocked_on]
    for warp in warps[:SHOWN]:
        assert warp.blocked_on is not None
        lines.append(f"  {warp.current_place()}\n    waits for {warp.blocked_on.describe()}")
    if len(warps) > SHOWN:
        lines.append(f"  and {len(warps) - SHOWN} more warps")
    return "\n".join(lines)
