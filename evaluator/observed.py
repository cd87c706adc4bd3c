"""What a worker saw of a watched call: findings of the sanitizer, figures of a profile; parsed strictly.

Figures are any JSON within bounds: only who shows them knows what they should be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from evaluator import fields

_MAX_TEXT = 12_000
#: The most that one answer carries.
MAX_FINDINGS, MAX_CTAS = 200, 256


@dataclass(frozen=True)
class Sanitized:
    """What the sanitizer saw of one call: records of `b200sim.sanitizer.Report.as_dict`, fields checked."""

    findings: tuple[dict[str, Any], ...]
    schedules: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Profiled:
    """Figures of a call as `profiling` documents them (any JSON, not checked further), and its timelines."""

    figures: dict[str, Any]
    timelines: tuple[dict[str, Any], ...]


def read_sanitized(message: Any) -> Sanitized | None:
    if message is None:
        return None
    message = fields.mapping(message, "sanitizer")
    findings = fields.items(message.get("findings"), "findings", MAX_FINDINGS)
    schedules = fields.items(message.get("schedules"), "schedules", 1)
    return Sanitized(tuple(map(_finding, findings)), tuple(map(_explored, schedules)))


def _finding(message: Any) -> dict[str, Any]:
    message = fields.mapping(message, "a finding")
    short = {name: fields.text(message.get(name), 400) for name in ("code", "kernel", "schedule")}
    long = {
        name: fields.text(message.get(name), _MAX_TEXT)
        for name in ("message", "missing", "between", "detail")
    }
    numbers = {name: fields.integer(message.get(name), name) for name in ("launch", "count")}
    sides = {name: _side(message.get(name)) for name in ("first", "second")}
    return {**short, **long, **numbers, **sides, "ctas": list(fields.words(message, "ctas", MAX_CTAS, 40))}


def _side(message: Any) -> dict[str, Any] | None:
    if message is None:
        return None
    message = fields.mapping(message, "a side of a finding")
    words = ("kind", "operand", "what", "by", "where", "source", "ptx")
    return {
        **{name: fields.text(message.get(name), 1000) for name in words},
        **{name: fields.integer(message.get(name), name) for name in ("warp", "ptx_line", "time")},
    }


def _explored(message: Any) -> dict[str, Any]:
    message = fields.mapping(message, "a schedule")
    return {
        **{name: fields.text(message.get(name), 100) for name in ("schedule", "outcome")},
        **{
            name: fields.integer(message.get(name), name)
            for name in ("launches", "turns", "operations", "signature")
        },
    }


def read_profiled(message: dict[str, Any]) -> Profiled:
    figures = fields.tree(fields.mapping(message.get("figures"), "figures"), "figures", 50_000)
    timelines = fields.items(message.get("timelines"), "timelines", 1024)
    return Profiled(figures, tuple(map(_timeline, timelines)))


def _timeline(message: Any) -> dict[str, Any]:
    message = fields.mapping(message, "a timeline")
    return {
        "sms": list(fields.integers(message, "sms", 32)),
        **{name: _spans(message.get(name), name) for name in ("tiles", "stores")},
    }


def _spans(message: Any, name: str) -> list[dict[str, Any]]:
    spans = [fields.mapping(span, name) for span in fields.items(message, name, 4096)]
    return [
        {
            **{end: fields.number(span, end) for end in ("start", "end")},
            "label": fields.text(span.get("label"), 40),
        }
        for span in spans
    ]
