"""What the simulated B200 says when a kernel does something illegal, or something it cannot simulate."""

from __future__ import annotations


class Fault(Exception):
    """An illegal act of the kernel under simulation.

    Units raise it with a `code` (a stable snake_case name, one per kind of fault) and a message that names
    the values involved. The machine that runs the unit attaches `where`: kernel, CTA, warp, PTX line and
    CuTe-DSL source line.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.where: str | None = None

    def at(self, where: str) -> Fault:
        """Attach the place where it happened; the innermost place wins."""
        if self.where is None:
            self.where = where
        return self

    def __str__(self) -> str:
        place = f"\n  at {self.where}" if self.where else ""
        return f"[{self.code}] {self.message}{place}"


class Unsupported(Fault):
    """The kernel asks for something the hardware has and the simulator has not. Never skipped silently."""

    def __init__(self, message: str) -> None:
        super().__init__("unsupported", message)
