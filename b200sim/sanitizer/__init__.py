"""Finds races, hazards and hangs of tcgen05 kernels while the simulated B200 runs them."""

from b200sim.sanitizer.findings import Finding, Findings
from b200sim.sanitizer.sanitizer import Sanitizer

__all__ = ["Finding", "Findings", "Sanitizer"]
