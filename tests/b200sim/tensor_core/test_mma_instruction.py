"""Whole tcgen05.mma instructions, from memories to memories.

Operands are placed by hand in the CTAs' memories, outputs are looked up where the manual says they are, and
compared with scalar arithmetic on sampled elements.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import mma_oracle as oracle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from b200sim.faults import Fault, Unsupported
from b200sim.tensor_core.mma import mma_block_scaled, mma_dense, mma_flops
from b200sim.tensor_core.touch import Touch
from b200sim.tensor_memory import POISON, TensorMemory

A_START, B_START = 0x1000, 0x9400
SFA, SFB = 256, 300


@dataclass
class Cta:
    smem: np.ndarray = field(default_factory=lambda: np.full(0x14000, 0xFF, dtype=np.uint8))
    tmem: TensorMemory = field(default_factory=TensorMemory)

    def __post_init__(self) -> None:
        self.tmem.allocate(512)


def put_rows(smem: np.ndarray, start: int, rows: np.ndarray, swizzle: int, k_step: int) -> int:
    """Write uint8 (rows, 32) K-major, `k_step` * 32 bytes into swizzled rows; returns the descriptor."""
    span = swizzle // 16
    for r, row in enumerate(rows):
        for half in range(2):
            if swizzle:
                address = start + r * swizzle + 32 * k_step + 16 * half
                line, chunk = address // 128, address // 16 % 8
                chunk = chunk // span * span + (chunk % span ^ line % span)
                address = line * 128 + 16 * chunk
            else:
                address = start + r // 8 * 256 + half * 128 + r % 8 * 16
            smem[address : address + 16] = row[16 * half : 16 * half + 16]
    code = {0: 0, 32: 6, 64: 4, 128: 2}[swizzle]
    stride = 8 * swizzle if swizzle else 256
    first = start + 32 * k_step if swizzle else start
    return first >> 4 | (128 if not swizzle else 16) >> 4 << 16 | stride >> 4 << 32 | 1 << 46 | code << 61


def put_scales(
    memory: TensorMemory, column: int, codes: np.ndarray, lanes: range, first_byte: int = 0
) -> None:
    """uint8 (rows, count): row x in lane x % 32, column x / 32, in every quarter of `lanes`."""
    for x, row in enumerate(codes):
        for quarter in range(lanes.start, lanes.stop, 32):
            shift = 8 * first_byte
            word, mask = 0, 0
            for j, code in enumerate(row):
                word |= int(code) << shift + 8 * j
                mask |= 0xFF << shift + 8 * j
            cell = int(memory.cells[quarter + x % 32, column + x // 32])
            memory.cells[quarter + x % 32, column + x // 32] = cell & ~mask & 0xFFFFFFFF | word


@dataclass
class Problem:
    """One block-scaled 4-bit instruction with random operands, laid out in one or two CTAs."""

    group: int
    m: int
    n: int
    rng: np.random.Generator
    scale_vec: int = 4
    kind: str = "mxf4nvf4"
    ue8m0: bool = False
    swizzle: int = 128
    k_step: int = 0
    sf_id: int = 0
    mask: int = 0xFF
    scales: tuple[int, int] = (0x30, 0x48)
    negate_a: bool = False
    d_column: int = 0

    def __post_init__(self) -> None:
        rng = self.rng
        self.ctas = [Cta() for _ in range(self.group)]
        self.a = rng.integers(0, 256, (self.m, 32), dtype=np.uint8) & np.uint8(self.mask)
        self.b = rng.integers(0, 256, (self.n, 32), dtype=np.uint8) & np.uint8(self.mask)
        self.sfa = rng.integers(*self.scales, (self.m, self.scale_vec)).astype(np.uint8)
        self.sfb = rng.integers(*self.scales, (self.n, self.scale_vec)).astype(np.uint8)
        rows, columns = self.m // self.group, self.n // self.group
        layout_b = self.group == 2 and self.m == 128
        for i, cta in enumerate(self.ctas):
            mine = slice(rows * i, rows * (i + 1))
            self.a_descriptor = put_rows(cta.smem, A_START, self.a[mine], self.swizzle, self.k_step)
            part = self.b[columns * i : columns * (i + 1)]
            self.b_descriptor = put_rows(cta.smem, B_START, part, self.swizzle, self.k_step)
            put_scales(cta.tmem, SFA, self.sfa[mine], range(128), self.sf_id)
            if layout_b:
                put_scales(cta.tmem, SFB, self.sfb[: self.n // 2], range(64), self.sf_id)
                put_scales(cta.tmem, SFB, self.sfb[self.n // 2 :], range(64, 128), self.sf_id)
            else:
                put_scales(cta.tmem, SFB, self.sfb, range(128), self.sf_id)

    @property
    def idesc(self) -> int:
        bits = 1 << 7 | 1 << 10 | self.n // 8 << 17 | self.m // 16 << 24
        return bits | int(self.ue8m0) << 23 | self.sf_id << 29 | self.sf_id << 4 | int(self.negate_a) << 13

    def run(self, accumulate: bool = False, **changes: object) -> None:
        arguments: dict[str, object] = {
            "kind": self.kind,
            "scale_vec": self.scale_vec,
            "d_address": self.d_column,
            "a_descriptor": self.a_descriptor,
            "b_descriptor": self.b_descriptor,
            "idesc": self.idesc,
            "sfa_address": SFA,
            "sfb_address": SFB,
            "accumulate": accumulate,
        }
        mma_block_scaled(self.ctas, **(arguments | changes))  # type: ignore[arg-type]

    def d(self, m: int, n: int) -> tuple[int, int, int]:
        """(cta, lane, column) of one output, figures 205, 207 and 211 of the PTX manual."""
        if self.group == 1:
            return 0, m, self.d_column + n
        if self.m == 256:
            return m // 128, m % 128, self.d_column + n
        right = n >= self.n // 2
        return m // 64, m % 64 + (64 if right else 0), self.d_column + n - (self.n // 2 if right else 0)

    def cell(self, m: int, n: int) -> int:
        cta, lane, column = self.d(m, n)
        return int(self.ctas[cta].tmem.cells[lane, column])

    def expected(self, m: int, n: int, c: float = 0.0) -> int:
        sign = -1 if self.negate_a else 1
        a = [sign * oracle.e2m1(int(self.a[m, i // 2]) >> 4 * (i % 2)) for i in range(64)]
        b = [oracle.e2m1(int(self.b[n, i // 2]) >> 4 * (i % 2)) for i in range(64)]
        decode, smallest = (oracle.ue8m0, -127) if self.ue8m0 else (oracle.ue4m3, -6)
        repeat = 4 // self.scale_vec
        sfa, sfb = ([decode(int(row[j // repeat])) for j in range(4)] for row in (self.sfa[m], self.sfb[n]))
        return oracle.block_scaled(a, b, sfa, sfb, c, smallest)

    def check(self, samples: int = 20, before: np.ndarray | None = None) -> None:
        corners = [(m, n) for m in (0, self.m - 1) for n in (0, self.n // 2, self.n - 1)]
        more = zip(self.rng.integers(0, self.m, samples), self.rng.integers(0, self.n, samples), strict=True)
        for m, n in [*corners, *((int(m), int(n)) for m, n in more)]:
            c = 0.0 if before is None else float(before[m, n])
            assert hex(self.cell(m, n)) == hex(self.expected(m, n, c)), f"D[{m},{n}]"


SHAPES = st.one_of(
    st.tuples(st.just(1), st.just(128), st.integers(1, 32).map(lambda x: 8 * x)),
    st.tuples(st.just(2), st.sampled_from([128, 256]), st.integers(1, 16).map(lambda x: 16 * x)),
)


@settings(max_examples=40, deadline=None)
@given(
    shape=SHAPES,
    seed=st.integers(0, 2**32 - 1),
    layout=st.sampled_from([(128, 0), (128, 1), (128, 3), (64, 1), (32, 0), (0, 0)]),
    scales=st.sampled_from([(0x38, 0x41), (0x30, 0x48), (0, 0x7F)]),
    negate=st.booleans(),
)
def test_every_shape_and_operand_layout(
    shape: tuple[int, int, int], seed: int, layout: tuple[int, int], scales: tuple[int, int], negate: bool
) -> None:
    group, m, n = shape
    problem = Problem(
        group,
        m,
        n,
        np.random.default_rng(seed),
        swizzle=layout[0],
        k_step=layout[1],
        scales=scales,
        negate_a=negate,
    )
    problem.run()
    problem.check()


@pytest.mark.parametrize(("group", "m", "n"), [(1, 128, 64), (2, 256, 256), (2, 128, 96)])
def test_accumulation_and_untouched_cells(group: int, m: int, n: int) -> None:
    rng = np.random.default_rng(m + n)
    problem = Problem(group, m, n, rng, mask=0xBB, d_column=32 if n < 256 else 0)
    before = rng.integers(-99, 99, (m, n)).astype(np.float32)
    for row in range(m):
        for column in range(n):
            cta, lane, cell = problem.d(row, column)
            problem.ctas[cta].tmem.cells[lane, cell] = before.view(np.uint32)[row, column]
    snapshots = [cta.tmem.cells.copy() for cta in problem.ctas]
    problem.run(accumulate=True)
    problem.check(before=before)
    width = n // 2 if (group, m) == (2, 128) else n
    for cta, snapshot in zip(problem.ctas, snapshots, strict=True):
        outside = np.ones((128, 512), dtype=bool)
        outside[:, problem.d_column : problem.d_column + width] = False
        assert np.array_equal(cta.tmem.cells[outside], snapshot[outside])


@pytest.mark.parametrize("sf_id", [0, 2])
@pytest.mark.parametrize("kind", ["mxf4", "mxf4nvf4"])
def test_two_scales_a_row(kind: str, sf_id: int) -> None:
    problem = Problem(
        1,
        128,
        40,
        np.random.default_rng(sf_id),
        scale_vec=2,
        kind=kind,
        ue8m0=True,
        sf_id=sf_id,
        scales=(115, 140),
    )
    problem.run()
    problem.check(40)


def test_ue8m0_with_four_scales_a_row() -> None:
    problem = Problem(2, 256, 32, np.random.default_rng(1), ue8m0=True, scales=(100, 150))
    problem.run()
    problem.check(40)


def test_accumulating_on_poison_gives_nan_and_overwriting_does_not() -> None:
    problem = Problem(1, 128, 8, np.random.default_rng(2))
    problem.run(accumulate=True)
    assert {problem.cell(m, n) for m in range(128) for n in range(8)} == {oracle.NAN_BITS}
    problem.run(accumulate=False)
    problem.check()


def test_poisoned_scale_factors_give_nan() -> None:
    problem = Problem(1, 128, 16, np.random.default_rng(3))
    problem.ctas[0].tmem.cells[:, SFB] = POISON
    problem.run()
    assert {problem.cell(m, n) for m in range(128) for n in range(16)} == {oracle.NAN_BITS}


@pytest.mark.parametrize(("group", "m", "n", "lane"), [(1, 128, 64, 37), (1, 128, 64, 127), (2, 128, 64, 95)])
def test_differing_scale_factor_copies(group: int, m: int, n: int, lane: int) -> None:
    problem = Problem(group, m, n, np.random.default_rng(4))
    problem.ctas[-1].tmem.cells[lane, SFB] ^= 0x0100
    with pytest.raises(Fault, match=rf"SFB of row \d+, byte 1: .* lanes {lane // 32 * 32}\.\.") as info:
        problem.run()
    assert info.value.code == "scale_factor_copies_differ"


def test_scale_factors_beyond_n_may_differ() -> None:
    problem = Problem(1, 128, 8, np.random.default_rng(5))
    problem.ctas[0].tmem.cells[40, SFB] = 0  # row 8 of copy 1
    problem.ctas[0].tmem.cells[3, SFB + 1] = 0  # row 35
    problem.run()
    problem.check()


def test_pair_uses_each_ctas_own_scale_factors() -> None:
    """B's factors are read in both CTAs: if they disagree, each CTA's rows follow its own."""
    problem = Problem(2, 256, 32, np.random.default_rng(6))
    other = problem.sfb.copy()
    other[:, 2] ^= 0x01
    put_scales(problem.ctas[1].tmem, SFB, other, range(128))
    problem.run()
    first = problem.sfb
    for m, n in ((5, 3), (100, 31)):
        assert problem.cell(m, n) == problem.expected(m, n)
    problem.sfb = other
    for m, n in ((128, 3), (250, 31)):
        assert problem.cell(m, n) == problem.expected(m, n)
    problem.sfb = first


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"d_address": 504}, "tmem_out_of_range"),
        ({"d_address": 32 << 16}, "mma_lane"),
        ({"sfa_address": 510}, "tmem_out_of_range"),
        ({"sfb_address": 16 << 16 | SFB}, "mma_lane"),
        ({"sfb_address": 64 << 16 | SFB}, "unsupported"),
        ({"a_descriptor": 2 << 61 | 1 << 46 | 64 << 32 | 0x12000 >> 4}, "smem_out_of_bounds"),
        ({"b_descriptor": 0}, "smem_descriptor_version"),
        ({"idesc": 0x08200480 | 1 << 29}, "idesc_sf_id"),
        ({"scale_vec": 1}, "mma_scale_vec"),
    ],
)
def test_illegal_instructions_change_nothing(changes: dict[str, int], code: str) -> None:
    problem = Problem(1, 128, 16, np.random.default_rng(7))
    before = problem.ctas[0].tmem.cells.copy()
    with pytest.raises(Fault) as info:
        problem.run(**changes)
    assert info.value.code == code
    assert np.array_equal(problem.ctas[0].tmem.cells, before)


def test_d_and_scale_factors_must_be_allocated() -> None:
    for column in (0, SFA, SFB):
        problem = Problem(1, 128, 16, np.random.default_rng(8))
        memory = problem.ctas[0].tmem
        memory.free(0, 512)
        for first in range(0, 512, 32):
            memory.allocate(32)
            if first <= column < first + 32:
                hole = first
        memory.free(hole, 32)
        with pytest.raises(Fault, match=r"not all allocated") as info:
            problem.run()
        assert info.value.code == "tmem_not_allocated"


def test_sub_word_bits_of_scale_addresses_are_not_lanes() -> None:
    problem = Problem(
        1, 128, 16, np.random.default_rng(9), scale_vec=2, kind="mxf4", ue8m0=True, sf_id=2, scales=(120, 130)
    )
    problem.run(sfa_address=2 << 30 | SFA, sfb_address=2 << 30 | SFB)
    problem.check()


def test_observers_get_every_access() -> None:
    problem = Problem(2, 256, 64, np.random.default_rng(10))
    touched: list[Touch] = []
    problem.run(accumulate=True, touched=touched)
    for i in range(2):
        mine = {(t.operand, t.write): t for t in touched if t.cta == i}
        assert set(mine) == {
            ("A", False),
            ("B", False),
            ("SFA", False),
            ("SFB", False),
            ("D", False),
            ("D", True),
        }
        assert mine["A", False].chunks.size == 256 and mine["B", False].chunks.size == 64
        assert (mine["A", False].start, mine["B", False].start) == (A_START, B_START)
        d, sfa, sfb = mine["D", True], mine["SFA", False], mine["SFB", False]
        assert (d.lane, d.lanes, d.column, d.columns) == (0, 128, 0, 64)
        assert (sfa.column, sfa.columns, sfb.column, sfb.columns) == (SFA, 4, SFB, 2)
    written = np.zeros(0x14000, dtype=bool)
    for t in touched:
        if t.operand == "A" and t.cta == 0:
            for chunk in t.chunks:
                written[chunk : chunk + 16] = True
    problem.ctas[0].smem[~written & (np.arange(0x14000) < B_START)] = 0  # bytes nobody reports are not read
    problem.run(accumulate=False)
    problem.check()


def test_flops() -> None:
    assert mma_flops(0x08200480, "mxf4nvf4", 4) == 2 * 128 * 128 * 64
    assert mma_flops(0x10400480, "mxf4nvf4", 4, cta_group=2) == 2 * 256 * 256 * 64


def test_mxf8f6f4_mixes_formats() -> None:
    """e4m3 A, e2m3 B in 6-bit containers, one UE8M0 scale a row at byte 3 of each word."""
    rng = np.random.default_rng(11)
    cta = Cta()
    a = rng.integers(0x30, 0x48, (128, 32)).astype(np.uint8)  # 0.5 .. 3.75, so that sums are exact
    codes = rng.integers(0, 64, (16, 32))
    b = np.zeros((16, 32), dtype=np.uint8)
    for n in range(16):
        for half in range(2):
            stream = sum(int(codes[n, 16 * half + i]) << 6 * i for i in range(16))
            b[n, 16 * half : 16 * half + 12] = list(stream.to_bytes(12, "little"))
    sfa, sfb = rng.integers(125, 130, (128, 1)), rng.integers(125, 130, (16, 1))
    a_descriptor = put_rows(cta.smem, A_START, a, 128, 0)
    b_descriptor = put_rows(cta.smem, B_START, b, 128, 0)
    put_scales(cta.tmem, SFA, sfa, range(128), 3)
    put_scales(cta.tmem, SFB, sfb, range(128), 3)
    idesc = 0 << 7 | 3 << 10 | 16 // 8 << 17 | 1 << 23 | 128 // 16 << 24 | 3 << 29 | 3 << 4
    mma_block_scaled(
        [cta],
        kind="mxf8f6f4",
        scale_vec=1,
        d_address=0,
        a_descriptor=a_descriptor,
        b_descriptor=b_descriptor,
        idesc=idesc,
        sfa_address=SFA,
        sfb_address=SFB,
        accumulate=False,
    )
    for m in range(0, 128, 7):
        for n in range(16):
            total = Fraction(0)
            for i in range(32):
                left, code = int(a[m, i]), int(codes[n, i])
                right = (
                    Fraction(code & 7, 8)
                    if code >> 3 & 3 == 0
                    else (8 + (code & 7)) * oracle.power((code >> 3 & 3) - 4)
                )
                value = oracle.ue4m3(left)
                assert value is not None
                total += value * (-right if code >> 5 else right)
            total *= oracle.power(int(sfa[m, 0]) + int(sfb[n, 0]) - 254)
            assert float(cta.tmem.cells.view(np.float32)[m, n]) == float(total)


# ---- unscaled kinds


def dense_idesc(m: int, n: int, d: int = 1, **fields: int) -> int:
    shifts = {"a": 7, "b": 10, "neg_a": 13, "neg_b": 14, "ta": 15, "tb": 16}
    return (
        d << 4 | n // 8 << 17 | m // 16 << 24 | sum(value << shifts[name] for name, value in fields.items())
    )


def integers(rng: np.random.Generator, rows: int) -> np.ndarray:
    return rng.integers(-6, 7, (rows, 16))


@pytest.mark.parametrize(("group", "m", "n"), [(1, 128, 24), (1, 64, 16), (2, 256, 32), (2, 128, 32)])
def test_f16_layouts(group: int, m: int, n: int) -> None:
    rng = np.random.default_rng(m + n)
    a, b = integers(rng, m), integers(rng, n)
    c = rng.integers(-100, 100, (m, n)).astype(np.float32)
    ctas = [Cta() for _ in range(group)]
    lane0 = 16 if m == 64 else 0

    def place(row: int, column: int) -> tuple[int, int, int]:
        if m == 64:
            return 0, row // 16 * 32 + row % 16 + lane0, 8 + column
        if (group, m) == (2, 128):
            right = column >= n // 2
            return row // 64, row % 64 + 64 * right, 8 + column - n // 2 * right
        return row // 128, row % 128, 8 + column

    for i, cta in enumerate(ctas):
        mine = a[m // group * i : m // group * (i + 1)].astype(np.float16).view(np.uint8)
        part = b[n // group * i : n // group * (i + 1)].astype(np.float16).view(np.uint8)
        a_descriptor = put_rows(cta.smem, A_START, mine, 64, 1)
        b_descriptor = put_rows(cta.smem, B_START, part, 128, 2)
    for row in range(m):
        for column in range(n):
            i, lane, cell = place(row, column)
            ctas[i].tmem.cells[lane, cell] = c.view(np.uint32)[row, column]
    mma_dense(
        ctas,
        kind="f16",
        d_address=lane0 << 16 | 8,
        a_descriptor=a_descriptor,
        b_descriptor=b_descriptor,
        idesc=dense_idesc(m, n, neg_b=1),
        accumulate=True,
        scale_d=2,
    )
    for row in range(m):
        for column in range(n):
            i, lane, cell = place(row, column)
            want = c[row, column] / 4 - int(a[row] @ b[column])
            assert ctas[i].tmem.cells.view(np.float32)[lane, cell] == want


def test_bf16_mn_major_operands() -> None:
    """A M-major with 128-byte swizzle, B N-major without swizzle."""
    rng = np.random.default_rng(12)
    a, b = integers(rng, 128), integers(rng, 24)
    cta = Cta()

    def put(address: int, value: int) -> None:
        bits = np.array([value], dtype=np.float32).view(np.uint32)[0] >> 16  # bf16: exact for small integers
        cta.smem[address : address + 2] = [bits & 0xFF, bits >> 8]

    for k in range(16):
        for m in range(
            128
        ):  # 64 values of M in a 128-byte row; leading 0x2000 to the next 64, stride 1024 per 8 k
            line, chunk = A_START // 128 + m // 64 * (0x2000 // 128) + k // 8 * 8 + k % 8, m % 64 // 8
            put(line * 128 + 16 * (chunk ^ line % 8) + 2 * (m % 8), a[m, k])
        for n in range(24):  # 8 values of N in 16 bytes; stride 0x400 to the next 8, leading 0x80 per 8 k
            put(B_START + n // 8 * 0x400 + k // 8 * 0x80 + k % 8 * 16 + 2 * (n % 8), b[n, k])
    mma_dense(
        [cta],
        kind="f16",
        d_address=0,
        a_descriptor=A_START >> 4 | 0x2000 >> 4 << 16 | 1024 >> 4 << 32 | 1 << 46 | 2 << 61,
        b_descriptor=B_START >> 4 | 0x80 >> 4 << 16 | 0x400 >> 4 << 32 | 1 << 46,
        idesc=dense_idesc(128, 24, a=1, b=1, ta=1, tb=1),
        accumulate=False,
    )
    assert np.array_equal(cta.tmem.cells.view(np.float32)[:, :24], a @ b.T)


def test_a_from_tensor_memory_f16_output_and_disabled_lanes() -> None:
    rng = np.random.default_rng(13)
    a, b = integers(rng, 128), integers(rng, 16)
    cta = Cta()
    for m in range(128):
        for k in range(0, 16, 2):
            low, high = (int(np.float16(a[m, k + i]).view(np.uint16)) for i in range(2))
            cta.tmem.cells[m, 400 + k // 2] = low | high << 16
    b_descriptor = put_rows(cta.smem, B_START, b.astype(np.float16).view(np.uint8), 128, 0)
    disabled = [1 << 5, 0, 0x80000000, 0]  # lanes 5 and 95
    mma_dense(
        [cta],
        kind="f16",
        d_address=0,
        a_address=400,
        b_descriptor=b_descriptor,
        idesc=dense_idesc(128, 16, d=0),
        accumulate=False,
        disable_lanes=disabled,
    )
    for m in range(128):
        for n in range(16):
            got = int(cta.tmem.cells[m, n])
            if m in (5, 95):
                assert got == POISON
            else:
                assert got == int(np.float16(int(a[m] @ b[n])).view(np.uint16))


def test_integer_kind_and_tf32() -> None:
    rng = np.random.default_rng(14)
    cta = Cta()
    a, b = rng.integers(-128, 128, (128, 32)), rng.integers(0, 256, (8, 32))
    arguments = {
        "a_descriptor": put_rows(cta.smem, A_START, a.astype(np.int8).view(np.uint8), 128, 0),
        "b_descriptor": put_rows(cta.smem, B_START, b.astype(np.uint8), 128, 0),
    }
    mma_dense(
        [cta], kind="i8", d_address=0, idesc=dense_idesc(128, 8, d=2, a=1, b=0), accumulate=False, **arguments
    )
    assert np.array_equal(cta.tmem.cells.view(np.int32)[:, :8], a @ b.T)
    x, y = rng.integers(-50, 50, (128, 8)), rng.integers(-50, 50, (8, 8))
    put_rows(cta.smem, A_START, x.astype(np.float32).view(np.uint8), 128, 0)
    put_rows(cta.smem, B_START, y.astype(np.float32).view(np.uint8), 128, 0)
    mma_dense(
        [cta], kind="tf32", d_address=0, idesc=dense_idesc(128, 8, a=2, b=2), accumulate=False, **arguments
    )
    assert np.array_equal(cta.tmem.cells.view(np.float32)[:, :8], x @ y.T)
    with pytest.raises(Fault) as info:
        mma_dense(
            [cta],
            kind="tf32",
            d_address=0,
            idesc=dense_idesc(128, 8, a=2, b=2, ta=1),
            accumulate=False,
            **arguments,
        )
    assert info.value.code == "mma_major"


def test_dense_refusals() -> None:
    ctas = [Cta(), Cta()]
    with pytest.raises(Unsupported, match="A in tensor memory"):
        mma_dense(
            ctas,
            kind="f16",
            d_address=0,
            a_address=64,
            b_descriptor=put_rows(ctas[0].smem, B_START, np.zeros((8, 32), np.uint8), 128, 0),
            idesc=dense_idesc(128, 16),
            accumulate=False,
        )
    with pytest.raises(Fault) as info:
        mma_dense(
            ctas[:1],
            kind="f8f6f4",
            d_address=0,
            a_descriptor=1 << 46,
            b_descriptor=1 << 46,
            idesc=dense_idesc(128, 16),
            accumulate=True,
            scale_d=1,
        )
    assert info.value.code == "mma_scale_d"
