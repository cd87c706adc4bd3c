"""Messages between judge and worker: length-prefixed JSON over a socket pair, one file descriptor beside it.

Nothing here ever unpickles, and the judge never accepts a descriptor: the worker's process is not trusted.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import time
from typing import Any

_HEADER = struct.Struct("<I")
MAX_MESSAGE = 4 << 20


class ChannelClosed(Exception):
    """The other side is gone."""


class ChannelTimeout(Exception):
    """No whole message arrived in time."""


class BadMessage(Exception):
    """The bytes are not a message of this protocol."""


class Channel:
    """One end of the socket pair."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._buffer = bytearray()

    def send(self, message: dict[str, Any], fd: int | None = None) -> None:
        """Send one message, with `fd` beside it if given. Raises `ChannelClosed`."""
        body = json.dumps(message, allow_nan=False).encode()
        frame = _HEADER.pack(len(body)) + body
        try:
            if fd is not None:
                sent = socket.send_fds(self.socket, [frame[:1]], [fd])
                frame = frame[sent:]
            self.socket.sendall(frame)
        except OSError as error:
            raise ChannelClosed(str(error)) from None

    def receive(self, deadline: float | None = None) -> dict[str, Any]:
        """The next message; `deadline` is on `time.monotonic()`'s clock.

        Raises `ChannelClosed`, `ChannelTimeout` or `BadMessage`.
        """
        (size,) = _HEADER.unpack(self._take(_HEADER.size, deadline))
        if size > MAX_MESSAGE:
            raise BadMessage(f"a message of {size} bytes; at most {MAX_MESSAGE} are allowed")
        body = self._take(size, deadline)
        try:
            message = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise BadMessage(f"not JSON: {error}") from None
        if not isinstance(message, dict):
            raise BadMessage(f"a JSON {type(message).__name__}, expected an object")
        return message

    def receive_with_fd(self) -> tuple[dict[str, Any], int | None]:
        """The worker's side: the next message and the descriptor that came with it."""
        first, fds, _, _ = socket.recv_fds(self.socket, 1, 1)
        if not first:
            raise ChannelClosed("end of file")
        self._buffer += first
        return self.receive(), (fds[0] if fds else None)

    def close(self) -> None:
        self.socket.close()

    def _take(self, count: int, deadline: float | None) -> bytes:
        while len(self._buffer) < count:
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                    raise ChannelTimeout()
            try:
                chunk = self.socket.recv(min(1 << 16, count - len(self._buffer)))
            except OSError as error:
                raise ChannelClosed(str(error)) from None
            if not chunk:
                raise ChannelClosed("end of file")
            self._buffer += chunk
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken
