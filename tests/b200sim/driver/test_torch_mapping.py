"""`device="cuda"` tensors and `torch.cuda` calls on host memory."""

import ctypes
import gc
import inspect
import itertools
import os

import numpy as np
import pytest
import torch

from b200sim.faults import Unsupported

CUDA = torch.device("cuda", 0)

ON_DEVICE = {
    "zeros": lambda: torch.zeros(3, device="cuda"),
    "device object": lambda: torch.ones(3, device=torch.device("cuda")),
    "index": lambda: torch.full((3,), 2.0, device="cuda:0"),
    "integer": lambda: torch.arange(3, device=0),
    "tensor": lambda: torch.tensor([1, 2], device="cuda"),
    "as_tensor copies": lambda: torch.as_tensor(torch.ones(2), device="cuda"),
    "as_tensor of numpy": lambda: torch.as_tensor(np.ones(2), device="cuda"),
    "generator": lambda: torch.randn(3, device="cuda", generator=torch.Generator(device="cuda")),
    "pinned": lambda: torch.zeros(3).pin_memory().cuda(non_blocking=True),
    "cuda": lambda: torch.zeros(3).cuda(),
    "to string": lambda: torch.zeros(3).to("cuda"),
    "to index": lambda: torch.zeros(3).to(0),
    "to with dtype": lambda: torch.zeros(3).to("cuda", torch.float16, True),
    "to keyword": lambda: torch.zeros(3).to(device="cuda"),
    "to another": lambda: torch.zeros(3).to(torch.zeros(1, device="cuda")),
    "dtype only": lambda: torch.zeros(3, device="cuda").to(torch.int32),
    "half": lambda: torch.zeros(3, device="cuda").half(),
    "arithmetic": lambda: torch.zeros(3, device="cuda") + 1,
    "like": lambda: torch.empty_like(torch.zeros(3, device="cuda")),
    "new": lambda: torch.zeros(3, device="cuda").new_zeros(4),
    "stack": lambda: torch.stack([torch.zeros(2, device="cuda")] * 2),
    "split": lambda: torch.zeros(4, device="cuda").split(2)[1],
    "named tuple": lambda: torch.zeros(4, device="cuda").max(0).values,
    "view": lambda: torch.zeros(2, 2, device="cuda").view(torch.uint8).t()[1:],
    "fp4": lambda: torch.zeros(2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2).cuda(),
    "host index": lambda: torch.ones(3, 3, device="cuda")[torch.tensor([0, 1])],
    "module": lambda: torch.nn.Linear(2, 2).cuda().weight,
    "nothing in it": lambda: torch.zeros(0, device="cuda"),
}


@pytest.mark.parametrize("make", ON_DEVICE.values(), ids=ON_DEVICE.keys())
def test_tensors_on_the_device(device, make):
    tensor = make()
    assert tensor.device == CUDA
    assert tensor.is_cuda and not tensor.is_cpu
    assert tensor.get_device() == 0
    assert device.cuda.is_device(tensor)
    storage = tensor.untyped_storage()
    if storage.nbytes():
        _name, nbytes = device.registry.live[storage.data_ptr()]
        assert nbytes == storage.nbytes()
        assert storage.data_ptr() % 512 == 0


ON_HOST = {
    "plain": lambda: torch.zeros(3),
    "cpu": lambda: torch.zeros(3, device="cuda").cpu(),
    "to cpu": lambda: torch.zeros(3, device="cuda").to("cpu", torch.float16),
    "like on cpu": lambda: torch.zeros_like(torch.zeros(3, device="cuda"), device="cpu"),
    "fp8": lambda: torch.zeros(3, device="cuda").to(torch.float8_e4m3fn).cpu(),
}


@pytest.mark.parametrize("make", ON_HOST.values(), ids=ON_HOST.keys())
def test_tensors_on_the_host(device, make):
    tensor = make()
    assert tensor.device.type == "cpu" and tensor.is_cpu and not tensor.is_cuda
    assert not device.cuda.is_device(tensor)
    assert tensor.untyped_storage().data_ptr() not in device.registry.live


def test_copies_between_devices_keep_values_strides_and_independence(device):
    host = torch.arange(24, dtype=torch.float16).view(2, 3, 4).permute(2, 0, 1)
    there = host.cuda()
    back = there.cpu()
    host.zero_()
    there += 1
    assert there.stride() == back.stride() == host.stride()
    assert back.flatten().tolist() == torch.arange(24.0).view(2, 3, 4).permute(2, 0, 1).flatten().tolist()
    assert there.sum().item() == 276 + 24


def test_no_copy_where_torch_makes_none(device):
    tensor = torch.zeros(3, device="cuda")
    assert tensor.to("cuda") is tensor
    assert tensor.cuda() is tensor
    host = torch.zeros(3)
    assert host.cpu() is host
    assert host.to("cpu") is host


def test_fresh_memory_is_poisoned(device):
    for tensor in (
        torch.empty(5, 3, dtype=torch.float16, device="cuda"),
        torch.empty_like(torch.zeros(4, device="cuda")),
        torch.zeros(2, device="cuda").new_empty(7),
        torch.empty_strided((2, 3), (1, 2), dtype=torch.int32, device="cuda"),
    ):
        assert set(tensor.contiguous().view(torch.uint8).flatten().tolist()) == {0xFF}


def test_allocations_are_named_after_the_line_that_made_them(device):
    line = inspect.currentframe().f_lineno + 1
    tensor = torch.empty((96, 128), dtype=torch.float16, device="cuda")
    name, nbytes = device.registry.live[tensor.data_ptr()]
    assert name == f"tensor (96, 128), float16, created at test_torch_mapping.py:{line}"
    assert nbytes == 96 * 128 * 2


def test_allocations_live_as_long_as_their_storage(device):
    tensor = torch.zeros(8, device="cuda")
    address, view = tensor.data_ptr(), tensor[2:]
    del tensor
    gc.collect()
    assert address in device.registry.live
    del view
    gc.collect()
    assert device.registry.live == {}


def test_allocations_keep_their_distance(device):
    tensors = [torch.empty(n, dtype=torch.uint8, device="cuda") for n in (1, 100, 512, 1000)]
    spans = sorted((tensor.data_ptr(), tensor.data_ptr() + tensor.numel()) for tensor in tensors)
    assert all(start - end >= 512 for (_, end), (start, _) in itertools.pairwise(spans))


def test_adopt_marks_memory_where_it_is(device):
    with device.cuda.paused():
        host = torch.arange(6.0)
        assert device.cuda.adopt("input a", host) is host
        assert host.device.type == "cpu"
    assert host.device == CUDA
    assert host[2:].is_cuda
    assert device.registry.live == {host.data_ptr(): ("input a", 24)}


def test_to_device_copies_with_strides(device):
    host = torch.arange(12.0).view(3, 4).t()
    copy = device.cuda.to_device("input b", host)
    assert copy.is_cuda and not host.is_cuda
    assert (copy.shape, copy.stride()) == (host.shape, host.stride())
    assert torch.equal(copy.cpu(), host)
    assert device.registry.live[copy.data_ptr()] == ("input b", 48)


def test_devices_do_not_mix(device):
    there, here = torch.ones(2, device="cuda"), torch.ones(2)
    for mix in (lambda: there + here, lambda: torch.cat([here, there]), lambda: torch.equal(there, here)):
        with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
            mix()
    assert (there + torch.tensor(1.0)).is_cuda
    assert there.copy_(here).is_cuda
    assert not here.copy_(there).is_cuda


def test_device_memory_is_not_numpy(device):
    for convert in (lambda t: t.numpy(), np.asarray):
        with pytest.raises(TypeError, match=r"Use Tensor\.cpu"):
            convert(torch.ones(2, device="cuda"))
    assert torch.ones(2, device="cuda").__dlpack_device__() == (2, 0)
    assert torch.ones(2, device="cuda").type() == "torch.cuda.FloatTensor"


def test_only_one_device(device):
    for use in (lambda: torch.zeros(1, device="cuda:1"), lambda: torch.zeros(1).to("cuda:3")):
        with pytest.raises(RuntimeError, match="invalid device ordinal"):
            use()


def test_default_device(device):
    with torch.device("cuda"):
        assert torch.ones(3).is_cuda
        assert not torch.ones(3, device="cpu").is_cuda
    assert not torch.ones(3).is_cuda


def test_a_default_device_does_not_outlive_the_device(open_device):
    with open_device():
        torch.set_default_device("cuda")
        assert torch.ones(3).is_cuda
    assert torch.ones(3).device.type == "cpu"


def test_torch_cuda_reports_a_b200(device):
    assert torch.cuda.is_available()
    assert (torch.cuda.device_count(), torch.cuda.current_device()) == (1, 0)
    assert torch.cuda.get_device_capability() == (10, 0)
    assert torch.cuda.get_device_name(0) == "NVIDIA B200"
    properties = torch.cuda.get_device_properties("cuda")
    assert (properties.multi_processor_count, properties.major, properties.minor) == (148, 10, 0)
    assert properties.shared_memory_per_block_optin == 232448
    assert torch.cuda.mem_get_info()[1] == properties.total_memory == 180 * 2**30


def test_streams_and_events(device):
    torch.cuda.set_device(0)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), torch.cuda.device(0), torch.cuda.nvtx.range("here"):
        event = torch.cuda.Event(enable_timing=True)
        event.record()
    torch.cuda.synchronize()
    assert torch.cuda.current_stream().cuda_stream == torch.cuda.default_stream().cuda_stream == 0
    assert event.query()
    with pytest.raises(Unsupported, match="no clock"):
        event.elapsed_time(event)


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda: torch.cuda.CUDAGraph(), "CUDAGraph"),
        (lambda: torch.utils.cpp_extension.load_inline("x", ""), "load_inline"),
        (lambda: torch._scaled_mm(*[torch.zeros(16, 16, device="cuda")] * 4), "_scaled_mm"),
    ],
)
def test_what_is_not_simulated_is_named(device, use, words):
    with pytest.raises(Unsupported, match=words) as caught:
        use()
    assert "CuTe-DSL" in caught.value.message


def test_other_kernel_languages_are_refused_on_import(device):
    with pytest.raises(
        ModuleNotFoundError, match="triton kernels are not simulated: the simulated GPU runs CuTe-DSL"
    ):
        __import__("triton")


def test_cuda_bindings(device):
    import cuda.bindings.driver as driver
    import cuda.bindings.runtime as runtime

    ok = driver.CUresult.CUDA_SUCCESS
    assert driver.cuInit(0) == (ok,)
    assert driver.cuDeviceGetCount() == (ok, 1)
    sms = driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
    assert driver.cuDeviceGetAttribute(sms, driver.cuDeviceGet(0)[1]) == (ok, 148)
    attribute = runtime.cudaDeviceAttr.cudaDevAttrMaxSharedMemoryPerBlockOptin
    assert runtime.cudaDeviceGetAttribute(attribute, 0)[1] == 232448
    assert driver.cuStreamSynchronize(driver.CUstream(0)) == (ok,)
    with pytest.raises(Unsupported, match="cuMemAlloc"):
        driver.cuMemAlloc(16)
    with pytest.raises(Unsupported, match="no clock"):
        driver.cuEventCreate(0)


def test_nothing_stays_behind(open_device):
    with open_device() as device:
        kept = torch.ones(4, device="cuda")
        assert len(device.registry.live) == 1
    assert device.registry.live == {}
    assert not torch.cuda.is_available() or torch.cuda.get_device_name(0) != "NVIDIA B200"
    assert kept.device.type == "cpu"
    assert kept.tolist() == [1, 1, 1, 1]


def test_device_memory_is_shared_with_forked_processes(device):
    tensor = torch.zeros(4, dtype=torch.uint8, device="cuda")
    memory = (ctypes.c_uint8 * 4).from_address(tensor.data_ptr())
    child = os.fork()
    if child == 0:
        memory[1] = 7
        os._exit(0)
    os.waitpid(child, 0)
    assert tensor.tolist() == [0, 7, 0, 0]
