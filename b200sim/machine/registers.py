"""The registers of a CTA: with how many its threads start, and the pool that `setmaxnreg` moves them through.

A CTA has the registers that it was launched with and never gets others, even if those of its SM are free.
`setmaxnreg.dec` gives registers of a warp to the CTA's pool, `setmaxnreg.inc` waits until the pool has enough
(PTX ISA 9.7.19.5). An H200 does just that: a CTA of 640 threads that started with 96 registers per thread and
asked for 128 x 64 + 512 x 112 never ended. What a warp has left when it exits does not come back to the pool:
the manual names only `.dec`.

How many registers a thread starts with is ptxas' choice. What stands here was measured (ptxas 13.0.88, sm_90a
and sm_100a): a kernel that uses setmaxnreg gets all that its directives allow, however few it needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from b200sim.faults import Fault
from b200sim.machine.waiting import Wait

if TYPE_CHECKING:
    from collections.abc import Iterable

    from b200sim.gpus import Gpu
    from b200sim.machine.warp import Warp
    from b200sim.ptx.directives import Directives
    from b200sim.ptx.syntax import Instruction

LANES = 32
WARPGROUP = 4
STEP = 8  # registers per thread: a warp's registers are handed out by 256
FEWEST, MOST = 24, 255  # per thread, that a kernel with setmaxnreg can start with
PARTITIONS = 4  # of an SM: each holds every fourth warp, and a quarter of the registers

IGNORED = (
    "setmaxnreg has no effect: ptxas drops it (C7508), because neither .maxnreg nor a usable .minnctapersm "
    "with .reqntid or .maxntid says how many registers a thread starts with; all warps keep what the "
    "compiler chose (CuTe-DSL: launch(..., min_blocks_per_mp=1))"
)


@dataclass(frozen=True)
class LaunchRegisters:
    """With how many registers each thread starts, and which directives say so."""

    per_thread: int
    because: str

    @property
    def held(self) -> int:
        """What a thread's warp holds of them, per lane."""
        return -(-self.per_thread // STEP) * STEP


def launch_registers(directives: Directives, increases: Iterable[int], gpu: Gpu) -> LaunchRegisters | None:
    """What ptxas lets a kernel with setmaxnreg start with; None if it cannot say, and so ignores setmaxnreg.

    `increases`: the operands of all setmaxnreg.inc. A kernel that never asks for more than n starts with n.
    """
    limits: list[tuple[int, str]] = []
    if directives.registers is not None:
        limits.append((min(max(directives.registers, FEWEST), MOST), f".maxnreg {directives.registers}"))
    shared = _share_of_sm(directives, gpu)
    if shared is not None:
        word = ".reqntid" if directives.required else ".maxntid"
        limits.append((shared, f"{word} {directives.threads}, .minnctapersm {directives.ctas_per_sm}"))
    if not limits:
        return None
    largest = max(increases, default=MOST)
    if largest < MOST:
        limits.append((largest, f"the largest setmaxnreg.inc, {largest}"))
    return LaunchRegisters(*min(limits, key=lambda limit: limit[0]))


def _share_of_sm(directives: Directives, gpu: Gpu) -> int | None:
    """A thread's share of an SM's registers if the SM holds `.minnctapersm` CTAs of that many threads."""
    threads, ctas = directives.threads, directives.ctas_per_sm
    if threads is None or ctas is None:
        return None
    warps = -(-threads // LANES) * ctas
    if ctas > gpu.max_blocks_per_sm or warps * LANES > gpu.max_threads_per_sm:
        return None  # ptxas ignores such a .minnctapersm, with a warning
    return min(_fitting(warps, gpu), MOST)


def _fitting(warps: int, gpu: Gpu) -> int:
    """Registers per thread at which an SM holds so many warps."""
    per_partition = -(-warps // PARTITIONS)
    return gpu.registers_per_sm // PARTITIONS // LANES // per_partition // STEP * STEP


def check_fits(launch: LaunchRegisters, warps: int, gpu: Gpu) -> None:
    """Fault "launch_registers": an SM has too few registers for one CTA."""
    most = _fitting(warps, gpu)
    if launch.held > most:
        raise Fault(
            "launch_registers",
            f"{warps} warps per CTA with {launch.per_thread} registers per thread ({launch.because}); an SM "
            f"of a {gpu.short_name} has {gpu.registers_per_sm:,}, enough for {most} per thread",
        )


class RegisterPool(Wait):
    """The registers of one CTA. Counts are per thread of a warp; a warp has 32 times as many.

    Every warp asks for itself, as the hardware's instruction does.
    """

    def __init__(self, name: str, launch: LaunchRegisters, warps: int) -> None:
        super().__init__()
        self.name = name
        self.launch = launch
        self.held = [launch.held] * warps
        self.free = 0
        self.wanted: dict[int, int] = {}  # warp that waits -> how many it waits for
        self.set_by: list[list[Instruction]] = [[] for _ in range(warps)]

    def release(self, warp: Warp, count: int, ins: Instruction) -> None:
        """setmaxnreg.dec. Fault: setmaxnreg_direction."""
        held = self.held[warp.index]
        if count > held:
            self._refuse(warp, ins)
        self.held[warp.index] = count
        self.free += held - count
        self.set_by[warp.index].append(ins)
        self.wake()

    def acquire(self, warp: Warp, count: int, ins: Instruction) -> bool:
        """setmaxnreg.inc: whether the warp now has its registers; if not, it is blocked.

        Fault: setmaxnreg_direction.
        """
        more = count - self.held[warp.index]
        if more < 0:
            self._refuse(warp, ins)
        if more > self.free:
            self.wanted[warp.index] = count
            self.block(warp)
            return False
        self.wanted.pop(warp.index, None)
        self.free -= more
        self.held[warp.index] = count
        self.set_by[warp.index].append(ins)
        return True

    def _refuse(self, warp: Warp, ins: Instruction) -> None:
        before = self.set_by[warp.index]
        since = f"since {before[-1].place()}" if before else f"since the launch: {self.launch.because}"
        raise Fault(
            "setmaxnreg_direction",
            f"setmaxnreg.{ins.modifiers[0]} to {_count(ins)}: the warp has {self.held[warp.index]} registers "
            f"per thread ({since}); what happens then is undefined (PTX ISA 9.7.19.5)",
        )

    def uneven(self) -> str | None:
        """Which warps of a warpgroup have not done the same, once all have exited; the manual leaves that
        undefined. Kernels do it and run (CUTLASS' mixed-input GEMMs), so it is no fault."""
        done = [[(ins.modifiers[0], _count(ins)) for ins in sets] for sets in self.set_by]
        for first in range(0, len(done), WARPGROUP):
            for warp in range(first + 1, min(first + WARPGROUP, len(done))):
                if done[warp] != done[first]:
                    return (
                        f"warps {first} and {warp} belong to one warpgroup and differ in setmaxnreg: "
                        f"{_sequence(done[first])} and {_sequence(done[warp])}; PTX ISA 9.7.19.5 leaves "
                        "undefined what happens then"
                    )
        return None

    # -- reports --------------------------------------------------------------------------------------

    def describe(self) -> str:
        lacking = sum(count - self.held[warp] for warp, count in self.wanted.items())
        return (
            f"registers: warps {_ranges(list(self.wanted))} ask for {LANES * lacking:,} more, the pool of "
            f"{self.name} holds {LANES * self.free:,}"
        )

    def account(self) -> list[str]:
        """Who has and wants how many, and what would fit, for a deadlock report."""
        total = len(self.held) * self.launch.held
        asked = [self.wanted.get(warp, held) for warp, held in enumerate(self.held)]
        return [
            f"registers of {self.name}: launched with {self.launch.per_thread} per thread "
            f"({self.launch.because}), {LANES * total:,} in all; setmaxnreg never takes others of the SM",
            *(f"  {line}" for line in self._shares()),
            f"  asked for in all: {LANES * sum(asked):,}, {LANES * (sum(asked) - total):,} too many; "
            f"{self._fitting(asked)}",
        ]

    def _shares(self) -> list[str]:
        groups: dict[tuple[int, int | None], list[int]] = {}
        for warp, held in enumerate(self.held):
            groups.setdefault((held, self.wanted.get(warp)), []).append(warp)
        return [
            f"{held} per thread: warps {_ranges(warps)}" + (f", which wait for {wanted}" if wanted else "")
            for (held, wanted), warps in sorted(groups.items(), key=lambda group: group[1])
        ]

    def _fitting(self, asked: list[int]) -> str:
        """The nearest counts that fit: less for those that want most, or for those that gave some."""
        total, most, launched = len(asked) * self.launch.held, max(asked), self.launch.held
        upper = asked.count(most)
        options = []
        room = (total - sum(count for count in asked if count != most)) // upper // STEP * STEP
        if room >= FEWEST:
            options.append(f"{room} for the {upper} warps at {most}")
        lower = [count for count in asked if count < launched]
        if len(set(lower)) == 1:
            rest = (total - (sum(asked) - sum(lower))) // len(lower) // STEP * STEP
            if rest >= FEWEST:
                options.append(f"{rest} for the {len(lower)} warps at {lower[0]}")
        return f"would fit: {', or '.join(options)}" if options else "no smaller increase fits"


def _count(ins: Instruction) -> int:
    value: int = ins.operands[0].value  # type: ignore[union-attr]
    return value


def _sequence(done: list[tuple[str, int]]) -> str:
    return ", ".join(f"{action} {count}" for action, count in done) or "none"


def _ranges(numbers: list[int]) -> str:
    """`0-3, 8`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
