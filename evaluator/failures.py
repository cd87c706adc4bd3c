"""Turn an exception of the submission into a status, one line, and a trimmed traceback (worker side)."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any

from evaluator.reasons import Reason
from evaluator.verdict import Status

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_MAX_MESSAGE = 600
_MAX_LINES = 40
_MAX_CAUSES = 4
_ROOT = Path(__file__).resolve().parent.parent
_OWN_FOLDERS = (_ROOT / "evaluator", _ROOT / "b200sim")


def describe(error: BaseException, submission: Path, importing: bool) -> dict[str, Any]:
    """The fields of a `failed` reply for what `submission` raised."""
    fault = simulator_fault(error)
    if fault is not None:
        code = str(getattr(fault, "code", ""))
        report = readable(str(fault), submission)
        message = report.splitlines()[0] if report else code
        status = Status.TIMEOUT if code == "time_limit" else Status.FAULT
        return failed(status.value, message, report + _launch_site(error, submission), code)
    detail = trimmed_traceback(error, submission)
    if isinstance(error, SystemExit):
        when = "while it was imported" if importing else "inside custom_kernel"
        message = f"the submission called sys.exit({error.code!r}) {when}"
        return failed(Status.EXITED.value, message, detail)
    status = Status.IMPORT_ERROR if importing else Status.RAISED
    code = _device_trouble(error)
    text = readable(_message_of(error), submission)
    first = next((line for line in text.splitlines() if line.strip()), "")
    name = type(error).__name__
    message = first if first.startswith(f"{name}:") else f"{name}: {first}" if first else name
    root = _chain(error)[-1]
    if root is not error:
        message += f" (from {type(root).__name__}: {readable(_message_of(root), submission)})"
    return failed(status.value, message, detail, code)


def _device_trouble(error: BaseException) -> str:
    """The reason code of an error that is about memory or a GPU left in a failed state; "" for any other."""
    text = _message_of(error)
    name = type(error).__name__
    if isinstance(error, MemoryError) or name == "OutOfMemoryError" or "can't allocate memory" in text:
        return Reason.OUT_OF_MEMORY.value
    if name == "AcceleratorError" or "CUDA error" in text or "CUDA_ERROR" in text:
        return Reason.DEVICE_ERROR.value
    return ""


def _launch_site(error: BaseException, submission: Path) -> str:
    """The submission's line whose call ran the kernel."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if Path(frame.filename) == submission:
            return f"\n  launched at {submission.name}:{frame.lineno} in {frame.name}"
    return ""


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
    """The traceback and those of its causes, innermost last, without our own frames and libraries' folded."""
    lines: list[str] = []
    for cause in _chain(error):
        lines += ["caused by:"] if lines else []
        lines += _frames(cause, submission)
        if isinstance(cause, SyntaxError):
            lines += "".join(traceback.format_exception_only(cause)).rstrip().splitlines()
        else:
            lines += f"{type(cause).__name__}: {_message_of(cause)}".splitlines()
    if len(lines) > _MAX_LINES:
        half = _MAX_LINES // 2
        lines = [*lines[:half], f"  ... {len(lines) - 2 * half} lines ...", *lines[-half:]]
    return readable("\n".join(line[:400] for line in lines), submission)


def _frames(error: BaseException, submission: Path) -> list[str]:
    lines: list[str] = []
    folded = 0
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not _ours(frame.filename) and not frame.filename.startswith("<frozen")
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
    return lines


def _chain(error: BaseException) -> list[BaseException]:
    """The exception and what it was raised from, as Python would print them."""
    chain = [error]
    while len(chain) < _MAX_CAUSES:
        last = chain[-1]
        cause = last.__cause__ or (None if last.__suppress_context__ else last.__context__)
        if cause is None or cause in chain:
            break
        chain.append(cause)
    return chain


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


def failed(status: str, message: str, detail: str = "", code: str = "") -> dict[str, Any]:
    """The fields of a `failed` reply, cut to what the judge takes."""
    message = " ".join(message.split())
    if len(message) > _MAX_MESSAGE:
        message = message[:_MAX_MESSAGE] + " …"
    return {
        "is": "failed",
        "status": status,
        "message": message,
        "detail": detail[:10_000],
        "code": code,
    }
