"""CuTe-DSL without a GPU: compiled functions launch into the simulated device.

The only module that knows CuTe-DSL's insides (nvidia-cutlass-dsl 4.5 to 4.8). What it relies on:

- `base_dsl.compiler.Compiler.compile(module, pipeline, …)` lowers a module to a cubin; the pipeline option
  `dump-ptx-path='P'` leaves the PTX as `P.<arch>.ptx` (it ends in a NUL byte).
- `Compiler.jit(module, …)` wraps the lowered module in an MLIR ExecutionEngine. Its host code reaches CUDA
  through functions that `libcute_dsl_runtime.so` implements over the driver (`_cudaLibraryLoadData`,
  `_cudaLaunchKernelEx`, …). Built without that library, the engine takes the functions below instead.
- `CudaDialectJitCompiledFunction.to` loads the kernels of a compiled function on its first call;
  `JitExecutor.run_compiled_program` is where every call of it passes.
- The DSL singletons read their environment once, into `envar`.

The functions given to engines serve whichever simulated device is active when they are called, so a function
compiled under one device may be called under the next one of the same process.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from b200sim.driver.launch import Launch, decode_launch, read_pointers
from b200sim.driver.patches import Patches
from b200sim.faults import Fault, Unsupported
from b200sim.gpus import FAMILY_TARGETS, GPUS, Gpu

OnLaunch = Callable[[Launch], None]

_SUCCESS = 0
_NO_DEVICE = 100
_INVALID_HANDLE = 400
_LAUNCH_FAILURE = 719
_MAX_SHARED_BYTES_PER_BLOCK_OPTIN = 97
_REGISTER_OPTION = re.compile(r"--?(?:minnctapersm|maxntid|override-directive-values)")


class _Session:
    """What is active between entering and leaving `cutedsl_launches_into`."""

    def __init__(self, on_launch: OnLaunch, gpu: Gpu) -> None:
        self.on_launch = on_launch
        self.gpu = gpu
        self.error: BaseException | None = None
        self.captured_ptx: list[str] = []


class _Library:
    """The kernels of one compiled function: the PTX texts of its modules."""

    def __init__(self, ptx: list[str]) -> None:
        self._ptx = ptx

    def text_with(self, entry: str) -> str:
        pattern = re.compile(rf"\.entry\s+{re.escape(entry)}\s*\(")
        for text in self._ptx:
            if pattern.search(text):
                return text
        raise Fault("no_such_kernel", f"no PTX was captured for kernel {entry}")


class _Kernel:
    def __init__(self, library: _Library, name: str) -> None:
        self.name = name
        self.ptx = library.text_with(name)


_active: _Session | None = None
_handles = itertools.count(0x1000)
_libraries: dict[int, _Library] = {}
_kernels: dict[int, _Kernel] = {}
# ctypes callbacks must outlive the engines that call them.
_callbacks: list[Any] = []


@contextlib.contextmanager
def cutedsl_launches_into(on_launch: OnLaunch, gpu: Gpu) -> Iterator[None]:
    """Make CuTe-DSL compile for `gpu` and every launch call `on_launch`, until the block ends.

    An exception that `on_launch` raises comes out of the call of the compiled function as it is.
    """
    global _active
    if _active is not None:
        raise RuntimeError("a simulated device is already active in this process")
    patches = Patches()
    session = _Session(on_launch, gpu)
    try:
        _patch_dsl(patches, session)
        _active = session
        yield
    finally:
        _active = None
        patches.restore()


# ----------------------------------------------------------------------------------------------------
# What is replaced


def _patch_dsl(patches: Patches, session: _Session) -> None:
    import cutlass.cute
    import cutlass.utils
    from cutlass.base_dsl import compiler, dsl, env_manager, jit_executor
    from cutlass.cutlass_dsl import cuda_jit_executor

    for instance in list(dsl.DSLSingletonMeta._instances.values()):
        _configure(patches, instance.envar, session.gpu)
        patches.set(instance, "jit_cache", type(instance.jit_cache)())
    _configure_new_environments(patches, env_manager.EnvironmentVarManager, session.gpu)
    if hasattr(dsl, "load_cache_from_path"):
        patches.set(dsl, "load_cache_from_path", lambda *_args, **_kwargs: None)
    patches.set(compiler.Compiler, "compile", _capturing_compile(session, compiler.Compiler.compile))
    patches.set(compiler.Compiler, "jit", _engine_without_driver(session))
    patches.set(compiler.CompileOptions, "enable_tvm_ffi", property(_no_tvm_ffi))
    for owner, name in (
        (jit_executor.JitExecutor, "run_compiled_program"),
        (cuda_jit_executor.CudaDialectJitCompiledFunction, "to"),
    ):
        patches.set(owner, name, _reraising(session, getattr(owner, name)))
    function = cuda_jit_executor.CudaDialectJitCompiledFunction
    patches.set(function, "_load_cuda_library", _keeping_no_library(function._load_cuda_library))
    patches.set(cutlass.utils.HardwareInfo, "get_max_active_clusters", _max_active_clusters(session.gpu))


def _configure(patches: Patches, environment: Any, gpu: Gpu) -> None:
    # 4.8 has a property over `_arch`, 4.5 a plain attribute.
    patches.set(environment, "_arch" if "_arch" in vars(environment) else "arch", gpu.compile_for)
    patches.set(environment, "lineinfo", True)
    patches.set(environment, "disable_file_caching", True)


def _configure_new_environments(patches: Patches, manager: Any, gpu: Gpu) -> None:
    original = manager.__init__

    @functools.wraps(original)
    def configured_init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        _configure(patches, self, gpu)

    patches.set(manager, "__init__", configured_init)


def _no_tvm_ffi(options: Any) -> bool:
    for option, setting in options.options.items():
        if option.__name__ == "EnableTVMFFI" and setting.value:
            raise Unsupported(
                "TVM-FFI (compile option --enable-tvm-ffi, CUTE_DSL_ENABLE_TVM_FFI) is not simulated; "
                "compile without it"
            )
    return False


def _max_active_clusters(gpu: Gpu) -> Callable[..., int]:
    def get_max_active_clusters(_self: Any, cluster_size: int, stream: Any = None) -> int:
        if not 0 < cluster_size <= 32:
            raise ValueError(f"Cluster size must be between 1 and 32, {cluster_size} is not supported")
        return gpu.max_active_clusters(cluster_size)

    return get_max_active_clusters


def _capturing_compile(session: _Session, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def compile_and_keep_ptx(self: Any, module: Any, pipeline: str, *args: Any, **kwargs: Any) -> Any:
        if "cute-to-nvvm{" not in pipeline:
            return original(self, module, pipeline, *args, **kwargs)
        with tempfile.TemporaryDirectory(prefix="b200sim-") as folder:
            redirected, wanted = _dump_ptx_into(pipeline, f"{folder}/kernel")
            with _other_architectures_named(session.gpu):
                result = original(self, module, redirected, *args, **kwargs)
            files = sorted(Path(folder).glob("*.ptx"))
            session.captured_ptx = [file.read_bytes().replace(b"\0", b"").decode() for file in files]
            for file in files if wanted else ():
                shutil.copyfile(file, wanted + file.name.removeprefix("kernel"))
        _refuse_register_options(pipeline, session.captured_ptx)
        return result

    return compile_and_keep_ptx


@contextlib.contextmanager
def _other_architectures_named(gpu: Gpu) -> Iterator[None]:
    """An instruction that the assembler does not know for this GPU becomes a Fault "no_kernel_image"."""
    try:
        yield
    except Exception as error:
        found = re.search(r"Instruction '([^']+)' not supported on \.target '(\w+)'", str(error))
        if found is None:
            raise
        family = found[1].partition(".")[0]
        others = [g for g in GPUS.values() if g.compile_for in FAMILY_TARGETS.get(family, ())]
        advice = "".join(f"; a simulated {g.short_name} has it (eval.py --gpu {g.key})" for g in others)
        raise Fault(
            "no_kernel_image",
            f"{found[1]} is no instruction of {gpu.name}, whose target is {found[2]}{advice}",
        ) from error


def _refuse_register_options(pipeline: str, ptx: list[str]) -> None:
    """Options of ptxas that change what setmaxnreg does, so that the PTX alone no longer says it."""
    options = re.search(r"ptx-options='([^']*)'", pipeline)
    found = _REGISTER_OPTION.search(options[1]) if options else None
    if found and any("setmaxnreg" in text for text in ptx):
        raise Unsupported(
            f"ptxas option {found[0]} with a kernel that uses setmaxnreg: it changes how many registers a "
            "thread starts with; leave it out and say launch(..., min_blocks_per_mp=...)"
        )


def _dump_ptx_into(pipeline: str, path: str) -> tuple[str, str]:
    """The pipeline that dumps PTX to `path`, and the path the submission asked for ("" when it did not)."""
    option = re.search(r"dump-ptx-path='([^']*)'", pipeline)
    if option:
        return pipeline.replace(option[0], f"dump-ptx-path='{path}'"), option[1]
    return pipeline.replace("cute-to-nvvm{", f"cute-to-nvvm{{dump-ptx-path='{path}' ", 1), ""


def _engine_without_driver(session: _Session) -> Callable[..., Any]:
    def jit(self: Any, module: Any, opt_level: int = 2, shared_libs: Any = ()) -> Any:
        engine = self.execution_engine.ExecutionEngine(module, opt_level=opt_level, shared_libs=[])
        library = _Library(session.captured_ptx)
        session.captured_ptx = []
        functions = {**_ENTRY_POINTS, "_cudaLibraryLoadData": _library_loader(library)}
        for name in _undefined_functions(module):
            function = functions.get(name) or _unknown_entry_point(name)
            engine.raw_register_runtime(name, ctypes.cast(function, ctypes.c_void_p))
        return engine

    return jit


def _undefined_functions(module: Any) -> list[str]:
    """The CUDA functions that the lowered host code calls and does not define."""
    names = []
    for operation in module.body.operations:
        if operation.operation.name == "llvm.func" and not list(operation.operation.regions[0].blocks):
            name = operation.operation.attributes["sym_name"].value
            if name.startswith("_cu"):
                names.append(name)
    return names


def _reraising(session: _Session, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        session.error = None
        try:
            return original(self, *args, **kwargs)
        finally:
            # Replaces the DSL's own error, which only says that a launch failed.
            error, session.error = session.error, None
            if error is not None:
                raise error.with_traceback(error.__traceback__) from None

    return run


def _keeping_no_library(original: Callable[..., Any]) -> Callable[..., list[Any]]:
    """Load the kernels, but leave the compiled function no library handle to give to a real driver later."""

    @functools.wraps(original)
    def load_cuda_library(self: Any) -> list[Any]:
        original(self)
        return []

    return load_cuda_library


# ----------------------------------------------------------------------------------------------------
# The CUDA runtime under the host code

_I32, _PTR = ctypes.c_int32, ctypes.c_void_p


def _entry_point(*argument_types: Any) -> Callable[[Callable[..., int]], Any]:
    """A C function that returns a CUDA error code; what the Python function raises is kept for the caller."""
    prototype = ctypes.CFUNCTYPE(_I32, *argument_types)

    def wrap(function: Callable[..., int]) -> Any:
        @functools.wraps(function)
        def guarded(*arguments: Any) -> int:
            if _active is None:
                return _NO_DEVICE
            if _active.error is not None:
                return _LAUNCH_FAILURE
            try:
                return function(*arguments)
            except BaseException as error:  # a ctypes callback would drop it
                _active.error = error
                return _LAUNCH_FAILURE

        callback = prototype(guarded)
        _callbacks.append(callback)
        return callback

    return wrap


def _store(address: int, value: int, kind: Any) -> None:
    kind.from_address(address).value = value


def _library_loader(library: _Library) -> Any:
    @_entry_point(_PTR, _PTR, _PTR, _PTR, _I32, _PTR, _PTR, _I32)
    def library_load_data(out: int, *_code_and_options: Any) -> int:
        handle = next(_handles)
        _libraries[handle] = library
        _store(out, handle, ctypes.c_uint64)
        return _SUCCESS

    return library_load_data


@_entry_point(_PTR, _PTR, _PTR)
def _library_get_kernel(out: int, library: int, name: int) -> int:
    handle = next(_handles)
    _kernels[handle] = _Kernel(_libraries[library], ctypes.string_at(name).decode())
    _store(out, handle, ctypes.c_uint64)
    return _SUCCESS


@_entry_point(_PTR, _PTR, _PTR)
def _launch_kernel_ex(config: int, kernel: int, args: int) -> int:
    if kernel not in _kernels:
        return _INVALID_HANDLE
    found = _kernels[kernel]
    _deliver(decode_launch(found.ptx, found.name, config, args))
    return _SUCCESS


@_entry_point(_PTR, _I32, _I32, _I32, _I32, _I32, _I32, _PTR, ctypes.c_int64, _PTR)
def _launch_kernel(kernel: int, *dims_args_shared_stream: Any) -> int:
    gx, gy, gz, bx, by, bz, args, shared, _stream = dims_args_shared_stream
    if kernel not in _kernels:
        return _INVALID_HANDLE
    found = _kernels[kernel]
    launch = Launch(found.ptx, found.name, (gx, gy, gz), (bx, by, bz), shared_bytes=shared)
    launch.args = read_pointers(args, len(launch.parameters()))
    _deliver(launch)
    return _SUCCESS


def _deliver(launch: Launch) -> None:
    assert _active is not None
    launch.check(_active.gpu)
    _active.on_launch(launch)


def _gpu() -> Gpu:
    """The active device's, in functions that run only while there is one."""
    assert _active is not None
    return _active.gpu


@_entry_point(_PTR, _I32, _I32)
def _device_get_attribute(out: int, attribute: int, _device: int) -> int:
    gpu = _gpu()
    if attribute not in gpu.attributes():
        raise Unsupported(f"device attribute {attribute} of the simulated {gpu.short_name} is not known")
    _store(out, gpu.attributes()[attribute], _I32)
    return _SUCCESS


@_entry_point(_PTR)
def _get_device(out: int) -> int:
    _store(out, 0, _I32)
    return _SUCCESS


@_entry_point(_PTR, _I32, _PTR, _I32)
def _kernel_get_attribute(out: int, attribute: int, kernel: int, _device: int) -> int:
    if attribute != 1:  # CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES: static shared memory
        raise Unsupported(f"kernel attribute {attribute} of {_kernels[kernel].name} is not known")
    _store(out, _static_shared_bytes(_kernels[kernel].ptx), _I32)
    return _SUCCESS


@_entry_point(_PTR, _I32, _I32)
def _func_set_attribute(_kernel: int, _attribute: int, _value: int) -> int:
    return _SUCCESS


@_entry_point(_PTR, _I32, _I32, _I32)
def _kernel_set_attribute_for_device(_kernel: int, _attribute: int, _value: int, _device: int) -> int:
    return _SUCCESS


@_entry_point(_PTR, _PTR, _I32, ctypes.c_int64)
def _max_active_blocks(out: int, _kernel: int, threads: int, shared: int) -> int:
    gpu = _gpu()
    by_shared = gpu.shared_bytes_per_sm // (shared + gpu.shared_bytes_reserved)
    by_threads = gpu.max_threads_per_sm // max(threads, 1)
    _store(out, min(by_shared, by_threads, gpu.max_blocks_per_sm), _I32)
    return _SUCCESS


def _static_shared_bytes(ptx: str) -> int:
    """Bytes of `.shared` arrays with a size (the dynamic one is declared `.extern` with an empty size)."""
    sizes = re.findall(r"(?<!extern )\.shared\s+(?:\.align\s+\d+\s+)?\.[a-z](\d+)\s+[\w$]+\[(\d+)\]", ptx)
    return sum(int(bits) // 8 * int(count) for bits, count in sizes)


@functools.cache
def _unknown_entry_point(name: str) -> Any:
    @_entry_point()
    def unknown() -> int:
        version = getattr(sys.modules.get("cutlass"), "__version__", "unknown")
        raise Unsupported(f"host code of CuTe-DSL {version} calls {name}, which the simulated driver lacks")

    return unknown


_ENTRY_POINTS: dict[str, Any] = {
    "_cudaLibraryGetKernel": _library_get_kernel,
    "_cudaLaunchKernelEx": _launch_kernel_ex,
    "_cudaLaunchKernel": _launch_kernel,
    "_cudaDeviceGetAttribute": _device_get_attribute,
    "_cudaGetDevice": _get_device,
    "_cuKernelGetAttribute": _kernel_get_attribute,
    "_cudaFuncSetAttribute": _func_set_attribute,
    "_cudaKernelSetAttributeForDevice": _kernel_set_attribute_for_device,
    "_cudaOccupancyMaxActiveBlocksPerMultiprocessor": _max_active_blocks,
}
