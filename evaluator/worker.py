"""The process that runs the submission: `python -m evaluator.worker FD DEVICE PROCESSES SUBMISSION`.

It knows neither the mode nor the seed nor what is checked. It answers one command at a time:

    load                       import the submission, find custom_kernel
    run    + arena fd          build the tensors, call custom_kernel once, describe what came back
    hold   + arena fd, slot    build the tensors and keep them as `slot` (timing)
    window slots, collect      call custom_kernel on these slots between two device events (timing)
    refill slots, word         overwrite the `c` of these slots (timing)
    drop                       forget all slots
    stop                       leave

Before the first answer it says `done` once: its own imports are over, and from here on time counts.

Standard input is empty, standard output and error are pipes that the judge drains.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import socket
import sys
from pathlib import Path

from evaluator.channel import Channel, ChannelClosed

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Serve the judge at the other end of socket `FD` until it says stop or goes away."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return 1
    # The judge asks for stacks with SIGUSR1 before it kills a submission that hangs.
    faulthandler.enable(all_threads=False)
    faulthandler.register(signal.SIGUSR1, all_threads=False)
    fd, device_name, processes = int(arguments[0]), arguments[1], int(arguments[2])
    os.set_inheritable(fd, False)
    channel = Channel(socket.socket(fileno=fd))
    try:
        # Heavy imports come after the signal handlers, so that even they can be diagnosed.
        from evaluator.devices import open_device
        from evaluator.serving import Server

        server = Server(channel, open_device(device_name, processes), Path(arguments[3]))
        channel.send({"is": "done"})
        while server.serve():
            pass
    except ChannelClosed:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
