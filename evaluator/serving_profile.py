"""What a worker does when it profiles: the submission is imported anew for every part of a profile.

load                   nothing yet: whether the submission can be imported shows in `profile`
profile  name, sizes   figures and timelines of a call, counted on the simulated B200
host     sizes         microseconds of host time of a call, launches stubbed out
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import profiling.run
from evaluator import failures
from evaluator.answering import Answering, Message
from evaluator.channel import Channel
from evaluator.serving import versions


class ProfileServer(Answering):
    """Answers in place of `serving.Server`, on a worker whose device is "profile"."""

    def __init__(self, channel: Channel, submission: Path) -> None:
        super().__init__(channel)
        self.submission = submission
        self.commands = {"load": self.load, "profile": self.profile, "host": self.host}

    def load(self, _: Message, __: int) -> Message:
        return {"is": "loaded", "seconds": 0.0, "versions": versions()}

    def profile(self, message: Message, _: int) -> Message:
        def work() -> Message:
            figures, timelines = profiling.run.profile(self.submission, _sizes(message), self.tell)
            return {"figures": figures, "timelines": [timeline.as_dict() for timeline in timelines]}

        return self._guarded(work)

    def host(self, message: Message, _: int) -> Message:
        return self._guarded(
            lambda: {"figures": profiling.run.host_times(self.submission, _sizes(message)), "timelines": []}
        )

    def _guarded(self, work: Callable[[], Message]) -> Message:
        try:
            return {"is": "profiled", **work()}
        except BaseException as error:
            return failures.describe(error, self.submission, importing=False)


def _sizes(message: Message) -> list[tuple[Any, ...]]:
    return [tuple(size) for size in message["sizes"]]
