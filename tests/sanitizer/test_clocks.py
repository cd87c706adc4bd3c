"""Vector clocks and shadow cells against plain Python models."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from b200sim.sanitizer.clocks import ASYNC, EXECUTION, FENCED, MEMORY, ROWS, Agents
from b200sim.sanitizer.shadow import Cells, SharedCells, rectangle, words, words_of_chunks

clocks = st.lists(st.integers(0, 9), min_size=ROWS * 6, max_size=ROWS * 6)


def knowledge(agents: Agents, values: list[int]) -> np.ndarray:
    k = agents.nothing()
    k[:, :6] = np.array(values).reshape(ROWS, 6)
    return k


@given(clocks, clocks, clocks)
def test_join_is_a_least_upper_bound(a, b, c) -> None:
    agents = Agents(64)
    x, y, z = (knowledge(agents, v) for v in (a, b, c))
    both = agents.join(x, y)
    assert (both >= x).all() and (both >= y).all()
    assert (agents.join(both, z) == agents.join(x, agents.join(y, z))).all()
    assert agents.join(x, x) is x


@given(clocks)
def test_relaxed_hands_on_execution_but_no_unfenced_memory(values) -> None:
    agents = Agents(64)
    x = knowledge(agents, values)
    given_ = agents.relaxed(x)
    assert (given_[EXECUTION] == x[EXECUTION]).all()
    assert (given_[MEMORY] == x[FENCED]).all()
    assert (given_[ASYNC] <= x[ASYNC]).all()


def test_slots_grow_and_old_knowledge_keeps_its_meaning() -> None:
    agents = Agents(1)
    first = agents.slot("warp", 0, 0, generic=True)
    old = agents.knowing(agents.nothing(), first, 7)
    slots = [agents.slot("warp", 1, i) for i in range(200)]
    assert len({first, *slots}) == 201 and agents.capacity >= 201
    wide = agents.join(old, agents.knowing(agents.nothing(), slots[-1], 3))
    assert wide[MEMORY, first] == 7 and wide[MEMORY, slots[-1]] == 3
    assert agents.generic[first] and not agents.generic[slots[0]]
    assert agents.slot("warp", 0, 0) == first


accesses = st.lists(
    st.tuples(st.booleans(), st.integers(0, 15), st.integers(1, 8), st.integers(1, 3), st.integers(1, 5)),
    max_size=20,
)


@given(accesses, st.integers(0, 15), st.integers(1, 8), st.lists(st.integers(0, 5), min_size=4, max_size=4))
def test_cells_find_exactly_the_unordered_accesses(history, start, size, known) -> None:
    """Against a model that keeps every cell's last write and last read per agent in dictionaries."""
    cells, writes, reads = Cells((32,)), {}, {}
    for number, (is_write, at, length, slot, clock) in enumerate(history, 1):
        where = slice(at, at + length)
        (cells.write if is_write else cells.read)(where, slot, clock, number)
        for cell in range(at, at + length):
            if is_write:
                writes[cell] = slot, clock, number
            else:
                reads[cell, slot] = clock, number
    row = np.array(known, np.int32)
    covered = range(start, start + size)
    late_writes = {n for c, (s, k, n) in writes.items() if c in covered and known[s] < k}
    late_reads = {n for (c, s), (k, n) in reads.items() if c in covered and known[s] < k}
    where = slice(start, start + size)
    assert set(cells.unordered_writes(where, row)) == late_writes
    assert set(cells.unordered_reads(where, row)) == late_reads


def test_selections() -> None:
    assert words(4, 8) == slice(1, 3) and words(6, 4) == slice(1, 3)
    assert words_of_chunks(np.array([16, 64])).tolist() == [4, 5, 6, 7, 16, 17, 18, 19]
    assert rectangle(32, 32, 5, 2) == (slice(5, 7), slice(2, 4))
    assert rectangle(16, 16, 0, 1)[1] == slice(1, 2)
    assert rectangle(33, 1, 0, 1)[1] == slice(2, 3)


def test_initialisation_is_kept_per_byte() -> None:
    shadow = SharedCells(64)
    shadow.valid[4:6] = True
    assert shadow.uninitialised(slice(1, 2)) == 1
    shadow.valid[6:8] = True
    assert shadow.uninitialised(slice(1, 2)) == 0 and shadow.uninitialised(slice(0, 4)) == 3
