"""Who did what where: the sides of a conflict, as reports name them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from b200sim.ptx.syntax import Instruction

GENERIC = ("ld", "st", "atomic", "alloc", "edit", "use")
PIPELINED = ("mma", "cp", "shift")


@dataclass
class Access:
    """One side: `kind` of act, by whom, at which instruction, on what.

    kind: ld, st, atomic, edit (tensormap.replace), tma load, bulk load, tma store, bulk store, try_cancel,
    mma, cp, shift (of tcgen05), wgmma, tmem ld, tmem st, alloc, dealloc, use (of a value). `time` counts
    events of the launch.
    """

    kind: str
    who: str
    role: tuple[int, int]  # CTA rank, warp
    lane: int | None
    ins: Instruction
    time: int
    cta: str = ""  # whose memory
    space: str = "shared"
    start: int = 0
    size: int = 0
    operand: str = ""
    slot: int = 0
    clock: int = 0
    barrier: str = ""  # of a load: what it completes on
    offsets: Any = None  # of a generic access: all offsets, for elements smaller than a word
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def writes(self) -> bool:
        if self.kind in PIPELINED:
            return self.operand in ("D", "destination")
        return self.kind not in ("ld", "tma store", "bulk store", "tmem ld", "wgmma")

    @property
    def source(self) -> str:
        return f"{self.ins.source[0]}:{self.ins.source[1]}" if self.ins.source else ""

    def name(self) -> str:
        """`TMA load of b[0]`, `tcgen05.mma (operand A)`, `ld.shared.b32`."""
        if self.kind == "tma load":
            return f"TMA load of {self.facts.get('tensor', '?')}"
        if self.kind == "tma store":
            what = "reduction into" if self.facts.get("reduction") else "store to"
            return f"TMA {what} {self.facts.get('tensor', '?')}"
        if self.kind in ("mma", "cp", "shift"):
            return f"tcgen05.{self.kind} ({self.operand})" if self.operand else f"tcgen05.{self.kind}"
        if self.kind == "wgmma":
            return f"wgmma.mma_async ({self.operand})"
        if self.kind in ("tmem ld", "tmem st"):
            return f"tcgen05.{self.kind[-2:]}"
        if self.kind in ("alloc", "dealloc"):
            return f"tcgen05.{self.kind}"
        return self.ins.mnemonic if self.kind in GENERIC else self.kind

    def place(self) -> str:
        if self.space == "none" or not self.size:
            return ""
        if self.space == "tensor":
            lane, lanes, column, columns = self.facts.get("rectangle", (0, 0, self.start, self.size))
            return (
                f"tensor memory of {self.cta}, lanes {lane}..{lane + lanes - 1}, "
                f"columns {column}..{column + columns - 1}"
            )
        if self.space == "global":
            return (
                f"global memory {self.facts.get('tensor', '')} {self.start:#x}..{self.start + self.size:#x}"
            )
        stage = self.facts.get("stage")
        where = f" (stage {stage})" if stage is not None else ""
        return f"shared memory of {self.cta}, {self.start:#x}..{self.start + self.size:#x}{where}"

    def by(self) -> str:
        return self.who if self.lane is None else f"{self.who} lane {self.lane}"

    def cause(self) -> Hashable:
        """Equal for the same act of the same instruction, whoever did it."""
        return self.kind, self.source or self.ins.line, self.operand

    def as_dict(self) -> dict[str, Any]:
        """What a report shows, and in `kind` and `operand` what tells causes apart."""
        return {
            "kind": self.kind,
            "operand": self.operand,
            "what": self.name(),
            "by": self.by(),
            "warp": self.role[1],
            "where": self.place(),
            "source": self.source,
            "ptx_line": self.ins.line,
            "ptx": self.ins.text,
            "time": self.time,
        }


@dataclass(frozen=True)
class Told:
    """One side as another process reported it: `Access.as_dict`, read back."""

    record: Mapping[str, Any]

    @property
    def source(self) -> str:
        return str(self.record["source"])

    def cause(self) -> Hashable:
        return self.record["kind"], self.source or self.record["ptx_line"], self.record["operand"]

    def as_dict(self) -> dict[str, Any]:
        return dict(self.record)
