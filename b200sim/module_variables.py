"""The `.global` and `.const` variables of a loaded PTX module (PTX ISA 5.1.3, 5.1.4) as device memory."""

from __future__ import annotations

import mmap
from collections.abc import Sequence

import numpy as np

from b200sim.global_memory import GlobalMemory
from b200sim.ptx.syntax import ModuleVariable

_ROOM = 256  # bytes: alignment of the whole, and unmapped space between variables


class ModuleVariables:
    """Initialised once, when the module is loaded; `addresses` by name. Registered in `memory` until `free`.

    The memory is shared with forked processes, so that the clusters of a launch may run in several.
    """

    def __init__(self, variables: Sequence[ModuleVariable], memory: GlobalMemory) -> None:
        self.memory = memory
        self.addresses: dict[str, int] = {}
        if not variables:
            return
        places, end = [], 0
        for variable in variables:
            end = -(-end // _ROOM) * _ROOM
            places.append(end)
            end += len(variable.data) + _ROOM
        self._room = np.frombuffer(mmap.mmap(-1, end), np.uint8)  # starts at a page
        for variable, place in zip(variables, places, strict=True):
            size = len(variable.data)
            self._room[place : place + size] = np.frombuffer(variable.data, np.uint8)
            address = self._room.ctypes.data + place
            self.addresses[variable.name] = address
            memory.add(f"variable {variable.name}", address, size, writable=variable.space == "global")

    def free(self) -> None:
        for address in self.addresses.values():
            self.memory.remove(address)
        self.addresses = {}
