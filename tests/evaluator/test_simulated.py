"""The real kernel through the whole evaluator on the simulated B200."""

from __future__ import annotations

import pytest

from evaluator import record, session, speed_of_light
from evaluator.options import Options


@pytest.mark.heavy
def test_the_kernel_passes_and_its_work_is_counted() -> None:
    run = session.evaluate(Options(mode="test", device="sim", only=("test 0", "test 2")))
    assert run.passed, [result.verdict for result in run.results]
    assert all(result.inexact == 0 for result in run.results)
    for result in run.results:
        counters = result.counters()
        assert counters["launches"] == 1, "one launch for all groups"
        assert counters["mma_flops"] >= speed_of_light.flops(result.case)
        assert counters["tma_load_bytes"] >= speed_of_light.compulsory_loads(result.case)
    written = record.as_record(run, 0)
    assert written["score_us"] is None and all(case["measured_ns"] is None for case in written["cases"])
    assert written["worker_versions"]["nvidia-cutlass-dsl"]
