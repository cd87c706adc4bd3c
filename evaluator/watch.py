"""What a submission may not replace or leave running in the worker's process (worker side).

All of this is Python looking at Python in a process that belongs to the submission: it catches what the
published exploits do, not what native code could. The judge relies on none of it.
"""

from __future__ import annotations

import builtins
import json
import os
import socket
import struct
import sys
import threading
import time
from types import ModuleType
from typing import Any

import torch

_frames = sys._current_frames
_identity = threading.get_ident

_WATCHED: tuple[tuple[Any, str, str], ...] = (
    (builtins, "builtins", "len type isinstance getattr sum min max list dict zip"),
    (time, "time", "perf_counter perf_counter_ns monotonic monotonic_ns time time_ns sleep"),
    (os, "os", "read write getpid _exit kill fork listdir"),
    (sys, "sys", "_getframe _current_frames"),
    (json, "json", "loads dumps"),
    (struct, "struct", "pack unpack"),
    (socket, "socket", "socket send_fds recv_fds"),
    (
        torch,
        "torch",
        "Tensor empty empty_like empty_strided zeros zeros_like full randn rand randint equal allclose "
        "isclose eq frombuffer from_numpy as_strided manual_seed tensor clone",
    ),
    (
        torch.Tensor,
        "torch.Tensor",
        "cpu to clone copy_ view data_ptr detach as_strided set_ numpy stride storage_offset untyped_storage "
        "element_size is_contiguous contiguous __getattribute__ double float fill_ item equal allclose "
        "isclose",
    ),
    (
        torch.cuda,
        "torch.cuda",
        "Event Stream stream synchronize current_stream default_stream set_stream mem_get_info "
        "memory_allocated memory_reserved empty_cache get_device_properties",
    ),
    (torch.cuda.Event, "torch.cuda.Event", "record elapsed_time synchronize query wait"),
    (torch.cuda.Stream, "torch.cuda.Stream", "synchronize record_event wait_event wait_stream"),
)
_OWN = "evaluator."
_MODULES = ("torch", "torch.cuda", "time", "os", "sys", "json", "socket", "struct", "builtins", "threading")


class Watch:
    """The watched functions as they are now; `changed` says which are no longer."""

    def __init__(self) -> None:
        look = _look()
        self._seen = {name: mark for name, mark, _ in look}
        self._held = [value for _, _, value in look]  # so that no other object gets their identities
        self._modules = {name: sys.modules.get(name) for name in (*_MODULES, *_own_modules())}

    def changed(self) -> list[str]:
        """Names of what was replaced, at most eight."""
        now = {name: mark for name, mark, _ in _look()}
        found = [name for name, mark in self._seen.items() if now.get(name) != mark]
        found += [
            f"sys.modules[{name!r}]"
            for name, module in self._modules.items()
            if sys.modules.get(name) is not module
        ]
        return found[:8]


def _look() -> list[tuple[str, tuple[int, int], Any]]:
    marks: list[tuple[str, tuple[int, int], Any]] = []

    def note(name: str, value: Any) -> None:
        marks.append((name, _mark(value), value))

    for owner, name, attributes in _WATCHED:
        for attribute in attributes.split():
            note(f"{name}.{attribute}", getattr(owner, attribute, None))
    for name in _own_modules():
        module = sys.modules[name]
        for attribute, value in list(vars(module).items()):
            if isinstance(value, type) and value.__module__ == name:
                for member, function in list(vars(value).items()):
                    if callable(function):
                        note(f"{name}.{attribute}.{member}", function)
            elif callable(value) or isinstance(value, ModuleType):
                note(f"{name}.{attribute}", value)
    return marks


def _mark(value: Any) -> tuple[int, int]:
    """A function's identity and its code's. Bound and built-in methods are new objects at every look."""
    function = getattr(value, "__func__", value)
    if not hasattr(function, "__code__") and hasattr(value, "__self__") and hasattr(value, "__name__"):
        return hash((value.__name__, id(value.__self__))), 0
    return id(function), id(getattr(function, "__code__", None))


def _own_modules() -> list[str]:
    return sorted(name for name in sys.modules if name.startswith(_OWN))


def running_threads(submission: str) -> list[str]:
    """Threads other than this one that are inside the submission's code, as `name in function`."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    found = []
    for ident, top in _frames().items():
        if ident == _identity():
            continue
        frame: Any = top
        while frame is not None:
            if frame.f_code.co_filename == submission:
                found.append(f"{names.get(ident, 'thread')} in {frame.f_code.co_name}"[:100])
                break
            frame = frame.f_back
    return found[:8]
