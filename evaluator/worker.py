"""The process that runs the submission: `evaluator.worker FD DEVICE PROCESSES SUBMISSION LEVEL PRIVATE`.

It knows neither the mode nor the seed nor what is checked. It answers one command at a time:

    load                       import the submission, find custom_kernel
    run     + arena fd         build the tensors, call custom_kernel once, describe what came back
    hold    + arena fd, slot   build the tensors and keep them as `slot`
    rewrite + arena fd, slot   put other contents into the tensors of `slot`, in place
    refill  slots, word        overwrite the `c` of these slots
    window  slots, staged      call custom_kernel on these slots in turn, between two time stamps; before call
                               i put the contents of slot staged[i] into its inputs, if there is such a slot
    collect                    describe what the last window returned
    drop    slots              forget these slots

`serving_sanitized` adds commands on the simulated device; `serving_profile` has its own.

Before the first answer it says `started` once: it is isolated as far as `isolation` can, its own imports are
over, and from here on time counts. Every answer repeats the number of its command.

Standard input is empty, standard output and error are pipes that the judge drains.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import sys
from pathlib import Path

from evaluator import isolation, kernel_calls
from evaluator.answering import Answering
from evaluator.channel import Channel, ChannelClosed


def main(arguments: list[str]) -> int:
    """Serve the judge at the other end of socket `FD` until it says stop or goes away."""
    parent = os.getppid()
    kernel_calls.prctl(kernel_calls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return 1
    fd, device_name, processes = int(arguments[0]), arguments[1], int(arguments[2])
    submission, level, private = Path(arguments[3]), arguments[4], Path(arguments[5])
    readable = [submission.parent, *(Path(entry) for entry in sys.path if entry)]
    isolated = isolation.enter(device_name, level, private, readable, keep=fd)
    # The judge asks for stacks with SIGUSR1 before it kills a submission that hangs.
    faulthandler.enable(all_threads=False)
    faulthandler.register(signal.SIGUSR1, all_threads=False)
    os.set_inheritable(fd, False)
    channel = Channel(socket.socket(fileno=fd))
    try:
        # Heavy imports come after the signal handlers, so that even they can be diagnosed.
        server = open_server(channel, device_name, processes, submission)
        channel.send({"is": "started", "id": 0, "isolation": isolated})
        while True:
            server.serve()
    except ChannelClosed:
        return 0


def open_server(channel: Channel, device_name: str, processes: int, submission: Path) -> Answering:
    """Who answers on this device: calls of custom_kernel, sanitized ones too on "sim", or profiles."""
    if device_name == "profile":
        from evaluator.serving_profile import ProfileServer

        return ProfileServer(channel, submission)
    from evaluator.devices import open_device
    from evaluator.serving import Server

    server = Server(channel, open_device(device_name, processes), submission)
    if device_name.startswith("sim"):
        from evaluator.serving_sanitized import Sanitizing

        server.commands |= Sanitizing(server).commands
    return server


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
