"""CuTe-DSL functions compiled and called without a GPU: what reaches the simulated device."""

import importlib
import struct
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from b200sim.faults import Fault, Unsupported

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def kernels(device):
    return importlib.import_module("driver_kernels")


@pytest.fixture
def numbers(device):
    return torch.zeros(128, dtype=torch.int32, device="cuda")


def pointer_to(tensor):
    import cutlass
    from cutlass.cute.runtime import make_ptr

    return make_ptr(cutlass.Int32, tensor.data_ptr(), cutlass.cute.AddressSpace.gmem, assumed_align=16)


def compiled(function, *args, **kwargs):
    import cutlass.cute as cute

    return cute.compile(function, *args, **kwargs)


def check_cluster_launch(device, address, number):
    launch = device.recorder.launches[-1]
    assert (launch.grid, launch.block, launch.cluster) == ((number, 6, 4), (128, 1, 1), (2, 1, 2))
    assert (launch.shared_bytes, launch.pdl, launch.cooperative) == (4096, True, False)
    assert "store_thread_plus" in launch.entry
    assert device.recorder.values[-1] == [struct.pack("<Q", address), struct.pack("<i", number)]


@pytest.mark.parametrize("options", [None, "--opt-level 2"])
def test_a_compiled_function_launches_what_it_asked_for(device, kernels, numbers, options):
    pointer = pointer_to(numbers)
    function = compiled(kernels.launch_cluster, pointer, 2, **({"options": options} if options else {}))
    for number in (4, 10):
        function(pointer, number)
        check_cluster_launch(device, numbers.data_ptr(), number)
    first, second = device.recorder.launches
    assert first.ptx is second.ptx


def test_a_jit_function_called_directly(device, kernels, numbers):
    import cutlass

    for number in (4, 6):
        kernels.launch_cluster(pointer_to(numbers), cutlass.Int32(number))
        check_cluster_launch(device, numbers.data_ptr(), number)


def test_several_functions_and_kernels_side_by_side(device, kernels, numbers):
    pointer = pointer_to(numbers)
    two, one = compiled(kernels.launch_two, pointer, 2), compiled(kernels.launch_cluster, pointer, 2)
    two(pointer, 5)
    one(pointer, 2)
    two(pointer, 7)
    names = [launch.entry.split("_ptr")[0] for launch in device.recorder.launches]
    plus, times = "kernel_cutlass_store_thread_plus", "kernel_cutlass_store_thread_times"
    assert names == [plus, times, plus, plus, times]
    assert [launch.cooperative for launch in device.recorder.launches] == [False, True, False, False, True]
    assert device.recorder.values[4][1] == struct.pack("<i", 7)


def test_tensors_through_dlpack(device, kernels):
    from cutlass.cute.runtime import from_dlpack

    tensors = [torch.full((32,), value, dtype=torch.float32, device="cuda") for value in (1, 2, 3)]
    arguments = [from_dlpack(tensor) for tensor in tensors]
    compiled(kernels.launch_add, *arguments)(*arguments)
    addresses = [struct.unpack_from("<Q", value)[0] for value in device.recorder.values[0]]
    assert addresses == [tensor.data_ptr() for tensor in tensors]


def test_ptx_is_for_the_b200_and_names_source_lines(device, kernels, numbers):
    kernels.launch_cluster(pointer_to(numbers), 2)
    ptx = device.recorder.launches[0].ptx
    source = Path(kernels.__file__)
    line = next(
        number for number, text in enumerate(source.read_text().splitlines(), 1) if "thread + number" in text
    )
    assert ".target sm_100a" in ptx
    assert "\0" not in ptx
    assert f'"{source}"' in ptx
    assert f".loc\t1 {line} " in ptx


def test_what_the_submission_asked_to_keep_is_kept(device, kernels, numbers, tmp_path):
    options = f"--keep-ptx --dump-dir={tmp_path}"
    function = compiled(kernels.launch_cluster, pointer_to(numbers), 2, options=options)
    function(pointer_to(numbers), 2)
    (file,) = tmp_path.glob("*.ptx")
    launched = device.recorder.launches[0].ptx
    assert file.read_text().replace("\0", "") == launched
    assert function.__ptx__.replace("\0", "") == launched


@pytest.mark.parametrize("way", ["compiled", "direct", "executor"])
@pytest.mark.parametrize("error", [Fault("boom", "on purpose"), ValueError("boom"), KeyboardInterrupt()])
def test_what_on_launch_raises_comes_out_as_it_is(device, kernels, numbers, way, error):
    def react(_launch):
        raise error

    pointer = pointer_to(numbers)
    function = compiled(kernels.launch_two, pointer, 2)
    call = {
        "compiled": lambda: function(pointer, 2),
        "direct": lambda: kernels.launch_two(pointer, 2),
        "executor": lambda: function.to(None)(pointer, 2),
    }[way]
    device.recorder.react = react
    with pytest.raises(type(error)) as caught:
        call()
    assert caught.value is error
    assert len(device.recorder.launches) == 1, "the second kernel of the function must not run"
    device.recorder.react = None
    call()
    assert len(device.recorder.launches) == 3


def test_a_launch_the_hardware_refuses(device, kernels, numbers):
    with pytest.raises(Fault, match=r"grid \(3, 6, 4\) is not a multiple of cluster \(2, 1, 2\)"):
        kernels.launch_cluster(pointer_to(numbers), 3)
    assert device.recorder.launches == []


def test_tvm_ffi_is_refused(device, kernels, numbers):
    with pytest.raises(Unsupported, match="TVM-FFI"):
        compiled(kernels.launch_cluster, pointer_to(numbers), 2, options="--enable-tvm-ffi")


def test_a_function_for_another_gpu_does_not_run(device, kernels, numbers):
    from cutlass.base_dsl.common import DSLRuntimeError

    function = compiled(kernels.launch_cluster, pointer_to(numbers), 2, options="--gpu-arch sm_90a")
    with pytest.raises(DSLRuntimeError, match="does not have a valid execution engine"):
        function(pointer_to(numbers), 2)
    assert device.recorder.launches == []


def test_hardware_info_reports_a_b200(device):
    import cutlass.utils

    info = cutlass.utils.HardwareInfo()
    assert info.get_device_multiprocessor_count() == 148
    assert info.get_max_active_clusters(1) == 148
    assert info.get_max_active_clusters(2) == 74
    assert 1 <= info.get_max_active_clusters(16) <= 148 // 16
    with pytest.raises(ValueError, match="33"):
        info.get_max_active_clusters(33)


def test_functions_outlive_their_device(open_device):
    with open_device() as first:
        kernels = importlib.import_module("driver_kernels")
        tensor = torch.zeros(128, dtype=torch.int32, device="cuda")
        function = compiled(kernels.launch_cluster, pointer_to(tensor), 2)
        function(pointer_to(tensor), 2)
    with pytest.raises(Exception) as between:
        function(pointer_to(tensor), 4)
    with open_device() as second:
        function(pointer_to(tensor), 6)
    assert not isinstance(between.value, Fault)
    assert [launch.grid[0] for launch in first.recorder.launches] == [2]
    assert [launch.grid[0] for launch in second.recorder.launches] == [6]


def test_nothing_stays_behind(open_device):
    import cuda.bindings.driver
    import cuda.bindings.runtime
    import cutlass.utils
    from cutlass.base_dsl import compiler, dsl, env_manager, jit_executor
    from cutlass.cutlass_dsl import cuda_jit_executor

    foreign = [
        *(cuda.bindings.driver, cuda.bindings.runtime, torch, torch.cuda, torch.cuda.nvtx, torch.accelerator),
        *(
            torch.utils.cpp_extension,
            dsl,
            compiler.Compiler,
            compiler.CompileOptions,
            cutlass.utils.HardwareInfo,
        ),
        *(jit_executor.JitExecutor, env_manager.EnvironmentVarManager),
        cuda_jit_executor.CudaDialectJitCompiledFunction,
    ]

    def state():
        attributes = [{name: id(value) for name, value in vars(owner).items()} for owner in foreign]
        instances = dsl.DSLSingletonMeta._instances.values()
        caches = [(id(instance.jit_cache), dict(vars(instance.envar))) for instance in instances]
        folders = set(Path(tempfile.gettempdir()).glob("b200sim-*"))
        return attributes, caches, list(sys.meta_path), folders

    before = state()
    with open_device():
        kernels = importlib.import_module("driver_kernels")
        kernels.launch_cluster(pointer_to(torch.zeros(128, dtype=torch.int32, device="cuda")), 2)
        assert all(now != then for now, then in zip(state()[:3], before[:3], strict=True))
    assert state() == before


def test_one_device_at_a_time(device, open_device):
    with pytest.raises(RuntimeError, match="already active"), open_device():
        pass
    assert torch.cuda.is_available()


@pytest.mark.parametrize("option", ["-minnctapersm=2", "-v --override-directive-values"])
def test_ptxas_options_that_change_the_registers_at_launch(device, kernels, numbers, option):
    """setmaxnreg then does something else than its PTX says; a kernel without it does not care."""
    from cutlass.base_dsl.common import DSLRuntimeError

    options = f"--ptxas-options '{option}'"
    name = option.split()[-1].split("=")[0]
    with pytest.raises(DSLRuntimeError, match=f"ptxas option {name} with a kernel that uses setmaxnreg"):
        compiled(kernels.launch_decrease, options=options)
    compiled(kernels.launch_decrease, options="--ptxas-options '-v'")
    compiled(kernels.launch_two, pointer_to(numbers), 2, options=options)
