"""Host time of a call with the launch stubbed out: what the submission's Python and compiled host code cost.

The kernel is compiled for the simulated device first. Then everything runs on plain tensors in an ordinary
torch, with a C function that does nothing in place of cudaLaunchKernelEx.
"""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from b200sim.driver import cutedsl, simulated_device

CALLS, ROUNDS = 100, 15


class _NoMemory:
    def add(self, name: str, address: int, nbytes: int, **_: Any) -> None: ...

    def remove(self, address: int) -> None: ...


def microseconds(function: Callable[[], Any]) -> float:
    """Mean time of a call in the best of several rounds: other work on the machine only adds."""
    function()
    rounds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(CALLS):
            function()
        rounds.append((time.perf_counter() - started) / CALLS * 1e6)
    return round(min(rounds), 2)


def measure(load: Callable[[], Any], data: tuple[Any, ...]) -> dict[str, float]:
    """Microseconds of one call of custom_kernel(data), and of the compiled host code in it.

    `load` imports the submission. Compiled functions are those that the DSL hands out during the first call.
    """
    functions: list[tuple[Any, tuple[Any, ...]]] = []
    with _launches_into_nothing(), simulated_device(lambda _: None, _NoMemory()) as tensors:
        module = load()
        moved = (
            [tuple(tensors.to_device("operand", t) for t in group) for group in data[0]],
            data[1],
            [tuple(tensors.to_device("scales", t) for t in group) for group in data[2]],
            data[3],
        )
        with _calls_noted(functions):
            module.custom_kernel(moved)
    with _tensors_are_cuda():
        parts = {"call": microseconds(lambda: module.custom_kernel(data))}
        if functions:
            function, arguments = functions[-1]
            parts["compiled_host_code"] = microseconds(lambda: function(*arguments))
            parts["python"] = round(parts["call"] - parts["compiled_host_code"], 2)
    return parts


@contextlib.contextmanager
def _launches_into_nothing() -> Iterator[None]:
    """pthread_equal compares its first two arguments, which differ, and returns 0: success."""
    original = dict(cutedsl._ENTRY_POINTS)
    cutedsl._ENTRY_POINTS["_cudaLaunchKernelEx"] = ctypes.CDLL(None).pthread_equal
    try:
        yield
    finally:
        cutedsl._ENTRY_POINTS.update(original)


@contextlib.contextmanager
def _calls_noted(functions: list[tuple[Any, tuple[Any, ...]]]) -> Iterator[None]:
    from cutlass.base_dsl import jit_executor

    kind = jit_executor.JitCompiledFunction
    original = kind.__call__

    def noted(self: Any, *arguments: Any, **named: Any) -> Any:
        functions.append((self, arguments))
        return original(self, *arguments, **named)

    setattr(kind, "__call__", noted)  # noqa: B010 (mypy refuses the plain assignment)
    try:
        yield
    finally:
        setattr(kind, "__call__", original)  # noqa: B010


@contextlib.contextmanager
def _tensors_are_cuda() -> Iterator[None]:
    """Plain tensors answer as CUDA tensors would."""
    torch.Tensor.is_cuda = True  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        del torch.Tensor.is_cuda
