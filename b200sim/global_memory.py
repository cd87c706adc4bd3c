"""Global memory of the simulated B200: a registry of allocations at host addresses.

Torch CPU tensors are the device memory, so a device address *is* a host address. Every access of a kernel
goes through this registry; an address that belongs to no registered allocation raises a Fault instead of
touching the process's memory.
"""

from __future__ import annotations

import ctypes
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from b200sim.faults import Fault

Bytes = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]

# Element dtypes of raw accesses. 16 bytes is the grain of the TMA engine: an opaque dtype is moved whole.
RAW_DTYPES: dict[int, np.dtype] = {
    1: np.dtype(np.uint8),
    2: np.dtype(np.uint16),
    4: np.dtype(np.uint32),
    8: np.dtype(np.uint64),
    16: np.dtype("V16"),
}
_LANE_DTYPES = {size: dtype for size, dtype in RAW_DTYPES.items() if size <= 8}
_SHIFTS = {1: np.uint64(0), 2: np.uint64(1), 4: np.uint64(2), 8: np.uint64(3)}
_NO_INDEX = np.empty(0, np.intp)
_TOMBSTONES = 256


class Allocation:
    """One registered range [address, address + nbytes) of host memory.

    `bytes` is a writable uint8 view of it, `frozen` a read-only one.
    """

    __slots__ = ("_lanes", "address", "bytes", "end", "frozen", "name", "nbytes", "writable")

    def __init__(self, name: str, address: int, nbytes: int, writable: bool = True) -> None:
        self.name = name
        self.address = address
        self.nbytes = nbytes
        self.end = address + nbytes
        self.writable = writable
        if nbytes:
            self.bytes: Bytes = np.ctypeslib.as_array((ctypes.c_ubyte * nbytes).from_address(address))
        else:
            self.bytes = np.empty(0, np.uint8)
        self.frozen: Bytes = self.bytes.view()
        self.frozen.flags.writeable = False
        self._lanes: dict[int, Array] = {}

    def lanes(self, itemsize: int) -> Array | None:
        """The allocation as an array of naturally aligned `itemsize`-byte words, or None if its base is not
        aligned to them."""
        words = self._lanes.get(itemsize)
        if words is None:
            if self.address % itemsize:
                return None
            whole = self.nbytes - self.nbytes % itemsize
            words = self.bytes[:whole].view(_LANE_DTYPES[itemsize])
            self._lanes[itemsize] = words
        return words

    def __repr__(self) -> str:
        return f"'{self.name}' [{self.address:#x}, {self.end:#x}) ({self.nbytes} bytes)"


class GlobalMemory:
    """The allocations a kernel may touch.

    Faults raised by every access:
      global_out_of_bounds   the range lies in no single live allocation; the message names the nearest one
                             and by how many bytes it is missed
      global_use_after_free  the range lies in an allocation that was removed
      global_write_to_input  a write to an allocation registered with writable=False
      global_misaligned      a per-lane access whose address is not a multiple of its size
    """

    def __init__(self) -> None:
        self._bases: list[int] = []
        self._live: list[Allocation] = []
        self._freed: deque[tuple[int, int, str]] = deque(maxlen=_TOMBSTONES)
        self._nothing = Allocation("nothing", 0, 0)
        self._last = self._nothing

    # ---- the registry ----

    @property
    def allocations(self) -> list[Allocation]:
        """Live allocations in order of address."""
        return list(self._live)

    def add(self, name: str, address: int, nbytes: int, writable: bool = True) -> None:
        """Register [address, address + nbytes). Zero bytes: nothing to do.

        Registering exactly the same range again renames it. Raises ValueError (a mistake of the host side,
        not of the kernel) if the range overlaps another live allocation.
        """
        if nbytes < 0:
            raise ValueError(f"allocation '{name}' has a negative size: {nbytes}")
        if nbytes == 0:
            return
        at = bisect_right(self._bases, address)
        known = self._live[at - 1] if at else self._nothing
        if known.address == address and known.nbytes == nbytes:
            known.name, known.writable = name, writable
            return
        following = self._live[at] if at < len(self._live) else None
        for other in (known, following):
            if other is not None and other.address < address + nbytes and address < other.end:
                raise ValueError(
                    f"allocation '{name}' [{address:#x}, {address + nbytes:#x}) overlaps {other!r}, "
                    "which was never removed"
                )
        self._bases.insert(at, address)
        self._live.insert(at, Allocation(name, address, nbytes, writable))
        if self._freed:
            kept = [t for t in self._freed if t[1] <= address or t[0] >= address + nbytes]
            self._freed = deque(kept, maxlen=_TOMBSTONES)

    def remove(self, address: int) -> None:
        """Forget the allocation that begins at `address` (unknown or zero-sized: nothing to do). Later
        accesses to it fault as 'global_use_after_free' until the range is registered again."""
        at = bisect_right(self._bases, address) - 1
        if at < 0 or self._bases[at] != address:
            return
        gone = self._live.pop(at)
        del self._bases[at]
        self._freed.append((gone.address, gone.end, gone.name))
        self._last = self._nothing

    def find(self, address: int) -> Allocation | None:
        """The live allocation that contains `address`, or None."""
        at = bisect_right(self._bases, address) - 1
        if at >= 0 and address < self._live[at].end:
            return self._live[at]
        return None

    # ---- contiguous and strided access ----

    def view(self, address: int, nbytes: int, write: bool = False) -> Bytes:
        """uint8[nbytes] view of memory; read-only unless `write`. `address` is a Python int."""
        allocation = self._last
        start = address - allocation.address
        if start < 0 or start + nbytes > allocation.nbytes:
            allocation = self._locate(address, nbytes, write)
            start = address - allocation.address
        if not write:
            return allocation.frozen[start : start + nbytes]
        if not allocation.writable:
            raise _write_to_input(allocation, address, nbytes)
        return allocation.bytes[start : start + nbytes]

    def buffer(self, address: int, nbytes: int, write: bool = False) -> tuple[Bytes, int]:
        """The whole allocation around [address, address + nbytes) and the offset of `address` in it."""
        allocation = self._last
        start = address - allocation.address
        if start < 0 or start + nbytes > allocation.nbytes:
            allocation = self._locate(address, nbytes, write)
            start = address - allocation.address
        if not write:
            return allocation.frozen, start
        if not allocation.writable:
            raise _write_to_input(allocation, address, nbytes)
        return allocation.bytes, start

    def strided(
        self,
        address: int,
        shape: Sequence[int],
        strides_bytes: Sequence[int],
        itemsize: int,
        write: bool = False,
    ) -> Array:
        """View of shape `shape` whose element (i, j, ...) lies at address + i*strides[0] + j*strides[1] + ...

        dtype: uint8/16/32/64 for itemsize 1/2/4/8, opaque 'V16' for 16. Strides are >= 0. The whole extent,
        first to last byte, must lie in one allocation. Read-only unless `write`.
        """
        dtype = RAW_DTYPES[itemsize]
        if 0 in shape:
            return np.empty(tuple(shape), dtype)
        extent = itemsize
        for count, stride in zip(shape, strides_bytes, strict=True):
            extent += (count - 1) * stride
        buffer, start = self.buffer(address, extent, write)
        return np.ndarray(tuple(shape), dtype, buffer, start, tuple(strides_bytes))

    # ---- per-lane access: ld.global, st.global ----

    def gather(
        self, addresses: npt.NDArray[np.uint64], itemsize: int, mask: npt.NDArray[np.bool_] | None = None
    ) -> Array:
        """Load `itemsize` (1, 2, 4, 8) bytes per lane. addresses: uint64[n]; mask: bool[n], None = all.
        Returns the unsigned dtype of that size, [n], zero in lanes that are off."""
        dtype = _LANE_DTYPES[itemsize]
        active = addresses if mask is None else addresses[mask]
        if not active.size:
            return np.zeros(addresses.shape, dtype)
        words, index = self._lane_index(active, itemsize, False)
        if words is not None:
            loaded = words.take(index)
        else:
            loaded = np.empty(active.shape, dtype)
            for i, address in enumerate(self._checked_lanes(addresses, itemsize, mask, False)):
                loaded[i] = self.view(address, itemsize).view(dtype)[0]
        if mask is None:
            return loaded
        out = np.zeros(addresses.shape, dtype)
        out[mask] = loaded
        return out

    def scatter(
        self,
        addresses: npt.NDArray[np.uint64],
        values: Array,
        itemsize: int,
        mask: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Store the low `itemsize` bytes of each lane's value. If lanes share an address, the highest wins
        (the hardware leaves open which does). Nothing is stored if any lane faults."""
        dtype = _LANE_DTYPES[itemsize]
        if mask is not None:
            active, values = addresses[mask], values[mask]
        else:
            active = addresses
        if not active.size:
            return
        if values.dtype != dtype:
            values = values.astype(dtype)
        words, index = self._lane_index(active, itemsize, True)
        if words is not None:
            words[index] = values
            return
        lanes = self._checked_lanes(addresses, itemsize, mask, True)
        for address, value in zip(lanes, values, strict=True):
            self.view(address, itemsize, True).view(dtype)[0] = value

    # ---- inside ----

    def _lane_index(
        self, active: npt.NDArray[np.uint64], itemsize: int, write: bool
    ) -> tuple[Array | None, npt.NDArray[np.intp]]:
        """Fast path: one allocation holds all lanes, all aligned. Returns its words and the index of each
        lane, or (None, ...) where the careful path must decide."""
        allocation = self._last
        address = int(active[0])
        if not allocation.address <= address < allocation.end:
            found = self.find(address)
            if found is None:
                return None, _NO_INDEX
            self._last = allocation = found
        words = allocation.lanes(itemsize)
        if words is None or (write and not allocation.writable):
            return None, _NO_INDEX
        # Lanes below the base wrap to huge offsets. The OR of all offsets shows misaligned lanes and bounds
        # the largest one; where that bound is too coarse, take the true maximum.
        offsets = active - np.uint64(allocation.address)
        union = int(np.bitwise_or.reduce(offsets))
        if union & (itemsize - 1):
            return None, _NO_INDEX
        if union + itemsize > allocation.nbytes and int(offsets.max()) + itemsize > allocation.nbytes:
            return None, _NO_INDEX
        return words, (offsets >> _SHIFTS[itemsize]).view(np.intp)

    def _checked_lanes(
        self,
        addresses: npt.NDArray[np.uint64],
        itemsize: int,
        mask: npt.NDArray[np.bool_] | None,
        write: bool,
    ) -> list[int]:
        """The active lanes' addresses, after checking every one of them; faults name the lane."""
        checked = []
        for lane, address in enumerate(addresses.tolist()):
            if mask is not None and not mask[lane]:
                continue
            if address % itemsize:
                verb = "write" if write else "read"
                raise Fault(
                    "global_misaligned",
                    f"lane {lane}: {verb} of {itemsize} bytes at {address:#x}, "
                    f"which is not a multiple of {itemsize}",
                )
            try:
                self.view(address, itemsize, write)
            except Fault as fault:
                raise Fault(fault.code, f"lane {lane}: {fault.message}") from None
            checked.append(address)
        return checked

    def _locate(self, address: int, nbytes: int, write: bool) -> Allocation:
        """The allocation that holds the whole range; becomes the one tried first next time."""
        at = bisect_right(self._bases, address) - 1
        if at >= 0:
            allocation = self._live[at]
            if address + nbytes <= allocation.end:
                self._last = allocation
                return allocation
        raise self._missed(address, nbytes, write)

    def _missed(self, address: int, nbytes: int, write: bool) -> Fault:
        what = f"{'write' if write else 'read'} of {nbytes} bytes at {address:#x}"
        for start, end, name in reversed(self._freed):
            if start <= address < end:
                return Fault(
                    "global_use_after_free",
                    f"{what}: inside '{name}' [{start:#x}, {end:#x}), which was freed",
                )
        at = bisect_right(self._bases, address)
        near = [(_distance(a, address, nbytes), a) for a in self._live[max(at - 1, 0) : at + 1]]
        if not near:
            return Fault("global_out_of_bounds", f"{what}: no global memory is allocated")
        nearest = min(near, key=lambda pair: pair[0])[1]
        return Fault(
            "global_out_of_bounds",
            f"{what} is not inside an allocation: {_relation(nearest, address, nbytes)} {nearest!r}",
        )


def _distance(allocation: Allocation, address: int, nbytes: int) -> int:
    """Bytes by which the range misses the allocation, counted from the nearer side."""
    if address < allocation.address:
        return allocation.address - address
    return address + nbytes - allocation.end


def _relation(allocation: Allocation, address: int, nbytes: int) -> str:
    if address < allocation.address:
        return f"it begins {allocation.address - address} bytes before"
    if address >= allocation.end:
        return f"it begins {address - allocation.end} bytes past the end of"
    return f"it runs {address + nbytes - allocation.end} bytes past the end of"


def _write_to_input(allocation: Allocation, address: int, nbytes: int) -> Fault:
    return Fault(
        "global_write_to_input",
        f"write of {nbytes} bytes at {address:#x} changes the input {allocation!r}, "
        f"{address - allocation.address} bytes from its start",
    )
