"""The text of a device-side printf (CUDA C++ Programming Guide, "Formatted Output").

A GPU leaves the formatting to the host's C library, so this does the same: each conversion is one call of
`snprintf`. The arguments lie in a buffer as C varargs would be stored: each at the next multiple of its size,
4 bytes for int, 8 for long, long long, double and pointers.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Callable
from typing import Any

from b200sim.faults import Fault

MAX_ARGUMENTS = 32  # CUDA leaves the conversions of further ones as they are
MAX_FIELD = 1 << 20  # bytes of one conversion
_CONVERSION = re.compile(rb"%([-+ #0]*)(\*|\d*)(?:\.(\*|\d*))?(ll|l|h)?(.)", re.S)
_SIGNED, _UNSIGNED, _FLOATING = b"di", b"ouxX", b"eEfFgGaA"

_libc = ctypes.CDLL(None)

Buffer = Callable[[int, int], bytes]  # offset, size -> bytes of the argument buffer
Strings = Callable[[int], bytes]  # address -> text before its NUL


def to_stdout(text: bytes) -> None:
    """To the process's standard output, after what Python has printed so far."""
    if sys.stdout is not None:
        sys.stdout.flush()
    while text:
        text = text[os.write(1, text) :]


def formatted(template: bytes, buffer: Buffer, strings: Strings) -> tuple[bytes, int]:
    """The text, and the number of arguments it took (what printf returns on a GPU).

    Raises Fault 'printf_format' for a conversion that C leaves undefined or CUDA does not know.
    """
    arguments = _Arguments(buffer)
    pieces: list[bytes] = []
    at = 0
    while True:
        start = template.find(b"%", at)
        if start < 0:
            pieces.append(template[at:])
            return b"".join(pieces), arguments.count
        pieces.append(template[at:start])
        match = _CONVERSION.match(template, start)
        if match is None:
            raise _bad(template[start:])
        pieces.append(_converted(match, arguments, strings))
        at = match.end()


class _Arguments:
    """Reads the buffer from its start."""

    def __init__(self, buffer: Buffer) -> None:
        self.buffer = buffer
        self.offset = 0
        self.count = 0

    def take(self, size: int, signed: bool = False) -> int:
        self.offset = -(-self.offset // size) * size
        data = self.buffer(self.offset, size)
        self.offset += size
        self.count += 1
        return int.from_bytes(data, "little", signed=signed)


def _converted(match: re.Match[bytes], arguments: _Arguments, strings: Strings) -> bytes:
    flags, width, precision, length, kind = match.groups()
    if match[0] == b"%%":
        return b"%"
    if kind not in _SIGNED + _UNSIGNED + _FLOATING + b"csp" or (
        length and kind not in _SIGNED + _UNSIGNED + _FLOATING
    ):
        raise _bad(match[0])
    needed = 1 + (width == b"*") + (precision == b"*")
    if arguments.count + needed > MAX_ARGUMENTS:
        return match[0]
    if width == b"*":
        width = b"%d" % arguments.take(4, signed=True)
    if precision == b"*":
        asked = arguments.take(4, signed=True)
        precision = b"%d" % asked if asked >= 0 else None  # a negative one is as if it were left out
    spec = b"%" + flags + width + (b"" if precision is None else b"." + precision) + (length or b"") + kind
    return _snprintf(spec, _argument(kind, length, arguments, strings))


def _argument(kind: bytes, length: bytes | None, arguments: _Arguments, strings: Strings) -> Any:
    if kind in _FLOATING:
        return ctypes.c_double.from_buffer_copy(arguments.take(8).to_bytes(8, "little"))
    if kind == b"p":
        return ctypes.c_void_p(arguments.take(8))
    if kind == b"s":
        address = arguments.take(8)
        return ctypes.c_char_p(strings(address) if address else None)
    if length in (b"l", b"ll"):
        return ctypes.c_ulonglong(arguments.take(8))
    return ctypes.c_uint(arguments.take(4))


def _snprintf(spec: bytes, value: Any) -> bytes:
    room = 128
    while True:
        text = ctypes.create_string_buffer(room)
        length = _libc.snprintf(text, ctypes.c_size_t(room), spec, value)
        if not 0 <= length <= MAX_FIELD:
            raise Fault("printf_format", f"printf: {spec.decode(errors='replace')!r} gives {length} bytes")
        if length < room:
            return text.raw[:length]
        room = length + 1


def _bad(text: bytes) -> Fault:
    shown = text[:20].decode(errors="replace")
    return Fault(
        "printf_format",
        f"printf: no conversion at {shown!r}; CUDA knows %[flags][width][.precision][h, l, ll] and one of "
        "c d i o u x X p e E f F g G a A s, and %%",
    )
