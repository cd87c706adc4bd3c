"""What a launch may read before griddepcontrol.wait: memory that no kernel writes.

A launch that may overlap its predecessor sees what that wrote only after griddepcontrol.wait (PTX ISA
9.7.13.13). Inputs belong to the caller, whose kernels may have written them. Tables that a submission put
into memory of its own, by copies from the host, are another matter: a copy overlaps no launch.

The same holds for ld.global.nc wherever it stands: what it reads is constant while the kernel runs (9.7.9.9),
so compilers may move it before the wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from b200sim.global_memory import Allocation

Report = Callable[[], None]


class Predecessors:
    """Of all launches of a session: what kernels wrote, and what else was read before the wait."""

    def __init__(self) -> None:
        self.written: set[Allocation] = set()
        self.early: dict[Allocation, Report] = {}

    def read(self, allocation: Allocation | None, report: Report) -> None:
        """A read before the wait: reported at once, or when a kernel writes there, in this launch or later.
        Inputs are not writable."""
        if allocation is None or not allocation.writable or allocation in self.written:
            report()
        else:
            self.early.setdefault(allocation, report)

    def wrote(self, allocation: Allocation | None) -> None:
        if allocation is not None and allocation not in self.written:
            self.written.add(allocation)
            if allocation in self.early:
                self.early.pop(allocation)()
