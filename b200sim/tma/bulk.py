"""One-dimensional bulk copies: cp.async.bulk and cp.reduce.async.bulk (PTX ISA 9.7.9.25.4).

A copy is one read half and one write half with a uint8 buffer between them, so that the scheduler can let
them happen at different times: global -> shared is read_global, write_shared; shared -> global is
read_shared, write_global; shared::cta -> shared::cluster is read_shared here and write_shared in the peer.
Sizes and both addresses are multiples of 16 bytes.
"""

from __future__ import annotations

import numpy as np

from b200sim.faults import Fault
from b200sim.global_memory import RAW_DTYPES, Bytes, GlobalMemory
from b200sim.tma.reduction import reduce_into
from b200sim.tma.tile import RESERVED_SHARED_BYTES

_ITEM_BYTES = {"f16": 2, "bf16": 2, "b32": 4, "u32": 4, "s32": 4, "f32": 4}
_ITEM_BYTES |= {"b64": 8, "u64": 8, "s64": 8, "f64": 8}
_SHARED_TYPES = {"u32", "s32", "u64", "b32"}


def check_size(size: int) -> None:
    """Fault 'bulk_size' unless `size` is a positive multiple of 16 bytes."""
    if size <= 0 or size % 16:
        raise Fault("bulk_size", f"bulk copy of {size} bytes; must be a positive multiple of 16")


def check_shared(offset: int, size: int, smem_bytes: int) -> None:
    """The shared memory side: Faults bulk_size, bulk_misaligned, smem_out_of_bounds."""
    check_size(size)
    _check_alignment("shared", offset)
    if offset < RESERVED_SHARED_BYTES or offset + size > smem_bytes:
        raise Fault(
            "smem_out_of_bounds",
            f"bulk copy of {size} bytes at shared address {offset:#x}; the CTA has "
            f"[{RESERVED_SHARED_BYTES:#x}, {smem_bytes:#x})",
        )


def read_global(memory: GlobalMemory, address: int, size: int) -> Bytes:
    """uint8[size], a copy. Faults: bulk_size, bulk_misaligned, and those of GlobalMemory."""
    check_size(size)
    _check_alignment("global", address)
    return memory.view(address, size).copy()


def write_global(memory: GlobalMemory, address: int, data: Bytes, byte_mask: int | None = None) -> None:
    """Write uint8 data. byte_mask (.cp_mask): bit i says whether byte i of every 16-byte chunk is written."""
    check_size(data.size)
    _check_alignment("global", address)
    target = memory.view(address, data.size, write=True)
    if byte_mask is None:
        target[:] = data
        return
    chosen = np.array([byte_mask >> i & 1 for i in range(16)], dtype=bool)
    target.reshape(-1, 16)[:, chosen] = data.reshape(-1, 16)[:, chosen]


def read_shared(smem: Bytes, offset: int, size: int) -> Bytes:
    """uint8[size] of a CTA's shared memory, a copy."""
    check_shared(offset, size, smem.size)
    return smem[offset : offset + size].copy()


def write_shared(smem: Bytes, offset: int, data: Bytes) -> None:
    """Write uint8 data into a CTA's shared memory."""
    check_shared(offset, data.size, smem.size)
    smem[offset : offset + data.size] = data


def reduce_global(memory: GlobalMemory, address: int, data: Bytes, operation: str, type_name: str) -> None:
    """cp.reduce.async.bulk.global: combine uint8 data, read as elements of the PTX type, into memory.
    Fault 'tma_bad_reduction' for pairs that PTX does not list."""
    check_size(data.size)
    _check_alignment("global", address)
    _reduce(memory.view(address, data.size, write=True), data, operation, type_name)


def reduce_shared(smem: Bytes, offset: int, data: Bytes, operation: str, type_name: str) -> None:
    """cp.reduce.async.bulk.shared::cluster: the same into another CTA's shared memory; no s64 and floats."""
    check_shared(offset, data.size, smem.size)
    if type_name not in _SHARED_TYPES:
        raise Fault("tma_bad_reduction", f"reduction of type {type_name} into shared memory")
    _reduce(smem[offset : offset + data.size], data, operation, type_name)


def _reduce(target: Bytes, data: Bytes, operation: str, type_name: str) -> None:
    word = RAW_DTYPES[_ITEM_BYTES.get(type_name, 4)]
    reduce_into(target.view(word), data.view(word), operation, type_name)


def _check_alignment(space: str, address: int) -> None:
    if address % 16:
        raise Fault(
            "bulk_misaligned", f"bulk copy at {space} address {address:#x}, which is not a multiple of 16"
        )
