"""Deliberate defects of `submission.py`: each is one edit, and what the evaluator must say about it.

`find` must occur exactly once in the source; `says` is a regular expression for the fault of the simulator
or the message of the check.
"""

from __future__ import annotations

from dataclasses import dataclass

TAIL = {"m": [200, 40], "n": [264, 520], "k": [1600, 1280], "seed": 7}  # M, N and K tails, k tiles > stages
MANY = {"m": [300, 130], "n": [6400, 1024], "k": [320, 512], "seed": 7}  # several tiles per CTA pair


@dataclass(frozen=True)
class Mutant:
    name: str
    find: str
    replace: str
    says: str
    case: str = "TAIL"


MUTANTS = [
    Mutant(
        "K tail dropped",
        "cute.ceil_div(k, K_TILE), m, n, c))",
        "k // K_TILE, m, n, c))",
        r"K",
    ),
    Mutant(
        "scales of the wrong half",
        "atom_row = tile.token // ATOM_ROWS + half",
        "atom_row = tile.token // ATOM_ROWS",
        r"scale",
        "MANY",
    ),
    Mutant(
        "wrong swizzle in the operand descriptor",
        "smem_descriptor(16, 8 * K_TILE // 2, 2)",
        "smem_descriptor(16, 8 * K_TILE // 2, 4)",
        r"",
    ),
    Mutant(
        "expect_tx 16 bytes too many",
        "+ tile.halves * half_bytes\n",
        "+ tile.halves * half_bytes + 16\n",
        r"deadlock.*lacks 16 bytes that were expected",
    ),
    Mutant(
        "expect_tx 16 bytes too few",
        "+ tile.halves * half_bytes\n",
        "+ tile.halves * half_bytes - 16\n",
        r"expect_tx",
    ),
    Mutant(
        "stage never given back",
        "            commit((barriers.empty + stage).toint())\n",
        "",
        r"deadlock.*lacks 1 of 1 arrivals",
    ),
    Mutant(
        "accumulator never handed over",
        "commit((barriers.acc_full + accs[half]).toint())",
        "pass",
        r"deadlock.*lacks 1 of 1 arrivals",
    ),
    Mutant(
        "last token not written",
        "valid = cutlass.min(tile.m - first, HALF_TOKENS)",
        "valid = cutlass.min(tile.m - first - 1, HALF_TOKENS)",
        r"never written|poison",
    ),
    Mutant(
        "first tile of a group taken for the group before",
        "if index >= problems[g][0]:",
        "if index > problems[g][0]:",
        r"",
    ),
    Mutant(
        "accumulator not cleared",
        "accumulate = Int32(k_tile > 0)",
        "accumulate = Int32(1)",
        r"NaN|left over|accumul",
    ),
    Mutant(
        "output shifted by one token",
        "c[first + column + i, row] =",
        "c[first + column + i + 1, row] =",
        r"",
    ),
    Mutant(
        "half the step along K",
        "OPERAND_STEP = MMA_K // 2 >> 4",
        "OPERAND_STEP = MMA_K // 4 >> 4",
        r"",
    ),
    Mutant(
        "same scale atom for every K block",
        "SCALE_STEP = ATOM_BYTES >> 4",
        "SCALE_STEP = 0",
        r"scale",
    ),
    Mutant(
        "tokens beyond M stored",
        "if column + i < valid:",
        "if column + i < HALF_TOKENS:",
        r"",
    ),
    Mutant(
        "scales of A and B exchanged on the host",
        "tensors = (a, b, sfa, sfb, c)",
        "tensors = (a, b, sfb, sfa, c)",
        r"",
    ),
    Mutant(
        "groups not in the planned order",
        "for g in todo.order:\n        m, n, k, _ = sizes[g]",
        "for g in reversed(todo.order):\n        m, n, k, _ = sizes[g]",
        r"",
    ),
    Mutant(
        "tensor memory not freed",
        "        cute.arch.dealloc_tmem(pointer, config.tmem_columns, is_two_cta=True)",
        "        pass",
        r"tmem_leak",
    ),
    Mutant(
        "barrier not initialised",
        "                cute.arch.mbarrier_init(acc_empty + i, CTAS * STORE_WARPS)\n",
        "",
        r"mbarrier_uninitialised",
    ),
    Mutant(
        "arrival count of one CTA instead of two",
        "mbarrier_init(acc_empty + i, CTAS * STORE_WARPS)",
        "mbarrier_init(acc_empty + i, STORE_WARPS)",
        r"mbarrier_overflow|WRONG|wrong",
        "MANY",
    ),
    Mutant(
        "producer starts with the wrong parity",
        "    stage, parity = Int32(0), Int32(1)\n",
        "    stage, parity = Int32(0), Int32(0)\n",
        r"deadlock",
    ),
    Mutant(
        "token scales not multicast",
        "[smem, descriptor, x, y, z, barrier, Int16(0b11), Int64(policy)]",
        "[smem, descriptor, x, y, z, barrier, Int16(0b01), Int64(policy)]",
        r"deadlock.*bytes that were expected",
    ),
    Mutant(
        "every warp reads the lanes of warp 0",
        "lanes = tmem + (warp * 32 << 16)",
        "lanes = tmem + (warp * 0 << 16)",
        r"tmem_lane_ownership",
    ),
    Mutant(
        "instruction descriptor for half the tokens",
        "(HALF_TOKENS >> 3) << 17",
        "(HALF_TOKENS >> 4) << 17",
        r"",
    ),
    Mutant(
        "stage filled before it is free",
        "            cute.arch.mbarrier_wait(barriers.empty + stage, parity)\n            if rank == 0:",
        "            if rank == 0:",
        r"",
    ),
    Mutant(
        "even and odd CTA load the same rows",
        "row = tile.row + rank * CTA_ROWS\n        token = tile.token",
        "row = tile.row\n        token = tile.token",
        r"",
    ),
]
