"""tcgen05.cp and tcgen05.shift: which byte lands in which lane and column."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from b200sim.faults import Fault, Unsupported
from b200sim.tensor_core.copy import copy_to_tensor_memory, shift_down
from b200sim.tensor_core.touch import Touch
from b200sim.tensor_memory import POISON, TensorMemory

DESCRIPTOR = 1 << 46


@dataclass
class Cta:
    smem: np.ndarray
    tmem: TensorMemory


def make_cta(seed: int) -> Cta:
    memory = TensorMemory()
    memory.allocate(128)
    return Cta(np.random.default_rng(seed).integers(0, 256, 0x4000, dtype=np.uint8), memory)


def lanes_of_row(shape: str, multicast: str | None, row: int) -> list[int]:
    """PTX ISA 9.7.16.9.2, in words: which of the four warps' lanes receive a row."""
    if shape == "32x128b":
        return [row, row + 32, row + 64, row + 96]
    if multicast == "warpx2::02_13":  # warps 0 and 2 get rows 0-31, warps 1 and 3 rows 32-63
        return [row, row + 64]
    if multicast == "warpx2::01_23":  # warps 0 and 1 get rows 0-31, warps 2 and 3 rows 32-63
        return [row, row + 32] if row < 32 else [row + 32, row + 64]
    if shape == "4x256b":
        return [32 * row]
    return [row]


CASES = [
    ("32x128b", "warpx4", 32, 16),
    ("64x128b", "warpx2::02_13", 64, 16),
    ("64x128b", "warpx2::01_23", 64, 16),
    ("128x128b", None, 128, 16),
    ("128x256b", None, 128, 32),
    ("4x256b", None, 4, 32),
]


@pytest.mark.parametrize(("shape", "multicast", "rows", "row_bytes"), CASES)
@pytest.mark.parametrize("group", [1, 2])
def test_every_shape(shape: str, multicast: str | None, rows: int, row_bytes: int, group: int) -> None:
    """Unswizzled: eight rows of 16 bytes to a group of 144, the second 16 bytes of a row 0x1000 on."""
    ctas = [make_cta(seed) for seed in range(group)]
    descriptor = DESCRIPTOR | 0x400 >> 4 | 0x1000 >> 4 << 16 | 144 >> 4 << 32
    copy_to_tensor_memory(ctas, shape=shape, multicast=multicast, address=40, descriptor=descriptor)
    for cta in ctas:
        want = np.full((128, 512), POISON, dtype=np.uint32)
        for row in range(rows):
            for lane in lanes_of_row(shape, multicast, row):
                for byte in range(0, row_bytes, 4):
                    address = 0x400 + row % 8 * 16 + row // 8 * 144 + byte // 16 * 0x1000 + byte % 16
                    want[lane, 40 + byte // 4] = int.from_bytes(
                        cta.smem[address : address + 4].tobytes(), "little"
                    )
        assert np.array_equal(cta.tmem.cells, want)


def test_scale_factor_atom_is_copied_unchanged() -> None:
    """The 512-byte block x%32*16 + x/32%4*4 + j becomes lane x%32, column x/32, byte j."""
    cta = make_cta(7)
    copy_to_tensor_memory(
        [cta], shape="32x128b", multicast="warpx4", address=8, descriptor=0x0000400800010000 | 0x800 >> 4
    )
    for x in range(128):
        for j in range(4):
            byte = int(cta.tmem.cells[x % 32 + 64, 8 + x // 32]) >> 8 * j & 0xFF
            assert byte == cta.smem[0x800 + x % 32 * 16 + x // 32 * 4 + j]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"multicast": None}, "cp_multicast"),
        ({"multicast": "warpx2::02_13"}, "cp_multicast"),
        ({"shape": "16x128b"}, "cp_shape"),
        ({"address": 32 << 16}, "cp_lane"),
        ({"address": 126}, "tmem_not_allocated"),
        ({"address": 510}, "tmem_out_of_range"),
        ({"descriptor": DESCRIPTOR | 0x3FF0 >> 4 | 8 << 32}, "smem_out_of_bounds"),
        ({"descriptor": 0}, "smem_descriptor_version"),
    ],
)
def test_illegal_copies(change: dict[str, object], code: str) -> None:
    arguments = {"shape": "32x128b", "multicast": "warpx4", "address": 0, "descriptor": DESCRIPTOR | 8 << 32}
    cta = make_cta(0)
    with pytest.raises(Fault) as info:
        copy_to_tensor_memory([cta], **(arguments | change))  # type: ignore[arg-type]
    assert info.value.code == code
    assert (cta.tmem.cells == POISON).all()


def test_decompression_is_refused() -> None:
    with pytest.raises(Unsupported, match="b6x16_p32"):
        copy_to_tensor_memory(
            [make_cta(0)],
            shape="128x128b",
            multicast=None,
            address=0,
            descriptor=DESCRIPTOR,
            formats=".b8x16.b6x16_p32",
        )


def test_copy_reports_its_accesses() -> None:
    touched: list[Touch] = []
    copy_to_tensor_memory(
        [make_cta(0), make_cta(1)],
        shape="32x128b",
        multicast="warpx4",
        address=4,
        descriptor=0x0000400800010000 | 0x800 >> 4,
        touched=touched,
    )
    assert [(t.operand, t.space, t.cta, t.write) for t in touched] == [
        ("source", "shared", 0, False),
        ("destination", "tensor", 0, True),
        ("source", "shared", 1, False),
        ("destination", "tensor", 1, True),
    ]
    assert sorted(touched[0].chunks.tolist()) == list(range(0x800, 0xA00, 16))
    assert (touched[0].start, touched[0].size) == (0x800, 0x200)
    assert (touched[1].lane, touched[1].lanes, touched[1].column, touched[1].columns) == (0, 128, 4, 4)


def test_shift_moves_rows_of_one_quarter() -> None:
    cta = make_cta(0)
    cta.tmem.cells[:] = np.arange(128)[:, None] * 1000 + np.arange(512)[None, :]
    before = cta.tmem.cells.copy()
    shift_down([cta], address=64 << 16 | 16)
    for lane in range(128):
        for column in range(14, 26):
            moved = 64 <= lane < 95 and 16 <= column < 24
            assert cta.tmem.cells[lane, column] == before[lane + moved, column]
    with pytest.raises(Fault) as info:
        shift_down([cta], address=16 << 16)
    assert info.value.code == "shift_lane"
