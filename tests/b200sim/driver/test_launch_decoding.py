"""`cudaLaunchConfig_t` and PTX entry declarations, against structures laid out by ctypes."""

import ctypes
import dataclasses

import pytest

from b200sim.driver.launch import Launch, decode_launch, entry_directives, entry_parameters
from b200sim.faults import Fault, Unsupported
from b200sim.gpus import B200, H200
from b200sim.ptx.directives import Directives, read_directives

PTX = """
.version 8.8
.target sm_100a
.address_size 64
.visible .entry nothing()
.reqntid 32, 1, 1
{ ret; }
.visible .entry many(
\t.param .align 4 .b8 many_param_0[12],
\t.param .align 64 .b8 many_param_1[128],
\t.param .u64 .ptr .global .align 16 many_param_2,
\t.param .u8 many_param_3,
\t.param .f32 many_param_4
)
.reqntid 64, 2
.minnctapersm 1
{ ret; }
"""


class Attribute(ctypes.Structure):
    _fields_ = (("id", ctypes.c_uint), ("pad", ctypes.c_char * 4), ("value", ctypes.c_uint * 16))


class Config(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_size_t),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(Attribute)),
        ("count", ctypes.c_uint),
    )


def decode(entry="many", grid=(4, 5, 6), block=(64, 2, 1), shared=1024, attributes=()):
    array = (Attribute * max(len(attributes), 1))()
    for slot, (identifier, values) in zip(array, attributes, strict=False):
        slot.id = identifier
        slot.value[: len(values)] = values
    config = Config(
        (ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block), shared, None, array, len(attributes)
    )
    buffers = [ctypes.create_string_buffer(bytes([index]) * 128, 128) for index in range(5)]
    pointers = (ctypes.c_void_p * 5)(*(ctypes.addressof(buffer) for buffer in buffers))
    launch = decode_launch(PTX, entry, ctypes.addressof(config), ctypes.addressof(pointers))
    return launch, list(pointers), launch.parameter_values()


def test_dimensions_attributes_and_parameters():
    launch, pointers, values = decode(attributes=[(4, (2, 1, 3)), (6, (1,)), (2, (1,)), (8, (0,))])
    assert (launch.grid, launch.block, launch.cluster) == ((4, 5, 6), (64, 2, 1), (2, 1, 3))
    assert (launch.shared_bytes, launch.pdl, launch.cooperative) == (1024, True, True)
    assert launch.args == pointers
    assert values == [bytes([0]) * 12, bytes([1]) * 128, bytes([2]) * 8, bytes([3]), bytes([4]) * 4]


def test_defaults_and_an_entry_without_parameters():
    launch, _, values = decode("nothing", block=(32, 1, 1))
    assert (launch.cluster, launch.pdl, launch.cooperative, launch.args, values) == (
        (1, 1, 1),
        False,
        False,
        [],
        [],
    )


def test_unknown_attribute_is_named():
    with pytest.raises(Unsupported, match="cudaLaunchAttributeID 77"):
        decode(attributes=[(77, (1,))])


def test_declarations():
    assert [(p.name, p.size, p.align) for p in entry_parameters(PTX, "many")] == [
        ("many_param_0", 12, 4),
        ("many_param_1", 128, 64),
        ("many_param_2", 8, 8),
        ("many_param_3", 1, 1),
        ("many_param_4", 4, 4),
    ]
    assert entry_directives(PTX, "many") == Directives(required=(64, 2, 1), ctas_per_sm=1)
    assert entry_directives(PTX, "nothing") == Directives(required=(32, 1, 1))
    assert entry_directives(PTX, "few") == Directives()
    text = ".maxntid 128 ,2\n.maxnreg 40 .reqnctapercluster 2, 1, 1\n"
    assert read_directives(text) == Directives(largest=(128, 2, 1), registers=40)
    with pytest.raises(Fault, match=r"no_such_kernel.*has no entry few; it has nothing, many"):
        entry_parameters(PTX, "few")


GOOD = Launch(PTX, "many", (4, 4, 1), (64, 2, 1), (2, 2, 1), 232448)


def test_a_good_launch_passes():
    GOOD.check(B200)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"grid": (0, 1, 1)}, "grid (0, 1, 1)"),
        ({"grid": (1, 65536, 1)}, "grid (1, 65536, 1)"),
        ({"block": (32, 1, 128)}, "block (32, 1, 128)"),
        ({"block": (1024, 2, 1)}, "has 2048 threads"),
        ({"block": (128, 1, 1)}, "compiled for (64, 2, 1)"),
        ({"cluster": (4, 4, 2)}, "has 32 CTAs"),
        ({"cluster": (2, 3, 1)}, "not a multiple of cluster (2, 3, 1)"),
        ({"shared_bytes": 232449}, "232449 bytes of dynamic shared memory"),
    ],
)
def test_launches_a_b200_refuses(change, words):
    with pytest.raises(Fault) as caught:
        dataclasses.replace(GOOD, **change).check(B200)
    assert caught.value.code == "launch_configuration"
    assert words in caught.value.message


def test_the_largest_block():
    """.maxntid bounds the product, not each side (PTX ISA 11.4.2)."""
    ptx = PTX.replace(".reqntid 64, 2", ".maxntid 64, 2")
    dataclasses.replace(GOOD, ptx=ptx, block=(32, 1, 4)).check(B200)
    with pytest.raises(Fault, match=r"block \(160, 1, 1\), the kernel is compiled for 128 threads at most"):
        dataclasses.replace(GOOD, ptx=ptx, block=(160, 1, 1)).check(B200)


@pytest.mark.parametrize(
    ("target", "gpu", "runs_on"),
    [("sm_90a", B200, "h200"), ("sm_100a", H200, "b200"), ("sm_100f", B200, None), ("sm_90", H200, None)],
)
def test_a_kernel_runs_on_its_own_architecture(target, gpu, runs_on):
    launch = dataclasses.replace(GOOD, ptx=PTX.replace("sm_100a", target))
    if runs_on is None:
        launch.check(gpu)
        return
    with pytest.raises(Fault, match=f"compiled for {target}.*is {gpu.name} .*--gpu {runs_on}") as caught:
        launch.check(gpu)
    assert caught.value.code == "no_kernel_image"


@pytest.mark.parametrize("target", ["sm_90a", "sm_103a", "sm_120a"])
def test_kernels_of_other_architectures(target):
    launch = dataclasses.replace(GOOD, ptx=PTX.replace("sm_100a", target))
    with pytest.raises(Fault, match=f"compiled for {target}") as caught:
        launch.check(B200)
    assert caught.value.code == "no_kernel_image"
