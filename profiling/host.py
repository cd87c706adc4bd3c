"""Host time of a call, per part, with the launch stubbed out: what Python and compiled host code cost.

The kernel is compiled for the simulated device first. Then everything runs on plain tensors in an ordinary
torch, with a C function that does nothing in place of cudaLaunchKernelEx. On a machine with a GPU:
`profiling.gpu_host`.
"""

from __future__ import annotations

import contextlib
import ctypes
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

from b200sim.driver import cutedsl, simulated_device

CALLS, ROUNDS = 100, 15

# Parts of a call that are functions of the submission, by their names there
CHECKS = ("checked_address",)
PLAN = ("plan", "planned", "processor_count", "compiled")

Thunk = Callable[[], Any]


@dataclass(frozen=True)
class Times:
    """Microseconds of a call: the median of several rounds, and the best one (other work only adds)."""

    median: float
    best: float


def times(function: Thunk, settle: Thunk = lambda: None, calls: int = CALLS) -> Times:
    """`settle` runs before each round of `calls` calls, outside the time."""
    function()
    rounds = []
    for _ in range(ROUNDS):
        settle()
        started = time.perf_counter()
        for _ in range(calls):
            function()
        rounds.append((time.perf_counter() - started) / calls * 1e6)
    return Times(statistics.median(rounds), min(rounds))


class _NoMemory:
    def add(self, name: str, address: int, nbytes: int, writable: bool = True) -> None: ...

    def remove(self, address: int) -> None: ...


def measure(load: Callable[[], ModuleType], data: tuple[Any, ...]) -> dict[str, float]:
    """Microseconds (best of several rounds) of one call of custom_kernel(data) and of its parts, see `parts`.

    `load` imports the submission. Its parts are shown where it calls a function compiled by the DSL.
    """
    with _launches_into_nothing(), simulated_device(lambda _: None, _NoMemory()) as tensors:
        module = load()
        moved = (
            [tuple(tensors.to_device("operand", t) for t in group) for group in data[0]],
            data[1],
            [tuple(tensors.to_device("scales", t) for t in group) for group in data[2]],
            data[3],
        )
        module.custom_kernel(moved)
    with _tensors_are_cuda():
        return shares({name: times(thunk).best for name, thunk in parts(module, data).items()})


def parts(module: ModuleType, data: tuple[Any, ...]) -> dict[str, Thunk]:
    """What to time, each alone: a call of custom_kernel(data) and what it calls, with the same arguments.

    call: all of it. checks: of the tensors. plan: look-ups of the plan, the device and the compiled function.
    function: call of the compiled function, i.e. the DSL's Python and compiled_host_code, which encodes
    descriptors, writes the kernel's parameters and launches.
    """
    noted: dict[str, list[Thunk]] = {"checks": [], "plan": []}
    executed: list[tuple[Any, Any]] = []
    functions: list[tuple[Any, tuple[Any, ...]]] = []
    with _module_calls_noted(module, noted), _compiled_calls_noted(functions, executed):
        module.custom_kernel(data)
    found: dict[str, Thunk] = {"call": lambda: module.custom_kernel(data)}
    found |= {name: _one_after_another(thunks) for name, thunks in noted.items() if thunks}
    if functions:
        function, arguments = functions[-1]
        executor, exe_args = executed[-1]
        packed = executor._get_invoke_packed_args(exe_args)
        found["function"] = lambda: function(*arguments)
        found["compiled_host_code"] = lambda: executor.capi_func(packed)
    return found


def shares(measured: dict[str, float]) -> dict[str, float]:
    """Of measured parts, those that make up the call. arguments: what the DSL's Python does with them; rest:
    loops, the lists that are handed over and returned."""
    found = dict(measured)
    if "function" in found:
        function = found.pop("function")
        found["arguments"] = function - found["compiled_host_code"]
        found["rest"] = found["call"] - function - found.get("checks", 0.0) - found.get("plan", 0.0)
    return {name: round(value, 2) for name, value in found.items()}


def _one_after_another(thunks: list[Thunk]) -> Thunk:
    def run() -> None:
        for thunk in thunks:
            thunk()

    return run


@contextlib.contextmanager
def _launches_into_nothing() -> Iterator[None]:
    original = dict(cutedsl._ENTRY_POINTS)
    cutedsl._ENTRY_POINTS["_cudaLaunchKernelEx"] = nothing()
    try:
        yield
    finally:
        cutedsl._ENTRY_POINTS.update(original)


def nothing() -> Any:
    """A C function that reports success: pthread_equal compares two arguments, which differ, returning 0."""
    return ctypes.CDLL(None).pthread_equal


@contextlib.contextmanager
def _module_calls_noted(module: ModuleType, noted: dict[str, list[Thunk]]) -> Iterator[None]:
    names = [(part, name) for part, group in (("checks", CHECKS), ("plan", PLAN)) for name in group]
    originals = {name: getattr(module, name) for _, name in names if hasattr(module, name)}

    def noting(part: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            noted[part].append(lambda: original(*arguments))
            return original(*arguments)

        return call

    for part, name in names:
        if name in originals:
            setattr(module, name, noting(part, originals[name]))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(module, name, original)


@contextlib.contextmanager
def _compiled_calls_noted(
    functions: list[tuple[Any, tuple[Any, ...]]], executed: list[tuple[Any, Any]]
) -> Iterator[None]:
    """Calls of compiled functions, and what their executors get."""
    from cutlass.base_dsl import jit_executor

    function, executor = jit_executor.JitCompiledFunction, jit_executor.JitExecutor
    call, run = function.__call__, executor.run_compiled_program

    def noted_call(self: Any, *arguments: Any, **named: Any) -> Any:
        functions.append((self, arguments))
        return call(self, *arguments, **named)

    def noted_run(self: Any, exe_args: Any) -> Any:
        executed.append((self, exe_args))
        return run(self, exe_args)

    setattr(function, "__call__", noted_call)  # noqa: B010 (mypy refuses the plain assignment)
    setattr(executor, "run_compiled_program", noted_run)  # noqa: B010
    try:
        yield
    finally:
        setattr(function, "__call__", call)  # noqa: B010
        setattr(executor, "run_compiled_program", run)  # noqa: B010


@contextlib.contextmanager
def _tensors_are_cuda() -> Iterator[None]:
    """Plain tensors answer as CUDA tensors would."""
    torch.Tensor.is_cuda = True  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        del torch.Tensor.is_cuda
