"""st.async and red.async: single values into a neighbour's shared memory, counted by its mbarrier."""

from __future__ import annotations

import random

import numpy as np
import pytest
from ptx_harness import DYNAMIC, run_kernel

from b200sim.faults import Fault, Unsupported
from b200sim.machine.schedule import schedule
from b200sim.sanitizer.sanitizer import Sanitizer

# Every CTA has an mbarrier at 0 that expects `bytes` and one arrival; data from byte 64 on; %peer is the base
# of the other CTA's shared memory. The body runs in all lanes; afterwards lane i stores word i to the output.
HEAD = """.reg .pred %p; .reg .b32 %lane, %rank, %other, %peer, %bar, %a, %v, %w, %bytes, %base;
  .reg .b64 %o, %t, %q, %g, %h;
  mov.u32 %lane, %laneid; mov.u32 %rank, %cluster_ctarank; xor.b32 %other, %rank, 1; mov.u32 %base, smem;
  mapa.shared::cluster.u32 %peer, %base, %other; mov.u32 %bar, %peer; mov.u32 %bytes, BYTES;
  mad.lo.u32 %a, %lane, 4, %base; st.shared.b32 [%a+64], INIT; st.shared.b32 [%a+192], INIT;
  setp.ne.u32 %p, %lane, 0; @%p bra WAIT;
  mbarrier.init.shared.b64 [smem], 1; mbarrier.arrive.expect_tx.shared.b64 _, [smem], %bytes;
WAIT: barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
"""
TAIL = """
SPIN: mbarrier.try_wait.parity.shared.b64 %p, [smem], 0, 1000; @!%p bra SPIN;
  ld.shared.b32 %v, [%a+64]; ld.shared.b32 %w, [%a+192]; ld.param.u64 %o, [p0];
  mad.lo.u32 %other, %rank, 64, %lane; mul.wide.u32 %t, %other, 4; add.u64 %o, %o, %t; st.global.b32 [%o], %v;
  st.global.b32 [%o+128], %w; barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned; ret;
"""
STORE = "st.async.shared::cluster.mbarrier::complete_tx::bytes"
REDUCE = "red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes"


def run(body: str, nbytes: int, initial: int = 0, **launch) -> np.ndarray:
    """Words of CTA 0 and CTA 1: (2, 64)."""
    out = np.zeros((2, 64), np.uint32)
    text = HEAD.replace("BYTES", str(nbytes)).replace("INIT", str(initial)) + body + TAIL
    run_kernel(text, [out], shared=DYNAMIC, grid=(2, 1, 1), cluster=(2, 1, 1), shared_bytes=512, **launch)
    return out


@pytest.mark.parametrize("order", ["program-order", "eager", "random:1", "random:2", "consumers-first"])
def test_words_of_a_neighbour(order):
    body = f"""mad.lo.u32 %v, %rank, 1000, %lane; mad.lo.u32 %other, %lane, 4, %peer;
      {STORE}.b32 [%other+64], %v, [%bar];"""
    out = run(body, 128, schedule=schedule(order))
    for rank in range(2):
        assert out[rank, :32].tolist() == [1000 * (1 - rank) + i for i in range(32)]


def test_vectors_at_generic_addresses():
    body = f"""setp.gt.u32 %p, %lane, 3; @%p bra SPIN; mad.lo.u32 %other, %lane, 16, %peer;
      cvt.u64.u32 %g, %other; cvta.shared.u64 %g, %g; cvt.u64.u32 %h, %bar; cvta.shared.u64 %h, %h;
      add.u32 %v, %lane, 7; {STORE.replace(".shared::cluster", ".weak")}.v4.u32
      [%g+64], {{%v, %lane, %rank, %v}}, [%h];"""
    out = run(body, 64, initial=9)
    for rank in range(2):
        want = [x for i in range(4) for x in (i + 7, i, 1 - rank, i + 7)]
        assert out[rank, :32].tolist() == want + [9] * 16


def test_64_bit_values():
    body = f"""setp.gt.u32 %p, %lane, 7; @%p bra SPIN; mad.lo.u32 %other, %lane, 8, %peer;
      cvt.u64.u32 %q, %lane; mad.lo.u64 %q, %q, 4294967299, 5; {STORE}.b64 [%other+64], %q, [%bar];"""
    out = run(body, 64)
    found = out[1, :16].copy().view(np.uint64).tolist()
    assert found == [i * 4294967299 + 5 for i in range(8)]


REDUCTIONS = {
    "add.u32": lambda old, b: old + b, "add.s32": lambda old, b: old + b, "min.u32": min, "max.u32": max,
    "and.b32": lambda old, b: old & b, "or.b32": lambda old, b: old | b, "xor.b32": lambda old, b: old ^ b,
    "inc.u32": lambda old, b: 0 if old >= b else old + 1,
    "dec.u32": lambda old, b: b if old == 0 or old > b else old - 1,
    "min.s32": lambda old, b: min(old, b, key=lambda x: x - (x >> 31 << 32)),
    "max.s32": lambda old, b: max(old, b, key=lambda x: x - (x >> 31 << 32)),
}  # fmt: skip


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_meet_in_one_word(name):
    """Lane i and lane i + 16 combine (i * 0x11111111 + lane) into word i % 16 of the neighbour."""
    body = f"""and.b32 %v, %lane, 15; mad.lo.u32 %other, %v, 4, %peer; mad.lo.u32 %v, %v, 0x11111111, %lane;
      {REDUCE}.{name} [%other+64], %v, [%bar];"""
    initial = 0x80000005
    out = run(body, 128, initial=initial)
    want = [initial] * 32
    for i in range(32):
        value = (i % 16 * 0x11111111 + i) % 2**32
        want[i % 16] = REDUCTIONS[name](want[i % 16], value) % 2**32
    assert out[0, :32].tolist() == out[1, :32].tolist() == want


def test_the_bytes_are_awaited():
    body = f"mad.lo.u32 %other, %lane, 4, %peer; {STORE}.b32 [%other+64], %lane, [%bar];"
    with pytest.raises(Fault, match="lacks 4 bytes"):
        run(body, 132)


@pytest.mark.parametrize(
    "instruction, code",
    [
        (f"{STORE}.b32 [%base+64], %v, [%bar];", "async_store_cluster"),
        (f"{STORE}.b64 [%peer+68], %q, [%bar];", "misaligned"),
        (f"{STORE}.b32 [%peer+4096], %v, [%bar];", "shared_out_of_bounds"),
    ],
)
def test_wrong_places(instruction, code):
    with pytest.raises(Fault) as caught:
        run(instruction, 128)
    assert caught.value.code == code


def test_a_cta_alone_cannot():
    body = ".reg .b32 %v, %b; mov.u32 %b, smem; mbarrier.init.shared.b64 [smem], 1;"
    with pytest.raises(Fault, match="cluster of more than one"):
        run_kernel(
            f"{body} {STORE}.b32 [%b+64], %v, [%b]; ret;", shared=DYNAMIC, shared_bytes=512, block=(1, 1, 1)
        )


@pytest.mark.parametrize(
    "instruction", [f"{REDUCE}.min.u64 [%peer], %q, [%bar]", "st.async.release.gpu.global.b32 [%q], %v"]
)
def test_what_is_not_simulated(instruction):
    with pytest.raises(Unsupported):
        run(instruction + ";", 128)


# -- the sanitizer ----------------------------------------------------------------------------------------


def findings(body: str, nbytes: int) -> list[str]:
    watch = Sanitizer()
    run(body, nbytes, observer=watch)
    return [finding.code for finding in watch.findings]


def test_the_sanitizer_sees_the_order_that_the_mbarrier_gives():
    clean = f"mad.lo.u32 %other, %lane, 4, %peer; {STORE}.b32 [%other+64], %lane, [%bar];"
    assert findings(clean, 128) == []
    early = clean + "ld.shared.b32 %v, [%a+64]; st.shared.b32 [%a+192], %v;"
    assert set(findings(early, 128)) == {"shared_race"}


def test_the_sanitizer_says_that_it_does_not_know_reductions():
    rng = random.Random(1)
    body = f"mad.lo.u32 %other, %lane, 4, %peer; {REDUCE}.add.u32 [%other+64], {rng.randrange(9)}, [%bar];"
    with pytest.raises(Unsupported, match="under the sanitizer"):
        findings(body, 128)
