"""Why a result may be wrong: computes what well-known mistakes would have given and compares.

Each hypothesis is evaluated exactly on a sample of wrong elements. One that reproduces nearly all of them,
bit for bit, is reported: "as if K tile 3 of 64 had been left out", "as if A's scales came from row ^ 32".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from reference_exact import SCALE_VECTOR, e2m1_pairs

_SAMPLE = 48
_MATCH = 0.9  # of the sample; the rest may be wrong for a second reason
_K_TILES = (64, 128, 256, 512)


@dataclass(frozen=True)
class Group:
    """One group of a case on the CPU, batch index removed, and what came of it."""

    a: np.ndarray  # uint8 (m, k/2), packed e2m1
    b: np.ndarray  # uint8 (n, k/2)
    sfa: np.ndarray  # float64 (128*rest_m, 4*rest_k): reordered scales with their padding, in plain order
    sfb: np.ndarray  # float64 (128*rest_n, 4*rest_k)
    c: np.ndarray | None  # float16 (m, n): what c held before, where that is still known
    got: np.ndarray  # float16 (m, n)
    expected: np.ndarray  # float16 (m, n)
    wrong: np.ndarray  # bool (m, n)


@dataclass(frozen=True)
class Cause:
    """`unwritten`: the values are no sums at all (poison, NaN, zeros, old c), so a region may be missing."""

    text: str
    unwritten: bool = False


def find_cause(groups: Sequence[Group], index: int, poison_bits: int | None = None) -> Cause | None:
    """What explains the wrong elements of groups[index], or None if nothing tried does.

    `poison_bits` is the float16 pattern that filled the outputs before the run, if one did.
    """
    group = groups[index]
    plain = _plain_values(group, poison_bits)
    if plain:
        return Cause(plain, unwritten=True)
    finite = group.wrong & np.isfinite(group.got)
    if np.count_nonzero(finite) < 2:
        return None
    positions = np.argwhere(finite)
    if len(positions) > _SAMPLE:
        chosen = np.random.default_rng(0).choice(len(positions), _SAMPLE, replace=False)
        positions = positions[np.sort(chosen)]
    i, j = positions.T
    got = group.got[i, j]
    for search in (_ratios, _places):
        found = search(groups, index, i, j, got)
        if found:
            return Cause(found)
    sample = Sample(group, i, j)
    for text, value in _recomputed(sample):
        if _matches(value, got):
            return Cause(f"as if {text}")
    found = _left_over(groups, i, j, got, sample.total())
    return Cause(found) if found else None


def _matches(value: np.ndarray, got: np.ndarray) -> bool:
    """`value` (float64, exact) rounded to float16 is what was got, for nearly all of the sample."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.mean(value.astype(np.float16) == got)) >= _MATCH


# ------------------------------------------------------------------------------ what the values are


def _plain_values(group: Group, poison_bits: int | None) -> str:
    """Values that speak for themselves: poison, NaN, zeros, the old c."""
    got = group.got[group.wrong]
    if poison_bits is not None:
        share = float(np.mean(got.view(np.uint16) == poison_bits))
        if share >= 0.5:
            return f"{_whole(share)} still hold the poison 0x{poison_bits:04x}: never written"
    bits, counts = np.unique(got.view(np.uint16), return_counts=True)
    common, share = int(bits[counts.argmax()]), counts.max() / got.size
    if np.isnan(got).all() and share >= _MATCH and got.size > 1:
        return (
            f"{_whole(share)} hold the NaN 0x{common:04x}: never written, or computed from poisoned padding"
        )
    if np.isnan(got).mean() >= 0.5:
        return f"{_whole(float(np.isnan(got).mean()))} are NaN: padding or unwritten memory reached the sums"
    if common & 0x7FFF == 0 and share >= _MATCH and got.size > 1:
        return f"{_whole(share)} are zero"
    if group.c is not None and np.mean(group.c[group.wrong].view(np.uint16) == got.view(np.uint16)) >= _MATCH:
        return "they still hold what c held before: never written"
    return ""


def _whole(share: float) -> str:
    return "all of them" if share == 1 else f"{share:.0%} of them"


def _ratios(groups: Sequence[Group], index: int, i: np.ndarray, j: np.ndarray, got: np.ndarray) -> str:
    """A common factor, or one power of two for each row (column)."""
    group = groups[index]
    large = group.wrong & (np.abs(group.expected) >= 1)
    large &= np.isfinite(group.expected) & np.isfinite(group.got)
    if np.count_nonzero(large) < 2:
        return ""
    ratio = np.full(group.got.shape, np.nan)
    ratio[large] = group.got[large].astype(np.float64) / group.expected[large]
    middle = float(np.nanmedian(ratio))
    if middle and np.mean(np.abs(ratio[large] / middle - 1) < 2e-3) >= _MATCH:
        return f"every wrong element is {middle:.6g} times the expected one"
    for axis, name, operand in ((1, "row", "A"), (0, "column", "B")):
        lines = np.flatnonzero(np.count_nonzero(large, axis=axis) >= 4)
        if lines.size < 2:
            continue
        taken = np.take(ratio, lines, axis=1 - axis)
        medians = np.nanmedian(taken, axis=axis, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            fits = np.abs(taken / medians - 1) < 2e-3
            powers = np.log2(np.abs(medians))
        steady = fits.sum() >= _MATCH * np.count_nonzero(~np.isnan(taken))
        if steady and np.mean(np.abs(powers - np.round(powers)) < 2e-3) >= _MATCH:
            return f"each wrong {name} is off by its own power of two: a suspect layout of {operand}'s scales"
    return ""


# ------------------------------------------------------------------------------ right values, wrong place


def _places(groups: Sequence[Group], index: int, i: np.ndarray, j: np.ndarray, got: np.ndarray) -> str:
    """Values that are right for another element, row, tile or group."""
    group = groups[index]
    own = group.expected
    for other, candidate in enumerate(groups):
        if other != index and _found_at(candidate.expected, i, j, got):
            return f"they equal group {other}'s expected values: wrong group picked"
    moves: list[tuple[str, np.ndarray, np.ndarray]] = [("the transposed position", j, i)]
    for bit in (1, 2, 4, 8, 16, 32, 64, 128):
        moves += [(f"row ^ {bit}", i ^ bit, j), (f"column ^ {bit}", i, j ^ bit)]
        for step in (bit, -bit):
            moves += [(f"row {_signed(step)}", i + step, j), (f"column {_signed(step)}", i, j + step)]
    for size in (8, 4, 2):
        swizzled = j ^ ((i * size // 8) % size * 8)
        moves.append((f"an output tile stored without its {size * 16}-byte swizzle", i, swizzled))
    for text, rows, columns in moves:
        if _found_at(own, rows, columns, got):
            return f"they equal the expected values of {text}"
    for other, di, dj in _tile_moves(groups, i, j):
        if _found_at(groups[other].expected, i + di, j + dj, got):
            return (
                f"they equal the expected values of group {other}, rows {di:+d}, columns {dj:+d}: wrong tile"
            )
    return ""


def _signed(step: int) -> str:
    return f"+ {step}" if step > 0 else f"- {-step}"


def _found_at(values: np.ndarray, rows: np.ndarray, columns: np.ndarray, got: np.ndarray) -> bool:
    inside = (rows >= 0) & (rows < values.shape[0]) & (columns >= 0) & (columns < values.shape[1])
    if np.count_nonzero(inside) < max(2, len(got) // 4):
        return False
    return float(np.mean(values[rows[inside], columns[inside]] == got[inside])) >= _MATCH


def _tile_moves(groups: Sequence[Group], i: np.ndarray, j: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """(group, row step, column step) in steps of 64 that keep some of the sample inside that group."""
    for other, candidate in enumerate(groups):
        m, n = candidate.expected.shape
        for di in range(-(int(i.max()) // 64) * 64, m - int(i.min()), 64):
            for dj in range(-(int(j.max()) // 64) * 64, n - int(j.min()), 64):
                yield other, di, dj


def _left_over(
    groups: Sequence[Group], i: np.ndarray, j: np.ndarray, got: np.ndarray, total: np.ndarray
) -> str:
    """Right values plus those of another tile: an accumulator that was not cleared."""
    excess = got.astype(np.float64) - total
    for other, di, dj in _tile_moves(groups, i, j):
        values = groups[other].expected
        rows, columns = i + di, j + dj
        inside = (rows >= 0) & (rows < values.shape[0]) & (columns >= 0) & (columns < values.shape[1])
        if np.count_nonzero(inside) < max(4, len(got) // 4):
            continue
        added = values[rows[inside], columns[inside]].astype(np.float64)
        room = 2.0**-10 * (np.abs(got[inside].astype(np.float64)) + np.abs(added)) + 2.0**-10
        if np.mean(np.abs(excess[inside] - added) <= room) >= _MATCH:
            where = f"group {other}, rows {di:+d}, columns {dj:+d}"
            return (
                f"they are the expected values plus those of {where}: accumulator not cleared between tiles"
            )
    return ""


# ------------------------------------------------------------------------------ other sums


class Sample:
    """The operands of a few elements (i, j) of a group, for sums other than the right one. All float64."""

    def __init__(self, group: Group, i: np.ndarray, j: np.ndarray) -> None:
        self.group, self.i, self.j = group, i, j
        pairs = e2m1_pairs().astype(np.float64)
        self.a = pairs[group.a[i]].reshape(len(i), -1)  # (elements, k), without scales
        self.b = pairs[group.b[j]].reshape(len(j), -1)
        self.blocks = self.a.shape[1] // SCALE_VECTOR
        self.scale_a = group.sfa[i, : self.blocks]
        self.scale_b = group.sfb[j, : self.blocks]

    def per_scale(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """(elements, k/16): unscaled products summed over each scale vector."""
        return (a * b).reshape(len(a), self.blocks, SCALE_VECTOR).sum(axis=2)

    def total(self) -> np.ndarray:
        return (self.per_scale(self.a, self.b) * self.scale_a * self.scale_b).sum(axis=1)


def _recomputed(sample: Sample) -> Iterator[tuple[str, np.ndarray]]:
    """(what went wrong, exact sums it gives), cheap and common first."""
    yield from _k_tiles(sample)
    yield from _scales(sample)
    yield from _operands(sample)


def _k_tiles(sample: Sample) -> Iterator[tuple[str, np.ndarray]]:
    """Sums over the wrong K tiles."""
    products = sample.per_scale(sample.a, sample.b) * sample.scale_a * sample.scale_b
    narrow = products.reshape(len(products), -1, 4).sum(axis=2)  # (elements, k/64)
    total = narrow.sum(axis=1)
    for width in _K_TILES[::-1]:
        count = -(-narrow.shape[1] // (width // 64))
        if count < 2:
            continue
        padded = np.zeros((len(total), count * (width // 64)))
        padded[:, : narrow.shape[1]] = narrow
        tiles = padded.reshape(len(total), count, -1).sum(axis=2)
        running = tiles.cumsum(axis=1)
        for tile in range(count):
            last = min((tile + 1) * width, sample.a.shape[1]) - 1
            name = f"K tile {tile} (k {tile * width}..{last})"
            yield f"{name} had been left out", total - tiles[:, tile]
            yield f"{name} had been added twice", total + tiles[:, tile]
            yield f"the sum had ended before {name}", running[:, tile] - tiles[:, tile]
            yield f"the sum had started over at {name}", total - running[:, tile] + tiles[:, tile]


def _scales(sample: Sample) -> Iterator[tuple[str, np.ndarray]]:
    """Sums with scales from the wrong place: row and column maps into the 128x4 blocks."""
    products = sample.per_scale(sample.a, sample.b)
    both = {
        "A": (sample.group.sfa, sample.i, sample.scale_b),
        "B": (sample.group.sfb, sample.j, sample.scale_a),
    }
    column = np.arange(sample.blocks)
    for operand, (scales, row, other) in both.items():
        right = products * other
        yield f"{operand}'s scales had been ignored", right.sum(axis=1)
        for text, rows in _scale_rows(row):
            inside = np.clip(rows, 0, scales.shape[0] - 1)
            value = (right * scales[inside, : sample.blocks]).sum(axis=1)
            yield f"{operand}'s scales came from {text}", value
        for text, columns in _scale_columns(column, scales.shape[1]):
            value = (right * scales[row][:, columns]).sum(axis=1)
            yield f"{operand}'s scales came from {text}", value
        unblocked = _blocked_memory(scales)[(row[:, None] * sample.blocks + column) % scales.size]
        yield f"{operand}'s reordered scales had been read as row-major", (right * unblocked).sum(axis=1)
    swapped_a = sample.group.sfb[sample.i % sample.group.sfb.shape[0], : sample.blocks]
    swapped_b = sample.group.sfa[sample.j % sample.group.sfa.shape[0], : sample.blocks]
    yield "the scales of A and B had been exchanged", (products * swapped_a * swapped_b).sum(axis=1)


def _scale_rows(row: np.ndarray) -> list[tuple[str, np.ndarray]]:
    base, inner = row // 128 * 128, row % 128
    return [
        *(
            (f"row ^ {bits}: 32-row quarters of the 128-row block exchanged", row ^ bits)
            for bits in (32, 64, 96)
        ),
        ("row % 32: the first quarter of the 128-row block for all four", base + inner % 32),
        ("a 128-row block read as (32, 4) for (4, 32)", base + inner % 4 * 32 + inner // 4),
        ("a 128-row block read as (4, 32) for (32, 4)", base + inner % 32 * 4 + inner // 32),
        ("row 0..127: the first 128-row block for all", inner),
        ("the 128-row block before", row - 128),
        ("the 128-row block after", row + 128),
        ("64 rows before", row - 64),
        ("64 rows after", row + 64),
    ]


def _scale_columns(column: np.ndarray, total: int) -> list[tuple[str, np.ndarray]]:
    maps = [
        *((f"K block ^ {bits}: exchanged within four", column ^ bits) for bits in (1, 2, 3)),
        ("the first K block of each four", column // 4 * 4),
        *(
            (f"the first 64 of each {tile} of K", column // (tile // 16) * (tile // 16) + column % 4)
            for tile in (128, 256)
        ),
        ("the first 64 of K for all", column % 4),
    ]
    for step in (4, 8, 16):
        maps.append((f"{step * 16} of K before", column - step))
        maps.append((f"{step * 16} of K after", column + step))
    return [(text, np.clip(columns, 0, total - 1)) for text, columns in maps]


def _blocked_memory(scales: np.ndarray) -> np.ndarray:
    """The plain (128*rest_rows, 4*rest_k) scales in the order of memory of the 128x4 blocked layout."""
    rows, columns = scales.shape
    return scales.reshape(rows // 128, 4, 32, columns // 4, 4).transpose(0, 3, 2, 1, 4).reshape(-1)


def _operands(sample: Sample) -> Iterator[tuple[str, np.ndarray]]:
    """Sums with A or B read through the wrong swizzle or nibble order."""
    weights = sample.scale_a * sample.scale_b
    for text, change in _operand_changes(sample.a.shape[1]):
        changed_a, changed_b = change(sample.a, sample.i), change(sample.b, sample.j)
        for name, a, b in (
            ("A", changed_a, sample.b),
            ("B", sample.a, changed_b),
            ("A and B", changed_a, changed_b),
        ):
            yield f"{name} had been read with {text}", (sample.per_scale(a, b) * weights).sum(axis=1)


Change = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _operand_changes(k: int) -> Iterator[tuple[str, Change]]:
    yield "its nibbles exchanged", lambda values, _rows: values[:, np.arange(k) ^ 1]
    for chunks, per_row in ((8, 1), (4, 2), (2, 4)):  # 16-byte chunks of 32 values in a 128, 64, 32-byte row
        if k % (chunks * 32):
            continue

        def swizzled(
            values: np.ndarray, rows: np.ndarray, chunks: int = chunks, per_row: int = per_row
        ) -> np.ndarray:
            flips = rows // per_row % chunks
            return np.take_along_axis(values, np.arange(k) ^ (flips[:, None] * 32), axis=1)

        yield f"the {chunks * 16}-byte swizzle undone wrongly (or not at all)", swizzled
