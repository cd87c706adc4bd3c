"""How an instruction family gets its meaning.

A family is one function under `@instruction("add")`: it reads the modifiers and binds the operands once,
when the program is decoded, and returns the operation that every execution calls with the warp. The key is
a dotted prefix of the mnemonic; the longest registered prefix wins (`mbarrier.try_wait` before `mbarrier`).

`@terminator` registers what ends a basic block: branches, exits, and whatever may block. Its operation
returns the number of the next block or a code of `machine.program` such as `BLOCKED`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from b200sim.faults import Fault, Unsupported
from b200sim.gpus import FAMILY_TARGETS
from b200sim.machine.program import Operation, Terminator
from b200sim.ptx.syntax import Instruction

if TYPE_CHECKING:
    from b200sim.ptx.binder import Binder

Decoder = Callable[[Instruction, "Binder"], Operation]
TerminatorDecoder = Callable[[Instruction, "Binder"], Terminator]

CONVERGING = (
    "shfl",
    "vote",
    "redux",
    "match",
    "elect",
    "bar",
    "barrier",
)  # opcodes of lanes that act together


def converges(ins: Instruction) -> bool:
    """Whether lanes execute `ins` together, so that it waits for lanes that are still on their way."""
    return ins.opcode in CONVERGING or "aligned" in ins.modifiers


_instructions: dict[str, Decoder] = {}
_terminators: dict[str, TerminatorDecoder] = {}


def instruction(*prefixes: str) -> Callable[[Decoder], Decoder]:
    """Register the decoder of an instruction family that never blocks and falls through."""

    def register(decoder: Decoder) -> Decoder:
        for prefix in prefixes:
            _instructions[prefix] = decoder
        return decoder

    return register


def terminator(*prefixes: str) -> Callable[[TerminatorDecoder], TerminatorDecoder]:
    """Register the decoder of an instruction that branches, exits or may block."""

    def register(decoder: TerminatorDecoder) -> TerminatorDecoder:
        for prefix in prefixes:
            _terminators[prefix] = decoder
        return decoder

    return register


def _longest_prefix(ins: Instruction) -> str | None:
    words = (ins.opcode, *ins.modifiers)
    for count in range(len(words), 0, -1):
        prefix = ".".join(words[:count])
        if prefix in _instructions or prefix in _terminators:
            return prefix
    return None


def is_terminator(ins: Instruction) -> bool:
    return _longest_prefix(ins) in _terminators


def decode(ins: Instruction, binder: Binder) -> Operation:
    """The operation of `ins`. Raises `Unsupported` with its mnemonic and place if there is none."""
    prefix = _longest_prefix(ins)
    if prefix is None or prefix not in _instructions:
        raise Unsupported(f"instruction {ins.mnemonic} has no semantics in this simulator").at(ins.place())
    return _attempt(_instructions[prefix], ins, binder)


def decode_terminator(ins: Instruction, binder: Binder) -> Terminator:
    prefix = _longest_prefix(ins)
    assert prefix is not None
    return _attempt(_terminators[prefix], ins, binder)


def _attempt(decoder: Callable, ins: Instruction, binder: Binder) -> Callable:
    targets = FAMILY_TARGETS.get(ins.opcode)
    if targets is not None and binder.kernel.target not in targets:
        raise Fault(
            "wrong_target",
            f"{ins.mnemonic} exists on {' and '.join(targets)} only; the module's target is "
            f"{binder.kernel.target or 'not named'}",
        ).at(ins.place())
    try:
        return decoder(ins, binder)
    except Unsupported as fault:
        raise fault.at(ins.place()) from None


def check_modifiers(ins: Instruction, *known: str) -> None:
    """Refuse any modifier that the family does not implement, rather than run it as if it were absent."""
    for modifier in ins.modifiers:
        if modifier not in known:
            raise Unsupported(f"modifier .{modifier} of {ins.mnemonic}")
