"""One kernel launch as the host code asked for it, decoded from the arguments of `cudaLaunchKernelEx`.

Layout of `cudaLaunchConfig_t` (driver_types.h): grid 3×u32 at 0, block 3×u32 at 12, dynamic shared memory
u64 at 24, stream at 32, attribute pointer at 40, attribute count u32 at 48. An attribute is 72 bytes: id
u32 at 0, a 64-byte value at 8.
"""

from __future__ import annotations

import ctypes
import re
import struct
from dataclasses import dataclass, field
from functools import lru_cache

from b200sim.faults import Fault, Unsupported
from b200sim.gpus import GPUS, Gpu
from b200sim.ptx.directives import Directives, read_directives

_CONFIG_BYTES = 52
_ATTRIBUTE_BYTES = 72
_COOPERATIVE = 2
_CLUSTER_DIMENSION = 4
_PROGRAMMATIC_STREAM_SERIALIZATION = 6
# Hints that change no result: access policy, synchronization policy, cluster scheduling, programmatic event,
# priority, memory synchronization domains, preferred cluster (the launch may use the plain one), carve-out.
_HINTS = frozenset({0, 1, 3, 5, 7, 8, 9, 10, 11, 12, 13, 14})

Dim3 = tuple[int, int, int]


@dataclass(frozen=True)
class Parameter:
    """One `.param` of a PTX entry: size and alignment in bytes."""

    name: str
    size: int
    align: int


@dataclass
class Launch:
    """A launch: PTX text, entry name, dimensions in CTAs and threads, dynamic shared memory in bytes.

    `args` holds the host address of every parameter's value, in the order of the entry's `.param`s. The
    memory belongs to the host code that launches and is valid only while the launch is being handled.
    """

    ptx: str
    entry: str
    grid: Dim3
    block: Dim3
    cluster: Dim3 = (1, 1, 1)
    shared_bytes: int = 0
    args: list[int] = field(default_factory=list)
    pdl: bool = False
    cooperative: bool = False

    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters that the PTX entry declares."""
        return entry_parameters(self.ptx, self.entry)

    def parameter_values(self) -> list[bytes]:
        """Every parameter's bytes, read from the host addresses (only while the launch is being handled)."""
        sizes = (parameter.size for parameter in self.parameters())
        return [ctypes.string_at(address, size) for address, size in zip(self.args, sizes, strict=True)]

    def check(self, gpu: Gpu) -> None:
        """Raise Fault "launch_configuration" or "no_kernel_image" for a launch that `gpu` refuses."""
        _check_target(self, gpu)
        _check_dimensions(self, gpu)
        if self.shared_bytes > gpu.shared_bytes_per_block_optin:
            _refuse(
                self,
                f"{self.shared_bytes} bytes of dynamic shared memory, "
                f"at most {gpu.shared_bytes_per_block_optin} are available",
            )


def decode_launch(ptx: str, entry: str, config: int, args: int) -> Launch:
    """The launch described by a `cudaLaunchConfig_t` at address `config` and a `void*` array at `args`."""
    raw = ctypes.string_at(config, _CONFIG_BYTES)
    gx, gy, gz, bx, by, bz, shared, _stream, attributes, count = struct.unpack("<6I3QI", raw)
    launch = Launch(ptx, entry, (gx, gy, gz), (bx, by, bz), shared_bytes=shared)
    for index in range(count):
        _apply_attribute(launch, ctypes.string_at(attributes + index * _ATTRIBUTE_BYTES, _ATTRIBUTE_BYTES))
    launch.args = read_pointers(args, len(launch.parameters()))
    return launch


def read_pointers(address: int, count: int) -> list[int]:
    """`count` pointers from an array at `address`."""
    return list(struct.unpack(f"<{count}Q", ctypes.string_at(address, 8 * count)))


def _apply_attribute(launch: Launch, raw: bytes) -> None:
    (identifier,) = struct.unpack_from("<I", raw, 0)
    if identifier == _CLUSTER_DIMENSION:
        x, y, z = struct.unpack_from("<3I", raw, 8)
        launch.cluster = (x, y, z)
    elif identifier == _PROGRAMMATIC_STREAM_SERIALIZATION:
        launch.pdl = struct.unpack_from("<i", raw, 8)[0] != 0
    elif identifier == _COOPERATIVE:
        launch.cooperative = struct.unpack_from("<i", raw, 8)[0] != 0
    elif identifier not in _HINTS:
        raise Unsupported(f"kernel {launch.entry} is launched with cudaLaunchAttributeID {identifier}")


_ENTRY = re.compile(r"\.entry\s+(?P<name>[\w$]+)\s*\((?P<parameters>[^)]*)\)")
_PARAMETER = re.compile(
    r"\.param\s+(?:\.align\s+(?P<align>\d+)\s+)?\.(?P<type>\w+)"
    r"(?:\s+\.ptr(?:\s+\.\w+)*?(?:\s+\.align\s+\d+)?)?"
    r"\s+(?P<name>[\w$]+)(?:\[(?P<count>\d+)\])?"
)
_TARGET = re.compile(r"^\.target\s+(\w+)", re.MULTILINE)


@lru_cache(maxsize=256)
def entry_parameters(ptx: str, entry: str) -> tuple[Parameter, ...]:
    """The parameters of a PTX entry.

    Raises:
        Fault: "no_such_kernel" when the PTX has no such entry.
    """
    for match in _ENTRY.finditer(ptx):
        if match["name"] == entry:
            declarations = match["parameters"].strip()
            return tuple(_parameter(part) for part in declarations.split(",")) if declarations else ()
    names = [match["name"] for match in _ENTRY.finditer(ptx)]
    raise Fault("no_such_kernel", f"the PTX has no entry {entry}; it has {', '.join(names) or 'none'}")


@lru_cache(maxsize=256)
def entry_directives(ptx: str, entry: str) -> Directives:
    """What the entry says about its launches (`.reqntid` and others, PTX ISA 11.4)."""
    for match in _ENTRY.finditer(ptx):
        if match["name"] == entry:
            return read_directives(ptx[match.end() : ptx.index("{", match.end())])
    return Directives()


def _parameter(declaration: str) -> Parameter:
    match = _PARAMETER.search(declaration)
    if match is None:
        raise Unsupported(f"cannot read the kernel parameter declaration {declaration.strip()!r}")
    width = 1 if match["type"] == "pred" else int(re.sub(r"\D", "", match["type"])) // 8
    return Parameter(match["name"], width * int(match["count"] or 1), int(match["align"] or width))


def _check_target(launch: Launch, gpu: Gpu) -> None:
    match = _TARGET.search(launch.ptx)
    target = match[1] if match else "no target"
    if target not in gpu.architectures:
        other = next((g for g in GPUS.values() if target in g.architectures), None)
        advice = f"; a simulated {other.short_name} would run it (eval.py --gpu {other.key})" if other else ""
        raise Fault(
            "no_kernel_image",
            f"kernel {launch.entry} is compiled for {target}; the simulated GPU is {gpu.name} "
            f"(compute capability {gpu.capability}), which runs {', '.join(gpu.architectures)}{advice}",
        )


def _check_dimensions(launch: Launch, gpu: Gpu) -> None:
    for what, dims, limits in (("grid", launch.grid, gpu.max_grid), ("block", launch.block, gpu.max_block)):
        if any(not 1 <= dim <= limit for dim, limit in zip(dims, limits, strict=True)):
            _refuse(launch, f"{what} {dims}, every dimension must be between 1 and {limits}")
    threads = launch.block[0] * launch.block[1] * launch.block[2]
    if threads > gpu.max_threads_per_block:
        _refuse(launch, f"block {launch.block} has {threads} threads, at most {gpu.max_threads_per_block}")
    compiled = entry_directives(launch.ptx, launch.entry)
    if compiled.required and launch.block != compiled.required:
        _refuse(launch, f"block {launch.block}, the kernel is compiled for {compiled.required}")
    if compiled.threads is not None and threads > compiled.threads:
        _refuse(
            launch, f"block {launch.block}, the kernel is compiled for {compiled.threads} threads at most"
        )
    ctas = launch.cluster[0] * launch.cluster[1] * launch.cluster[2]
    if not 1 <= ctas <= gpu.max_cluster_ctas:
        _refuse(launch, f"cluster {launch.cluster} has {ctas} CTAs, at most {gpu.max_cluster_ctas}")
    if any(size % part for size, part in zip(launch.grid, launch.cluster, strict=True)):
        _refuse(launch, f"grid {launch.grid} is not a multiple of cluster {launch.cluster}")


def _refuse(launch: Launch, why: str) -> None:
    raise Fault("launch_configuration", f"kernel {launch.entry} cannot be launched: {why}")
