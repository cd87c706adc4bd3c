"""One stable code per hazard, with the rule it breaks.

`row` refers to the hazard classes of the ordering rules (docs/sanitizer.md); `section` to the PTX ISA 9.1.
"""

from __future__ import annotations

from dataclasses import dataclass

ERROR, NOTE = "error", "note"


@dataclass(frozen=True)
class Hazard:
    code: str
    row: int
    severity: str
    section: str
    meaning: str


def _table(*rows: tuple[str, int, str, str, str]) -> dict[str, Hazard]:
    return {row[0]: Hazard(*row) for row in rows}


HAZARDS = _table(
    # -- shared memory and proxies
    ("proxy_fence_missing", 1, ERROR, "9.7.13.4, 9.7.9.25.2",
     "the async proxy (TMA, tcgen05) uses shared memory that was written by st and not passed through "
     "fence.proxy.async"),
    ("proxy_fence_by_reader", 1, NOTE, "9.7.13.4",
     "fence.proxy.async was executed only by the thread that issues the asynchronous operation"),
    ("load_not_awaited", 2, ERROR, "9.7.9.25.1.2, 9.7.13.15.16",
     "data of an asynchronous copy is used before its mbarrier phase was observed"),
    ("stage_overwritten", 3, ERROR, "9.7.16.6.2, 9.7.16.12.1",
     "shared memory is overwritten while tcgen05.mma or cp may still read it"),
    ("load_overwritten", 3, ERROR, "9.7.9.25.1.2",
     "an asynchronous copy and another write to the same shared memory are not ordered"),
    ("store_source_overwritten", 4, ERROR, "9.7.9.27.2.2",
     "shared memory is overwritten while a bulk store may still read it"),
    ("shared_race", 4, ERROR, "8.9",
     "two threads access shared memory, one of them writing, without order"),
    ("tensor_map_in_use", 5, ERROR, "9.7.9.27.2.2",
     "a tensor map is rewritten while a copy may still read it"),
    ("tensor_map_stale", 5, ERROR, "9.7.13.4, 9.7.9.28",
     "a tensor map is used after a rewrite without the acquire fence for its proxy, or without order"),
    # -- tensor memory
    ("tmem_before_commit", 6, ERROR, "9.7.16.6.4, 9.7.16.12.1",
     "tensor memory is used before the commit of the tcgen05 operation that accesses it was observed"),
    ("tmem_overwritten_while_loading", 7, ERROR, "9.7.16.8.5, 9.7.16.6.4",
     "tensor memory is overwritten while a tcgen05.ld may still read it"),
    ("wait_ld_missing", 7, NOTE, "9.7.16.8.5",
     "a tcgen05.ld is handed on without tcgen05.wait::ld, though after its registers were read"),
    ("tmem_store_not_awaited", 8, ERROR, "9.7.16.8.5",
     "tensor memory is used after tcgen05.st without tcgen05.wait::st or without order"),
    ("tcgen05_fence_missing", 8, NOTE, "9.7.16.6.3, 9.7.16.11.1",
     "tcgen05 operations follow a synchronisation without tcgen05.fence::after_thread_sync"),
    ("tmem_race", 8, ERROR, "9.7.16.6",
     "two accesses of tensor memory, one of them writing, are not ordered"),
    ("commit_without_work", 9, ERROR, "9.7.16.12.1",
     "tcgen05.commit by a thread that has issued nothing: it tracks only its own thread's operations"),
    ("never_committed", 9, ERROR, "9.7.16.12.1",
     "tcgen05 operations that no commit of their thread covers"),
    # -- uninitialised data
    ("uninitialised_shared", 10, ERROR, "5.1.6", "shared memory is read that nobody wrote"),
    ("uninitialised_tensor_memory", 10, ERROR, "9.7.16.7", "tensor memory is read that nobody wrote"),
    ("uninitialised_columns", 10, NOTE, "9.7.16.7",
     "some columns of a tcgen05.ld were never written; their values should not be used"),
    ("uninitialised_register", 10, ERROR, "5.1.1", "a register is read that nothing can have written"),
    # -- descriptors
    ("scale_factor_copies", 11, ERROR, "9.7.16.10.7",
     "the copies of scale factors in the lane quarters differ"),
    ("scale_factor_sign", 11, NOTE, "9.7.16.10.7", "a UE4M3 scale factor is negative; its sign is ignored"),
    ("descriptor_illegal", 12, ERROR, "9.7.16.4, 9.7.16.10.9",
     "a shared memory or instruction descriptor is illegal"),
    ("swizzle_mismatch", 12, ERROR, "9.7.16.4.1, 5.5.7",
     "an operand's descriptor names another swizzle than the tensor map that filled the tile"),
    ("tile_partly_unread", 12, ERROR, "9.7.16.4.2",
     "part of a loaded tile is never used: descriptors and tile contradict each other"),
    ("swizzle_atom_misaligned", 12, NOTE, "9.7.16.4.1", "a swizzled tile starts inside a swizzle atom"),
    ("tmem_access_illegal", 13, ERROR, "9.7.16.8.1",
     "lane ownership, address or convergence of a tcgen05 instruction is wrong"),
    ("tmem_allocation", 14, ERROR, "9.7.16.7.1",
     "tcgen05.alloc, dealloc or relinquish_alloc_permit is misused"),
    ("tmem_leak", 14, ERROR, "9.7.16.7.1", "a CTA exits without deallocating its tensor memory"),
    ("tmem_outside_allocation", 14, ERROR, "9.7.16.7.1", "tensor memory is used that is not allocated"),
    ("tmem_freed_in_use", 14, ERROR, "9.7.16.7.1, 9.7.16.6",
     "tensor memory is deallocated while something may still use it"),
    ("tmem_contention", 14, NOTE, "9.7.16.7.1",
     "co-resident CTAs need more tensor memory than there is, or keep the right to allocate"),
    # -- mbarriers
    ("mbarrier_count", 15, ERROR, "9.7.13.15.3, 9.7.13.15.13", "more arrivals than the mbarrier expects"),
    ("mbarrier_uninitialised", 15, ERROR, "9.7.13.15.9", "an mbarrier is used that was not initialised"),
    ("mbarrier_reinitialised", 15, ERROR, "9.7.13.15.9", "an mbarrier is initialised again while in use"),
    ("mbarrier_init_unordered", 15, ERROR, "9.7.13.15.9",
     "an mbarrier is used by another thread without order after its initialisation"),
    ("expect_tx_mismatch", 16, ERROR, "9.7.13.15.5", "expect_tx and the bytes that arrive do not match"),
    ("expect_tx_left_over", 16, NOTE, "9.7.13.15.5", "an mbarrier still expects bytes when its CTA exits"),
    ("phase_skipped", 17, ERROR, "9.7.13.15.16",
     "an mbarrier is two or more phases ahead of who waits: by parity alone the phases look the same"),
    ("deadlock", 18, ERROR, "9.7.13.15.16", "nothing can run any more"),
    ("endless", 18, ERROR, "9.7.13.15.16", "the kernel still runs after the time limit"),
    ("issued_by_many_lanes", 19, ERROR, "9.7.9.27.1.2, 9.7.16.10",
     "several lanes issue the same operation, which then happens several times"),
    ("peer_exited", 20, ERROR, "9.7.13.3, 9.7.9.25",
     "a CTA's memory is used by others or by asynchronous work that may outlive the CTA"),
    ("mbarrier_init_not_fenced", 20, ERROR, "9.7.13.4",
     "an mbarrier is used from another CTA without fence.mbarrier_init by who initialised it"),
    ("tma_argument", 21, ERROR, "5.5, 9.7.9.27", "an argument of a bulk copy or a tensor map is illegal"),
    ("named_barrier", 22, ERROR, "9.7.13.1", "bar is misused: counts, numbers or convergence"),
    ("cluster_barrier", 22, ERROR, "9.7.13.3", "barrier.cluster is misused"),
    ("mbarrier_overwritten", 23, ERROR, "9.7.13.15.8", "a data write hits an mbarrier object"),
    ("shared_out_of_bounds", 23, ERROR, "5.1.6", "shared memory is used outside the CTA's own"),
    ("clc_response_early", 24, ERROR, "9.7.13.16", "a try_cancel response is used before its mbarrier phase"),
    ("clc_response_overwritten", 24, NOTE, "9.7.13.16",
     "a response is overwritten without fence.proxy.async by who read it"),
    ("clc_after_failure", 24, ERROR, "9.7.13.16", "try_cancel after a failed one was observed"),
    # -- global memory and the grid
    ("global_out_of_bounds", 25, ERROR, "5.1.4", "global memory is used outside every allocation"),
    ("global_misaligned", 25, ERROR, "6.4.1", "an address is not aligned to its access"),
    ("global_write_to_input", 25, ERROR, "8.9", "the kernel writes to an input"),
    ("global_race", 25, ERROR, "8.9", "two CTAs, or two threads without order, write the same element"),
    ("input_before_dependency", 26, ERROR, "9.7.12.6",
     "global memory is used before griddepcontrol.wait in a launch that may overlap its predecessor"),
    ("trap", 27, ERROR, "9.7.12", "the kernel executed a trap"),
    ("illegal", 27, ERROR, "9.7", "another illegal act; the message says which"),
)  # fmt: skip

#: Fault codes of the simulator to hazards. Prefixes, the longest that fits.
FAULTS = {
    "scale_factor_copies_differ": "scale_factor_copies",
    "smem_descriptor": "descriptor_illegal",
    "idesc": "descriptor_illegal",
    "mma_": "descriptor_illegal",
    "cp_": "descriptor_illegal",
    "shift_": "descriptor_illegal",
    "cta_pair": "descriptor_illegal",
    "tmem_shape": "tmem_access_illegal",
    "tmem_lane_ownership": "tmem_access_illegal",
    "not_uniform": "tmem_access_illegal",
    "divergent_aligned": "tmem_access_illegal",
    "tmem_alloc": "tmem_allocation",
    "tmem_free": "tmem_allocation",
    "tmem_leak": "tmem_leak",
    "tmem_not_allocated": "tmem_outside_allocation",
    "tmem_out_of_range": "tmem_outside_allocation",
    "mbarrier_overflow": "mbarrier_count",
    "mbarrier_count": "mbarrier_count",
    "mbarrier_reinit": "mbarrier_reinitialised",
    "mbarrier_uninitialised": "mbarrier_uninitialised",
    "mbarrier_misaligned": "mbarrier_uninitialised",
    "mbarrier_parity": "illegal",
    "mbarrier_tx": "expect_tx_mismatch",
    "deadlock": "deadlock",
    "time_limit": "endless",
    "cta_exited": "peer_exited",
    "tma_": "tma_argument",
    "bulk_": "tma_argument",
    "bad_tensor_map": "tma_argument",
    "tensor_map_misaligned": "tma_argument",
    "multicast_mask": "tma_argument",
    "barrier_": "named_barrier",
    "divergent_sync": "named_barrier",
    "cluster_barrier": "cluster_barrier",
    "shared_": "shared_out_of_bounds",
    "smem_out_of_bounds": "shared_out_of_bounds",
    "clc_no_cluster": "clc_after_failure",
    "global_out_of_bounds": "global_out_of_bounds",
    "global_use_after_free": "global_out_of_bounds",
    "global_write_to_input": "global_write_to_input",
    "global_misaligned": "global_misaligned",
    "misaligned": "global_misaligned",
    "trap": "trap",
}


def of_fault(code: str) -> str:
    """The hazard code of a simulator fault."""
    fitting = [prefix for prefix in FAULTS if code.startswith(prefix)]
    return FAULTS[max(fitting, key=len)] if fitting else "illegal"
