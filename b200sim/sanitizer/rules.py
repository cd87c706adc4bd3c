"""What the sanitizer takes as order, rule by rule: section of the PTX ISA, what backs it, what shows it.

docs/sanitizer.md prints this table (scripts/sanitizer_corpus.py writes it). `shown` names tests below
tests/sanitizer and, in quotes, defects of the corpus.
"""

from __future__ import annotations

from dataclasses import dataclass

TEXT = "text"


@dataclass(frozen=True)
class Rule:
    """`basis`: TEXT, or how the model differs from the text and which way it errs."""

    rule: str
    section: str
    basis: str
    shown: tuple[str, ...]


RULES = (
    Rule(
        "An arrival with release hands on what the thread knows; a wait with acquire that answers true learns"
        " what the phase's arrivals handed on. Successive phases of one mbarrier form a chain.",
        "8.5, 8.8, 8.9.2, 8.9.4, 9.7.13.15.13, .16",
        "text; all scopes count as the widest",
        ("test_mbarriers",),
    ),
    Rule(
        "`.relaxed` arrivals and waits order execution, and of memory only what a `fence.acq_rel` or stronger"
        " covered.",
        "8.8, 9.7.13.15.13, .16, 9.7.13.3, 9.7.13.4",
        TEXT,
        (
            "test_mbarriers",
            "test_cluster_barrier",
            "test_relaxed_hands_on_execution_but_no_unfenced_memory",
        ),
    ),
    Rule(
        "Flags in shared memory: a release hands on and an acquire that reads it learns, as in global memory;"
        " strong accesses of one element whose scopes hold both threads are no race.",
        "8.5, 8.7, 8.8, 8.9.4",
        TEXT,
        ("test_flags_in_shared_memory", "test_strong_accesses_need_a_scope_that_holds_both"),
    ),
    Rule(
        "Who arrives in phase k + 1 knows that somebody saw phase k complete: waits know phases by parity "
        "alone.",
        "9.7.13.15.4, .16",
        TEXT,
        (
            "'mbarrier ahead of its waiter'",
            "'every arrival twice'",
        ),
    ),
    Rule(
        "An mbarrier is initialised before any use; a use from another CTA needs memory order as well, or "
        "`fence.mbarrier_init` and a relaxed cluster barrier.",
        "9.7.13.15.3, .9, 9.7.13.4",
        TEXT,
        (
            "'mbarrier used by another warp without a barrier'",
            "'peer's mbarrier without fence.mbarrier_init'",
        ),
    ),
    Rule(
        "`bar.sync`, `bar.red` hand on and learn, `bar.arrive` hands on only; `barrier.cluster.arrive` hands "
        "on, `.wait` learns.",
        "8.9.4, 9.7.13.1, 9.7.13.3",
        TEXT,
        (
            "test_named_barriers",
            "test_cluster_barrier",
        ),
    ),
    Rule(
        "Lanes of a warp are threads: what one did, or has waited for, another knows after `bar.warp.sync`, "
        "a barrier or an mbarrier. Lanes that execute one instruction once are not compared.",
        "8.9.5, 9.7.13.1, .2, 9.7.13.15.16",
        "text; looser: where only shfl, vote, match, redux, elect or an `.aligned` instruction makes the "
        "lanes meet, of which the text says that they wait and not that memory is ordered, it is a note, "
        "and none for what one of them has read or waited for (official kernels rely on that)",
        (
            "test_what_stands_between_a_write_and_another_lanes_read",
            "test_what_one_lane_has_waited_for",
            "'lanes exchange words without bar.warp.sync'",
        ),
    ),
    Rule(
        "An arrival, or a copy that is issued, by some lanes of a warp hands on what these lanes know, not "
        "what the others did.",
        "8.8, 8.9.4, 8.9.5",
        "text for mbarrier.arrive and for copies; tcgen05.commit and tensor memory count for the whole warp",
        (
            "test_an_arrival_hands_on_what_its_lane_knows",
            "'one lane arrives for the writes of all, without bar.warp.sync'",
        ),
    ),
    Rule(
        "A bulk or tensor copy into shared memory completes on its mbarrier as complete_tx with release: who "
        "sees the phase knows the copy, and of its thread's past no memory, only that it is over.",
        "8.9.1.1, 9.7.9.25.1.2, 9.7.9.25.4.1, 9.7.9.27.1.2",
        TEXT,
        (
            "test_completion_of_a_copy",
            "'threads read a load without waiting'",
        ),
    ),
    Rule(
        "Completion carries the async proxy's writes to the generic proxy; no fence is needed.",
        "9.7.9.25.2",
        TEXT,
        ("test_completion_of_a_copy",),
    ),
    Rule(
        "A generic write reaches the async proxy (a copy's source, a copy over it, a tcgen05 operand) only "
        "through `fence.proxy.async` on the way.",
        "8.6, 9.7.9.25.2, 9.7.16.6.5, 9.7.13.4",
        "text; only by who issues the copy: a note",
        (
            "test_proxies",
            "'no fence.proxy.async before the store'",
            "'fence.proxy.async only by who stores'",
        ),
    ),
    Rule(
        "A generic read before a write through the async proxy needs order only.",
        "9.7.9.25.2, 9.7.13.17",
        "practice: the text asks for a proxy fence here too, official kernels have none (a note for responses"
        " of try_cancel)",
        (
            "test_proxies",
            "'response overwritten without fence.proxy.async'",
        ),
    ),
    Rule(
        "`wait_group N` covers all but the newest N groups of the thread; `.read` covers sources and tensor "
        "maps; loads that a group commits count for tensor maps too.",
        "9.7.9.25.1.1, 9.7.9.27.1.2, 9.7.9.27.2.2",
        TEXT,
        (
            "test_wait_group",
            "'map rewritten while a load may read it'",
        ),
    ),
    Rule(
        "cp.async writes through the generic proxy, complete for its thread after `cp.async.wait_group`, for "
        "others through `cp.async.mbarrier.arrive`, which hands on the copies and no other memory.",
        "8.9.1.1, 9.7.9.25.3.3, 9.7.13.15.15",
        TEXT,
        ("test_thread_copies",),
    ),
    Rule(
        "tcgen05.mma, cp and shift of one thread happen in order.",
        "9.7.16.6.2",
        "text for mma after mma (same accumulator and shape), cp or shift; practice for the rest: block-"
        "scaled kernels copy new scale factors over those that the last mma reads",
        ("test_the_pipeline_is_clean_and_right",),
    ),
    Rule(
        "`tcgen05.commit` arrives when all earlier operations of its thread are complete, and says nothing of"
        " other threads' operations.",
        "9.7.16.6.2.1.1, 9.7.16.12.1",
        "text; practice: it also hands on what its thread knew, such as loads that the operations read",
        (
            "'accumulator read before its commit'",
            "'stage filled before it is free'",
        ),
    ),
    Rule(
        "Pipelined operations of two threads need `tcgen05.fence::before_thread_sync`, a barrier and "
        "`::after_thread_sync`, but no commit.",
        "9.7.16.6.3, 9.7.16.6.4.3",
        "text; a missing `::after_thread_sync` is a note: official kernels have none",
        (
            "test_pipelined_operations_of_two_threads",
            "'no tcgen05.fence after the wait'",
        ),
    ),
    Rule(
        "tcgen05.ld is over after `wait::ld`, tcgen05.st after `wait::st`.",
        "9.7.16.6.4.4, 9.7.16.8.5",
        TEXT,
        (
            "'no tcgen05.wait::ld before the hand-off'",
            "'tensor memory stored and loaded without wait::st'",
        ),
    ),
    Rule(
        "tcgen05.ld is also over once its registers were read or overwritten: the hardware waits there (a "
        "note).",
        "9.7.16.6.4.5",
        "practice: the text says that reading a register orders nothing else; official kernels do no more",
        ("test_wait_ld_is_not_missed_where_the_registers_were_read",),
    ),
    Rule(
        "wgmma.mma_async reads shared memory through the async proxy, from its issue by each of the four "
        "warps until a `wait_group` covers it.",
        "9.7.15.4, 9.7.15.7.3",
        "text; what one warp has waited for is over for its whole warpgroup, as operations belong to that",
        ("test_wgmma",),
    ),
    Rule(
        "A tensor map that the kernel rewrote needs the acquire fence of its proxy before use, and its "
        "copies' completion before the rewrite.",
        "9.7.9.25.1, 9.7.9.27.1.2, 9.7.13.4, 9.7.13.16",
        "text; an acquire by any thread of the CTA counts",
        (
            "'map used without an acquire fence after its rewrite'",
            "'map rewritten while a load may read it'",
        ),
    ),
    Rule(
        "A CTA stays until accesses of its shared and tensor memory by others and by asynchronous work are "
        "over.",
        "2.2.2, 9.7.16.5",
        TEXT,
        (
            "'arrival at a peer that may have exited'",
            "'exit while the store reads'",
        ),
    ),
    Rule(
        "Between CTAs, through global memory: a release (`.release`, or a release fence and a strong write "
        "after it) hands on what its thread knows; a strong read that sees it, or an atomic operation that "
        "has seen it, acquires (`.acquire`, or an acquire fence after it).",
        "8.8, 8.9.2, 8.9.4",
        "text; `fence.sc` counts as `fence.acq_rel`, as the order of fences differs from run to run",
        (
            "test_kernels_whose_ctas_meet_are_clean",
            "'flag set without a release fence'",
            "'flag polled without an acquire'",
        ),
    ),
    Rule(
        "Strong operations of equal size are no race, and meet, if the scope of each includes the other's "
        "thread; `.volatile` is relaxed at `.sys`, an atomic operation relaxed at `.gpu` if it says nothing.",
        "8.4.2, 8.5, 8.7, 9.7.13.5",
        TEXT,
        (
            "'flag released for the CTA only'",
            "'atomic sums of two CTAs with scope .cta'",
        ),
    ),
    Rule(
        "A read and a write of one element of global memory in one launch, or two writes, are ordered or "
        "strong; elements of vectors count one by one.",
        "8.2.4, 8.7.1, 8.9.5",
        TEXT,
        (
            "'read without waiting for the flag'",
            "'neighbour's part overwritten without a second barrier'",
        ),
    ),
    Rule(
        "Bulk stores and reductions have written after a `wait_group` without `.read`; elements of a "
        "reduction are relaxed at `.gpu`.",
        "9.7.9.25.1.1, 9.7.9.25.4.2, 9.7.9.27.2.2",
        TEXT,
        (
            "'flag after a bulk store that was waited for with .read'",
            "'reduction read before it has written'",
        ),
    ),
    Rule(
        "A copy by the async proxy of one CTA meets what threads, or copies of another CTA, wrote to global "
        "memory only through `fence.proxy.async` (not of `.shared`) on the way, by whomever.",
        "8.6, 8.9.5, 9.7.9.25.2, 9.7.13.4",
        TEXT,
        (
            "'bulk load of what another CTA stored, no proxy fence'",
            "'proxy fence for shared memory only'",
        ),
    ),
    Rule(
        "`griddepcontrol.wait` comes before global memory is used, if the launch may overlap another one; "
        "what `ld.global.nc` reads is constant while the kernel runs, so no wait orders it.",
        "9.7.13.13, 9.7.9.9",
        "text, taken strictly: any memory may be the predecessor's; ptxas 13.0 moves `ld.global.nc` before "
        "the wait",
        ("'inputs before griddepcontrol.wait'", "test_a_constant_read_is_told_from_an_early_one"),
    ),
)
