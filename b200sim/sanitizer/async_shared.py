"""Shared memory as asynchronous units use it: through the async proxy, and by whole tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from b200sim.machine.observer import TensorLoad, TensorStore
from b200sim.sanitizer.clocks import ASYNC, MEMORY, NEVER, WRITER
from b200sim.sanitizer.records import Access
from b200sim.sanitizer.shadow import WORD, SharedCells, words
from b200sim.sanitizer.state import ClusterState, CtaState, WarpState
from b200sim.sanitizer.sync import SyncEvents

if TYPE_CHECKING:
    from b200sim.machine.cta import Cta


class AsyncShared(SyncEvents):
    def write_shared(self, state: ClusterState, ws: WarpState, access: Access, receiver: Cta) -> None:
        """An asynchronous write: after every use before it, through the async proxy."""
        target = state.ctas[receiver]
        shadow, where = target.shared, words(access.start, access.size)
        number = self.keep(access)
        known = ws.now[MEMORY]
        unread = shadow.unread[where]
        if unread.any() and access.kind not in ("try_cancel", "st.async"):
            self._unread(shadow, where, access)
        if receiver is ws.warp.cta:
            self.lanes_issue(ws, shadow, where, access, writes=True)
        late = shadow.unordered_writes(where, known)
        self.conflicts(state, late + shadow.unordered_reads(where, known), access)
        if not late and access.kind != "st.async":
            self._check_proxy(state, ws, shadow, where, access)
        self.check_barrier_words(target, where, access)
        shadow.write(where, access.slot, access.clock, number)
        shadow.valid_words[where] = 0x01010101
        shadow.unread[where] = access.kind not in ("try_cancel", "st.async")
        target.users[access.slot] = access

    def _unread(self, shadow: SharedCells, where: Any, second: Access | None) -> None:
        """Bytes that were loaded and that nobody read before they are overwritten or the CTA exits."""
        for number in np.unique(shadow.written_by[where][shadow.unread[where]]).tolist():
            first = self.accesses[number]
            if first is None or ("unread", first.ins.line) in self._told:
                continue
            unread = np.flatnonzero(shadow.unread & (shadow.written_by == number))
            detail = first.facts.get("load")
            if isinstance(detail, TensorLoad):
                unread = unread[in_range(detail, detail.offset, detail.nbytes, 4 * unread - detail.offset)]
            count = 4 * len(unread)
            if not count or (second is None and count >= first.size):
                continue  # a whole tile too many at the end: prefetched, and nobody needed it
            self.once("unread", first.ins.line)
            self._sides.append(first)
            end = "overwritten" if second else "the CTA exits"
            self.report(
                "tile_partly_unread",
                f"{count} of {first.size} bytes of the {first.name()} were never read until {end}",
                first=first,
                second=second,
                edge="the descriptors of operands and instruction and the box of the load must fit together",
                link="partly not read in between",
            )

    def _check_proxy(
        self, state: ClusterState, ws: WarpState, shadow: SharedCells, where: Any, access: Access
    ) -> None:
        """PTX ISA 9.7.9.25.2, 9.7.16.6.5: generic writes reach the async proxy only through a proxy fence."""
        generic = state.agents.generic
        for row, code in ((ASYNC, "proxy_fence_missing"), (WRITER, "proxy_fence_by_reader")):
            ids = shadow.unordered_writes(where, np.where(generic, ws.now[row], NEVER))
            for number in ids:
                first = self.accesses[number]
                if first is None or not self.once(code, first.ins.line, access.ins.line, access.operand):
                    continue
                self.report(
                    code,
                    f"{access.name()} uses shared memory that {first.name()} wrote through the generic proxy",
                    first=first,
                    second=access,
                    edge=f"fence.proxy.async by {first.who} after the write and before it hands on",
                )
            if ids:
                return

    def read_shared(
        self, state: ClusterState, ws: WarpState, access: Access, target: CtaState, where: Any, known: Any
    ) -> None:
        """An asynchronous read: after every write before it, through the async proxy."""
        shadow = target.shared
        number = self.keep(access)
        self.lanes_issue(ws, shadow, where, access, writes=False)
        late = shadow.unordered_writes(where, known)
        if late:
            self.conflicts(state, late, access)
        else:
            self._check_proxy(state, ws, shadow, where, access)
        if shadow.uninitialised(where):
            access.facts["early"] = True
            self._undefined(shadow, where, access)
        shadow.read(where, access.slot, access.clock, number)
        target.users[access.slot] = access

    def _undefined(self, shadow: SharedCells, where: Any, access: Access) -> None:
        """Asynchronous units use whatever they read; a box only as far as it lies in its tensor."""
        words_ = np.arange(len(shadow.valid_words))[where]
        bytes_ = (words_[:, None] * WORD + np.arange(WORD)).reshape(-1)
        bad = bytes_[~shadow.valid[bytes_]]
        box = access.facts.get("store")
        if box is not None:
            bad = bad[in_range(box, box.offset, box.tensor_map.box_bytes, bad - box.offset)]
        if len(bad):
            origin = self.origin_in_shared(shadow, bad, access)
            self.report_undefined(origin, f"{access.name()} reads", access)


def in_range(copy: TensorLoad | TensorStore, start: int, nbytes: int, offsets: Any) -> Any:
    """Which bytes of a tile of `nbytes` at `start`, by offset from there, are elements of the tensor and not
    beyond its edge."""
    box = copy.tensor_map
    mode = int(box.swizzle)
    if nbytes != box.box_bytes or int(box.atomicity):
        return np.ones(len(offsets), bool)
    line = (start + offsets) >> 7
    linear = offsets ^ ((line & ((1 << mode) - 1)) << 4 if mode else 0)
    row, inside = linear // box.pitch, linear % box.pitch
    good = (inside < box.row_bytes) & (copy.coords[0] + inside * 8 // box.bits < box.dims[0])
    good &= copy.coords[0] + inside * 8 // box.bits >= 0
    for axis in range(1, box.rank):
        index = copy.coords[axis] + row % box.box_shape[axis] * box.element_strides[axis]
        good &= (index >= 0) & (index < box.dims[axis])
        row = row // box.box_shape[axis]
    return good
