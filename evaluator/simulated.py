"""Which GPU is simulated: the one that was asked for, else the one that a submission is written for."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from b200sim.gpus import Gpu as Gpu

#: What simulates the GPU that a line `#!POPCORN gpu NAME` names. Any other name, or no line, means a B200.
_STAND_INS = {"H100": "h200", "H200": "h200"}
_NAMED = re.compile(rb"^#!POPCORN gpus? +(\S+)", re.MULTILINE)


def choose(asked: str | None, submission: Path) -> Gpu | None:
    """The GPU with the key `asked`, or the submission's; None if there is no simulator here."""
    if importlib.util.find_spec("b200sim") is None:
        return None
    from b200sim.gpus import GPUS

    return GPUS[asked or _STAND_INS.get(named_by(submission), "b200")]


def named_by(submission: Path) -> str:
    """The GPU of the submission's `#!POPCORN gpu` line, "" without one."""
    named = _NAMED.search(submission.read_bytes())
    return named[1].decode(errors="replace") if named else ""


def remark(gpu: Gpu, submission: Path) -> str:
    """What to add where another GPU is simulated than the one the submission is written for."""
    named = named_by(submission)
    if not named or _STAND_INS.get(named, "b200") == gpu.key:
        return ""
    return f", not the {named} that the submission is written for"


def target(gpu: Gpu, sms: int | None = None) -> str:
    """The device that workers open. Raises `ValueError` for more SMs than it has."""
    return f"sim:{gpu.key}" if sms is None else f"sim:{gpu.key}:{gpu.with_sms(sms).sm_count}"
