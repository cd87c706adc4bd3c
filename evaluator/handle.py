"""The judge's handle on one worker process: commands with a time limit, and verdicts on how it can fail."""

from __future__ import annotations

import contextlib
import re
import secrets
import select
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from evaluator import processes
from evaluator.channel import BadMessage, Channel, ChannelClosed, ChannelTimeout
from evaluator.fields import printable
from evaluator.messages import Failed, Loaded, Progress, Reply, Started, parse_reply
from evaluator.verdict import Status, Verdict

#: How long Python, torch and the simulator may take to start; not the submission's fault, and not its time.
_START_SECONDS = 120.0
#: How long a worker may take to write its stacks after SIGUSR1.
_STACK_SECONDS = 0.3
_OURS = re.compile(rf'File "({re.escape(str(processes.ROOT))}/evaluator/|<frozen)|^Extension modules: ')
_SIGNALS = {
    signal.SIGSEGV: "a segmentation fault",
    signal.SIGKILL: "killed by the system (out of memory?)",
    signal.SIGABRT: "aborted",
    signal.SIGBUS: "a bus error",
    signal.SIGFPE: "an arithmetic exception",
    signal.SIGILL: "an illegal instruction",
}


class WorkerFailure(Exception):
    """The worker gave no usable answer; `verdict` says why. The process is dead."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.message)
        self.verdict = verdict


class Memory(Protocol):
    """Memory that goes to the worker beside a command: an `Arena` or an `Attachment`."""

    fd: int

    def message(self) -> dict[str, Any]: ...


class Worker:
    """One process that loads the submission and answers `request`s. Not thread-safe except for `kill`."""

    def __init__(
        self,
        place: Path,
        device: str,
        processes_each: int,
        level: str = "full",
        program: tuple[str, ...] = ("-m", "evaluator.worker"),
    ) -> None:
        """Start the process, isolated as `isolation.LEVELS` says; without waiting, tell it to load.

        `program` is what Python is given to run, if it is not the usual worker.
        """
        self.submission = place / "code" / "submission.py"
        self.tag = uuid.uuid4().hex
        private = processes.private_folder(place, self.tag)
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                processes.python_command(
                    *program,
                    str(theirs.fileno()),
                    device,
                    str(processes_each),
                    str(self.submission),
                    level,
                    str(private),
                ),
                cwd=place / "code",
                env=processes.environment(private, device, self.tag),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        assert self.process.stdout is not None
        self.output = processes.Tail(self.process.stdout)
        self.channel = Channel(ours)
        self.loaded: Loaded | None = None
        self.isolation: dict[str, str] | None = None
        self._own_processes: set[int] = set()
        self._number = 0
        with contextlib.suppress(ChannelClosed):  # found out when the answer is awaited
            self._send({"do": "load"})

    def wait_loaded(self, limit: float) -> Loaded:
        """The answer to `load`. Raises `WorkerFailure`."""
        if self.loaded is None:
            self.wait_started(limit)
            reply = self._answer(limit, "while it was imported", lambda _: None)
            if isinstance(reply, Failed):
                self.kill()
                raise WorkerFailure(Verdict(reply.status, reply.message, reply.detail))
            if not isinstance(reply, Loaded):
                raise self._tampered("expected `loaded`")
            self.loaded = reply
        return self.loaded

    def wait_started(self, limit: float) -> dict[str, str]:
        """Until the worker's own imports are over; how it is isolated. Raises `WorkerFailure`.

        The submission has no part in a failure here.
        """
        if self.isolation is None:
            try:
                number, self._number = self._number, 0
                reply = self._answer(max(_START_SECONDS, limit), "while the worker started", lambda _: None)
                self._number = number
            except WorkerFailure as failure:
                verdict = failure.verdict
                raise WorkerFailure(Verdict(Status.JUDGE_ERROR, verdict.message, verdict.detail)) from None
            self.isolation = reply.isolation if isinstance(reply, Started) else {}
            self._own_processes = set(processes.descendants(self.process.pid))
        return self.isolation

    def survivors(self) -> list[str]:
        """Command names of living processes that the submission started."""
        return [
            processes.command_name(pid)
            for pid in processes.descendants(self.process.pid)
            if pid not in self._own_processes
        ]

    def request(
        self,
        command: dict[str, object],
        limit: float,
        memory: Memory | None = None,
        on_progress: Callable[[str], None] = lambda _: None,
    ) -> Reply:
        """Send one command, with memory beside it if given, and wait at most `limit` seconds.

        Raises `WorkerFailure` if no proper answer comes; the process is dead then. A `Failed` reply is
        returned: the process lives on.
        """
        try:
            if select.select([self.channel.socket], [], [], 0)[0]:
                raise self._unasked()
            if memory is None:
                self._send(command)
            else:
                self._send({**command, **memory.message()}, memory.fd)
        except ChannelClosed:
            raise self._ended("before custom_kernel was called") from None
        return self._answer(limit, "in custom_kernel", on_progress)

    def _send(self, command: dict[str, object], fd: int | None = None) -> None:
        """Every command has a number that nobody can guess, so that no answer can be given in advance."""
        self._number = secrets.randbits(60)
        self.channel.send({**command, "id": self._number}, fd)

    def _unasked(self) -> WorkerFailure:
        """What to make of bytes, or of the end, where no answer was due."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0.2)
        if self.process.poll() is not None:
            return self._ended("after custom_kernel had returned")
        return self._tampered("it spoke without being asked, or closed its channel")

    def kill(self) -> None:
        """End the process and everything it started. May be called from any thread, more than once."""
        processes.kill_session(self.process, self.tag)
        self.output.finish(1.0)

    def close(self) -> None:
        self.kill()
        self.channel.close()

    def _answer(self, limit: float, where: str, on_progress: Callable[[str], None]) -> Reply:
        deadline = time.monotonic() + limit
        while True:
            try:
                reply = parse_reply(self.channel.receive(deadline), self._number)
            except ChannelTimeout:
                raise self._timed_out(limit, where) from None
            except ChannelClosed:
                raise self._ended(where) from None
            except BadMessage as error:
                raise self._tampered(str(error)) from None
            if not isinstance(reply, Progress):
                return reply
            on_progress(reply.text)

    def _timed_out(self, limit: float, where: str) -> WorkerFailure:
        before = self.output.total
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGUSR1)
        time.sleep(_STACK_SECONDS)
        stack = self._stack() if self.output.total > before else ""
        self.kill()
        return WorkerFailure(
            Verdict(Status.TIMEOUT, f"no answer within {limit:g} s {where}{stack}", self._printed())
        )

    def _ended(self, where: str) -> WorkerFailure:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1.0)
        early = self.process.poll() is None
        self.kill()
        code = self.process.returncode
        if early:
            return self._tampered("the submission closed the worker's channel")
        if code >= 0:
            message = f"the process ended itself with code {code} {where} (os._exit?)"
            return WorkerFailure(Verdict(Status.EXITED, message, self._printed()))
        kind = _SIGNALS.get(signal.Signals(-code), "killed") if -code in set(signal.Signals) else "killed"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        message = f"{kind} ({name}) {where}{self._stack()}"
        return WorkerFailure(Verdict(Status.CRASHED, message, self._printed()))

    def _tampered(self, why: str) -> WorkerFailure:
        self.kill()
        return WorkerFailure(
            Verdict(Status.PROTOCOL, f"the worker broke the protocol: {why}", self._printed())
        )

    def printed(self) -> str:
        """What the process printed since it was last asked; all of it if it has answered since."""
        return printable(self.output.take().replace(str(self.submission), self.submission.name))

    def _printed(self) -> str:
        """What the process printed, stacks without our own frames."""
        lines = self.output.text().replace(str(self.submission), self.submission.name).splitlines()
        return "\n".join(printable(line) for line in lines if not _OURS.search(line))

    def _stack(self) -> str:
        """The submission's innermost frame that faulthandler printed, as `, at submission.py:12 in f`."""
        pattern = re.compile(re.escape(str(self.submission)) + r'", line (\d+) in (\S+)')
        dump = self.output.text().rpartition("(most recent call first)")[2]
        frame = pattern.search(dump)
        return f", at submission.py:{frame[1]} in {frame[2]}" if frame else ""
