"""Uninitialised data: where poison comes from, where it goes, and what is reported.

Every instruction of a watched warp is wrapped; the wrapper follows poison only while a register of the warp
holds some. Reading shared or tensor memory that nobody wrote brings poison into registers; stores take it to
shared and tensor memory, where it counts as never written; anything else that a kernel does with it is
reported with both places.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from b200sim.isa.registry import converges
from b200sim.machine.program import Operation, Terminator
from b200sim.machine.values import lane_array, lane_mask
from b200sim.sanitizer import static
from b200sim.sanitizer.flow import Flow
from b200sim.sanitizer.global_events import GlobalEvents
from b200sim.sanitizer.places import matrix_bytes, matrix_poison, tensor_cells
from b200sim.sanitizer.poison import Origin, Poison, Registers, assign, lanes_text, union
from b200sim.sanitizer.records import Access
from b200sim.sanitizer.shadow import SharedCells, TensorCells

if TYPE_CHECKING:
    from b200sim.machine.cta import Cluster
    from b200sim.machine.observer import Rectangle
    from b200sim.machine.program import Block, Program
    from b200sim.machine.warp import Warp
    from b200sim.ptx.syntax import Instruction

SHARED, TENSOR, REGISTER = "uninitialised_shared", "uninitialised_tensor_memory", "uninitialised_register"


@dataclass
class Written:
    """What a store of poison has just written: shared bytes, tensor memory cells, or (neither) elsewhere."""

    mask: int
    shared: SharedCells | None = None
    offsets: Any = None
    nbytes: int = 0
    tensor: TensorCells | None = None
    bounds: Sequence[Rectangle] = ()


class ValueEvents(GlobalEvents):
    poisoned: dict[Warp, Registers]  # warps with poison in a register
    loaded: list[tuple[int, Poison]]  # what the instruction that runs has loaded: (element, poison)
    elements: int  # elements that it has read so far
    writing: list[Written] | None  # not None while a store of poison runs

    # -- the watched program --------------------------------------------------------------------------

    def watch_values(self, program: Program) -> None:
        self.poisoned, self.loaded, self.elements, self.writing = {}, [], 0, None
        self.origins: list[Origin] = []  # of poison in memory; shadow cells hold 1 + the index
        flows = static.of(program).flows()
        self._watched = copy.copy(program)
        self._watched.blocks = [
            self._watch_block(program, block, flows[number]) for number, block in enumerate(program.blocks)
        ]

    def begin_values(self, cluster: Cluster) -> None:
        """Registers that may be read before they are written hold poison at first."""
        program = self._watched
        binder = program.binder
        names = {slot: name for name, slot in binder.names.items()}
        unwritten = [
            (
                slot,
                (1 << binder.bits[slot]) - 1,
                Origin(REGISTER, f"{names[slot]}, which nothing has set"),
            )
            for slot in program.may_be_unwritten
        ]
        for warp in (warp for cta in cluster.ctas for warp in cta.warps):
            warp.program = program
            if unwritten:
                self.poisoned[warp] = {slot: Poison(warp.alive, bits, what) for slot, bits, what in unwritten}

    def _watch_block(self, program: Program, block: Block, flows: list[Flow]) -> Block:
        wrapped = zip(block.operations, flows, strict=False)
        operations = [self._watch(operation, flow) for operation, flow in wrapped]
        own_end = flows[-1] if len(flows) > len(operations) else None
        return dataclasses.replace(
            block, operations=operations, end=self._watch_end(program, block.end, own_end)
        )

    def _watch(self, operation: Operation, flow: Flow) -> Operation:
        if converges(flow.ins):
            operation = self._watch_meeting(operation, flow)
        if flow.loads:
            return self._watch_load(operation, flow)
        return self._watch_store(operation, flow) if flow.stores else self._watch_other(operation, flow)

    def lanes_met(self, warp: Warp, ins: Instruction, mask: int) -> None:
        raise NotImplementedError

    def _watch_meeting(self, operation: Operation, flow: Flow) -> Operation:
        """An instruction that lanes execute together."""
        ins = flow.ins

        def meeting(warp: Warp) -> None:
            mask = flow.active(warp)
            if mask:
                self.lanes_met(warp, ins, mask)
            operation(warp)

        return meeting

    def _watch_other(self, operation: Operation, flow: Flow) -> Operation:
        poisoned, rule = self.poisoned, flow.rule

        def plain(warp: Warp) -> None:
            found = poisoned.get(warp)
            if found:
                rule(self, warp, found)
            operation(warp)

        return plain

    def _watch_end(self, program: Program, end: Terminator, flow: Flow | None) -> Terminator:
        poisoned = self.poisoned

        def watched(warp: Warp) -> int:
            found = poisoned.get(warp)
            if not found:
                return end(warp)
            if flow is not None:
                flow.rule(self, warp, found)
            following = end(warp)
            if following >= 0:
                live = program.blocks[following].live_in | warp.keep
                for slot in [slot for slot in found if not live >> slot & 1]:
                    del found[slot]
            return following

        return watched

    # -- loads ----------------------------------------------------------------------------------------

    def _watch_load(self, operation: Operation, flow: Flow) -> Operation:
        poisoned, rule = self.poisoned, flow.rule

        def load(warp: Warp) -> None:
            found = poisoned.get(warp)
            if found:
                rule(self, warp, found)
            self.elements = 0
            operation(warp)
            if self.loaded:
                self._land(warp, flow.loads)

        return load

    def _land(self, warp: Warp, slots: tuple[int | None, ...]) -> None:
        """Poison of the elements goes to their registers; to all where elements and registers differ."""
        found = self.poisoned.setdefault(warp, {})
        exact = self.elements <= len(slots)
        for index, poison in self.loaded:
            for slot in slots[index : index + 1] if exact else slots:
                if slot is not None:
                    assign(found, slot, poison.lanes, union(poison, found.get(slot)))
        self.loaded.clear()

    def undefined_shared(
        self, warp: Warp, ins: Instruction, shadow: SharedCells, offsets: Any, nbytes: int, access: Access
    ) -> None:
        """A thread reads bytes that hold nothing defined. Called before the access happens."""
        starts = np.asarray(offsets).reshape(-1, 1)
        bad = ~shadow.valid[starts + np.arange(nbytes)]
        origin = self.origin_in_shared(shadow, (starts + np.arange(nbytes))[bad], access)
        if ins.opcode == "ldmatrix":
            for register, lanes, bits in matrix_poison(bad, ins.has("trans")):
                self.loaded.append((register, Poison(lanes, bits, origin)))
        elif ins.opcode == "ld" or (ins.opcode == "atom" and ins.has("exch")):
            lanes = warp.mask
            if len(starts) > 1:
                per_lane = np.zeros(32, bool)
                per_lane[lane_array(warp.mask)] = bad.any(axis=1)
                lanes = lane_mask(per_lane)
            bits = sum(0xFF << 8 * int(i) for i in np.flatnonzero(bad.any(axis=0)))
            if bits >> 8 * nbytes - 1 and ins.modifiers[-1][0] == "s":
                bits |= -1 << 8 * nbytes  # sign-extended
            self.loaded.append((self.elements, Poison(lanes, bits, origin)))
        else:
            self.report_undefined(origin, f"{access.name()} reads", access)

    def origin_in_shared(self, shadow: SharedCells, bad: Any, access: Access) -> Origin:
        """Where what lies in these bytes comes from: the reader sees it first if nobody wrote them."""
        index = 0 if shadow.brought is None else int(shadow.brought[bad // 4].max())
        if index:
            return self.origins[index - 1]
        return Origin(SHARED, "shared memory that nobody wrote", access)

    def undefined_tensor(
        self, ins: Instruction, bounds: Sequence[Rectangle], shadow: TensorCells, access: Access
    ) -> None:
        """A tcgen05.ld of cells that hold nothing defined."""
        origin = Origin(TENSOR, "tensor memory that nobody wrote", access)
        for register, (lanes, columns, bits) in tensor_cells(ins, bounds):
            mask = lane_mask(shadow.undefined(columns, lanes))
            if mask:
                index = 0 if shadow.brought is None else int(shadow.brought[columns, lanes].max())
                found = self.origins[index - 1] if index else origin
                self.loaded.append((register, Poison(mask, bits, found)))

    # -- stores ---------------------------------------------------------------------------------------

    def _watch_store(self, operation: Operation, flow: Flow) -> Operation:
        poisoned, rule, slots, ins = self.poisoned, flow.rule, flow.stores, flow.ins

        def store(warp: Warp) -> None:
            found = poisoned.get(warp)
            if not found:
                operation(warp)
                return
            rule(self, warp, found)
            values = [found.get(slot) if slot is not None else None for slot in slots]
            if not any(values):
                operation(warp)
                return
            writing: list[Written] = []
            self.writing = writing
            try:
                operation(warp)
            finally:
                self.writing = None
            self._wrote(warp, ins, values, writing)

        return store

    def _wrote(
        self, warp: Warp, ins: Instruction, values: list[Poison | None], writing: list[Written]
    ) -> None:
        """After a store: poison counts as never written where it went to shared or tensor memory."""
        if writing and (writing[0].tensor is not None or ins.opcode == "stmatrix"):
            writing = writing * len(values)
        for index, written in enumerate(writing):
            several = values if len(writing) != len(values) else values[index : index + 1]
            for value in several:
                if value is None or not value.lanes & written.mask:
                    continue
                poison = Poison(value.lanes & written.mask, value.bits, value.origin)
                if written.tensor is not None:
                    self._wrote_tensor(written, ins, index, poison)
                elif written.shared is None:
                    if poison.bits & (1 << 8 * written.nbytes) - 1:
                        self.poison_used(warp, ins, poison, "stores a value")
                else:
                    self._wrote_shared(written, ins, index, poison)

    def _wrote_shared(self, written: Written, ins: Instruction, index: int, poison: Poison) -> None:
        shadow, starts = written.shared, np.asarray(written.offsets).reshape(-1, 1)
        assert shadow is not None
        lanes = lane_array(poison.lanes)
        if ins.opcode == "stmatrix":
            starts, size = starts[8 * index : 8 * index + 8], written.nbytes
            bad = matrix_bytes(lanes, poison.bits, ins.has("trans"))
        else:
            size = written.nbytes
            which = lanes[lane_array(written.mask)] if len(starts) > 1 else np.array([True])
            bytes_ = [bool(poison.bits >> 8 * i & 0xFF) for i in range(size)]
            bad = which[:, None] & np.array(bytes_)
        shadow.poison((starts + np.arange(size))[bad], self._number(poison.origin))

    def _wrote_tensor(self, written: Written, ins: Instruction, index: int, poison: Poison) -> None:
        assert written.tensor is not None
        for register, (lanes, columns, bits) in tensor_cells(ins, written.bounds):
            if register == index and poison.bits & bits:
                which = lane_array(poison.lanes)
                written.tensor.poison(columns[which], lanes[which], self._number(poison.origin))

    def _number(self, origin: Origin) -> int:
        if not self.origins or self.origins[-1] is not origin:
            self.origins.append(origin)
        return len(self.origins)

    def global_access(
        self, warp: Warp, ins: Instruction, addresses: int | np.ndarray, nbytes: int, kind: str
    ) -> None:
        if kind != "read" and self.writing is not None:
            self.writing.append(Written(warp.mask, nbytes=nbytes))
        super().global_access(warp, ins, addresses, nbytes, kind)

    # -- uses -----------------------------------------------------------------------------------------

    def poison_used(self, warp: Warp, ins: Instruction, poison: Poison, how: str) -> None:
        """Poison decides something. `how`: "stores a value", "branches on a predicate"."""
        use = self.access("use", warp, ins, 0, 0, space="none")
        lanes = "" if poison.lanes == warp.alive else f" ({lanes_text(poison.lanes)})"
        self.report_undefined(poison.origin, f"{ins.mnemonic}{lanes} {how} that comes from", use)

    def report_undefined(self, origin: Origin, does: str, use: Access) -> None:
        first = origin.access if origin.access is not use else None
        self.report(
            origin.code, f"{does} {origin.what}", first=first, second=use, link="its value goes on to"
        )
