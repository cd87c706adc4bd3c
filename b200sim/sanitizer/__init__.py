"""Finds races, hazards and hangs of tcgen05 and wgmma kernels while a simulated GPU runs them.

from b200sim.sanitizer import sanitize
report = sanitize(lambda device: module.custom_kernel(data), schedules=20, seed=1)
print(report.text())
"""

from b200sim.sanitizer.explore import Session, sanitize, sanitize_grid
from b200sim.sanitizer.findings import Finding, Findings
from b200sim.sanitizer.report import Explored, Report
from b200sim.sanitizer.sanitizer import Sanitizer
from b200sim.sanitizer.trace import Trace

__all__ = [
    "Explored",
    "Finding",
    "Findings",
    "Report",
    "Sanitizer",
    "Session",
    "Trace",
    "sanitize",
    "sanitize_grid",
]
