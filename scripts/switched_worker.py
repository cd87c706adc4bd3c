"""A worker whose own defences can be switched off one by one, for `scripts/defence_cost` and nothing else.

It is the evaluator's worker with one more command:

    switch  off      leave out these from now on: "conduct" (the look at replaced functions and threads
                     after a window), "persisting" (L2's persisting part is what the context began with)

and it prints that limit when it starts. The evaluator never starts it. (Nothing heavy is imported up here:
namespaces are refused to a process that has threads.)
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

from evaluator import worker
from evaluator.answering import Answering
from evaluator.channel import Channel

_CU_LIMIT_PERSISTING_L2 = 6
Message = dict[str, Any]


class Clock:
    """A device's clock whose `persisting_bytes` can be left out; `usual` is the limit without it."""

    def __init__(self, clock: Any, usual: int) -> None:
        self._clock, self._usual, self._left_out = clock, usual, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clock, name)

    def persisting_bytes(self) -> int:
        return 0 if self._left_out else int(self._clock.persisting_bytes())

    def leave_out(self, it: bool) -> None:
        if it and not self._left_out and self._usual:
            driver().cuCtxSetLimit(_CU_LIMIT_PERSISTING_L2, ctypes.c_size_t(self._usual))
        if self._left_out and not it:
            self._clock.persisting_bytes()
        self._left_out = it


class Switches:
    """The command `switch` of a server."""

    def __init__(self, server: Any, usual: int) -> None:
        self.server, self.conduct = server, server._conduct
        self.clock = server.device.clock = Clock(server.device.clock, usual)

    def switch(self, message: Message, _: int) -> Message:
        off = message["off"]
        self.clock.leave_out("persisting" in off)
        self.server._conduct = dict if "conduct" in off else self.conduct
        return {"is": "done"}


def driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def persisting_limit() -> int:
    """Bytes of L2 that a new context of this process sets aside for data that persists."""
    import torch

    torch.zeros(1, device="cuda")
    size = ctypes.c_size_t(0)
    failed = driver().cuCtxGetLimit(ctypes.byref(size), _CU_LIMIT_PERSISTING_L2)
    if failed:
        raise OSError(f"cuCtxGetLimit: error {failed}")
    return size.value


usual_server = worker.open_server


def open_server(channel: Channel, device_name: str, processes: int, submission: Path) -> Answering:
    usual = persisting_limit() if device_name == "cuda" else 0
    print(f"L2 set aside by default: {usual} bytes", flush=True)
    server = usual_server(channel, device_name, processes, submission)
    server.commands["switch"] = Switches(server, usual).switch
    return server


if __name__ == "__main__":
    worker.open_server = open_server
    sys.exit(worker.main(sys.argv[1:]))
