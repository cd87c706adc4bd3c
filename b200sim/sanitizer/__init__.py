"""Finds races, hazards and hangs of tcgen05 and wgmma kernels while a simulated GPU runs them.

from b200sim.sanitizer import sanitize
report = sanitize(lambda device: module.custom_kernel(data), schedules=20, seed=1)
print(report.text())

What lives where:
    events of the machine   sanitizer (ties the parts together), threads, units, tensor_core, warpgroup, sync,
                            global_events
    who knows of what       clocks, state, lanes, lane_order, scopes, locations, outside, predecessor
    what memory remembers   shadow, async_shared, global_shadow, descriptors
    undefined values        values, flow, operands, compute, places, poison
    what is said            codes, rules, classify, cycle, records, findings, report, trace
    before and around       static (the program), explore (many schedules)
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
