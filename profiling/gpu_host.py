"""Host time of a call on a machine with a GPU, also of a kernel compiled for a GPU that is not there.

    CUTE_DSL_ARCH=sm_100a CUTE_DSL_KEEP=ptx python -m profiling.gpu_host SUBMISSION --sizes 80,4096,7168 ...

Prints one line of JSON: the GPU, and per launch mode microseconds of the call and its parts (`host.parts`):

nothing   cudaLaunchKernelEx is replaced by a C function that does nothing
empty     it launches a kernel that returns at once, with the parameters, grid, cluster, shared memory and
          attributes of the submission's, compiled by the driver for the GPU that is there
real      it launches the submission's kernel

Everything else is what runs in a real call: tensors on the device, torch, the DSL's executor, the compiled
host code. `scripts/host_cost` runs the modes in processes of their own and makes a table.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from profiling import host
from profiling.run import inputs, load

MODES = ("nothing", "empty", "real")
CALLS = 20  # launches between two waits for the device: a short queue, which never makes the host wait

_LOAD = "_cudaLibraryLoadData"
_LAUNCH = "_cudaLaunchKernelEx"
_LOAD_TYPE = ctypes.CFUNCTYPE(
    ctypes.c_int32, *[ctypes.c_void_p] * 4, ctypes.c_int32, *[ctypes.c_void_p] * 2, ctypes.c_int32
)


def stand_in(ptx: str, target: str) -> str:
    """PTX with the same kernels, parameters and block sizes, that return at once, for `target`."""
    entries = re.findall(r"\.entry\s+([\w$]+)\s*\(([^)]*)\)([^{;]*)\{", ptx)
    if not entries:
        raise ValueError("the submission's PTX has no kernel")
    text = f".version 8.3\n.target {target}\n.address_size 64\n"
    for name, parameters, directives in entries:
        block = "".join(re.findall(r"\.reqntid[ \d,]+", directives))
        text += f".visible .entry {name}({parameters})\n{block}\n{{ ret; }}\n"
    return text


class Runtime:
    """The functions that compiled host code reaches CUDA through, as `mode` wants them."""

    def __init__(self, mode: str, libraries: list[ctypes.CDLL], target: str) -> None:
        self.mode, self.libraries, self.target = mode, libraries, target
        self.ptx = ""  # of the function that is being loaded
        self.kept: list[Any] = []  # callbacks and texts that C code points to

    def function(self, name: str) -> Any:
        if name == _LAUNCH and self.mode == "nothing":
            return host.nothing()
        if name == _LOAD and self.target:
            self.kept.append(_LOAD_TYPE(self._load_stand_in))
            return self.kept[-1]
        return self._original(name)

    def _original(self, name: str) -> Any:
        for library in self.libraries:
            if hasattr(library, name):
                return getattr(library, name)
        raise LookupError(f"none of the DSL's libraries has {name}, which the compiled host code calls")

    def _load_stand_in(self, out: int, *_code_and_options: Any) -> int:
        text = ctypes.create_string_buffer(stand_in(self.ptx, self.target).encode())
        self.kept.append(text)
        load_data = _LOAD_TYPE(ctypes.cast(self._original(_LOAD), ctypes.c_void_p).value or 0)
        return load_data(out, ctypes.addressof(text), None, None, 0, None, None, 0)


def redirect(runtime: Runtime) -> None:
    """From now on compiled functions reach CUDA through `runtime`.

    Relies on nvidia-cutlass-dsl as b200sim.driver.cutedsl does: `Compiler.jit` makes the engine,
    `CudaDialectJitCompiledFunction._load_cuda_library` loads the kernels of a function on its first call.
    """
    from cutlass.base_dsl import compiler
    from cutlass.cutlass_dsl import cuda_jit_executor

    from b200sim.driver.cutedsl import _undefined_functions

    def jit(self: Any, module: Any, opt_level: int = 2, shared_libs: Any = ()) -> Any:
        engine = self.execution_engine.ExecutionEngine(module, opt_level=opt_level, shared_libs=[])
        runtime.libraries = runtime.libraries or [ctypes.CDLL(path) for path in shared_libs]
        for name in _undefined_functions(module):
            engine.raw_register_runtime(name, ctypes.cast(runtime.function(name), ctypes.c_void_p))
        return engine

    compiled = cuda_jit_executor.CudaDialectJitCompiledFunction
    original = compiled._load_cuda_library

    def load_cuda_library(self: Any) -> Any:
        runtime.ptx = self.__ptx__ or ""
        return original(self)

    setattr(compiler.Compiler, "jit", jit)  # noqa: B010 (mypy refuses the plain assignment)
    setattr(compiled, "_load_cuda_library", load_cuda_library)  # noqa: B010


def measure(
    submission: Path, sizes: list[tuple[int, int, int]], settle: Callable[[], Any], device: str
) -> dict[str, Any]:
    """host.Times of every part as a dictionary, on tensors of `device`."""
    abc, plain, scales, problem = inputs(sizes)
    data = (
        [tuple(_moved(tensor, device) for tensor in group) for group in abc],
        plain,
        [tuple(_moved(tensor, device) for tensor in group) for group in scales],
        problem,
    )
    module = load(submission)
    module.custom_kernel(data)
    settle()
    found = host.parts(module, data)
    return {name: asdict(host.times(thunk, settle, CALLS)) for name, thunk in found.items()}


def _moved(tensor: torch.Tensor, device: str) -> torch.Tensor:
    """As bytes: not every torch copies 4-bit types."""
    if tensor.element_size() > 1:
        return tensor.to(device)
    return tensor.view(torch.uint8).to(device).view(tensor.dtype)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("submission", type=Path)
    parser.add_argument("--mode", choices=MODES, default="nothing")
    parser.add_argument("--sizes", nargs="+", required=True, metavar="M,N,K", help="of each group")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        parser.error("no CUDA device: `eval.py --mode profile` measures without one")
    sizes = [tuple(map(int, size.split(","))) for size in options.sizes]
    major, minor = torch.cuda.get_device_capability()
    here = f"sm_{major}{minor}"
    foreign = not os.environ.get("CUTE_DSL_ARCH", here).startswith(here)
    if foreign and options.mode == "real":
        parser.error(f"{os.environ['CUTE_DSL_ARCH']} does not run here: --mode empty")
    redirect(Runtime(options.mode, [], here if foreign or options.mode == "empty" else ""))
    found = measure(options.submission, sizes, torch.cuda.synchronize, "cuda")  # type: ignore[arg-type]
    print(json.dumps({"gpu": torch.cuda.get_device_name(), "mode": options.mode, "us": found}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
