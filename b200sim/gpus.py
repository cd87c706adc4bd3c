"""The GPUs that can be simulated. Every figure that depends on which one it is stands here and nowhere else.

Sources: CUDA C++ Programming Guide, technical specifications for compute capabilities 9.0 and 10.0; NVIDIA's
data sheets; for the B200 the L2 size, the boost clock and the GPC map are measurements published by third
parties, for the H200 name, memory, L2 and SMs are what one reported. How many SMs a GPC has differs from chip
to chip: `gpc_sms` is one configuration that agrees with what was seen (H200: 66 clusters of 2, 30 of 4).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

MULTIPROCESSORS = 16  # the attribute that `sm_count` answers


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU: sizes in bytes, clocks in kHz. What has a default is the same for both kinds."""

    key: str  # of `eval.py --gpu`
    name: str  # as the driver says it
    compute_capability: tuple[int, int]
    compile_for: str  # the target that CuTe-DSL compiles for
    architectures: tuple[str, ...]  # targets whose binaries it runs
    sm_count: int
    gpc_sms: tuple[int, ...]
    global_bytes: int
    l2_bytes: int
    sm_clock_khz: int
    memory_clock_khz: int
    memory_bus_bits: int

    driver_version: int = 13000
    warp_size: int = 32
    max_threads_per_block: int = 1024
    max_block: tuple[int, int, int] = (1024, 1024, 64)
    max_grid: tuple[int, int, int] = (2**31 - 1, 65535, 65535)
    max_cluster_ctas: int = 16  # with the non-portable size allowed, as CuTe-DSL asks for it
    max_threads_per_sm: int = 2048
    max_blocks_per_sm: int = 32
    registers_per_sm: int = 65536
    shared_bytes_per_sm: int = 228 * 1024
    shared_bytes_per_block: int = 48 * 1024
    shared_bytes_per_block_optin: int = 227 * 1024  # dynamic + static
    shared_bytes_reserved: int = 1024

    @property
    def short_name(self) -> str:
        return self.name.removeprefix("NVIDIA ")

    @property
    def capability(self) -> str:
        return "{}.{}".format(*self.compute_capability)

    def with_sms(self, count: int) -> Gpu:
        """The same GPU with fewer SMs, for small problems that are to give a CTA several tiles."""
        if not 0 < count <= self.sm_count:
            raise ValueError(f"{count} SMs; a simulated {self.short_name} has 1 to {self.sm_count}")
        return replace(self, sm_count=count)

    def max_active_clusters(self, ctas: int) -> int:
        """How many clusters of `ctas` CTAs run at a time, one CTA per SM; a cluster stays in one GPC."""
        return min(sum(sms // ctas for sms in self.gpc_sms), max(self.sm_count // ctas, 1))

    def attributes(self) -> dict[int, int]:
        """By CUdevice_attribute / cudaDeviceAttr number (cuda.h, driver_types.h: the enumerations agree)."""
        return {
            1: self.max_threads_per_block,
            2: self.max_block[0],
            3: self.max_block[1],
            4: self.max_block[2],
            5: self.max_grid[0],
            6: self.max_grid[1],
            7: self.max_grid[2],
            8: self.shared_bytes_per_block,
            9: 64 * 1024,  # total constant memory
            10: self.warp_size,
            12: self.registers_per_sm,  # registers per block
            13: self.sm_clock_khz,
            MULTIPROCESSORS: self.sm_count,
            17: 0,  # kernel execution timeout
            18: 0,  # integrated
            20: 0,  # compute mode: default
            31: 1,  # concurrent kernels
            32: 1,  # ECC
            36: self.memory_clock_khz,
            37: self.memory_bus_bits,
            38: self.l2_bytes,
            39: self.max_threads_per_sm,
            41: 1,  # unified addressing
            75: self.compute_capability[0],
            76: self.compute_capability[1],
            78: 1,  # stream priorities
            81: self.shared_bytes_per_sm,
            82: self.registers_per_sm,
            83: 1,  # managed memory
            95: 1,  # cooperative launch
            97: self.shared_bytes_per_block_optin,
            106: self.max_blocks_per_sm,
            111: self.shared_bytes_reserved,
            120: 1,  # cluster launch
        }


B200 = Gpu(
    key="b200",
    name="NVIDIA B200",
    compute_capability=(10, 0),
    compile_for="sm_100a",
    architectures=("sm_100", "sm_100a", "sm_100f"),
    sm_count=148,
    gpc_sms=(20, 20, 18, 18, 18, 18, 18, 18),
    global_bytes=180 * 1024**3,
    l2_bytes=132_644_864,
    sm_clock_khz=1_965_000,
    memory_clock_khz=3_996_000,
    memory_bus_bits=7680,
)

H200 = Gpu(
    key="h200",
    name="NVIDIA H200",
    compute_capability=(9, 0),
    compile_for="sm_90a",
    architectures=("sm_90", "sm_90a"),
    sm_count=132,
    gpc_sms=(18, 18, 18, 18, 16, 16, 14, 14),
    global_bytes=1398 * 1024**3 // 10,
    l2_bytes=60 * 1024**2,
    sm_clock_khz=1_980_000,
    memory_clock_khz=3_201_000,
    memory_bus_bits=6144,
)

GPUS = {gpu.key: gpu for gpu in (B200, H200)}

#: Instruction families of one architecture, and the targets that have them (PTX ISA, target ISA notes).
FAMILY_TARGETS = {"tcgen05": ("sm_100a", "sm_100f"), "wgmma": ("sm_90a",)}
