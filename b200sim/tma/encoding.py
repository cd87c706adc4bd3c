"""Tensor maps: the 128-byte descriptors of the TMA engine (CUtensorMap), bit by bit.

Layout in 32-bit little-endian words, bits high:low. Only the first 64 bytes carry information.

  w0, w1    global address                      w7        high nibbles of the strides (bits 4i+3:4i)
  w2 3:0    2 in tile mode (0 on Hopper)        w8..w12   dim 0..4, elements, minus 1
  w2 6:4    rank - 1                            w13 3i+2:3i   element stride of dim i, minus 1
  w2 10:7   element type                        w13 31:24 box dim 0, elements, minus 1
  w2 12:11  interleave                          w14       box dim 1..4, minus 1, one byte each
  w2 14:13  swizzle mode                        w15       0
  w2 15     fill out-of-bounds with NaN
  w2 16     round to tf32
  w2 18:17  L2 promotion (no effect here)
  w2 20:19  swizzle atomicity
  w2 21     tensor of 128 KiB or more, in sm_100a host code; never set on Hopper (no effect here)
  w2 22     96-byte swizzle (sm_103)
  w3..w6    stride of dim 1..4, bytes / 16, low 32 bits

Sources: descriptors written by CuTe-DSL 4.5.2 host code, the code ptxas emits for each tensormap.replace
field, and cuTensorMapEncodeTiled on an H200; limits from the CUDA driver API (cuTensorMapEncodeTiled) and
PTX ISA 5.5 and 9.7.9.27.1.1.
"""

from __future__ import annotations

import struct
from functools import lru_cache

from b200sim.faults import Fault
from b200sim.tma.tensor_map import Atomicity, ElementType, Swizzle, TensorMap
from b200sim.tma.validation import check_fields, validate

MAP_BYTES = 128
WORDS = struct.Struct("<16I")


def read_fields(raw: bytes) -> TensorMap:
    """Decode 128 (or the first 64) bytes without judging them, except for codes that have no meaning:
    Fault 'bad_tensor_map'."""
    w = WORDS.unpack(raw[: WORDS.size])
    flags = w[2]
    rank = (flags >> 4 & 7) + 1
    code = flags >> 7 & 15
    if rank > 5 or code > max(ElementType) or flags >> 23:
        raise Fault(
            "bad_tensor_map",
            f"word 2 = {flags:#010x} is no tile-mode tensor map: rank {rank} (1..5), "
            f"element type code {code} (0..{max(ElementType):d}), bits 31:23 = {flags >> 23:#x} (0); "
            "was the descriptor initialised?",
        )
    strides = [(w[3 + i] | (w[7] >> 4 * i & 15) << 32) << 4 for i in range(4)]
    box = [(w[13] >> 24) + 1] + [(w[14] >> 8 * i & 255) + 1 for i in range(4)]
    return TensorMap(
        address=w[0] | w[1] << 32,
        element=ElementType(code),
        dims=tuple(w[8 + i] + 1 for i in range(rank)),
        strides=tuple(strides[: rank - 1]),
        box=tuple(box[:rank]),
        element_strides=tuple((w[13] >> 3 * i & 7) + 1 for i in range(rank)),
        swizzle=Swizzle(flags >> 13 & 3),
        atomicity=Atomicity(flags >> 19 & 3),
        interleave=flags >> 11 & 3,
        nan_fill=bool(flags >> 15 & 1),
        tf32=bool(flags >> 16 & 1),
        l2_promotion=flags >> 17 & 3,
        large=bool(flags >> 21 & 1),
        swizzle96=bool(flags >> 22 & 1),
        kind=flags & 15,
    )


def encode(tensor_map: TensorMap) -> bytes:
    """The 128-byte descriptor. Fields that don't fit raise Fault 'bad_tensor_map'."""
    check_fields(tensor_map)
    w = [0] * 32
    w[0], w[1] = tensor_map.address & 0xFFFFFFFF, tensor_map.address >> 32
    w[2] = (
        tensor_map.kind
        | (tensor_map.rank - 1) << 4
        | tensor_map.element << 7
        | tensor_map.interleave << 11
        | tensor_map.swizzle << 13
        | tensor_map.nan_fill << 15
        | tensor_map.tf32 << 16
        | tensor_map.l2_promotion << 17
        | tensor_map.atomicity << 19
        | tensor_map.large << 21
        | tensor_map.swizzle96 << 22
    )
    for i, stride in enumerate(tensor_map.strides):
        w[3 + i] = stride >> 4 & 0xFFFFFFFF
        w[7] |= (stride >> 36) << 4 * i
    for i, size in enumerate(tensor_map.dims):
        w[8 + i] = size - 1
        w[13] |= (tensor_map.element_strides[i] - 1) << 3 * i
    w[13] |= (tensor_map.box[0] - 1) << 24
    for i, size in enumerate(tensor_map.box[1:]):
        w[14] |= (size - 1) << 8 * i
    return struct.pack("<32I", *w)


def decode(raw: bytes) -> TensorMap:
    """Decode and validate a descriptor (128 bytes; the upper 64 are ignored and may be garbage). Cached.

    Raises Fault 'bad_tensor_map' naming the field, or Unsupported.
    """
    return _decode(raw[: WORDS.size])


@lru_cache(maxsize=4096)
def _decode(raw: bytes) -> TensorMap:
    tensor_map = read_fields(raw)
    validate(tensor_map)
    return tensor_map
