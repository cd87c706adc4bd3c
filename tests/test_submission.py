"""`submission.py` without running its kernel: file, checks, plan, compiled code, host path.

Launches are recorded by the simulated driver and not executed; that the kernel computes the right thing is
shown by `eval.py` and its tests.
"""

from __future__ import annotations

import ast
import ctypes
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import reference
from b200sim.driver import Launch, simulated_device
from b200sim.tma.encoding import decode
from b200sim.tma.tensor_map import ElementType, Swizzle
from profiling.binary import find_tool

SOURCE = Path(__file__).parents[1] / "submission.py"
ONE_HALF = {"m": (130, 40), "n": (264, 8), "k": (320, 64)}  # fits the device in one turn
TWO_HALVES = {"m": (300, 129), "n": (8192, 4096), "k": (64, 128)}  # more tiles than CTA pairs
PROCESSORS = 148

Case = dict[str, tuple[int, ...]]


# -- the file ---------------------------------------------------------------------------------------------


def test_header_names_leaderboard_and_gpu() -> None:
    assert SOURCE.read_text().splitlines()[:2] == [
        "#!POPCORN leaderboard nvfp4_group_gemm",
        "#!POPCORN gpu B200",
    ]


def test_forbidden_word_is_absent() -> None:
    assert "stream" not in SOURCE.read_bytes().decode("utf-8").lower()


def test_imports_only_the_standard_library_torch_and_cutlass() -> None:
    modules = set()
    for node in ast.walk(ast.parse(SOURCE.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            modules.add(str(node.module).split(".")[0])
    assert modules <= {*sys.stdlib_module_names, "torch", "cutlass"}


# -- a device that records --------------------------------------------------------------------------------


class Device:
    """Loads a fresh copy of the submission onto a driver that records launches and allocations."""

    def __init__(self, tensors: Any) -> None:
        self.tensors = tensors
        self.launches: list[Launch] = []
        self.values: list[list[bytes]] = []
        self.allocations: list[str] = []
        self.submission = _fresh_submission()

    def place(self, case: Case, seed: int = 1) -> tuple[Any, ...]:
        with self.tensors.paused():
            abc, plain, reordered, sizes = reference.generate_input(
                **case, g=len(case["m"]), seed=seed, device="cpu"
            )
        move = self.tensors.to_device
        return (
            [tuple(move("operand", t) for t in group) for group in abc],
            plain,
            [tuple(move("scales", t) for t in group) for group in reordered],
            sizes,
        )

    def call(self, case: Case) -> tuple[tuple[Any, ...], list[torch.Tensor]]:
        data = self.place(case)
        return data, self.submission.custom_kernel(data)

    def ptx(self, case: Case) -> str:
        self.call(case)
        return self.launches[-1].ptx


class _Registry:
    def __init__(self) -> None:
        self.device: Device | None = None

    def add(self, name: str, address: int, nbytes: int, writable: bool = True) -> None:
        if self.device is not None:
            self.device.allocations.append(name)

    def remove(self, address: int) -> None:
        pass


def _fresh_submission() -> ModuleType:
    spec = importlib.util.spec_from_file_location("submission_under_test", SOURCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@contextmanager
def _recording_device() -> Iterator[Device]:
    registry = _Registry()
    devices: list[Device] = []

    def record(launch: Launch) -> None:
        devices[0].launches.append(launch)
        devices[0].values.append(launch.parameter_values())

    with simulated_device(record, registry) as tensors:
        devices.append(Device(tensors))
        registry.device = devices[0]
        yield devices[0]


@pytest.fixture(scope="module")
def device() -> Iterator[Device]:
    with _recording_device() as active:
        yield active


# -- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([(128, 132, 256, 1)], "N a multiple of 8"),
        ([(128, 128, 96, 1)], "K a multiple of 64"),
        ([(128, 128, 0, 1)], "K a multiple of 64"),
        ([(0, 128, 256, 1)], "M >= 1"),
        ([(128, 128, 256, 2)], "L = 1"),
        ([(128, 128, 256, 1), (1 << 30, 8, 64, 1)], r"group 1 .* each < 1073741824"),
        ([], "supported are 1 to"),
        ([(1, 8, 64, 1)] * 33, "33 groups; supported are 1 to 32"),
    ],
)
def test_unsupported_sizes_are_refused_with_what_is_supported(
    device: Device, sizes: list[tuple[int, int, int, int]], message: str
) -> None:
    nothing = [(None, None, None)] * len(sizes)
    with pytest.raises(ValueError, match=message):
        device.submission.custom_kernel((nothing, [], nothing, sizes))


def test_sixteen_groups_are_not_refused(device: Device) -> None:
    assert device.submission.plan(((1, 8, 64, 1),) * 16, PROCESSORS).config.groups == 16


def test_unequal_list_lengths_are_refused(device: Device) -> None:
    abc, plain, scales, sizes = device.place(ONE_HALF)
    with pytest.raises(ValueError, match=r"2 \(a, b, c\), 1 \(sfa, sfb\), 2 sizes"):
        device.submission.custom_kernel((abc, plain, scales[:1], sizes))


def _transposed(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(
        tensor.shape, (1, tensor.shape[0], tensor.numel()), dtype=tensor.dtype, device="cuda"
    )


def _misaligned(tensor: torch.Tensor) -> torch.Tensor:
    spare = torch.empty(tensor.numel() + 1, dtype=tensor.dtype, device="cuda")[1:]
    return spare.as_strided(tensor.shape, tensor.stride(), spare.storage_offset())


@pytest.mark.parametrize(
    ("place", "wrong", "message"),
    [
        (
            ("abc", 2),
            lambda c: c.to(torch.bfloat16),
            r"c of group 0 is torch.bfloat16.*supported is torch.float16",
        ),
        (("abc", 2), lambda c: c[:-1], r"c of group 0 .*shape \(129, 264, 1\).*shape \(130, 264, 1\)"),
        (("abc", 2), _transposed, r"c of group 0 .*strides \(1, 130, 34320\).*strides \(264, 1, 34320\)"),
        (("abc", 2), _misaligned, r"c of group 0 .*2 bytes past 16 B alignment"),
        (("scales", 0), lambda s: s.contiguous(), r"sfa of group 0 .*strides \(16, 4, 2560, 1, 512, 5120\)"),
        (("abc", 0), lambda a: a.view(torch.uint8), r"a of group 0 is torch.uint8"),
    ],
)
def test_unsupported_tensors_are_refused_with_what_is_supported(
    device: Device, place: tuple[str, int], wrong: Any, message: str
) -> None:
    abc, plain, scales, sizes = device.place(ONE_HALF)
    group = list({"abc": abc, "scales": scales}[place[0]][0])
    group[place[1]] = wrong(group[place[1]])
    {"abc": abc, "scales": scales}[place[0]][0] = tuple(group)
    launches = len(device.launches)
    with pytest.raises(ValueError, match=message):
        device.submission.custom_kernel((abc, plain, scales, sizes))
    assert len(device.launches) == launches


def test_host_tensors_are_refused(device: Device) -> None:
    with device.tensors.paused():
        data = reference.generate_input(**ONE_HALF, g=2, seed=1, device="cpu")
    with pytest.raises(ValueError, match=r"on cpu.*on a CUDA device"):
        device.submission.custom_kernel(data)


def test_strides_of_dimensions_of_size_one_are_free(device: Device) -> None:
    abc, plain, scales, sizes = device.place({"m": (1,), "n": (8,), "k": (64,)})
    a, b, c = abc[0]
    abc[0] = (a.as_strided(a.shape, (999, 1, 7)), b, c)
    assert device.submission.custom_kernel((abc, plain, scales, sizes))[0] is c


# -- the plan ---------------------------------------------------------------------------------------------

BENCHMARKS = {
    "a": (((80, 176, 128, 72, 64, 248, 96, 160), 4096, 7168), 2, 64, 2),
    "b": (((40, 76, 168, 72, 164, 148, 196, 160), 7168, 2048), 2, 56, 4),
    "c": (((192, 320), 3072, 4096), 1, 60, 1),
    "d": (((128, 384), 4096, 1536), 1, 64, 1),
}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmarks_get_full_turns(device: Device, name: str) -> None:
    (ms, n, k), halves, pairs, turns = BENCHMARKS[name]
    todo = device.submission.plan(tuple((m, n, k, 1) for m in ms), PROCESSORS)
    tiles = sum(-(-m // (128 * halves)) * -(-n // 256) for m in ms)
    assert (todo.config.halves, todo.numbers[0]) == (halves, pairs)
    assert tiles == pairs * turns


def test_groups_are_ordered_by_falling_m(device: Device) -> None:
    sizes = ((80, 8, 64, 1), (200, 16, 128, 1), (80, 24, 192, 1))
    todo = device.submission.plan(sizes, PROCESSORS)
    assert todo.order == (1, 0, 2)
    assert todo.numbers[1:] == (200, 16, 128, 80, 8, 64, 80, 24, 192)


@pytest.mark.parametrize("halves", [1, 2])
def test_resources_fit_the_sm(device: Device, halves: int) -> None:
    config = device.submission.Config(2, halves)
    ctas_per_sm = config.ctas_per_sm
    assert ctas_per_sm * (config.smem_bytes + 1024) <= 228 * 1024
    assert ctas_per_sm * config.tmem_columns <= 512
    assert config.stages * config.stage_bytes >= 96 * 1024, "bytes in flight per CTA"


# -- the compiled code ------------------------------------------------------------------------------------


def _instructions(ptx: str, pattern: str) -> int:
    return len(re.findall(rf"(?m)(?:^|[;{{\s]){pattern}", ptx))


@pytest.mark.heavy
@pytest.mark.parametrize(("case", "halves"), [(ONE_HALF, 1), (TWO_HALVES, 2)])
def test_instructions_of_the_pipeline(device: Device, case: Case, halves: int) -> None:
    ptx = device.ptx(case)
    expected = {
        r"tcgen05\.mma\.cta_group::2\.kind::mxf4nvf4\.block_scale\.scale_vec::4X[. ]": 4 * halves,
        r"tcgen05\.mma\S*\.collector::a::fill ": 4 * (halves - 1),
        r"tcgen05\.mma\S*\.collector::a::lastuse ": 4 * (halves - 1),
        r"tcgen05\.mma": 4 * halves,
        r"tcgen05\.cp\.cta_group::2\.32x128b\.warpx4 ": 4 * (1 + halves),
        r"tcgen05\.commit\.cta_group::2\S*\.multicast::cluster": 1 + halves,
        r"tcgen05\.alloc\.cta_group::2": 1,
        r"tcgen05\.dealloc\.cta_group::2": 1,
        r"cp\.async\.bulk\.tensor\.2d\S*\.cta_group::2\.L2::cache_hint ": 1 + halves,
        r"cp\.async\.bulk\.tensor\.3d\S*\.cta_group::2\.L2::cache_hint ": 1 + halves,
        r"cp\.async\.bulk\.tensor\.3d\S*\.multicast::cluster\.cta_group::2": halves,
        r"elect\.sync": 5,
        r"griddepcontrol\.launch_dependents": 1,
        r"griddepcontrol\.wait": 2,
        r"prefetch\.tensormap": 4,
    }
    assert {pattern: _instructions(ptx, pattern) for pattern in expected} == expected


@pytest.mark.heavy
@pytest.mark.parametrize("case", [ONE_HALF, TWO_HALVES])
def test_nothing_goes_through_local_memory_or_rewrites_descriptors(device: Device, case: Case) -> None:
    ptx = device.ptx(case)
    for absent in (r"\.local\b", r"\bcall\b", r"tensormap\.replace", r"\bld\.global", r"\bst\.shared"):
        assert not re.search(absent, ptx), absent


@pytest.mark.heavy
@pytest.mark.parametrize(("case", "registers"), [(ONE_HALF, 65536 // 2 // 320), (TWO_HALVES, 65536 // 320)])
def test_registers_do_not_spill(device: Device, tmp_path: Path, case: Case, registers: int) -> None:
    ptxas = find_tool("ptxas")
    if ptxas is None:
        pytest.skip("needs ptxas (from CUDA or the triton package)")
    (tmp_path / "kernel.ptx").write_text(device.ptx(case))
    command = [ptxas, "-v", "-arch=sm_100a", "kernel.ptx", "-o", "kernel.cubin"]
    log = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stderr
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in log
    assert int(re.findall(r"Used (\d+) registers", log)[0]) <= registers


@pytest.mark.heavy
def test_descriptor_parameters_lie_side_by_side(device: Device) -> None:
    """The kernel takes the address of the first and steps by 128 B."""
    device.call(ONE_HALF)
    parameters = device.launches[-1].parameters()
    assert [parameter.size for parameter in parameters[:10]] == [128] * 10
    assert all(parameter.align <= 128 for parameter in parameters[:10])
    assert all(parameter.size < 128 for parameter in parameters[10:])


# -- the host path ----------------------------------------------------------------------------------------


@pytest.mark.heavy
def test_one_launch_and_no_allocation_per_call(device: Device) -> None:
    data, _ = device.call(ONE_HALF)
    launches, allocations = len(device.launches), len(device.allocations)
    output = device.submission.custom_kernel(data)
    assert len(device.launches) - launches == 1
    assert len(device.allocations) == allocations
    assert [c is given[2] for c, given in zip(output, data[0], strict=True)] == [True, True]
    launch = device.launches[-1]
    assert launch.block == (320, 1, 1) and launch.cluster == (2, 1, 1) and launch.pdl
    assert launch.grid == (2 * (2 * 2 + 1), 1, 1)
    assert launch.shared_bytes == device.submission.Config(2, 1).smem_bytes


@pytest.mark.heavy
def test_other_sizes_and_pointers_do_not_recompile(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    device.call(ONE_HALF)
    first = device.launches[-1]

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(device.submission.cute, "compile", refuse)
    for case in (
        ONE_HALF,
        {"m": (7, 257), "n": (512, 1032), "k": (2048, 128)},
        {"m": (1, 1), "n": (8, 16), "k": (64, 64)},
    ):
        device.call(case)
        assert device.launches[-1].ptx is first.ptx


@pytest.mark.heavy
@pytest.mark.parametrize("case", [ONE_HALF, TWO_HALVES])
def test_descriptors_describe_the_tensors(device: Device, case: Case) -> None:
    (abc, _, scales, sizes), _ = device.call(case)
    maps = [decode(value) for value in device.values[-1][: 5 * len(sizes)]]
    order = device.submission.plan(tuple(sizes), PROCESSORS).order
    for place, g in enumerate(order):
        m, n, k, _ = sizes[g]
        rows, first_tokens, tokens, row_scales, token_scales = maps[place :: len(sizes)]
        shared = (m - 1) % 128 + 1  # tokens of the last half; CTA 0 takes the first -(-shared // 16) * 8
        first_end = min(m, m - shared + -(-shared // 16) * 8)
        for given, tensor, count, box in (
            (rows, abc[g][1], n, 128),
            (first_tokens, abc[g][0], first_end, 64),
            (tokens, abc[g][0], m, 64),
        ):
            assert given.address == tensor.data_ptr()
            assert (given.element, given.swizzle) == (ElementType.B4X16, Swizzle.B128)
            assert (given.dims, given.strides, given.box) == ((k, count), (k // 2,), (256, box))
        for given, tensor, count, box in (
            (row_scales, scales[g][1], n, 4),
            (token_scales, scales[g][0], m, 2),
        ):
            assert given.address == tensor.data_ptr()
            assert (given.element, given.swizzle, given.nan_fill) == (ElementType.U16, Swizzle.NONE, False)
            assert given.dims == (256, k // 64, -(-count // 128))
            assert given.strides == (512, 512 * (k // 64))
            assert given.box == (256, box, 1)


@pytest.mark.heavy
def test_problems_are_numbered_in_the_planned_order(device: Device) -> None:
    (abc, _, _, _), _ = device.call(TWO_HALVES)
    numbers = [int.from_bytes(value, "little") for value in device.values[-1][10:]]
    first, second = abc[0][2].data_ptr(), abc[1][2].data_ptr()
    assert numbers == [
        *(0, 2, 1, 300, 8192, first),
        *(64, 1, 1, 129, 4096, second),
        *(80, 2),  # tiles, turns of 40 CTA pairs
    ]
    assert device.launches[-1].grid == (80, 1, 1)


def test_argument_memory_is_one_pointer_per_value(device: Device) -> None:
    arguments = device.submission.Arguments(3)
    arguments.numbers[:] = range(10)
    arguments.addresses[:] = range(100, 115)
    pointers = arguments.__c_pointers__()
    assert [ctypes.c_int32.from_address(p).value for p in pointers[:10]] == list(range(10))
    assert [ctypes.c_int64.from_address(p).value for p in pointers[10:]] == list(range(100, 115))
