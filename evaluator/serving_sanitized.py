"""What a worker does for a sanitized call: the same call as any other, its launches watched.

    sanitize + arena fd, schedule, trace   custom_kernel once, asynchronous work in the order of `schedule`;
                                           the answer of `run`, and in `sanitizer` what was found
    trace    + attachment fd               the trace of the last call that was to leave one

The findings are for the kernel's author: a submission that looks for the sanitizer can silence it, and its
values are judged all the same.
"""

from __future__ import annotations

import json
from typing import Any

from b200sim.sanitizer import Session, Trace
from evaluator import attachment, failures
from evaluator.answering import Command, Message
from evaluator.observed import MAX_CTAS, MAX_FINDINGS
from evaluator.serving import Server


class Sanitizing:
    """Adds its two commands to a server of the simulated device."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.simulated: Any = server.device.simulated  # type: ignore[attr-defined]
        self.trace = Trace()
        self.commands: dict[str, Command] = {"sanitize": self.sanitize, "trace": self.write_trace}

    def sanitize(self, message: Message, fd: int) -> Message:
        if message["trace"]:
            self.trace = Trace()
        session = Session(self.trace.observer if message["trace"] else None)
        with session.on_device(self.simulated, message["schedule"]) as explored:
            reply = self.server.run(message, fd)
            if reply["is"] == "failed":
                explored.outcome = reply["code"] or reply["status"]
        return {**reply, "sanitizer": self._told(session)}

    def write_trace(self, message: Message, fd: int) -> Message:
        content = json.dumps(self.trace.as_dict()).encode()
        try:
            return {"is": "written", "bytes": attachment.fill(fd, content, message["capacity"])}
        except ValueError as error:
            return failures.failed("RAISED", f"the trace does not fit: {error}; trace a smaller case")

    def _told(self, session: Session) -> Message:
        record = session.report.as_dict()
        findings = record["findings"][:MAX_FINDINGS]
        for finding in findings:
            finding["ctas"] = finding["ctas"][:MAX_CTAS]
            for side in ("first", "second"):
                if finding[side]:
                    finding[side]["source"] = failures.readable(
                        finding[side]["source"], self.server.submission
                    )
            finding["detail"] = failures.readable(finding["detail"], self.server.submission)
        return {"findings": findings, "schedules": record["schedules"]}
