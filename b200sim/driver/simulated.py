"""The simulated device as this process sees it: torch, the CUDA bindings and CuTe-DSL together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from b200sim.driver.cuda_bindings import patch_cuda_bindings
from b200sim.driver.cutedsl import OnLaunch, cutedsl_launches_into
from b200sim.driver.device_tensors import MemoryRegistry
from b200sim.driver.patches import Patches
from b200sim.driver.torch_cuda import SimulatedCuda, simulated_torch_cuda
from b200sim.gpus import B200, Gpu


@contextlib.contextmanager
def simulated_device(
    on_launch: OnLaunch, registry: MemoryRegistry, gpu: Gpu = B200
) -> Iterator[SimulatedCuda]:
    """Let this process run as if it had that GPU, until the block ends; nothing stays behind.

    Kernel launches call `on_launch` within the launching call; what it raises comes out of that call. Device
    allocations are reported to `registry` while they live. One simulated device is active at a time.
    """
    patches = Patches()
    try:
        with cutedsl_launches_into(on_launch, gpu):
            patch_cuda_bindings(patches, gpu)
            with simulated_torch_cuda(registry, gpu) as cuda:
                yield cuda
    finally:
        patches.restore()
