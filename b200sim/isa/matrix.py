"""8x8 matrices of 16-bit elements between shared memory and registers (PTX ISA, ldmatrix and stmatrix).

Lane 8*j + i gives the address of row i (16 bytes) of matrix j. Register j of lane t holds elements
(t//4, 2*(t%4)) and (t//4, 2*(t%4) + 1) of matrix j, the first one in the low half; with .trans those of the
transpose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from b200sim.faults import Fault, Unsupported
from b200sim.isa.registry import check_modifiers, instruction
from b200sim.machine.program import Operation
from b200sim.machine.values import spread
from b200sim.ptx.binder import Binder
from b200sim.ptx.syntax import Instruction

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp

ROW_BYTES = 16
_MODIFIERS = ("sync", "aligned", "m8n8", "x1", "x2", "x4", "trans", "shared", "shared::cta", "b16")


@instruction("stmatrix")
def store_matrix(ins: Instruction, binder: Binder) -> Operation:
    count, base, offset = _shape(ins, binder, address=0)
    slots = binder.reads(ins.operands[1])
    transposed = ins.has("trans")

    def operation(warp: Warp) -> None:
        starts = _row_starts(warp, base, offset, count, ins.mnemonic)
        watch = warp.cta.grid.observer
        if watch is not None:
            watch.shared_access(warp, ins, warp.cta, starts & 0xFFFFFF, ROW_BYTES, "write")
        memory = warp.cta.smem_views[2]
        for matrix, slot in enumerate(slots):
            fragment = np.ascontiguousarray(spread(warp.regs[slot], 32)).view(np.uint16).reshape(8, 8)
            memory[_elements(starts, matrix)] = fragment.T if transposed else fragment

    return operation


@instruction("ldmatrix")
def load_matrix(ins: Instruction, binder: Binder) -> Operation:
    slots = binder.writes(ins.operands[0])
    count, base, offset = _shape(ins, binder, address=1)
    transposed = ins.has("trans")

    def operation(warp: Warp) -> None:
        starts = _row_starts(warp, base, offset, count, ins.mnemonic)
        watch = warp.cta.grid.observer
        if watch is not None:
            watch.shared_access(warp, ins, warp.cta, starts & 0xFFFFFF, ROW_BYTES, "read")
        memory = warp.cta.smem_views[2]
        for matrix, slot in enumerate(slots):
            rows = memory[_elements(starts, matrix)]
            warp.put(slot, np.ascontiguousarray(rows.T if transposed else rows).view(np.uint32).reshape(32))

    return operation


def _shape(ins: Instruction, binder: Binder, address: int) -> tuple[int, int, int]:
    """Number of matrices, and the address operand's slot and offset."""
    if not ins.has("m8n8") or not ins.has("b16"):
        raise Unsupported(ins.mnemonic)
    check_modifiers(ins, *_MODIFIERS)
    count = next(int(word[1:]) for word in ins.modifiers if word in ("x1", "x2", "x4"))
    return count, *binder.address(ins.operands[address])


def _row_starts(warp: Warp, base: int, offset: int, count: int, name: str) -> NDArray[np.int64]:
    """Shared-memory offsets of the rows: 8 per matrix, checked."""
    warp.require_all_lanes(name)
    starts = spread(warp.regs[base], 32)[: 8 * count].astype(np.int64) + offset
    for start in (int(starts.min()), int(starts.max())):
        warp.cta.offset(start, ROW_BYTES, name)
    wrong = starts[starts % ROW_BYTES != 0]
    if wrong.size:
        raise Fault("misaligned", f"{name}: a row at shared address {int(wrong[0]):#x}, not a multiple of 16")
    return starts & 0xFFFFFF


def _elements(starts: NDArray[np.int64], matrix: int) -> NDArray[np.int64]:
    """Indices of a matrix's 16-bit elements in shared memory: (8, 8)."""
    return starts[8 * matrix : 8 * matrix + 8, None] // 2 + np.arange(8)
