"""The worker's loop: one command, one answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from evaluator.channel import Channel

Message = dict[str, Any]
Command = Callable[[Message, int], Message]
_PROGRESS_SECONDS = 1.0
_now = time.monotonic


class Answering:
    """Answers commands by name. A command gets its message and the descriptor that came with it, or -1."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.commands: dict[str, Command] = {}
        self._number = 0
        self._told = _now()

    def serve(self) -> None:
        """Answer one command. Raises `ChannelClosed` when the judge is gone."""
        message, fd = self.channel.receive_with_fd()
        self._number = message["id"]
        reply = self.commands[message["do"]](message, -1 if fd is None else fd)
        self.channel.send({**reply, "id": self._number})

    def tell(self, text: str) -> None:
        """A sign of life while a command runs, at most one a second."""
        if _now() - self._told > _PROGRESS_SECONDS:
            self._told = _now()
            self.channel.send({"is": "progress", "text": text, "id": self._number})
