"""Turn an exception of the submission into a status, one line, and a trimmed traceback (worker side)."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any

from evaluator.verdict import Status

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_MAX_MESSAGE = 600
_MAX_LINES = 40
_ROOT = Path(__file__).resolve().parent.parent
_OWN_FOLDERS = (_ROOT / "evaluator", _ROOT / "b200sim")


def describe(error: BaseException, submission: Path, importing: bool) -> dict[str, Any]:
    """The fields of a `failed` reply for what `submission` raised."""
    fault = simulator_fault(error)
    detail = trimmed_traceback(error, submission)
    if fault is not None:
        code = str(getattr(fault, "code", ""))
        report = readable(str(fault), submission)
        message = report.splitlines()[0] if report else code
        status = Status.TIMEOUT if code == "time_limit" else Status.FAULT
        return _failed(status, message, f"{report}\n{detail}", code)
    if isinstance(error, SystemExit):
        when = "while it was imported" if importing else "inside custom_kernel"
        message = f"the submission called sys.exit({error.code!r}) {when}"
        return _failed(Status.EXITED, message, detail)
    status = Status.IMPORT_ERROR if importing else Status.RAISED
    text = readable(_message_of(error), submission)
    first = next((line for line in text.splitlines() if line.strip()), "")
    return _failed(status, f"{type(error).__name__}: {first}" if first else type(error).__name__, detail)


def simulator_fault(error: BaseException) -> BaseException | None:
    """The simulator's `Fault` behind an exception: itself, or what it was raised from."""
    seen: BaseException | None = error
    for _ in range(16):
        if seen is None:
            return None
        if any(cls.__module__ == "b200sim.faults" for cls in type(seen).__mro__):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def trimmed_traceback(error: BaseException, submission: Path) -> str:
    """The traceback without our own frames; those of libraries are folded."""
    lines: list[str] = []
    folded = 0
    frames = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if not _ours(f.filename) and not f.filename.startswith("<frozen")
    ]
    for index, frame in enumerate(frames):
        if Path(frame.filename) != submission and index != len(frames) - 1:
            folded += 1
            continue
        if folded:
            lines.append(f"  ... {folded} frames in libraries ...")
            folded = 0
        lines.append(f'  File "{readable(frame.filename, submission)}", line {frame.lineno}, in {frame.name}')
        if frame.line:
            lines.append(f"    {frame.line}")
    if isinstance(error, SyntaxError):
        lines += "".join(traceback.format_exception_only(error)).rstrip().splitlines()
    else:
        lines += f"{type(error).__name__}: {_message_of(error)}".splitlines()
    if len(lines) > _MAX_LINES:
        lines = [
            *lines[: _MAX_LINES // 2],
            f"  ... {len(lines) - _MAX_LINES} lines ...",
            *lines[-_MAX_LINES // 2 :],
        ]
    return readable("\n".join(line[:400] for line in lines), submission)


def _ours(filename: str) -> bool:
    return any(folder in Path(filename).parents for folder in _OWN_FOLDERS)


def readable(text: str, submission: Path) -> str:
    """Plain text with the private copy's path shortened to the file's name."""
    return _ANSI.sub("", text).replace(str(submission), submission.name)


def _message_of(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # a hostile __str__
        return "(no message: __str__ raised)"


def _failed(status: Status, message: str, detail: str, code: str = "") -> dict[str, Any]:
    message = " ".join(message.split())
    if len(message) > _MAX_MESSAGE:
        message = message[:_MAX_MESSAGE] + " …"
    return {
        "is": "failed",
        "status": status.value,
        "message": message,
        "detail": detail[:10_000],
        "code": code,
    }
