"""One stable code per hazard, with the rule it breaks.

`row` orders the hazard classes in reports; `section` refers to the PTX ISA, as in `b200sim.ptx.sections`.
`basis` says what backs the grade: TEXT (the manual says so), PRACTICE (the manual asks for it and official
kernels leave it out: never more than a note), or what else it is where the manual has no such rule.
"""

from __future__ import annotations

from dataclasses import dataclass

from b200sim.ptx.sections import cite

ERROR, NOTE = "error", "note"
TEXT = "text"
PRACTICE = "the text asks for it, official kernels leave it out"
VALUE_UNKNOWN = "no rule of the text; the value depends on what ran before"
HEURISTIC = "no rule of the text; legal, but seldom meant"
ON_THE_WAY = "the text wants a fence on the way, not where; official kernels fence where they write"
STUCK = "no rule of the text; the run does not end"
TWICE = "text for tcgen05; equal copies write one place several times"
CALLERS = "no rule of the text; inputs belong to the caller"
PREDECESSOR = "text, if the predecessor wrote it: of inputs that is not known here"
ASKED = "no rule of the text; the kernel asked for it"


@dataclass(frozen=True)
class Hazard:
    code: str
    row: int
    severity: str
    basis: str
    section: str
    meaning: str

    @property
    def rule(self) -> str:
        """Where the manual says so, or that it does not."""
        return cite(self.section) if self.section else self.basis


def _table(*rows: tuple[str, int, str, str, str, str]) -> dict[str, Hazard]:
    return {row[0]: Hazard(*row) for row in rows}


HAZARDS = _table(
    # -- shared memory and proxies
    ("proxy_fence_missing", 1, ERROR, TEXT, "9.7.9.25.2, 9.7.15.4, 9.7.16.6.5, 9.7.13.4",
     "the async proxy (TMA, tcgen05, wgmma) uses memory that was written by st (global memory: or by copies "
     "of another CTA) and not passed through fence.proxy.async"),
    ("proxy_fence_by_reader", 1, NOTE, ON_THE_WAY, "9.7.13.4, 8.9.5",
     "fence.proxy.async was executed only by the thread that issues the asynchronous operation"),
    ("load_not_awaited", 2, ERROR, TEXT, "9.7.9.25.1, 9.7.9.25.1.2, 9.7.13.15.16",
     "data of an asynchronous copy is used before its mbarrier phase was observed"),
    ("stage_overwritten", 3, ERROR, TEXT, "9.7.16.6.2.1.1, 9.7.16.12.1, 9.7.15.7.3",
     "shared memory is overwritten while tcgen05.mma or cp, or wgmma.mma_async, may still read it"),
    ("load_overwritten", 3, ERROR, TEXT, "9.7.9.25.1, 8.9.1.1",
     "an asynchronous copy and another write to the same shared memory are not ordered"),
    ("store_source_overwritten", 4, ERROR, TEXT, "9.7.9.25.1, 9.7.9.27.2.2",
     "shared memory is overwritten while a bulk store may still read it"),
    ("shared_race", 4, ERROR, TEXT, "8.7, 8.7.1",
     "two threads access shared memory, one of them writing, without order"),
    ("warp_not_synchronised", 4, ERROR, TEXT, "9.7.13.2, 8.7.1, 8.9.5",
     "lanes of a warp exchange data through shared memory without bar.warp.sync or another barrier"),
    ("warp_met_without_barrier", 4, NOTE, PRACTICE, "9.7.13.2, 9.7.9.6, 9.7.13.9",
     "lanes of a warp exchange data through shared memory with only shfl, vote, elect or an .aligned "
     "instruction in between, which make them wait but order no memory"),
    ("tensor_map_in_use", 5, ERROR, TEXT, "9.7.9.25.1, 9.7.9.27.2.2",
     "a tensor map is rewritten while a copy may still read it"),
    ("tensor_map_stale", 5, ERROR, TEXT, "9.7.9.27.1.2, 9.7.13.4, 9.7.13.16",
     "a tensor map is used after a rewrite without the acquire fence for its proxy, or without order"),
    # -- tensor memory
    ("tmem_before_commit", 6, ERROR, TEXT, "9.7.16.6.4.2, 9.7.16.6.4.4, 9.7.16.12.1",
     "tensor memory is used before the commit of the tcgen05 operation that accesses it was observed"),
    ("tmem_overwritten_while_loading", 7, ERROR, TEXT, "9.7.16.6.4.4, 9.7.16.8.5",
     "tensor memory is overwritten while a tcgen05.ld may still read it"),
    ("wait_ld_missing", 7, NOTE, PRACTICE, "9.7.16.6.4.5, 9.7.16.8.5",
     "a tcgen05.ld is handed on without tcgen05.wait::ld, though after its registers were read"),
    ("tmem_store_not_awaited", 8, ERROR, TEXT, "9.7.16.6.4.2, 9.7.16.8.5",
     "tensor memory is used after tcgen05.st without tcgen05.wait::st or without order"),
    ("tcgen05_fence_missing", 8, NOTE, PRACTICE, "9.7.16.6.3, 9.7.16.11.1",
     "tcgen05 operations follow a synchronisation without tcgen05.fence::after_thread_sync"),
    ("tmem_race", 8, ERROR, TEXT, "9.7.16.6.2, 9.7.16.6.4.3",
     "two accesses of tensor memory, one of them writing, are not ordered"),
    ("commit_without_work", 9, NOTE, HEURISTIC, "9.7.16.12.1",
     "tcgen05.commit by a thread that has issued nothing: it tracks only its own thread's operations"),
    ("never_committed", 9, NOTE, HEURISTIC, "9.7.16.12.1",
     "tcgen05 operations that no commit of their thread covers"),
    # -- uninitialised data
    ("uninitialised_shared", 10, ERROR, TEXT, "8.2.6, 5.1.7",
     "what a kernel does depends on shared memory that nobody wrote"),
    ("uninitialised_tensor_memory", 10, ERROR, VALUE_UNKNOWN, "9.7.16.7.1",
     "what a kernel does depends on tensor memory that nobody wrote"),
    ("uninitialised_register", 10, ERROR, VALUE_UNKNOWN, "",
     "what a kernel does depends on a register that nothing has set"),
    # -- descriptors
    ("scale_factor_copies", 11, ERROR, TEXT, "9.7.16.10.7",
     "the copies of scale factors in the lane quarters differ"),
    ("scale_factor_sign", 11, NOTE, TEXT, "5.2.3",
     "a UE4M3 scale factor is negative; its sign is ignored"),
    ("descriptor_illegal", 12, ERROR, TEXT, "9.7.16.4, 9.7.16.2, 9.7.16.10.9",
     "a shared memory or instruction descriptor is illegal"),
    ("swizzle_mismatch", 12, ERROR, TEXT, "5.5.7, 9.7.16.4.1, 9.7.16.10.6",
     "an operand's descriptor names another swizzle than the tensor map that filled the tile"),
    ("tile_partly_unread", 12, NOTE, HEURISTIC, "9.7.16.4.2",
     "part of a loaded tile is never used: descriptors and tile contradict each other"),
    ("swizzle_atom_misaligned", 12, NOTE, PRACTICE, "9.7.16.4.1",
     "a swizzled tile starts inside a swizzle atom"),
    ("tmem_access_illegal", 13, ERROR, TEXT, "9.7.16.5, 9.7.16.8.1",
     "lane ownership, address or convergence of a tcgen05 instruction is wrong"),
    ("tmem_allocation", 14, ERROR, TEXT, "9.7.16.7.1",
     "tcgen05.alloc, dealloc or relinquish_alloc_permit is misused"),
    ("tmem_leak", 14, ERROR, TEXT, "9.7.16.7.1",
     "a CTA exits without deallocating its tensor memory"),
    ("tmem_outside_allocation", 14, ERROR, TEXT, "9.7.16.1.2",
     "tensor memory is used that is not allocated"),
    ("tmem_freed_in_use", 14, ERROR, TEXT, "9.7.16.5, 9.7.16.7.1",
     "tensor memory is deallocated while something may still use it"),
    ("tmem_contention", 14, NOTE, HEURISTIC, "9.7.16.7.1",
     "co-resident CTAs need more tensor memory than there is, or keep the right to allocate"),
    # -- mbarriers
    ("mbarrier_count", 15, ERROR, TEXT, "9.7.13.15.2, .7",
     "more arrivals than the mbarrier expects"),
    ("mbarrier_uninitialised", 15, ERROR, TEXT, "9.7.13.15, 9.7.13.15.3",
     "an mbarrier is used that was not initialised"),
    ("mbarrier_reinitialised", 15, ERROR, TEXT, "9.7.13.15.9",
     "an mbarrier is initialised again while in use"),
    ("mbarrier_init_unordered", 15, ERROR, TEXT, "9.7.13.15.3, 8.7.1",
     "an mbarrier is used by another thread without order after its initialisation"),
    ("expect_tx_mismatch", 16, ERROR, TEXT, "9.7.13.15.5, .6",
     "expect_tx and the bytes that arrive do not match"),
    ("expect_tx_left_over", 16, NOTE, HEURISTIC, "9.7.13.15.5",
     "an mbarrier still expects bytes when its CTA exits"),
    ("phase_skipped", 17, ERROR, TEXT, "9.7.13.15.4, .16",
     "an arrival although nobody is sure to have seen the last phase complete: waits know phases by parity"),
    ("phase_not_awaited", 17, NOTE, HEURISTIC, "9.7.13.15.4, .16",
     "a wait by parity after phases that this thread has not waited for: it must count them by other means"),
    ("deadlock", 18, ERROR, STUCK, "",
     "nothing can run any more"),
    ("endless", 18, ERROR, STUCK, "",
     "the kernel still runs after the time limit"),
    ("issued_by_many_lanes", 19, ERROR, TWICE, "9.7.16.5, 8.9.1.1",
     "several lanes issue the same operation, which then happens several times"),
    ("peer_exited", 20, ERROR, TEXT, "2.2.2, 9.7.16.5",
     "a CTA's memory is used by others or by asynchronous work that may outlive the CTA"),
    ("mbarrier_init_not_fenced", 20, ERROR, TEXT, "9.7.13.4, 9.7.13.15.3",
     "an mbarrier is used from another CTA without fence.mbarrier_init by who initialised it"),
    ("tma_argument", 21, ERROR, TEXT, "5.5, 9.7.9.25.4.1, 9.7.9.27.1.1",
     "an argument of a bulk copy or a tensor map is illegal"),
    ("named_barrier", 22, ERROR, TEXT, "9.7.13.1",
     "bar is misused: counts, numbers or convergence"),
    ("cluster_barrier", 22, ERROR, TEXT, "9.7.13.3",
     "barrier.cluster is misused"),
    ("mbarrier_overwritten", 23, ERROR, TEXT, "9.7.13.15",
     "a data write hits an mbarrier object"),
    ("shared_out_of_bounds", 23, ERROR, TEXT, "5.1.7",
     "shared memory is used outside the CTA's own"),
    ("clc_response_early", 24, ERROR, TEXT, "9.7.13.17",
     "a try_cancel response is used before its mbarrier phase"),
    ("clc_response_overwritten", 24, NOTE, PRACTICE, "9.7.13.17, 9.7.9.25.2",
     "a response is overwritten without fence.proxy.async by who read it"),
    ("clc_after_failure", 24, ERROR, TEXT, "9.7.13.17",
     "try_cancel after a failed one was observed"),
    # -- global memory and the grid
    ("global_out_of_bounds", 25, ERROR, TEXT, "5.1.4",
     "global memory is used outside every allocation"),
    ("global_misaligned", 25, ERROR, TEXT, "6.4.1",
     "an address is not aligned to its access"),
    ("global_write_to_input", 25, ERROR, CALLERS, "",
     "the kernel writes to an input"),
    ("global_race", 25, ERROR, TEXT, "8.7.1",
     "two CTAs, or two threads without order, write the same element"),
    ("global_read_unordered", 25, ERROR, TEXT, "8.7.1, 8.9.5",
     "one thread reads an element of global memory and another writes it, without order"),
    ("scope_too_narrow", 25, ERROR, TEXT, "8.5, 8.7, 8.9.4",
     "two CTAs would be ordered, or their atomics exclude each other, if a scope included both"),
    ("input_before_dependency", 26, ERROR, PREDECESSOR, "9.7.13.13, 9.7.9.9",
     "an input, or memory that some kernel writes, is used before griddepcontrol.wait in a launch that may "
     "overlap its predecessor, or read there by ld.global.nc"),
    ("trap", 27, ERROR, ASKED, "9.7.19.4",
     "the kernel executed a trap"),
    ("illegal", 27, ERROR, TEXT, "9.7",
     "another illegal act; the message says which"),
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
