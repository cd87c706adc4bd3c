"""The driver: lets a CuTe-DSL submission run in this process without a GPU and a CUDA driver."""

from b200sim.driver.launch import Launch, Parameter
from b200sim.driver.simulated import simulated_device
from b200sim.driver.torch_cuda import SimulatedCuda

__all__ = ["Launch", "Parameter", "SimulatedCuda", "simulated_device"]
