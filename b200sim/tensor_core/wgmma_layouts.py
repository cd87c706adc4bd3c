"""Register fragments of wgmma.mma_async (PTX ISA 9.7.15.5.1.1, figures 148 to 153).

Warp w of the warpgroup holds rows 16 w .. 16 w + 15 of A and of D. With g = lane / 4 and q = lane % 4:

* A: four registers of four bytes. Register r holds row 16 w + 8 (r % 2) + g, bytes 16 (r / 2) + 4 q .. + 3 of
  that row's 32 bytes of K, whatever the element type.
* D: element i of a lane lies in row 16 w + 8 (i / 2 % 2) + g, column 8 (i / 4) + 2 q + i % 2. An fp32 element
  fills a register; of two fp16 elements the one with the lower index is in the low half.

Words are uint32 (4 warps, registers, 32 lanes).
"""

from __future__ import annotations

import numpy as np

from b200sim.tensor_core.descriptors import K_BYTES

WARPS = 4
ROWS = 64
A_REGISTERS = 4


def d_registers(n: int, d_format: str) -> int:
    """How many registers of a lane hold its part of D (64 x n)."""
    return n // 2 if d_format == "f32" else n // 4


def a_rows(words: np.ndarray) -> np.ndarray:
    """uint8 (64, 32), row by row, from A's words (4, 4, 32)."""
    parts = np.ascontiguousarray(words).view(np.uint8).reshape(WARPS, 2, 2, 8, 4, 4)
    # warp, r / 2, r % 2, g, q, byte -> warp, r % 2, g, r / 2, q, byte
    return np.ascontiguousarray(parts.transpose(0, 2, 3, 1, 4, 5)).reshape(ROWS, K_BYTES)


def d_matrix(words: np.ndarray, d_format: str) -> np.ndarray:
    """float32 or float16 (64, n) from D's words (4, registers, 32)."""
    words = np.ascontiguousarray(words)
    if d_format == "f32":  # w, j, h, e, g, q -> w, h, g, j, q, e
        ordered = words.view(np.float32).reshape(WARPS, -1, 2, 2, 8, 4).transpose(0, 2, 4, 1, 5, 3)
    else:  # w, j, h, g, q, e -> w, h, g, j, q, e
        ordered = words.view(np.float16).reshape(WARPS, -1, 2, 8, 4, 2).transpose(0, 2, 3, 1, 4, 5)
    return np.ascontiguousarray(ordered).reshape(ROWS, -1)


def d_words(matrix: np.ndarray) -> np.ndarray:
    """Inverse of `d_matrix`."""
    ordered = matrix.reshape(WARPS, 2, 8, -1, 4, 2)  # w, h, g, j, q, e
    axes = (0, 3, 1, 5, 2, 4) if matrix.dtype == np.float32 else (0, 3, 1, 2, 4, 5)
    return np.ascontiguousarray(ordered.transpose(axes)).view(np.uint32).reshape(WARPS, -1, 32)
