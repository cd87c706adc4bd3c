"""Two unordered accesses of one place: which hazard that is, and which edge is missing."""

from __future__ import annotations

from b200sim.sanitizer.records import GENERIC, PIPELINED, Access
from b200sim.sanitizer.scopes import CLUSTER, CTA, order_of

LOADS = ("tma load", "bulk load")
STORES = ("tma store", "bulk store")
STRONG = ("ld", "st", "atomic")  # kinds that may be volatile, relaxed or stronger


def hazard(first: Access, second: Access) -> str:
    """The code for `second` not being ordered after `first`."""
    if second.facts.get("waited"):
        return "warp_not_synchronised"
    return _tensor(first, second) if first.space == "tensor" else _shared(first, second)


def _shared(first: Access, second: Access) -> str:
    if "not handed on" in first.facts:
        apart = first.facts["not handed on"][1] == "apart"
        return "warp_not_synchronised" if apart else "warp_met_without_barrier"
    if first.kind == "try_cancel":
        return "clc_response_early" if not second.writes else "load_overwritten"
    if first.kind == "cp.async":
        return "load_overwritten" if second.writes else "load_not_awaited"
    if first.kind in LOADS:
        return "load_overwritten" if second.writes else "load_not_awaited"
    if first.facts.get("early") and second.kind in LOADS:
        return "load_not_awaited"
    if first.kind in PIPELINED or first.kind == "wgmma":
        return "stage_overwritten"
    if first.kind in STORES:
        return "store_source_overwritten"
    if first.kind == "ld" and second.kind in LOADS:
        return "stage_overwritten"
    return "shared_race"


def _tensor(first: Access, second: Access) -> str:
    if second.kind == "dealloc":
        return "tmem_freed_in_use"
    if first.kind == "tmem st":
        return "tmem_store_not_awaited"
    if first.facts.get("early") and second.kind in PIPELINED:
        return "tmem_before_commit"
    if first.kind == "tmem ld":
        return "tmem_overwritten_while_loading"
    return "tmem_race" if second.kind in PIPELINED else "tmem_before_commit"


def sentence(first: Access, second: Access) -> str:
    did = "writes" if first.writes else "reads"
    does = {"dealloc": "deallocation"}.get(second.kind, "write" if second.writes else "read")
    return f"{does} by {second.name()} is not ordered after the {first.name()} that {did} the same place"


def missing_edge(first: Access, second: Access, commits: list[str]) -> str:
    """What would order the two. `commits`: mbarriers on which the first side's thread commits."""
    if second.facts.get("waited"):
        return f"bar.warp.sync (__syncwarp) in {second.who} after the lanes that have waited for the first"
    waits = f"{second.by()} (or who let it go on)"
    if "not handed on" in first.facts:
        lanes = first.facts["not handed on"][0]
        return f"bar.warp.sync (__syncwarp) in {first.who} between {lanes} and the lane that arrives for them"
    if first.kind in LOADS or first.kind == "try_cancel":
        return (
            f"no wait on {first.barrier or 'its mbarrier'} by {waits} for the phase in which the bytes arrive"
        )
    if first.kind == "cp.async":
        return f"no cp.async.wait_group by {first.who} after it, then a barrier that {second.by()} passes"
    if first.kind in PIPELINED:
        known = f" (it commits to {', '.join(commits)})" if commits else " (it never commits)"
        return f"no wait by {waits} on an mbarrier to which {first.by()} commits after it{known}"
    if first.kind == "wgmma":
        then = "" if first.who == second.who else f", then an arrival (or barrier) that {waits} waits for"
        return f"no wgmma.wait_group that covers it by a warp of its warpgroup{then}"
    if first.kind in STORES:
        return f"no cp.async.bulk.wait_group by {first.by()} followed by a barrier that {second.by()} passes"
    if first.kind in ("tmem ld", "tmem st"):
        word = first.kind[-2:]
        same = first.who == second.who
        then = "" if same else f", then an arrival (or barrier) that {waits} waits for"
        return f"no tcgen05.wait::{word} by {first.who} after it{then}"
    if first.who == second.who:
        return "nothing makes the first one complete before the second is issued"
    return f"no barrier or mbarrier between {first.who} and {second.who}"


def strong_together(first: Access, second: Access) -> bool:
    """Two strong accesses of one element of shared memory are no race (PTX ISA 8.7)."""
    if first.kind not in STRONG or second.kind not in STRONG or first.space != "shared":
        return False
    a, b = order_of(first.ins), order_of(second.ins)
    scope = CTA if first.role[0] == second.role[0] else CLUSTER
    if not (a.strong and b.strong) or min(a.scope, b.scope) < scope:
        return False
    return first.facts.get("element") == second.facts.get("element")


def same_bytes(first: Access, second: Access) -> bool:
    """For generic accesses of elements smaller than a shadow cell: whether they really meet."""
    if first.kind not in GENERIC or second.kind not in GENERIC:
        return True
    a, b = first.facts.get("element", 4), second.facts.get("element", 4)
    if (a >= 4 and b >= 4) or first.space != "shared":
        return True
    return not _bytes(first, a).isdisjoint(_bytes(second, b))


def _bytes(access: Access, element: int) -> set[int]:
    offsets = access.offsets
    starts = [int(offsets)] if isinstance(offsets, int) else [int(x) for x in offsets]
    return {start + i for start in starts for i in range(element)}
