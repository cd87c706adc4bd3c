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
CLUSTERS = 66  # of two CTAs, on an H200


def stages_of(k):
    """Of 128, by fours."""
    return -(-k // 512) * 4


def check_plan(hopper, sizes, clusters=CLUSTERS):
    plan = hopper.Plan(sizes, clusters)
    config = plan.config
    ctas, turns, rounds, _, parts_at = plan.numbers[:5]
    columns = ctas // hopper.CLUSTER
    assert 1 <= columns <= clusters and len(plan.table) == turns * columns
    assert len(config.variants) <= hopper.MAX_VARIANTS
    assert all(height % 8 == 0 and 8 <= height <= hopper.MAX_TOKENS for height in config.heights)
    assert config.heights == tuple(sorted(set(config.heights)))
    check_shared_memory(hopper, config)

    at = 1  # KB; the first one is the counter's
    begin = []
    for g, (m, n, k, _) in enumerate(sizes):
        assert plan.numbers[5 + 4 * g : 9 + 4 * g] == [m, n, k, at]
        begin.append(at)
        at += sum(tiles_of(plan, g, m).values()) * stages_of(k) * 256 // 1024
    assert (parts_at, plan.units.shape) == (at, (ctas, rounds, hopper.WIDEN_WARPS, 8))
    check_table(hopper, plan, sizes, columns)
    check_units(hopper, plan, sizes, columns, begin)
    check_ring(hopper, plan, columns)


def height_of(packed):
    return (packed >> 3 & 31) * 8


def tiles_of(plan, group, m):
    """Heights of a group's tiles by first token: they follow each other, and all are needed."""
    found = {token: height_of(packed) for g, _, token, packed, *_ in plan.table if g == group}
    end = 0
    for token in sorted(found):
        assert token == end < m
        end += found[token]
    assert end >= m
    assert all(height_of(packed) == found[token] for g, _, token, packed, *_ in plan.table if g == group)
    return found


def heights_of(plan, sizes):
    return [
        tuple(height for _, height in sorted(tiles_of(plan, g, m).items())) for g, (m, *_) in enumerate(sizes)
    ]


def check_units(hopper, plan, sizes, columns, begin):
    """All that is loaded from the workspace is put there once; by the first CTAs, if it is loaded before the
    grid has met. The two CTAs of a cluster widen its head, and know of each stage what they get from each
    other."""
    config, units = plan.config, plan.units.tolist()
    tiling = hopper.Tiling(config.geometry, tuple(heights_of(plan, sizes)))
    scratches = hopper.scratches_of(sizes, tiling, len(units))
    wanted, urgent, heads = set(), set(), [[] for _ in range(columns)]
    for at, (g, _, token, packed, stage, stages, *_) in enumerate(plan.table):
        if g >= 0:
            head = packed >> 28
            height = height_of(packed)
            most = config.head_stages(height, scratches)
            assert head == (min(most, stages) if at < columns else 0)
            tile = begin[g] + token * stages_of(sizes[g][2]) * 256 // 1024
            if packed >> 12 & 1:  # it is there, and where neither CTA of the cluster may still widen for all
                beyond = max(0, scratches * hopper.SCRATCH_BYTES - 2 * config.geometry.warpgroups * 4096)
                assert at < columns and head < stages
                assert (head + 1) * height * 256 + beyond <= config.geometry.token_ring_bytes
            for found, last in ((wanted, stages), (urgent, head + (packed >> 12 & 1))):
                loaded = units_of_tile(height, sizes, g, token, range(stage + head, stage + last), tile, 0)
                found |= {
                    unit for unit in loaded if unit[5] & 255 and unit[5] >> 8 & 255
                }  # else zeros for ever
            heads[at % columns] += [
                {(*unit[:5], unit[5] + (i << 24), *unit[6:]) for unit in found}
                for i in range(head)
                for found in [units_of_tile(height, sizes, g, token, [stage + i], 0, stage)]
            ]
    shared = []
    for cluster in range(columns):
        own = []
        for cta in (2 * cluster, 2 * cluster + 1):
            own.append(set())
            for warp in range(len(units[cta][0])):
                mine = [turn[warp] for turn in units[cta]]
                count, for_all = mine[0][0] >> 8, mine[0][7]
                assert not any(map(any, mine[max(count, 1) :]))  # nothing beyond them
                place = (warp + config.geometry.helpers) % hopper.WIDEN_WARPS
                assert for_all == 0 or place < scratches
                mine = [(unit[0] & 255, *unit[1:7]) for unit in mine[:count]]
                shared += mine[:for_all]
                assert cta < plan.numbers[3] or not urgent & set(mine[:for_all])
                assert len(own[-1] | set(mine[for_all:])) == len(own[-1]) + count - for_all
                own[-1] |= set(mine[for_all:])
        check_head(plan.heads.tolist()[2 * cluster : 2 * cluster + 2], own, heads[cluster])
    assert len(shared) == len(set(shared)) and set(shared) == wanted


def check_head(words, own, head):
    """words, own: of each of a cluster's CTAs; head: its units, stage by stage."""
    for i, stage in enumerate(head):
        places = {unit: place for place, unit in enumerate(sorted(stage, key=lambda unit: unit[4]))}
        for rank in range(2):
            mine, others = own[rank] & stage, own[rank ^ 1] & stage
            word = words[rank][i]
            assert mine | others == stage
            assert word >> 24 == len(mine)
            assert word & 0xFFFF == sum(1 << places[unit] for unit in mine - others)
            assert word >> 16 & 255 == sum(unit[5] >> 16 & 255 for unit in others - mine) * 256 // 1024
    assert own[0] | own[1] == set().union(*head)
    assert not any(word[len(head) :] != [0] * (len(word) - len(head)) for word in words)


def units_of_tile(height, sizes, g, token_0, stages, at, first):
    """16 tokens x 128 of K each. Of a stage, 8 tokens (1 KB with the even blocks, 1 KB with the odd) follow
    each other. at: where stage `first` goes."""
    m, _, k, _ = sizes[g]
    found = set()
    for stage in stages:
        for row in range(0, height, 16):
            token = token_0 + row
            scales = [
                (t // 128 * (k // 64) + 2 * stage) * 512 + t % 32 * 16 + t // 32 % 4 * 4
                for t in (token, token + 8)
            ]
            target = at + (stage - first) * height // 4 + row // 4
            tokens, atoms, rows = (
                min(max(m - token, 0), 16),
                min(max(k // 64 - 2 * stage, 0), 2),
                min(16, height - row),
            )
            sizes_word = tokens + (atoms << 8) + (rows << 16)
            found.add((g, token * k // 2 + stage * 64, *scales, target, sizes_word, k // 2))
    return found


def check_shared_memory(hopper, config):
    geometry = config.geometry
    rings = geometry.token_ring_bytes + hopper.WEIGHT_STAGES * geometry.slot_bytes
    staging = 2 * geometry.warpgroups * hopper.STAGING_BYTES
    assert hopper.HEADER_BYTES + rings + staging <= hopper.SMEM_BYTES
    barriers = 2 * (hopper.MAX_TOKEN_STAGES + hopper.WEIGHT_STAGES) + 3 + 2 * hopper.MAX_HEAD_STAGES
    assert 8 * barriers <= hopper.GROUPS_AT
    assert hopper.GROUPS_AT + hopper.GROUP_BYTES * hopper.MAX_GROUPS <= hopper.SEGMENTS_AT
    assert hopper.SEGMENTS_AT + hopper.SEGMENTS * 4 * hopper.SEGMENT_WORDS <= hopper.HEADER_BYTES
    assert hopper.SEGMENTS > hopper.WEIGHT_STAGES + 2
    for height in config.heights:
        assert hopper.MIN_TOKEN_STAGES * height * hopper.TOKEN_BYTES <= geometry.token_ring_bytes
        for scratches in range(hopper.WIDEN_WARPS + 1):
            head = config.head_stages(height, scratches)
            assert 1 <= head <= hopper.MAX_HEAD_STAGES
            beyond = max(0, scratches * hopper.SCRATCH_BYTES - staging)
            assert head * height * hopper.TOKEN_BYTES + beyond <= geometry.token_ring_bytes


def check_table(hopper, plan, sizes, columns):
    """Every stage of every tile once; who adds parts finds them; a cluster begins with those it writes."""
    tiles, written = {}, {}
    for at, (g, row, token, packed, stage, stages, part, adds) in enumerate(plan.table):
        if g >= 0:
            assert plan.config.variants[packed & 7] == height_of(packed)
            assert stages > 0 and stages % 4 == stage % 4 == 0
            check_rows(plan, sizes[g][1], row, packed, plan.table[at + columns])
            tiles.setdefault((g, row, token), []).append((stage, stages, part, adds))
            if adds == hopper.WRITES:
                assert part not in written
                # Nobody waits for one who waits.
                assert all(entry[7] == hopper.WRITES for entry in plan.table[at % columns : at : columns])
                written[part] = (g, row, token), stage
    assert sorted(written) == list(range(len(written)))
    assert plan.workspace_bytes == plan.numbers[4] * 1024 + len(written) * hopper.CLUSTER * hopper.part_bytes(
        plan.config
    )
    for tile, found in tiles.items():
        found.sort()
        ends = [stage + stages for stage, stages, *_ in found]
        assert [stage for stage, *_ in found] == [0, *ends[:-1]] and ends[-1] == stages_of(sizes[tile[0]][2])
        _, _, part, adds = found[0]
        assert adds == len(found) - 1
        parts = [written.pop(part + i) for i in range(adds)]
        assert parts == [(tile, stage) for stage, *_ in found[1:]]  # in the order of K
    assert not written
    assert set(tiles) == {
        (g, row, token)
        for g, (m, n, _, _) in enumerate(sizes)
        for row in range(0, n, plan.config.geometry.tile_rows)
        for token in tiles_of(plan, g, m)
    }


def check_rows(plan, n, row, packed, after):
    """As many warpgroups multiply as there are rows for. Of the next segment (after), where there is one, it
    is known whether each CTA's rows begin in the middle of an atom of scales."""
    warpgroups = packed >> 26 & 3
    assert warpgroups == min(plan.config.geometry.warpgroups, -(-(n - row) // 128))
    assert plan.config.narrow or warpgroups == plan.config.geometry.warpgroups
    group, next_row, _, next_packed, *_ = after
    for rank in range(2 if group >= 0 else 0):
        begin = next_row + rank * (next_packed >> 26 & 3) * 64
        assert packed >> 24 + rank & 1 == begin % 128 // 64


def check_ring(hopper, plan, columns):
    """Stages that may be in the ring of tokens together do not overlap there; and soon as many as can be."""
    ring_bytes = plan.config.geometry.token_ring_bytes
    for first in range(columns):
        places, emptied, at = [], 0, 0
        for g, _, _, packed, _, stages, *_ in plan.table[first::columns]:
            if g < 0:
                break
            crowd, crowded = packed >> 8 & 15, packed >> 16 & 255
            size, full = height_of(packed) * 256, plan.config.token_stages(height_of(packed))
            assert 1 <= crowd <= full == min(ring_bytes // size, hopper.MAX_TOKEN_STAGES)
            for i in range(stages):
                at = 0 if at + size > ring_bytes else at
                room = crowd if i < crowded else full
                emptied = max(emptied, len(places) + 1 - room)
                assert all(end <= at or at + size <= begin for begin, end in places[emptied:])
                places.append((at, at + size))
                at += size
            assert crowded <= 2 * hopper.MAX_TOKEN_STAGES


@pytest.mark.parametrize("sizes", BENCHMARKS)
def test_plans_of_the_benchmarks_cover_c_once(hopper, sizes):
    check_plan(hopper, sizes)


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(SIZE, min_size=1, max_size=32), clusters=st.integers(1, 66))
def test_plans_cover_c_once(hopper, sizes, clusters):
    check_plan(hopper, tuple((*size, 1) for size in sizes), clusters)


def test_registers_suffice(hopper):
    """What warpgroups have together after `setmaxnreg` is no more than the CTA got at its launch."""
    for geometry in hopper.GEOMETRIES:
        multiply, load, widen = geometry.registers
        warps = geometry.warps * multiply + geometry.helpers * widen + hopper.LOAD_WARPS * load
        assert 32 * warps <= hopper.THREADS * (65536 // hopper.THREADS)
        assert multiply % 8 == load % 8 == widen % 8 == 0


@pytest.mark.parametrize("sizes", BENCHMARKS)
def test_few_rows_and_tokens_make_tiles_of_fewer_rows_and_more_tokens(hopper, sizes):
    config = hopper.Plan(sizes, CLUSTERS).config
    assert config.geometry.warpgroups == (3 if len(sizes) == 8 else 2)


def test_a_plan_that_cuts_tiles_is_the_best_for_the_first_benchmark(hopper):
    assert hopper.WRITES in [adds for *_, adds in hopper.Plan(BENCHMARKS[0], CLUSTERS).table]


def test_a_group_with_one_taller_tile_makes_use_of_clusters_that_whole_tiles_leave_idle(hopper):
    """Of benchmark 3's 320 tokens: 36 even tiles and the other group's 24 are 60 for 66 clusters."""
    plan = hopper.Plan(BENCHMARKS[2], CLUSTERS)
    assert heights_of(plan, BENCHMARKS[2]) == [(96, 96), (128, 96, 96)]
    assert {height_of(packed) for _, _, _, packed, *_, adds in plan.table if adds} == {128}


@given(m=st.integers(1, 3000), tiles=st.integers(1, 20))
def test_heights_of_a_groups_tiles(hopper, m, tiles):
    if m <= (tiles - 1) * 8:
        return  # more tiles than eights
    even = hopper.even_heights(m, tiles)
    assert sum(even) == -(-m // 8) * 8 and max(even) - min(even) in (0, 8) and even[0] == max(even)
    for heights in hopper.with_a_taller_one(m, tiles):
        assert sum(heights) == sum(even) and len(heights) == tiles and min(heights) > 0
        assert even[0] < heights[0] <= hopper.MAX_TOKENS
        assert heights[0] > max(heights[1:]) <= min(heights[1:]) + 8


@given(ms=st.lists(st.integers(1, 1500), min_size=1, max_size=12))
def test_few_heights_still_cover_all_tokens(hopper, ms):
    tiling = hopper.tiling_of(hopper.GEOMETRIES[0], [hopper.even_heights(m, -(-m // 96)) for m in ms])
    assert len(tiling.different) <= hopper.MAX_VARIANTS
    for m, heights in zip(ms, tiling.heights, strict=True):
        ends = [token + height for token, height in hopper.tile_tokens(m, heights)]
        assert [token for token, _ in hopper.tile_tokens(m, heights)] == [0, *ends[:-1]]
        assert ends[-1] >= m and all(end < m for end in ends[:-1])


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
    """The kernel's steps in numpy and torch: fp16's upper bytes by shifts and masks, times the scale."""
    words = np.array([0x76543210, 0xFEDCBA98], np.uint32)
    magnitudes, signs = np.uint32(hopper.MAGNITUDES), words & np.uint32(hopper.SIGNS & 0xFFFFFFFF)
    high = (words >> np.uint32(3) & magnitudes) | (signs & ~magnitudes)
    low = (words << np.uint32(1) & magnitudes) | (signs << np.uint32(4) & ~magnitudes)
    upper = np.uint32(hopper.UPPER_BYTES & 0xFFFFFFFF)
    pairs = [(four << np.uint32(8) & upper, four & upper) for four in (high, low)]
    halves = np.stack([pair.view(np.float16).reshape(2, 2) for both in pairs for pair in both], axis=1)
    values = torch.from_numpy(halves.reshape(2, 8))
    order = [1, 5, 3, 7, 0, 4, 2, 6]  # as `widen` says
    e2m1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    expected = torch.stack([e2m1[order], -e2m1[order]]) * 2.0**-14
    assert torch.equal(values.float(), expected)

    lift = torch.tensor([hopper.LIFT & 0xFFFF], dtype=torch.int16).view(torch.float16)
    assert hopper.LIFT == hopper.LIFT >> 16 | (hopper.LIFT & 0xFFFF) << 16 and lift == 2.0**7
    plain = torch.arange(0x7F, dtype=torch.uint8).view(torch.float8_e4m3fn).half()  # without NaN
    scales = plain * lift
    assert torch.equal(scales.double(), plain.double() * 2.0**7)  # none is infinite
    products = values[:, :, None] * scales
    assert torch.equal(products.double(), expected.double()[:, :, None] * scales.double())
    assert hopper.BIAS == (2.0**14 / 2.0**7) ** 2
