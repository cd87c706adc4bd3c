"""Fields of a worker's message, read strictly: types and bounds checked, text cut and made printable.

A field that does not fit is a `BadMessage` naming it: the worker's process belongs to the submission.
"""

from __future__ import annotations

import math
from typing import Any

from evaluator.channel import BadMessage

_LIMIT = 1 << 62


def text(value: Any, most: int) -> str:
    """At most `most` characters, without control characters: a terminal will show them."""
    if not isinstance(value, str):
        raise BadMessage("text expected")
    return printable(value if len(value) <= most else value[: most - 2] + " …")


def printable(value: str) -> str:
    """Without what would steer a terminal: control characters but tabs and line ends as question marks."""
    if value.isprintable():
        return value
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in value.replace("\r\n", "\n"))


def texts(message: dict[str, Any], name: str, most: int) -> dict[str, str]:
    """A small object of texts."""
    words = message.get(name)
    if not isinstance(words, dict) or len(words) > most:
        raise BadMessage(f"{name} is not a small object")
    return {text(key, 40): text(value, 200) for key, value in words.items()}


def words(message: dict[str, Any], name: str, most: int, length: int) -> tuple[str, ...]:
    """A list of at most `most` texts; missing is empty."""
    return tuple(text(word, length) for word in items(message.get(name, []), name, most))


def items(value: Any, name: str, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise BadMessage(f"{name} is not a list of at most {most}")
    return value


def mapping(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadMessage(f"{name} is not an object")
    return value


def number(message: dict[str, Any], name: str) -> float:
    value = message.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e15:
        raise BadMessage(f"{name} is not a finite number of 0 or more")
    return float(value)


def integer(value: Any, name: str, signed: bool = False) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -_LIMIT * signed <= value < _LIMIT:
        raise BadMessage(f"{name} is not an integer in range")
    return value


def integers(message: dict[str, Any], name: str, most: int) -> tuple[int, ...]:
    return tuple(integer(value, name) for value in items(message.get(name), name, most))


def tree(value: Any, name: str, nodes: int, depth: int = 8) -> Any:
    """Any JSON of at most `nodes` values, `depth` deep: finite numbers, texts of at most 2000 characters."""
    budget = [nodes]

    def read(value: Any, depth: int) -> Any:
        budget[0] -= 1
        if budget[0] < 0 or depth < 0:
            raise BadMessage(f"{name} is too large")
        if isinstance(value, dict):
            return {text(key, 200): read(inner, depth - 1) for key, inner in value.items()}
        if isinstance(value, list):
            return [read(inner, depth - 1) for inner in value]
        if isinstance(value, str):
            return text(value, 2000)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, float):
            if not math.isfinite(value):
                raise BadMessage(f"{name} holds a number that is not finite")
            return value
        return integer(value, name, signed=True)

    return read(value, depth)
