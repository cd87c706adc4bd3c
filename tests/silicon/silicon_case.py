"""Small PTX kernels that a GPU and the simulated machine both run: what a case is, and its simulation.

A kernel has three pointer parameters, each to a buffer of its own: `p0` input, `p1` output (filled with 0xCD
before the launch), `p2` a 128-byte tensor map over the input or the output. One CTA, or a grid of clusters.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from b200sim.global_memory import GlobalMemory
from b200sim.gpus import H200
from b200sim.isa.decoder import decode_kernel
from b200sim.machine.grid import Grid
from b200sim.ptx.parser import parse
from b200sim.tma.encoding import encode
from b200sim.tma.tensor_map import TensorMap

FILL = 0xCD
ALIGN = 1024  # of the buffers
BUFFER_BYTES = 1 << 20  # of a buffer on the GPU: more than any case's input or output
LANES = 32
ROUNDS = 8  # operand sets per lane
Bytes = np.ndarray  # of uint8
ONE = (1, 1, 1)


@dataclass(frozen=True)
class Case:
    """`map` has an address relative to the buffer `map_over`, "in" or "out". `grid` and `cluster` count CTAs;
    `about` says what the case shows where its name does not. `unspecified`: bytes of the output, first and
    end, of which PTX says that they may be anything. `fault`: the simulator's code for what ends the launch
    on the GPU."""

    name: str
    body: str
    data: Bytes
    output_bytes: int
    map: TensorMap | None = None
    map_over: str = "in"
    threads: int = LANES
    shared_bytes: int = 0
    shared: str = ""
    grid: tuple[int, int, int] = ONE
    cluster: tuple[int, int, int] = ONE
    about: str = ""
    unspecified: tuple[int, int] = (0, 0)
    fault: str = ""

    @property
    def family(self) -> str:
        return self.name.split("/")[0]

    def text(self, target: str = "sm_90a") -> str:
        """The PTX module."""
        clusters = "" if self.cluster == ONE else ".reqnctapercluster {}, {}, {}\n".format(*self.cluster)
        return (
            f".version 8.4\n.target {target}\n.address_size 64\n{self.shared}\n"
            ".visible .entry kernel(.param .u64 p0, .param .u64 p1, .param .u64 p2)\n"
            f".reqntid {self.threads}, 1, 1\n{clusters}{{\n{self.body}\n}}\n"
        )

    def digest(self) -> str:
        """Of all that determines the result, so that a changed case is not compared with an old record."""
        content = f"{self.text()}|{self.output_bytes}|{self.map}|{self.map_over}|{self.shared_bytes}|"
        if self.grid != ONE:
            content += f"{self.grid}|"
        return hashlib.sha256(content.encode() + self.data.tobytes()).hexdigest()[:16]

    def encoded_map(self, addresses: dict[str, int], kind: int) -> bytes:
        """The tensor map for buffers at these addresses. `kind` is 0 on Hopper, 2 on Blackwell."""
        if self.map is None:
            return bytes(128)
        return encode(replace(self.map, address=self.map.address + addresses[self.map_over], kind=kind))


#: What `atom`, `red` and `red.async` do to 32-bit integers in every space, beside exchanges.
REDUCTIONS = (
    *("add.u32", "add.s32", "min.s32", "min.u32", "max.s32", "max.u32"),
    *("and.b32", "or.b32", "xor.b32", "inc.u32", "dec.u32"),
)


def random_of(name: str) -> np.random.Generator:
    """The same numbers for the same name, ever."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))


def aligned(count: int) -> Bytes:
    room = np.zeros(count + ALIGN, np.uint8)
    start = -room.ctypes.data % ALIGN
    return room[start : start + count]


def simulate(case: Case) -> Bytes:
    """The output buffer after the kernel ran on the simulated machine."""
    data, output, tensor_map = aligned(max(case.data.size, 128)), aligned(case.output_bytes), aligned(128)
    data[: case.data.size] = case.data
    output[:] = FILL
    addresses = {"in": data.ctypes.data, "out": output.ctypes.data}
    tensor_map[:] = np.frombuffer(case.encoded_map(addresses, 0), np.uint8)

    memory = GlobalMemory()
    for name, array in (("input", data), ("output", output), ("tensor map", tensor_map)):
        memory.add(name, array.ctypes.data, array.nbytes)
    parameters = np.array([data.ctypes.data, output.ctypes.data, tensor_map.ctypes.data], np.uint64)
    memory.add("parameters", parameters.ctypes.data, parameters.nbytes, writable=False)
    Grid(
        decode_kernel(next(iter(parse(case.text()).values()))),
        memory,
        grid=case.grid,
        block=(case.threads, 1, 1),
        cluster=case.cluster,
        shared_bytes=case.shared_bytes,
        parameter_base=parameters.ctypes.data,
        gpu=H200,
    ).run()
    return output
