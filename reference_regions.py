"""Where a result is wrong: names the shape of a set of wrong elements in the words of a tiled GEMM.

A wrong element may be right by chance (a dropped K tile whose products sum to zero), so a region counts as
wrong when at least `_DENSE` of it is, as long as nothing outside it is wrong.
"""

from __future__ import annotations

import numpy as np

_DENSE = 0.75
_FULL = 0.95
_TILES = (256, 128, 64, 32)
_TILE_SHAPES = ((256, 256), (128, 256), (256, 128), (128, 192), (128, 128), (128, 64), (64, 64), (32, 32))
_PERIODS = (2, 4, 8, 16, 32, 64, 128, 256)
_AXES = {"row": "M", "column": "N"}


def describe_region(wrong: np.ndarray, *, guess: bool = True) -> str:
    """One phrase for a boolean (m, n) array with at least one True, e.g. "rows 64..127 all wrong: ...".

    With `guess`, a region that is a tile is said to look like a missing one; without (the values have been
    explained otherwise), it is only said to be one.
    """
    m, n = wrong.shape
    rows = np.flatnonzero(wrong.any(axis=1))
    columns = np.flatnonzero(wrong.any(axis=0))
    if _density(wrong, np.arange(m), columns) >= _FULL:  # a line may be untouched by chance
        rows = np.arange(m)
    if _density(wrong, rows, np.arange(n)) >= _FULL:
        columns = np.arange(n)
    dense = _density(wrong, rows, columns)
    if dense >= _DENSE:
        return _describe_product(
            wrong, rows, columns, dense, "looks like a missing" if guess else "exactly one"
        )
    tiles = _describe_tiles(wrong)
    if tiles:
        return tiles
    inside = f"rows {rows[0]}..{rows[-1]} and columns {columns[0]}..{columns[-1]}"
    return f"scattered over {inside} ({wrong.mean():.2%} of the group)"


def _density(wrong: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> float:
    return float(np.count_nonzero(wrong)) / (rows.size * columns.size)


def _how_many(dense: float) -> str:
    if dense == 1:
        return "all wrong"
    return "almost all wrong" if dense > _FULL else f"{dense:.0%} wrong"


def _describe_product(
    wrong: np.ndarray, rows: np.ndarray, columns: np.ndarray, dense: float, verb: str
) -> str:
    """The wrong elements fill `rows` x `columns`."""
    m, n = wrong.shape
    every_row, every_column = rows.size == m, columns.size == n
    if every_row and every_column:
        return f"the whole group, {_how_many(dense)}"
    if every_column or every_row:
        lines = (rows, m, "row") if every_column else (columns, n, "column")
        hint = _tile_hint(*lines)
        return f"{describe_indices(*lines)} {_how_many(dense)}" + (f": {verb} {hint}" if hint else "")
    if rows.size == columns.size == 1:
        return f"only element [{rows[0]}, {columns[0]}] is wrong"
    area = f"{describe_indices(rows, m, 'row')} x {describe_indices(columns, n, 'column')} {_how_many(dense)}"
    down, across = _tile_hint(rows, m, "row"), _tile_hint(columns, n, "column")
    return f"{area}: {verb} {down} x {across}" if down and across else area


def describe_indices(indices: np.ndarray, total: int, axis: str) -> str:
    """`indices` (sorted, distinct, below `total`) in words: a range, a period, a few runs, or a count."""
    if indices.size == 1:
        return f"{axis} {indices[0]}"
    if indices.size == total:
        return f"all {axis}s"
    runs = _runs(indices)
    if len(runs) == 1:
        return f"{axis}s {indices[0]}..{indices[-1]}"
    period = _period(indices, total)
    if period:
        inside = _runs(np.unique(indices % period))
        where = ", ".join(str(a) if a == b else f"{a}..{b}" for a, b in inside[:4])
        return f"{axis}s {where}{', ...' if len(inside) > 4 else ''} of every {period}"
    if len(runs) <= 4:
        return f"{axis}s " + ", ".join(str(a) if a == b else f"{a}..{b}" for a, b in runs)
    return f"{indices.size} {axis}s between {indices[0]} and {indices[-1]}"


def _runs(indices: np.ndarray) -> list[tuple[int, int]]:
    """Maximal runs of consecutive integers, as (first, last)."""
    breaks = np.flatnonzero(np.diff(indices) != 1)
    firsts = indices[np.concatenate([[0], breaks + 1])]
    lasts = indices[np.concatenate([breaks, [indices.size - 1]])]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))


def _period(indices: np.ndarray, total: int) -> int | None:
    """The smallest power of two by whose residues `indices` is exactly decided, over two periods or more."""
    for period in _PERIODS:
        if 2 * period > total:
            return None
        residues = np.unique(indices % period)
        if residues.size < period and np.isin(np.arange(total) % period, residues).sum() == indices.size:
            return period
    return None


def _tile_hint(indices: np.ndarray, total: int, axis: str) -> str:
    """What a range that starts and ends where tiles do is: a tile, several, or the tail; "" otherwise."""
    if indices.size == total or indices[-1] - indices[0] + 1 != indices.size:
        return ""
    first, end, name = int(indices[0]), int(indices[-1]) + 1, _AXES[axis]
    if any(first % tile == 0 and end - first == tile for tile in _TILES):
        return f"{name} tile"
    for tile in _TILES:
        rest = total % tile
        if end == total and rest and first == total - rest:
            return f"{name} tail ({rest} {axis}{'s' * (rest > 1)} past the last full tile of {tile})"
    for tile in _TILES:
        if first % tile == 0 and (end == total or end % tile == 0):
            count = -(-(end - first) // tile)
            return f"{name} tile" if count == 1 else f"run of {count} {name} tiles of {tile}"
    return ""


def _describe_tiles(wrong: np.ndarray) -> str:
    """The wrong elements as a set of whole tiles, largest tile shape first; "" if they are none."""
    m, n = wrong.shape
    for height, width in _TILE_SHAPES:
        down, across = -(-m // height), -(-n // width)
        padded = np.zeros((down * height, across * width), dtype=bool)
        padded[:m, :n] = wrong
        counts = padded.reshape(down, height, across, width).sum(axis=(1, 3))
        areas = np.outer(_tile_sizes(m, height), _tile_sizes(n, width))
        touched = counts > 0
        if touched.all() or (counts[touched] < _DENSE * areas[touched]).any():
            continue
        tiles = [f"({i}, {j})" for i, j in np.argwhere(touched)[:4]]
        more = ", ..." if touched.sum() > 4 else ""
        whole = f"{int(touched.sum())} of {touched.size} tiles of {height} x {width}"
        return f"wrong exactly in {whole}: (M tile, N tile) {', '.join(tiles)}{more}"
    return ""


def _tile_sizes(total: int, tile: int) -> np.ndarray:
    return np.minimum(tile, total - np.arange(0, total, tile))
