"""The sections of the PTX ISA manual, version 9.1 (CUDA 13.1), that this project cites by number.

Numbers move between versions (cp.async.bulk.tensor, 9.7.9.27.1.2, was 9.7.9.25.5.2 before): with another one,
look for the title. A test looks at every citation in comments: its section must exist.
"""

from __future__ import annotations

import re

VERSION = "9.1"

#: How many sections each section has; those that are not listed have none.
SECTIONS = {
    "": 14, "1": 4, "2": 3, "2.2": 3, "3": 3, "4": 5, "4.3": 2, "4.5": 6, "5": 5, "5.1": 8, "5.1.3": 1,
    "5.1.6": 4, "5.2": 5, "5.2.5": 3, "5.3": 3, "5.4": 8, "5.5": 8, "5.5.1": 1, "5.5.1.1": 1,
    "5.5.3": 4, "5.5.3.4": 1, "5.5.4": 3, "5.5.5": 4, "6": 6, "6.4": 4, "6.4.1": 1, "6.5": 2, "7": 3,
    "7.1": 1, "8": 11, "8.1": 1, "8.2": 6, "8.4": 2, "8.7": 2, "8.9": 7, "8.9.1": 1, "8.10": 6,
    "8.11": 1, "9": 7, "9.3": 2, "9.3.1": 2, "9.4": 1, "9.6": 1, "9.7": 19, "9.7.1": 24, "9.7.2": 6,
    "9.7.3": 22, "9.7.4": 10, "9.7.5": 3, "9.7.6": 4, "9.7.7": 2, "9.7.8": 9, "9.7.9": 28,
    "9.7.9.25": 4, "9.7.9.25.1": 2, "9.7.9.25.3": 3, "9.7.9.25.4": 3, "9.7.9.27": 2, "9.7.9.27.1": 4,
    "9.7.9.27.2": 2, "9.7.10": 6, "9.7.11": 4, "9.7.12": 7, "9.7.13": 18, "9.7.13.15": 17,
    "9.7.13.15.5": 2, "9.7.14": 6, "9.7.14.4": 5, "9.7.14.5": 17, "9.7.14.6": 3, "9.7.14.6.2": 8,
    "9.7.15": 7, "9.7.15.5": 2, "9.7.15.5.1": 2, "9.7.15.5.1.1": 4, "9.7.15.5.1.2": 2,
    "9.7.15.5.1.2.1": 3, "9.7.15.6": 3, "9.7.15.6.2": 3, "9.7.15.7": 3, "9.7.16": 12, "9.7.16.1": 2,
    "9.7.16.2": 3, "9.7.16.2.1": 1, "9.7.16.2.3": 1, "9.7.16.2.3.1": 5, "9.7.16.3": 3, "9.7.16.3.1": 2,
    "9.7.16.3.1.2": 1, "9.7.16.4": 3, "9.7.16.4.1": 1, "9.7.16.5": 2, "9.7.16.6": 5, "9.7.16.6.2": 1,
    "9.7.16.6.2.1": 2, "9.7.16.6.4": 5, "9.7.16.7": 1, "9.7.16.8": 5, "9.7.16.9": 3, "9.7.16.9.1": 2,
    "9.7.16.10": 9, "9.7.16.10.4": 6, "9.7.16.10.5": 7, "9.7.16.10.7": 3, "9.7.16.10.7.2": 5,
    "9.7.16.10.7.3": 5, "9.7.16.10.8": 5, "9.7.16.10.8.4": 6, "9.7.16.10.9": 4, "9.7.16.11": 1,
    "9.7.16.12": 1, "9.7.17": 3, "9.7.18": 2, "9.7.18.1": 4, "9.7.18.2": 4, "9.7.19": 5, "10": 33,
    "11": 8, "11.1": 3, "11.2": 3, "11.3": 3, "11.4": 9, "11.5": 4, "11.6": 4, "11.7": 3, "11.8": 1,
    "12": 4, "13": 38, "14": 3,
}  # fmt: skip

#: Titles of the sections that the sanitizer's reports and rules cite. Of an instruction's, its name.
TITLES = {
    "2.2.2": "Cluster of Cooperative Thread Arrays",
    "5.1.4": "Global State Space",
    "5.1.7": "Shared State Space",
    "5.2.3": "Alternate Floating-Point Data Formats",
    "5.5": "Tensors",
    "5.5.7": "Swizzling Modes",
    "6.4.1": "Addresses as Operands",
    "8.2.4": "Memory Operations on Vector Data Types",
    "8.2.6": "Initialization",
    "8.4.2": "volatile Operation",
    "8.5": "Scope",
    "8.6": "Proxies",
    "8.7": "Morally strong operations",
    "8.7.1": "Conflict and Data-races",
    "8.8": "Release and Acquire Patterns",
    "8.9.1.1": "Asynchronous Operations",
    "8.9.2": "Observation Order",
    "8.9.4": "Memory synchronization",
    "8.9.5": "Causality Order",
    "9.7": "Instructions",
    "9.7.9.6": "shfl.sync",
    "9.7.9.9": "ld.global.nc",
    "9.7.9.25.1": "Completion Mechanisms for Asynchronous Copy Operations",
    "9.7.9.25.1.1": "Async-group mechanism",
    "9.7.9.25.1.2": "Mbarrier-based mechanism",
    "9.7.9.25.2": "Async Proxy",
    "9.7.9.25.3.3": "cp.async.wait_group, cp.async.wait_all",
    "9.7.9.25.4.1": "cp.async.bulk",
    "9.7.9.25.4.2": "cp.reduce.async.bulk",
    "9.7.9.27.1.1": "Restriction on Tensor Copy instructions",
    "9.7.9.27.1.2": "cp.async.bulk.tensor",
    "9.7.9.27.2.2": "cp.async.bulk.wait_group",
    "9.7.13.1": "bar, barrier",
    "9.7.13.2": "bar.warp.sync",
    "9.7.13.3": "barrier.cluster",
    "9.7.13.4": "membar, fence",
    "9.7.13.5": "atom",
    "9.7.13.9": "vote.sync",
    "9.7.13.13": "griddepcontrol",
    "9.7.13.15": "mbarrier",
    "9.7.13.15.2": "Contents of the mbarrier object",
    "9.7.13.15.3": "Lifecycle of the mbarrier object",
    "9.7.13.15.4": "Phase of the mbarrier object",
    "9.7.13.15.5": "Tracking asynchronous operations by the mbarrier object",
    "9.7.13.15.6": "Phase Completion of the mbarrier object",
    "9.7.13.15.7": "Arrive-on operation on mbarrier object",
    "9.7.13.15.9": "mbarrier.init",
    "9.7.13.15.13": "mbarrier.arrive",
    "9.7.13.15.15": "cp.async.mbarrier.arrive",
    "9.7.13.15.16": "mbarrier.test_wait, mbarrier.try_wait",
    "9.7.13.16": "tensormap.cp_fenceproxy",
    "9.7.13.17": "clusterlaunchcontrol.try_cancel",
    "9.7.15.4": "Async Proxy",
    "9.7.15.7.3": "wgmma.wait_group",
    "9.7.16.1.2": "Tensor Memory Allocation",
    "9.7.16.2": "Matrix and Data Movement Shape",
    "9.7.16.4": "Matrix Descriptors",
    "9.7.16.4.1": "Shared memory descriptor",
    "9.7.16.4.2": "Instruction descriptor",
    "9.7.16.5": "Issue Granularity",
    "9.7.16.6.2": "Pipelined tcgen05 Instructions",
    "9.7.16.6.2.1.1": "mbarrier based completion mechanism",
    "9.7.16.6.3": "Specialized Inter-thread Synchronization for tcgen05 instructions",
    "9.7.16.6.4.2": "Non-pipelined instructions, same thread",
    "9.7.16.6.4.3": "Pipelined instructions, different thread",
    "9.7.16.6.4.4": "Non-pipelined instructions, different thread",
    "9.7.16.6.4.5": "Register dependencies, same thread",
    "9.7.16.6.5": "Shared Memory Accesses",
    "9.7.16.7.1": "tcgen05.alloc, dealloc, relinquish_alloc_permit",
    "9.7.16.8.1": "Access restrictions",
    "9.7.16.8.5": "tcgen05.wait",
    "9.7.16.10.6": "Shared Memory Layout and Swizzling",
    "9.7.16.10.7": "Block Scaling for tcgen05.mma",
    "9.7.16.10.9": "TensorCore 5th Generation of MMA Instructions",
    "9.7.16.11.1": "tcgen05.fence",
    "9.7.16.12.1": "tcgen05.commit",
    "9.7.19.4": "trap",
}


def cited(numbers: str) -> list[str]:
    """The section numbers in "9.7.13.15.4, .6": a leading dot stands for the chapter of the one before."""
    found: list[str] = []
    for number in re.findall(r"\.?\d+(?:\.\d+)*", numbers):
        found.append(found[-1].rpartition(".")[0] + number if number.startswith(".") else number)
    return found


def exists(number: str) -> bool:
    above, _, last = number.rpartition(".")
    return not number or (exists(above) and 1 <= int(last) <= SECTIONS.get(above, 0))


def cite(numbers: str) -> str:
    """9.7.13.4 as "PTX ISA 9.1, 9.7.13.4 membar, fence"; several are joined by semicolons."""
    return f"PTX ISA {VERSION}, " + "; ".join(f"{number} {TITLES[number]}" for number in cited(numbers))
