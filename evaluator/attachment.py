"""Bytes that are too many for a message: a memory file that the judge makes and a worker fills.

Its size is sealed, it has no name, and the judge copies it out with `pread`: see `arena`.
"""

from __future__ import annotations

import fcntl
import os
from typing import Any

from evaluator.arena import ADD_SEALS, FIXED_SIZE


class Attachment:
    """Room for `capacity` bytes; untouched room costs no memory."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.fd = os.memfd_create("attachment", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, capacity)
        fcntl.fcntl(self.fd, ADD_SEALS, FIXED_SIZE)

    def message(self) -> dict[str, Any]:
        return {"capacity": self.capacity}

    def read(self, count: int) -> bytes:
        """The first `count` bytes, at most all."""
        parts, done, count = [], 0, min(count, self.capacity)
        while done < count:
            parts.append(os.pread(self.fd, min(count - done, 1 << 24), done))
            done += len(parts[-1])
        return b"".join(parts)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def fill(fd: int, content: bytes, capacity: int) -> int:
    """The worker's side: write `content`; how many bytes that is. Raises `ValueError` if they do not fit."""
    try:
        if len(content) > capacity:
            raise ValueError(f"{len(content)} bytes, there is room for {capacity}")
        view, done = memoryview(content), 0
        while done < len(view):
            done += os.pwrite(fd, view[done : done + (1 << 24)], done)
        return len(content)
    finally:
        os.close(fd)
