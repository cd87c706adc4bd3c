"""How strong a memory operation or a fence is, and whom its scope includes (PTX ISA 8.4, 8.5, 8.7)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from b200sim.machine.cta import Cta
    from b200sim.ptx.syntax import Instruction

CTA, CLUSTER, GPU, SYS = range(4)
NAMES = (".cta", ".cluster", ".gpu", ".sys")
WORDS = {"cta": CTA, "cluster": CLUSTER, "gpu": GPU, "gl": GPU, "sys": SYS}


@dataclass(frozen=True)
class Order:
    """strong: it may meet other strong operations without being a race; weak ones may not. `scope` counts
    only for strong ones."""

    strong: bool
    scope: int
    acquire: bool
    release: bool


WEAK = Order(False, CTA, False, False)
#: Each element of cp.reduce.async.bulk is a relaxed operation of its own (PTX ISA 9.7.9.25.4.2).
REDUCTION = Order(True, GPU, False, False)


def order_of(ins: Instruction) -> Order:
    return _order(ins.opcode, ins.modifiers)


@lru_cache(maxsize=4096)
def _order(opcode: str, modifiers: tuple[str, ...]) -> Order:
    words = set(modifiers)
    scope = next((WORDS[word] for word in modifiers if word in WORDS), None)
    if opcode in ("fence", "membar"):
        both = not words & {"acquire", "release"}
        return Order(
            True, SYS if scope is None else scope, both or "acquire" in words, both or "release" in words
        )
    if opcode not in ("ld", "st", "atom", "red"):
        return WEAK
    if "volatile" in words:  # relaxed, of system scope: PTX ISA 8.4.2
        return Order(True, SYS, False, False)
    acquire, release = bool(words & {"acquire", "acq_rel"}), bool(words & {"release", "acq_rel"})
    atomic = opcode in ("atom", "red")
    if not (atomic or acquire or release or "relaxed" in words):
        return WEAK
    return Order(True, GPU if scope is None else scope, acquire, release)  # PTX ISA 9.7.13.5: .gpu if absent


def needed(a: Cta, b: Cta) -> int:
    """The narrowest scope that holds threads of both."""
    if a is b:
        return CTA
    return CLUSTER if a.cluster is b.cluster else GPU


def too_narrow(a: Cta, a_scope: int, b: Cta, b_scope: int) -> bool:
    """Whether one of two operations has a scope that leaves the other's thread out (PTX ISA 8.7)."""
    return min(a_scope, b_scope) < needed(a, b)
