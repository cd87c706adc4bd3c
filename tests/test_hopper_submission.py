"""The Hopper submission's host side: what it refuses, how it plans; and its arithmetic on all values."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

PATH = Path(__file__).parents[1] / "submissions" / "hopper.py"


@pytest.fixture(scope="module")
def hopper():
    spec = importlib.util.spec_from_file_location("hopper_submission", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["hopper_submission"] = module
    spec.loader.exec_module(module)
    return module


BENCHMARKS = [
    tuple((m, n, k, 1) for m in ms)
    for ms, n, k in [
        ((80, 176, 128, 72, 64, 248, 96, 160), 4096, 7168),
        ((40, 76, 168, 72, 164, 148, 196, 160), 7168, 2048),
        ((192, 320), 3072, 4096),
        ((128, 384), 4096, 1536),
    ]
]
SIZE = st.tuples(
    st.integers(1, 700), st.integers(1, 80).map(lambda x: 8 * x), st.integers(1, 9).map(lambda x: 64 * x)
)
CLUSTERS = {1: 132, 2: 66, 4: 30}


def check_plan(hopper, sizes):
    plan = hopper.Plan(sizes, CLUSTERS)
    config = plan.config
    ctas, turns, items = plan.numbers[:3]
    assert len(plan.table) == turns * ctas // config.cluster
    assert items == sum(-(-m // 32) * (k // 64) for m, _, k, _ in sizes)
    assert len(config.variants) <= hopper.MAX_VARIANTS and config.variants == tuple(
        sorted(set(config.variants))
    )
    assert all(height % 8 == 0 and 8 <= height <= hopper.MAX_TOKENS for height in config.variants)
    assert config.slots >= 2

    covered = [np.zeros((m, n), int) for m, n, _, _ in sizes]
    end = 0
    for g, (m, n, k, _) in enumerate(sizes):
        assert plan.numbers[3 + 5 * g : 6 + 5 * g] == [m, n, k]
        height, start = plan.numbers[6 + 5 * g : 8 + 5 * g]
        assert start * 1024 == end  # the workspace's parts lie one behind the other
        end += -(-m // height) * (k // 64) * height * 128
    assert plan.workspace_bytes == end
    for g, row, tile, variant in plan.table:
        if g >= 0:
            height = plan.numbers[6 + 5 * g]
            assert config.variants[variant] == height
            covered[g][tile * height : (tile + 1) * height, row : row + 128 * config.cluster] += 1
    assert all((part == 1).all() for part in covered)


@pytest.mark.parametrize("sizes", BENCHMARKS)
def test_plans_of_the_benchmarks_cover_c_once(hopper, sizes):
    check_plan(hopper, sizes)


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(SIZE, min_size=1, max_size=32))
def test_plans_cover_c_once(hopper, sizes):
    check_plan(hopper, tuple((*size, 1) for size in sizes))


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ((), "0 groups; supported are 1 to 32"),
        (((8, 64, 64, 1),) * 33, "33 groups"),
        (((0, 64, 64, 1),), "M >= 1"),
        (((8, 60, 64, 1),), "N a multiple of 8"),
        (((8, 64, 96, 1),), "K a multiple of 64"),
        (((8, 64, 64, 2),), "L = 1"),
    ],
)
def test_refusals(hopper, sizes, says):
    with pytest.raises(ValueError, match=says):
        hopper.Plan(sizes, CLUSTERS)


def test_the_forbidden_word_does_not_occur():
    assert "stream" not in PATH.read_text().lower()


def test_widening_is_exact_for_all_values_and_scales(hopper):
    """The kernel's steps in numpy and torch: e4m3 by shifts and masks, fp16, times the scale, in fp16."""
    signs, magnitudes = hopper.SIGNS & 0xFFFFFFFF, hopper.MAGNITUDES
    words = np.array([0x76543210, 0xFEDCBA98], np.uint32)
    high = (words & signs) | (words >> np.uint32(2) & magnitudes)
    low = (words << np.uint32(4) & np.uint32(signs)) | (words << np.uint32(2) & np.uint32(magnitudes))
    as_e4m3 = [
        torch.from_numpy(x.view(np.uint8).copy()).view(torch.float8_e4m3fn).half() for x in (high, low)
    ]
    order = [1, 3, 5, 7, 0, 2, 4, 6]  # as `widen` says
    values = torch.stack([x.reshape(2, 4) for x in as_e4m3], dim=1).reshape(2, 8)
    e2m1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    expected = torch.stack([e2m1[order], -e2m1[order]]) * 2.0**-6
    assert torch.equal(values.float(), expected)

    scales = torch.arange(0x7F, dtype=torch.uint8).view(torch.float8_e4m3fn).half()  # without NaN
    products = values[:, :, None] * scales
    assert torch.equal(products.double(), expected.double()[:, :, None] * scales.double())
    assert hopper.BIAS == 2.0**12
