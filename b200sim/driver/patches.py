"""Attributes of foreign objects replaced for a while and put back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_ABSENT = object()


class Patches:
    """Replaces attributes and runs undo actions in reverse order on `restore`."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Replace `owner.name`; what only the class of `owner` had is removed again on restore."""
        before = vars(owner).get(name, _ABSENT)
        setattr(owner, name, value)
        if before is _ABSENT:
            self._undo.append(lambda: delattr(owner, name))
        else:
            self._undo.append(lambda: setattr(owner, name, before))

    def later(self, action: Callable[[], None]) -> None:
        """Run `action` on restore."""
        self._undo.append(action)

    def restore(self) -> None:
        while self._undo:
            self._undo.pop()()
