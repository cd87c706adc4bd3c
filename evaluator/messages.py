"""What a worker may say, parsed strictly.

The worker's process belongs to the submission, so every field is checked for type and bounds here, and text
is cut. A reply that does not parse is a `BadMessage`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from evaluator import fields
from evaluator.channel import BadMessage
from evaluator.observed import Profiled, Sanitized, read_profiled, read_sanitized
from evaluator.verdict import Status

MAX_TEXT = 12_000
MAX_OUTPUTS = 4096
MAX_RANK = 16
#: What a worker may report about itself; the other words are the judge's to say.
_REPORTABLE = frozenset(
    {Status.IMPORT_ERROR, Status.NO_ENTRY, Status.RAISED, Status.FAULT, Status.EXITED, Status.TIMEOUT}
)

Counter = int | float | str | list[int]


@dataclass(frozen=True)
class Output:
    """One returned object: its type, and for a plain tensor its structure and where its bytes lie.

    `alias` names the input tensor (index in arena order) in whose memory it lies, with the byte offset there.
    `offset` is where the arena holds the bytes as they were when custom_kernel returned, `settled` those
    after all work had ended.
    """

    type: str
    dtype: str = ""
    shape: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    device: str = ""
    alias: tuple[int, int] | None = None
    offset: int = 0
    nbytes: int = 0
    settled: int = 0

    @property
    def is_tensor(self) -> bool:
        return self.type == "torch.Tensor"


@dataclass(frozen=True)
class Conduct:
    """What the worker saw of the submission's doings besides its result."""

    patched: tuple[str, ...] = ()
    threads: tuple[str, ...] = ()
    late_nanoseconds: float = 0.0
    persisting: int = 0


@dataclass(frozen=True)
class Started:
    """The worker is isolated and ready; "" for every defence that is on, else why it is off."""

    isolation: dict[str, str]


@dataclass(frozen=True)
class Loaded:
    """The submission is imported and has an entry."""

    seconds: float
    versions: dict[str, str]
    conduct: Conduct = Conduct()


@dataclass(frozen=True)
class Ran:
    """`custom_kernel` returned."""

    container: str
    outputs: tuple[Output, ...]
    seconds: float
    launches: tuple[dict[str, Counter], ...] = ()
    conduct: Conduct = Conduct()
    sanitizer: Sanitized | None = None


@dataclass(frozen=True)
class Window:
    """One timed window of calls, as the worker's clock saw it: all of it, and the host's part of it."""

    nanoseconds: float
    host_nanoseconds: float
    flush: str
    conduct: Conduct


@dataclass(frozen=True)
class Collected:
    """What the last window's calls returned, in their order."""

    outputs: tuple[Ran, ...]
    launches: tuple[dict[str, Counter], ...] = ()


@dataclass(frozen=True)
class Progress:
    """A sign of life while a case runs."""

    text: str


@dataclass(frozen=True)
class Written:
    """An attachment holds so many bytes."""

    nbytes: int


@dataclass(frozen=True)
class Done:
    """A command without a result is finished."""


@dataclass(frozen=True)
class Failed:
    """The submission failed in a way that its process could still report."""

    status: Status
    message: str
    detail: str = ""
    code: str = ""
    launches: tuple[dict[str, Counter], ...] = field(default=())
    sanitizer: Sanitized | None = None


Reply = Started | Loaded | Ran | Window | Collected | Progress | Profiled | Written | Done | Failed


def parse_reply(message: dict[str, Any], number: int | None = None) -> Reply:
    """One reply of a worker, to the command `number` if given. Raises `BadMessage` naming the field."""
    if number is not None and fields.integer(message.get("id"), "id") != number:
        raise BadMessage("an answer to a command that was not given")
    kind = message.get("is")
    if not isinstance(kind, str) or kind not in _PARSERS:
        raise BadMessage(f"unknown reply {str(kind)[:40]!r}")
    return _PARSERS[kind](message)


def _started(message: dict[str, Any]) -> Started:
    return Started(fields.texts(message, "isolation", 64))


def _loaded(message: dict[str, Any]) -> Loaded:
    return Loaded(fields.number(message, "seconds"), fields.texts(message, "versions", 16), _conduct(message))


def _window(message: dict[str, Any]) -> Window:
    return Window(
        fields.number(message, "nanoseconds"),
        fields.number(message, "host_nanoseconds"),
        fields.text(message.get("flush"), 200),
        _conduct(message),
    )


def _collected(message: dict[str, Any]) -> Collected:
    runs = message.get("outputs", [])
    if not isinstance(runs, list) or len(runs) > 256:
        raise BadMessage("collected.outputs is not a short list")
    return Collected(tuple(_ran(run) for run in runs), _launches(message))


def _conduct(message: dict[str, Any]) -> Conduct:
    """All fields may be missing: then nothing was seen."""
    patched, threads = (fields.words(message, name, 16, 120) for name in ("patched", "threads"))
    late = fields.number({"late_nanoseconds": 0.0, **message}, "late_nanoseconds")
    return Conduct(patched, threads, late, fields.integer(message.get("persisting", 0), "persisting"))


def _ran(message: Any) -> Ran:
    if not isinstance(message, dict):
        raise BadMessage("ran is not an object")
    outputs = message.get("outputs")
    if not isinstance(outputs, list) or len(outputs) > MAX_OUTPUTS:
        raise BadMessage(f"ran.outputs is not a list of at most {MAX_OUTPUTS}")
    return Ran(
        container=fields.text(message.get("container"), 200),
        outputs=tuple(_output(o) for o in outputs),
        seconds=fields.number(message, "seconds"),
        launches=_launches(message),
        conduct=_conduct(message),
        sanitizer=read_sanitized(message.get("sanitizer")),
    )


def _output(message: Any) -> Output:
    if not isinstance(message, dict):
        raise BadMessage("an output is not an object")
    type_name = fields.text(message.get("type"), 200)
    if type_name != "torch.Tensor":
        return Output(type_name)
    shape, stride = fields.integers(message, "shape", MAX_RANK), fields.integers(message, "stride", MAX_RANK)
    if len(shape) != len(stride):
        raise BadMessage("an output's shape and stride differ in rank")
    alias = message.get("alias")
    if alias is not None:
        pair = fields.integers(message, "alias", 2)
        if len(pair) != 2:
            raise BadMessage("alias is not a pair")
        alias = (pair[0], pair[1])
    return Output(
        type=type_name,
        dtype=fields.text(message.get("dtype"), 60),
        shape=shape,
        stride=stride,
        device=fields.text(message.get("device"), 60),
        alias=alias,
        offset=fields.integer(message.get("offset"), "offset"),
        nbytes=fields.integer(message.get("nbytes"), "nbytes"),
        settled=fields.integer(message.get("settled", 0), "settled"),
    )


def _failed(message: dict[str, Any]) -> Failed:
    try:
        status = Status(message.get("status"))
    except ValueError:
        raise BadMessage("failed.status is not a status") from None
    if status not in _REPORTABLE:
        raise BadMessage(f"a worker may not report {status}")
    return Failed(
        status,
        fields.text(message.get("message"), 2000),
        fields.text(message.get("detail", ""), MAX_TEXT),
        fields.text(message.get("code", ""), 60),
        _launches(message),
        read_sanitized(message.get("sanitizer")),
    )


def _launches(message: dict[str, Any]) -> tuple[dict[str, Counter], ...]:
    launches = message.get("launches", [])
    if not isinstance(launches, list) or len(launches) > 1024:
        raise BadMessage("launches is not a list of at most 1024")
    return tuple(_counters(entry) for entry in launches)


def _counters(entry: Any) -> dict[str, Counter]:
    if not isinstance(entry, dict) or len(entry) > 256:
        raise BadMessage("a launch report is not a small object")
    counters: dict[str, Counter] = {}
    for key, value in entry.items():
        name = fields.text(key, 80)
        if isinstance(value, str):
            counters[name] = fields.text(value, 4000)
        elif isinstance(value, list):
            counters[name] = [fields.integer(item, name, signed=True) for item in value[:16]]
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            counters[name] = value
        else:
            raise BadMessage(f"counter {name!r} is neither a number, text, nor a list of integers")
    return counters


_PARSERS: dict[str, Callable[[dict[str, Any]], Reply]] = {
    "started": _started,
    "loaded": _loaded,
    "ran": _ran,
    "window": _window,
    "collected": _collected,
    "progress": lambda message: Progress(fields.text(message.get("text"), 120)),
    "profiled": read_profiled,
    "written": lambda message: Written(fields.integer(message.get("bytes"), "bytes")),
    "done": lambda _: Done(),
    "failed": _failed,
}
