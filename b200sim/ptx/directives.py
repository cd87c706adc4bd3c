"""What an entry says about its own launch: performance-tuning directives (PTX ISA 9.1, chapter 11.4)."""

from __future__ import annotations

import re
from dataclasses import dataclass

Extent = tuple[int, int, int]
_DIRECTIVE = re.compile(r"\.(reqntid|maxntid|minnctapersm|maxnreg)\s+(\d+(?:\s*,\s*\d+)*)")


@dataclass(frozen=True)
class Directives:
    """`required` and `largest` block size in threads (.reqntid, .maxntid), CTAs that an SM is to hold at
    least (.minnctapersm), registers per thread at most (.maxnreg). None: not said."""

    required: Extent | None = None
    largest: Extent | None = None
    ctas_per_sm: int | None = None
    registers: int | None = None

    @property
    def threads(self) -> int | None:
        """The most threads that a CTA of this entry can have, if it says so."""
        extent = self.required or self.largest
        return extent[0] * extent[1] * extent[2] if extent else None


def read_directives(text: str) -> Directives:
    """The directives in `text`, which stands between an entry's parameters and its body."""
    found = {word: [int(size) for size in sizes.split(",")] for word, sizes in _DIRECTIVE.findall(text)}
    return Directives(
        required=_extent(found.get("reqntid")),
        largest=_extent(found.get("maxntid")),
        ctas_per_sm=found.get("minnctapersm", [None])[0],
        registers=found.get("maxnreg", [None])[0],
    )


def _extent(sizes: list[int] | None) -> Extent | None:
    if sizes is None:
        return None
    x, y, z = [*sizes, 1, 1][:3]
    return x, y, z
