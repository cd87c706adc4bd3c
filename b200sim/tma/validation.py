"""The rules of the hardware for tensor maps (CUDA driver API, cuTensorMapEncodeTiled; PTX ISA 5.5).

Two are not written there, but cuTensorMapEncodeTiled on an H200 has them (tests/silicon, encode/*): addresses
end at 2**57, and a box, its element strides rounded down, must not be larger than shared memory. The latter's
exact limit is inferred: 95,256 bytes pass, 259,072 do not.
"""

from __future__ import annotations

from math import prod

from b200sim.faults import Fault, Unsupported
from b200sim.tma.tensor_map import FLOAT_TYPES, SWIZZLE_SPAN, Atomicity, ElementType, Swizzle, TensorMap

ADDRESS_LIMIT = 1 << 57
MAX_STRIDE = 1 << 40
MAX_BOX_BYTES = 227 * 1024  # of shared memory in a CTA, on Hopper and Blackwell


def validate(tensor_map: TensorMap) -> None:
    """Raise Fault 'bad_tensor_map' naming the first field that breaks a rule of the hardware, or
    Unsupported for modes that the simulator has not."""
    check_fields(tensor_map)
    if tensor_map.interleave:
        raise Unsupported(f"tensor map with interleave_layout {tensor_map.interleave}")
    if tensor_map.swizzle96:
        raise Unsupported("tensor map with 96-byte swizzle (an sm_103a mode)")
    if tensor_map.element in (ElementType.B4X16_P64, ElementType.B6X16_P32):
        raise Unsupported(f"tensor map with padded element type {tensor_map.element.name}")
    if tensor_map.atomicity is Atomicity.B32_FLIP8:
        raise Unsupported("tensor map with swizzle atomicity 32B + 8B flip")
    if tensor_map.atomicity and tensor_map.swizzle is not Swizzle.B128:
        raise bad_field("swizzle_atomicity", f"{tensor_map.atomicity.name} needs the 128-byte swizzle mode")
    if tensor_map.element is ElementType.B4X16 and tensor_map.dims[0] % 2:
        raise bad_field("global_dim[0]", f"{tensor_map.dims[0]} 4-bit elements; must be even")
    if tensor_map.nan_fill and tensor_map.element not in FLOAT_TYPES:
        raise bad_field("fill_mode", f"OOB-NaN fill with the element type {tensor_map.element.name}")
    _check_box(tensor_map)


def check_fields(tensor_map: TensorMap) -> None:
    """The rules without which a descriptor cannot even hold the fields: Fault 'bad_tensor_map'."""
    rank = tensor_map.rank
    if not 1 <= rank <= 5:
        raise bad_field("rank", f"{rank}; must be 1..5")
    lengths = {"global_stride": len(tensor_map.strides) + 1}
    lengths |= {"box_dim": len(tensor_map.box), "element_stride": len(tensor_map.element_strides)}
    for field, length in lengths.items():
        if length != rank:
            raise bad_field(field, f"{length} dimensions, the tensor has {rank}")
    if tensor_map.address % 16 or not 0 <= tensor_map.address < ADDRESS_LIMIT:
        raise bad_field("global_address", f"{tensor_map.address:#x}; must be a multiple of 16 below 2**57")
    for i, stride in enumerate(tensor_map.strides):
        if stride % 16 or not 0 <= stride < MAX_STRIDE:
            raise bad_field(f"global_stride[{i}]", f"{stride} bytes; must be a multiple of 16 below 2**40")
    for i in range(rank):
        if not 1 <= tensor_map.dims[i] <= 1 << 32:
            raise bad_field(f"global_dim[{i}]", f"{tensor_map.dims[i]}; must be 1..2**32")
        if not 1 <= tensor_map.box[i] <= 256:
            raise bad_field(f"box_dim[{i}]", f"{tensor_map.box[i]}; must be 1..256")
        if not 1 <= tensor_map.element_strides[i] <= 8:
            raise bad_field(f"element_stride[{i}]", f"{tensor_map.element_strides[i]}; must be 1..8")


def _check_box(tensor_map: TensorMap) -> None:
    bits = tensor_map.box[0] * tensor_map.bits
    if bits % 128:
        raise bad_field(
            "box_dim[0]",
            f"{tensor_map.box[0]} elements of {tensor_map.element.name} are {bits / 8:g} bytes; "
            "must be a multiple of 16 bytes",
        )
    span = SWIZZLE_SPAN.get(tensor_map.swizzle)
    if span is not None and bits > span * 8:
        raise bad_field(
            "box_dim[0]",
            f"{tensor_map.box[0]} elements of {tensor_map.element.name} are {bits // 8} bytes, "
            f"more than the {span} bytes of swizzle {tensor_map.swizzle.name}",
        )
    steps = zip(tensor_map.box, tensor_map.element_strides, strict=True)
    size = prod(count // step for count, step in steps) * tensor_map.bits // 8
    if size > MAX_BOX_BYTES:
        raise bad_field("box_dim", f"{tensor_map.box}: {size} bytes, more than shared memory has")


def bad_field(field: str, problem: str) -> Fault:
    return Fault("bad_tensor_map", f"tensor map field {field} = {problem}")
