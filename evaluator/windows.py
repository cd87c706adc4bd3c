"""The `window` command, whose words are those of `serving` and `clocks`."""

from __future__ import annotations


def window_command(
    slots: list[int],
    limit: float,
    flush: str = "none",
    copy: str = "none",
    hold_ns: float = 0.0,
    staged: list[int] | None = None,
) -> dict[str, object]:
    """Call custom_kernel on these slots in turn between two time stamps.

    `flush`: "official", "l2" or "none", before the first stamp. `copy`: of outputs, "each" at every return,
    "last" behind the last stamp, or "none". `hold_ns`: how long the queue is kept busy before the first
    stamp, so that launches do not wait for the host. `staged`: slots whose contents replace each one's inputs
    just before its call; -1 for none.
    """
    return {
        "do": "window",
        "slots": slots,
        "staged": staged or [-1] * len(slots),
        "copy": copy,
        "flush": flush,
        "hold": hold_ns,
        "limit": 0.9 * limit,
    }
