"""One defect each in small PTX kernels: the pipeline of `pipeline.py`, and kernels made for one hazard."""

# ruff: noqa: E501
from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from b200sim.machine.grid import Grid
from b200sim.machine.schedule import Schedule
from tests.b200sim.ptx_harness import DYNAMIC, make_grid, module
from tests.sanitizer import pipeline
from tests.sanitizer.pipeline import KERNEL, changed, inserted, without

Arrays = list[np.ndarray]


def pipeline_data() -> tuple[Arrays, np.ndarray]:
    a, b, c = pipeline.operands()
    return [a, b, np.full_like(c, np.nan)], c


@dataclass(frozen=True)
class PtxDefect:
    """`body` is the kernel; `data` makes its arrays (the last is the output) and what must come out."""

    name: str
    code: str
    body: str
    data: Callable[[], tuple[Arrays, np.ndarray]] = pipeline_data
    launch: dict = field(default_factory=dict)  # type: ignore[type-arg]
    pdl: bool = False
    inputs: tuple[int, ...] = ()  # arrays that must not be written
    deadline: float | None = None

    def grid(self, arrays: Arrays, schedule: Schedule) -> Grid:
        launch = {"block": (pipeline.THREADS, 1, 1), "shared_bytes": pipeline.SHARED_BYTES, **self.launch}
        grid = make_grid(module(self.body, len(arrays), DYNAMIC), arrays, schedule=schedule, **launch)
        grid.pdl = self.pdl
        if self.deadline is not None:
            grid.deadline = time.monotonic() + self.deadline
        for index in self.inputs:
            array = arrays[index]
            grid.memory.add(f"input {index}", array.ctypes.data, array.nbytes, writable=False)
        return grid


def _pipeline(name: str, code: str, body: str, **more) -> PtxDefect:  # type: ignore[no-untyped-def]
    return PtxDefect(f"pipeline: {name}", code, body, **more)


PIPELINE_DEFECTS = [
    _pipeline("stage filled before it is free", "stage_overwritten", without("wait empty")),
    _pipeline("operands used before they have landed", "load_not_awaited", without("wait full")),
    _pipeline("accumulator reused before it is read", "tmem_overwritten_while_loading", without("wait accempty")),
    _pipeline("accumulator read before its commit", "tmem_before_commit", without("wait accfull")),
    _pipeline("no tcgen05.wait::ld before the hand-off", "tmem_overwritten_while_loading", without("wait ld")),
    _pipeline("no commit of the accumulator", "deadlock", without("commit accfull")),
    _pipeline("no commit of the stages", "deadlock", without("commit empty")),
    _pipeline("no arrival on the accumulator's barrier", "deadlock", without("arrive accempty")),
    _pipeline("no fence.proxy.async before the store", "proxy_fence_missing", without("proxy fence")),
    _pipeline(
        "fence.proxy.async only by who stores",
        "proxy_fence_by_reader",
        inserted("barrier after staging", "fence.proxy.async.shared::cta;", without("proxy fence")),
    ),
    _pipeline("staging reused while the store reads it", "store_source_overwritten", without("wait group")),
    _pipeline("store issued without its group", "store_source_overwritten", without("commit group")),
    _pipeline("exit while the store reads", "peer_exited", without("wait last group")),
    _pipeline("no barrier after staging", "shared_race", without("barrier after staging")),
    _pipeline("no barrier before staging", "store_source_overwritten", without("barrier before staging")),
    _pipeline("nothing staged", "uninitialised_shared", without("staging")),
    _pipeline("every lane loads", "issued_by_many_lanes", without("elect load")),
    _pipeline("every lane multiplies", "issued_by_many_lanes", without("elect multiply")),
    _pipeline("permit to allocate kept", "tmem_contention", without("relinquish")),
    _pipeline("tensor memory not freed", "tmem_leak", without("dealloc")),
    _pipeline("freed before the others are done", "tmem_freed_in_use", without("end barrier")),
    _pipeline("allocation after relinquishing", "tmem_allocation",
              inserted("relinquish", "tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%slot], 32;")),
    _pipeline("allocation of 48 columns", "tmem_allocation", changed("alloc", ", 32;", ", 48;")),
    _pipeline("16 bytes more expected than loaded", "expect_tx_mismatch",
              changed("expect", str(pipeline.STAGE_BYTES), str(pipeline.STAGE_BYTES + 16))),
    _pipeline("16 bytes fewer expected than loaded", "expect_tx_mismatch",
              changed("expect", str(pipeline.STAGE_BYTES), str(pipeline.STAGE_BYTES - 16))),
    _pipeline("only A expected", "load_not_awaited", changed("expect", str(pipeline.STAGE_BYTES), str(pipeline.A_BYTES))),
    _pipeline("barrier for one warp too few", "phase_skipped", changed("init accempty", "128", "96")),
    _pipeline("barrier for one arrival too few", "mbarrier_count", changed("init accempty", "128", "127")),
    _pipeline("mbarrier not initialised", "mbarrier_uninitialised", without("init full")),
    _pipeline("mbarrier initialised again", "mbarrier_reinitialised",
              inserted("fence after", "mbarrier.init.shared.b64 [%accfull], 2;")),
    _pipeline("accumulates onto nothing", "uninitialised_tensor_memory",
              changed("accumulate", "setp.ne.u32 %acc, %step, 0;", "mov.pred %acc, -1;")),
    _pipeline("operand descriptor of half the tile", "tile_partly_unread",
              changed("mma", str(pipeline.IDESC), str(pipeline.IDESC - (pipeline.COLUMNS // 16 << 17)))),
    _pipeline("descriptor without its version", "descriptor_illegal",
              changed("descriptor a", str(pipeline.A_DESCRIPTOR), str(pipeline.A_DESCRIPTOR ^ 1 << 46))),
    _pipeline("M = 96", "descriptor_illegal",
              changed("mma", str(pipeline.IDESC), str(pipeline.IDESC - (2 << 24)))),
    _pipeline("commit by another thread", "commit_without_work",
              KERNEL.replace("bra STORE;\n", "@%leader tcgen05.commit.cta_group::1.mbarrier::arrive::one"
                             ".shared::cluster.b64 [%accempty];\nbra STORE;\n", 1)),
    _pipeline("no tcgen05.fence after the wait", "tcgen05_fence_missing", without("fence after")),
    _pipeline("data written over an mbarrier", "mbarrier_overwritten",
              inserted("wait accfull", "st.shared.b32 [%accfull+4], %tid;")),
    _pipeline("wrong lanes of tensor memory", "tmem_access_illegal",
              KERNEL.replace("shl.b32 %t, %warp, 21;", "shl.b32 %t, %warp, 20;")),
    _pipeline("columns outside the allocation", "tmem_outside_allocation",
              KERNEL.replace("add.s32 %where, %tmem, %t;", "add.s32 %where, %tmem, %t; add.s32 %where, %where, 32;")),
    _pipeline("inputs before griddepcontrol.wait", "input_before_dependency", KERNEL, pdl=True),
    _pipeline("named barrier with the wrong count", "named_barrier", changed("barrier before staging", "128", "120")),
    _pipeline("named barrier whose threads never come", "deadlock", changed("barrier before staging", "128", "160")),
    _pipeline("every arrival twice", "phase_skipped",
              inserted("arrive accempty", "mbarrier.arrive.shared.b64 _, [%accempty];")),
    _pipeline("bulk copy of an odd size", "tma_argument",
              changed("load b", f"[%t64], {pipeline.B_BYTES}", f"[%t64], {pipeline.B_BYTES - 8}")),
    _pipeline("load beyond the input", "global_out_of_bounds",
              changed("load a", "[%t64]", f"[%t64+{2 * pipeline.A_BYTES}]")),
    _pipeline("store to an input", "global_write_to_input", changed("store", "[%t64]", "[%a]"), inputs=(0,)),
    _pipeline("an endless wait that asks again and again", "endless",
              inserted("end barrier", "FOREVER: mov.u32 %t, 1; bra FOREVER;"), deadline=1.0),
]  # fmt: skip
