"""What the check accepts, what it refuses, and what it says about deliberate mistakes.

Mistakes are made in the inputs (a K range of A set to zero, scales moved) and multiplied exactly; the checker
only sees the result and has to find out.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import check_implementation, generate_input, ref_kernel
from reference_check import check_structure, check_values, count_not_bit_exact, ground_truth
from reference_exact import dequantise, exact_gemm, round_to_float16
from reference_regions import describe_region

SIZES = {"m": (96, 256), "n": (128, 384), "k": (256, 768), "g": 2}


@pytest.fixture(scope="module")
def data():
    return generate_input(**SIZES, seed=1111, device="cpu")


@pytest.fixture(scope="module")
def right(data):
    return ref_kernel(data)


def copies(tensors):
    return [tensor.clone() for tensor in tensors]


# ------------------------------------------------------------------------------- acceptance


def test_the_reference_passes_in_new_tensors_and_in_its_own_c(data, right) -> None:
    assert check_implementation(data, copies(right)) == (True, "")
    assert check_implementation(data, tuple(copies(right))) == (True, "")
    own = generate_input(**SIZES, seed=1111, device="cpu")
    for (_, _, c), result in zip(own[0], right, strict=True):
        c.copy_(result)
    assert check_implementation(own, [c for _, _, c in own[0]]) == (True, "")


def test_an_error_within_the_tolerance_passes_but_is_counted(data, right) -> None:
    output = copies(right)
    large = (output[1].abs() > 128) & (output[1].abs() < 255)
    assert int(large.sum()) > 3
    bits = output[1].view(torch.int16)
    bits[large] += 1  # one unit in the last place: 0.125 at values from 128 to 256
    good, message = check_implementation(data, output)
    assert good
    total = right[0].numel() + right[1].numel()
    assert message == f"{int(large.sum())} of {total} elements within tolerance but not bit-exact"
    assert count_not_bit_exact(output, right) == int(large.sum())


def test_the_tolerance_is_the_official_one() -> None:
    """|got - expected| <= 1e-3 + 1e-3 * |expected|, at a result of 64."""
    data = generate_input((1,), (8,), (64,), 1, 1, device="cpu")
    for tensor in (*data[0][0][:2], *data[1][0]):
        tensor.view(torch.uint8).fill_(0x22 if tensor.dtype == torch.float4_e2m1fn_x2 else 0x38)
    (result,) = ref_kernel(data)
    assert (result == 64).all(), "64 products of 1"
    for got, good in ((64.0625, True), (63.9375, True), (64.125, False), (63.875, False)):
        output = torch.full_like(result, 64)
        output[0, 3] = got  # 64 allows 0.065; the float16 unit there is 0.0625 above, 0.03125 below
        assert check_implementation(data, [output])[0] is good


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_element_that_is_not_finite_fails(data, right, value) -> None:
    output = copies(right)
    output[1][17, 33, 0] = value
    good, message = check_implementation(data, output)
    assert not good
    assert "group 1 (m=256, n=384, k=768): 1 of 98304 elements wrong" in message
    assert f"first at [17, 33, 0]: got {value}, expected {float(right[1][17, 33, 0])}" in message
    assert "only element [17, 33] is wrong" in message


def test_zero_of_either_sign_is_exact() -> None:
    data = generate_input((2,), (8,), (64,), 1, 1, device="cpu")
    data[1][0][0].view(torch.uint8).zero_()
    output = [torch.full_like(result, -0.0) for result in ref_kernel(data)]
    assert check_implementation(data, output) == (True, "")


# ------------------------------------------------------------------------------- the full range


@pytest.fixture(scope="module")
def full():
    return generate_input((129, 24), (136, 256), (512, 2048), 2, 9, device="cpu", distribution="full")


def float32_gemm(data, dtype=torch.float32):
    """A kernel that adds one product after the other in `dtype`."""
    output = []
    for (a, b, _), (sfa, sfb) in zip(data[0], data[1], strict=True):
        left = dequantise(a[:, :, 0], sfa[:, :, 0]).to(dtype)
        right = dequantise(b[:, :, 0], sfb[:, :, 0]).to(dtype)
        total = torch.zeros(left.shape[0], right.shape[0], dtype=dtype)
        for at in range(left.shape[1]):
            total += left[:, at, None] * right[None, :, at]
        output.append(total.half().unsqueeze(2))
    return output


def test_float32_accumulation_passes_the_full_range(full) -> None:
    good, message = check_implementation(full, float32_gemm(full))
    assert good, message
    assert not any(truth.owes_bits for truth in ground_truth(full))


def test_float16_accumulation_fails_the_full_range(full) -> None:
    assert not check_implementation(full, float32_gemm(full, torch.float16))[0]


def test_overflow_is_due_where_the_sum_is_far_above_and_wrong_elsewhere(full) -> None:
    output = ref_kernel(full)
    infinite = torch.isinf(output[0])
    assert infinite.any() and not infinite.all()
    saturated = [output[0].clamp(-65504, 65504), output[1]]
    assert check_values(full, saturated).wrong >= 0.9 * int(infinite.sum())
    flipped = [torch.where(infinite, -output[0], output[0]), output[1]]
    assert check_values(full, flipped).wrong == int(infinite.sum())


def test_a_lost_block_fails_the_full_range(full) -> None:
    damaged = ref_kernel(change(full, 0, lambda a, b, sfa, sfb: a[:, 64:72].zero_()))
    good, message = check_implementation(full, damaged)
    assert not good and "group 0" in message and "group 1" not in message


# ------------------------------------------------------------------------------- structure


class Lazy(torch.Tensor):
    pass


def with_own_method(tensor):
    tensor = tensor.clone()
    tensor.float = lambda: tensor
    return tensor


def transposed(tensor):
    return tensor.transpose(0, 1).contiguous().transpose(0, 1)


STRUCTURES = {
    "nothing": (lambda x, y: None, "returned NoneType, expected a list"),
    "a tensor": (lambda x, y: x, "returned torch.Tensor, expected a list"),
    "a generator": (lambda x, y: (t for t in (x, y)), "returned generator, expected a list"),
    "empty": (lambda x, y: [], "returned 0 tensors, expected 2"),
    "too few": (lambda x, y: [x], "returned 1 tensors, expected 2"),
    "too many": (lambda x, y: [x, y, y], "returned 3 tensors, expected 2"),
    "none inside": (lambda x, y: [x, None], "group 1: got NoneType, expected a torch.Tensor"),
    "numpy": (lambda x, y: [x.numpy(), y], "group 0: got numpy.ndarray, expected a torch.Tensor"),
    "subclass": (lambda x, y: [x, y.as_subclass(Lazy)], "Lazy, expected a torch.Tensor (no subclass)"),
    "own method": (lambda x, y: [x, with_own_method(y)], "group 1: the tensor carries attributes of its own"),
    "dtype": (lambda x, y: [x, y.float()], "group 1: got dtype torch.float32, expected torch.float16"),
    "shape": (lambda x, y: [x, y[:, :, 0]], "group 1: got shape (256, 384), expected (256, 384, 1)"),
    "one row": (lambda x, y: [x, y[:1]], "group 1: got shape (1, 384, 1), expected (256, 384, 1)"),
    "swapped": (lambda x, y: [y, x], "group 0: got shape (256, 384, 1), expected (96, 128, 1)"),
    "device": (lambda x, y: [x, y.to("meta")], "group 1: got a tensor on meta, expected cpu"),
    "stride": (lambda x, y: [x, transposed(y)], "group 1: got strides (1, 256, 1), expected (384, 1, 98304)"),
    "expanded": (lambda x, y: [x, y[:1].expand(256, 384, 1)], "group 1: got strides (0, 1"),
    "sparse": (lambda x, y: [x, y.to_sparse()], "group 1: got layout torch.sparse_coo"),
}


@pytest.mark.parametrize("make, reason", STRUCTURES.values(), ids=STRUCTURES.keys())
def test_structure_is_refused_with_its_reason(data, right, make, reason) -> None:
    good, message = check_implementation(data, make(*copies(right)))
    assert not good
    assert reason in message


def test_shared_memory_is_refused(data, right) -> None:
    values = right[0].flatten()
    a = data[0][1][0]  # of group 1, large enough for an output of group 0
    in_a = torch.empty(0, dtype=torch.float16).set_(a.untyped_storage(), 64, (96, 128, 1), (128, 1, 12288))
    assert check_structure(data, [in_a, right[1]]) == ["group 0: output shares memory with a of group 1"]
    other_c = data[0][1][2].flatten()[: values.numel()].view(96, 128, 1)
    assert check_structure(data, [other_c, right[1]]) == ["group 0: output shares memory with c of group 1"]
    own_c_shifted = [data[0][0][2].flatten()[:-8], torch.zeros(8)]
    shifted = torch.empty(0, dtype=torch.float16).set_(
        own_c_shifted[0].untyped_storage(), 0, (96, 128, 1), (128, 1, 12288)
    )
    assert check_structure(data, [shifted, right[1]]) == [], "a view of the own c is the own c"
    pool = torch.zeros(256 * 384 + 64, dtype=torch.float16)
    both = [pool[64 : 64 + 96 * 128].view(96, 128, 1), pool[: 256 * 384].view(256, 384, 1)]
    assert check_structure(data, both) == ["group 1: output shares memory with the output of group 0"]
    apart = torch.zeros(96 * 128 + 256 * 384, dtype=torch.float16)
    neighbours = [apart[: 96 * 128].view(96, 128, 1), apart[96 * 128 :].view(256, 384, 1)]
    assert check_structure(data, neighbours) == [], "two parts of one allocation do not share memory"


# ------------------------------------------------------------------------------- regions


def region(m, n, *boxes):
    wrong = np.zeros((m, n), dtype=bool)
    for rows, columns in boxes:
        wrong[rows, columns] = True
    return wrong


ALL = slice(None)
REGIONS = {
    "rows 64..127 all wrong: looks like a missing M tile": region(256, 384, (slice(64, 128), ALL)),
    "rows 128..255 all wrong: looks like a missing M tile": region(256, 384, (slice(128, 256), ALL)),
    "rows 128..383 all wrong: looks like a missing run of 2 M tiles of 128": region(
        512, 64, (slice(128, 384), ALL)
    ),
    "row 128 all wrong: looks like a missing M tail (1 row past the last full tile of 128)": region(
        129, 8, (128, ALL)
    ),
    "rows 192..199 all wrong: looks like a missing M tail (8 rows past the last full tile of 64)": region(
        200, 8, (slice(192, 200), ALL)
    ),
    "columns 128..255 all wrong: looks like a missing N tile": region(96, 384, (ALL, slice(128, 256))),
    "columns 7..20 all wrong": region(96, 384, (ALL, slice(7, 21))),
    "rows 3 of every 8 all wrong": region(256, 64, (slice(3, None, 8), ALL)),
    "columns 8..15 of every 16 all wrong": region(40, 64, (ALL, [c for c in range(64) if c % 16 >= 8])),
    "rows 0..127 x columns 128..255 all wrong: looks like a missing M tile x N tile": region(
        256, 384, (slice(0, 128), slice(128, 256))
    ),
    "wrong exactly in 2 of 6 tiles of 128 x 128: (M tile, N tile) (0, 0), (1, 2)": region(
        256, 384, (slice(0, 128), slice(0, 128)), (slice(128, 256), slice(256, 384))
    ),
    "the whole group, all wrong": region(40, 48, (ALL, ALL)),
    "only element [5, 7] is wrong": region(40, 48, (5, 7)),
    "rows 5, 9..11 all wrong": region(40, 48, (5, ALL), (slice(9, 12), ALL)),
}


@pytest.mark.parametrize("text, wrong", REGIONS.items())
def test_regions_are_named(text, wrong) -> None:
    assert describe_region(wrong) == text


def test_elements_right_by_chance_do_not_hide_a_region() -> None:
    chance = np.random.default_rng(0).random((256, 384)) < 0.1
    wrong = region(256, 384, (slice(64, 128), ALL)) & ~chance
    assert describe_region(wrong) == "rows 64..127 90% wrong: looks like a missing M tile"
    assert describe_region(chance).startswith("scattered over rows 0..255 and columns 0..383 (1")


@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 2**31), st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_every_mask_gets_a_description_within_it(m, n8, seed, share) -> None:
    random = np.random.default_rng(seed)
    wrong = random.random((m, n8 * 8)) < share
    wrong[random.integers(m), random.integers(n8 * 8)] = True
    text = describe_region(wrong)
    for first, last in re.findall(r"rows (\d+)\.\.(\d+)", text):
        assert int(first) < int(last) < max(m, 257)


# ------------------------------------------------------------------------------- causes


def change(data, group, alter):
    """The inputs with `alter(a, b, sfa, sfb)` applied to uint8 copies of one group's operands."""
    abc, sfasfb, reordered, sizes = data
    abc, sfasfb = list(abc), list(sfasfb)
    a, b, c = abc[group]
    operands = [t.clone() for t in (a, b, *sfasfb[group])]
    alter(*(t[:, :, 0].view(torch.uint8) for t in operands))
    abc[group], sfasfb[group] = (operands[0], operands[1], c), tuple(operands[2:])
    return abc, sfasfb, reordered, sizes


def moved(tensor, rows):
    tensor.copy_(tensor[rows].clone())


def swizzle(tensor):
    """Exchange 16-byte chunks of each 128-byte row as the 128-byte swizzle does."""
    rows = torch.arange(tensor.shape[0])[:, None]
    tensor.copy_(tensor.gather(1, torch.arange(tensor.shape[1])[None] ^ (rows % 8 * 16)))


def exchange_nibbles(tensor):
    tensor.copy_(tensor >> 4 | tensor << 4)


ROW = torch.arange(256)
TRANSPOSED_BLOCK = ROW // 128 * 128 + ROW % 4 * 32 + ROW % 128 // 4
OPERAND_MISTAKES = {
    "as if K tile 1 (k 256..511) had been left out": lambda a, b, sfa, sfb: a[:, 128:256].zero_(),
    "as if K tile 11 (k 704..767) had been left out": lambda a, b, sfa, sfb: b[:, 352:384].zero_(),
    "as if the sum had ended before K tile 1 (k 256..511)": lambda a, b, sfa, sfb: a[:, 128:].zero_(),
    "as if the sum had started over at K tile 3 (k 192..255)": lambda a, b, sfa, sfb: a[:, :96].zero_(),
    "as if A's scales had been ignored": lambda a, b, sfa, sfb: sfa.fill_(0x38),
    "as if B's scales had been ignored": lambda a, b, sfa, sfb: sfb.fill_(0x38),
    "as if A's scales came from row ^ 32": lambda a, b, sfa, sfb: moved(sfa, ROW ^ 32),
    "as if A's scales came from row 0..127": lambda a, b, sfa, sfb: moved(sfa, ROW % 128),
    "as if A's scales came from a 128-row block read as (32, 4)": lambda a, b, sfa, sfb: moved(
        sfa, TRANSPOSED_BLOCK
    ),
    "as if B's scales came from K block ^ 1": lambda a, b, sfa, sfb: moved(sfb.T, torch.arange(48) ^ 1),
    "as if A's scales came from the first K block of each four": lambda a, b, sfa, sfb: moved(
        sfa.T, torch.arange(48) // 4 * 4
    ),
    "as if A had been read with the 128-byte swizzle": lambda a, b, sfa, sfb: swizzle(a),
    "as if B had been read with the 128-byte swizzle": lambda a, b, sfa, sfb: swizzle(b),
    "as if A had been read with its nibbles exchanged": lambda a, b, sfa, sfb: exchange_nibbles(a),
    "every wrong element is 2 times the expected one": lambda a, b, sfa, sfb: sfa.add_(8),
    "each wrong row is off by its own power of two": lambda a, b, sfa, sfb: sfa.add_(ROW[:, None] % 3 * 8),
}


@pytest.mark.parametrize("text, alter", OPERAND_MISTAKES.items())
def test_wrong_sums_are_traced_to_their_mistake(data, right, text, alter) -> None:
    output = [right[0].clone(), ref_kernel(change(data, 1, alter))[1]]
    good, message = check_implementation(data, output)
    assert not good
    assert "group 1 (m=256, n=384, k=768)" in message and text in message and "group 0 (" not in message


def test_a_k_tile_added_twice_is_named(data, right) -> None:
    once = change(data, 1, lambda a, b, sfa, sfb: a[:, :256].zero_())
    (a, b, _), (sfa, sfb) = data[0][1], data[1][1]
    (last, _, _), _ = once[0][1], once[1][1]
    operands = [t[:, :, 0] for t in (sfa, b, sfb)]
    twice = exact_gemm(a[:, :, 0], *operands) + exact_gemm(last[:, :, 0], *operands)
    message = check_implementation(data, [right[0], round_to_float16(twice).unsqueeze(2)])[1]
    assert "as if K tile 1 (k 512..767) had been added twice" in message


def from_other_group(out, right):
    out[0].copy_(right[1][:96, :128])


def nan_columns(out, right):
    out[1][:, 256:] = float("nan")


def transpose_output(out, right):
    out[1][:, :256] = right[1][:, :256].transpose(0, 1)


def one_row_up(out, right):
    out[1][:-1] = right[1][1:]


def unswizzled_store(out, right):
    rows, columns = torch.arange(256)[:, None], torch.arange(384)[None]
    out[1].copy_(right[1][rows, columns ^ (rows % 8 * 8)])


def wrong_tile(out, right):
    out[1][:128, :128] = right[1][128:, 256:]


def dirty_accumulator(out, right):
    out[1][:128, 128:256] += right[1][:128, :128]


OUTPUT_MISTAKES = {
    "rows 64..127 almost all wrong: looks like a missing M tile; all of them are zero": lambda out, right: (
        out[1][64:128].zero_()
    ),
    "columns 256..383 all wrong: looks like a missing N tile; all of them hold the NaN 0x7e00": nan_columns,
    "they equal group 1's expected values: wrong group picked": from_other_group,
    "they equal the expected values of the transposed position": transpose_output,
    "they equal the expected values of row + 1": one_row_up,
    "they equal the expected values of an output tile stored without its 128-byte swizzle": unswizzled_store,
    "they equal the expected values of group 1, rows +128, columns +256: wrong tile": wrong_tile,
    "those of group 1, rows +0, columns -128: accumulator not cleared between tiles": dirty_accumulator,
}


@pytest.mark.parametrize("text, alter", OUTPUT_MISTAKES.items())
def test_wrong_places_are_traced_to_their_mistake(data, right, text, alter) -> None:
    output = copies(right)
    alter(output, right)
    good, message = check_implementation(data, output)
    assert not good
    assert text in message


def test_poison_and_the_old_c_are_recognised(data, right) -> None:
    output = copies(right)
    output[1].view(torch.int16)[64:128] = 0x7E5A
    report = check_values(data, output, poison_bits=0x7E5A)
    assert "rows 64..127 all wrong: looks like a missing M tile" in report.message
    assert "all of them still hold the poison 0x7e5a: never written" in report.message
    assert (report.wrong, report.not_bit_exact) == (64 * 384, 64 * 384)
    output = [data[0][0][2].clone(), right[1]]
    assert "they still hold what c held before: never written" in check_implementation(data, output)[1]


def test_noise_is_not_given_a_cause(data, right) -> None:
    output = copies(right)
    noise = torch.rand(output[1].shape, generator=torch.Generator().manual_seed(1)) < 0.01
    output[1][noise] += 37
    message = check_implementation(data, output)[1]
    assert re.search(
        r"; scattered over rows \d+\.\.255 and columns 0\.\.\d+ \(1\.\d+% of the group\)$", message
    )


def test_many_wrong_groups_are_summed_up() -> None:
    data = generate_input((8,) * 6, (8,) * 6, (64,) * 6, 6, 1, device="cpu")
    report = check_values(data, [torch.full_like(result, 999) for result in ref_kernel(data)])
    assert len(report.problems) == 5
    assert report.problems[-1] == "groups 4, 5 are wrong too"
    assert "\n" not in report.message
