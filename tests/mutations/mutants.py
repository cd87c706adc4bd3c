"""Deliberate defects of `submission.py`: each is one edit, and what the evaluator must say about it.

`find` must occur exactly once in the source; `says` is a regular expression for the fault of the simulator
or the message of the check.
"""

from __future__ import annotations

from dataclasses import dataclass

TAIL = {"m": [200, 40], "n": [264, 520], "k": [2368, 1280], "seed": 7}  # M, N and K tails, k tiles > stages
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
        "wrong swizzle in the tensor map",
        "SmemLayoutAtomKind.K_SW128, Float4E2M1FN)",
        "SmemLayoutAtomKind.K_SW64, Float4E2M1FN)",
        r"lacks 24576 bytes that were expected",  # boxes of 64 B, half as wide
    ),
    Mutant(
        "expect_tx 16 bytes too many",
        "expected_bytes = CTAS * (ROW_TILE_BYTES + SCALE_TILE_BYTES)",
        "expected_bytes = 16 + CTAS * (ROW_TILE_BYTES + SCALE_TILE_BYTES)",
        r"deadlock.*lacks 16 bytes that were expected",
    ),
    Mutant(
        "expect_tx 16 bytes too few",
        "expected_bytes = CTAS * (ROW_TILE_BYTES + SCALE_TILE_BYTES)",
        "expected_bytes = -16 + CTAS * (ROW_TILE_BYTES + SCALE_TILE_BYTES)",
        r"expect_tx",
    ),
    Mutant(
        "stage never given back",
        "            commit((barriers.empty + stage).toint())\n",
        "",
        r"deadlock.*lacks 1 of 1 arrivals",
    ),
    Mutant(
        "accumulator handed to the wrong barrier",
        "(barriers.acc_full + accs[half])",
        "(barriers.acc_empty + accs[half])",
        r"deadlock.*lacks 1 of 1 arrivals",
    ),
    Mutant(
        "last token not written",
        "tokens = tile.m * Int32(row < tile.n) - (token + odd)",
        "tokens = tile.m * Int32(row < tile.n) - (token + odd) - 1",
        r"never written|poison",
    ),
    Mutant(
        "first tile of a group taken for the group before",
        "if index >= work.problems[g][0]:",
        "if index > work.problems[g][0]:",
        r"never written|out_of_bounds",
    ),
    Mutant(
        "accumulator not cleared",
        "accumulate=Int32(k_tile > 0) if block == 0 else 1,",
        "accumulate=1,",
        r"NaN|left over|accumul",
    ),
    Mutant(
        "output shifted by one token",
        "(Int64(token + odd) * Int64(tile.n)",
        "(Int64(token + odd + 1) * Int64(tile.n)",
        r"global_out_of_bounds|row",
    ),
    Mutant(
        "half the step along K",
        "VALUES_STEP = smem_field(MMA_K // 2)",
        "VALUES_STEP = smem_field(MMA_K // 4)",
        r"K|k",
    ),
    Mutant(
        "token scales of K block 0 for every K block",
        "token_scale_columns + half * SCALE_COLUMNS + block * ATOM_COLUMNS,",
        "token_scale_columns + half * SCALE_COLUMNS,",
        r"scale",
    ),
    Mutant(
        "tokens beyond M stored",
        "tokens = tile.m * Int32(row < tile.n) - (token + odd)",
        "tokens = (tile.m + 8) * Int32(row < tile.n) - (token + odd)",
        r"global_out_of_bounds",
    ),
    Mutant(
        "scales of A and B exchanged on the host",
        "a, b, sfa, sfb, c = addresses[5 * g : 5 * g + 5]",
        "a, b, sfb, sfa, c = addresses[5 * g : 5 * g + 5]",
        r"global_out_of_bounds|scale",
    ),
    Mutant(
        "groups not in the planned order",
        "arguments.addresses[:] = addresses",
        "arguments.addresses[:] = addresses[5:] + addresses[:5]",
        r"global_out_of_bounds",
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
        "producer starts with the wrong parity",
        "    stage, parity = Int32(0), Int32(1)\n",
        "    stage, parity = Int32(0), Int32(0)\n",
        r"deadlock",
    ),
    Mutant(
        "token scales not multicast",
        "EVICT_LAST, multicast=True)",
        "EVICT_LAST)",
        r"deadlock.*bytes that were expected",
    ),
    Mutant(
        "every warp reads the lanes of warp 0",
        "lanes = tmem + (quarter * 32 << 16)",
        "lanes = tmem + (quarter * 0 << 16)",
        r"tmem_lane_ownership",
    ),
    Mutant(
        "instruction descriptor for half the tokens",
        "half_tokens(tile, half) // 8 << 17",
        "half_tokens(tile, half) // 16 << 17",
        r"idesc_n",
    ),
    Mutant(
        "stage filled before it is free",
        "            cute.arch.mbarrier_wait(barriers.empty + stage, parity)\n            if rank == 0:",
        "            if rank == 0:",
        r"mbarrier_overflow",
    ),
    Mutant(
        "even and odd CTA load the same rows",
        "row = tile.row + rank * CTA_ROWS\n",
        "row = tile.row\n",
        r"columns 128..255.*column \^ 128",
    ),
    Mutant(
        "tokens of the last half not shared evenly by the CTAs",
        "rank * (half_tokens(tile, half) // CTAS)",
        "rank * CTA_TOKENS",
        r"never written|NaN|rows",
    ),
    Mutant(
        "tokens of CTA 0 end too early",
        "last_half + round_up(m - last_half, TOKEN_STEP) // CTAS",
        "last_half + round_up(m - last_half, TOKEN_STEP) // CTAS - 8",
        r"rows",
    ),
    Mutant(
        "one CTA pair missing",
        "grid=(pairs * CTAS, 1, 1),",
        "grid=((pairs - 1) * CTAS, 1, 1),",
        r"never written",
    ),
]
