"""The arena and the channel: what goes in comes out, and nothing from a worker can hurt the judge."""

from __future__ import annotations

import json
import os
import socket
import struct
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from evaluator.arena import Arena, MappedArena, assemble, flatten, span_bytes, storage_bytes
from evaluator.channel import BadMessage, Channel, ChannelClosed, ChannelTimeout
from evaluator.messages import Failed, Ran, parse_reply
from evaluator.verdict import Status


def small_arena() -> tuple[object, Arena]:
    data = reference.generate_input((3, 130), (16, 8), (64, 192), 2, seed=5, device="cpu")
    return data, Arena(data)


def test_a_worker_sees_equal_tensors_with_equal_layouts() -> None:
    data, arena = small_arena()
    mapped = MappedArena(os.dup(arena.fd), json.loads(json.dumps(arena.message())))
    seen = {(p.group, p.role): mapped.tensor(p) for p in mapped.placed}
    rebuilt = assemble(seen, mapped.problem_sizes)
    assert rebuilt[3] == [(3, 16, 64, 1), (130, 8, 192, 1)]
    for (group, role, want), (_, _, got) in zip(flatten(data), flatten(rebuilt), strict=True):
        assert (got.dtype, got.shape, got.stride()) == (want.dtype, want.shape, want.stride()), (group, role)
        assert got.data_ptr() % 512 == 0
        assert torch.equal(got.view(torch.uint8) if got.element_size() == 1 else got, _comparable(want))
        assert got.untyped_storage().nbytes() == span_bytes(got.shape, got.stride(), got.element_size())
    arena.close()


def _comparable(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(torch.uint8) if tensor.element_size() == 1 else tensor


def test_changes_and_poison_are_seen_by_the_judge() -> None:
    data, arena = small_arena()
    mapped = MappedArena(os.dup(arena.fd), arena.message())
    tensors = {p.name: mapped.tensor(p) for p in mapped.placed}
    arena.poison_outputs(0x7E5A)
    assert int((tensors["c[1]"].view(torch.int16) == 0x7E5A).sum()) == 130 * 8
    assert arena.changed(data) == []
    tensors["sfb_reordered[1]"].view(torch.uint8)[0, 0, 0, 0, 0, 0] ^= 1
    assert arena.changed(data) == ["sfb_reordered[1]"]
    c = next(p for p in arena.placed if p.name == "c[0]")
    before = arena.read(c.offset, c.nbytes)
    tensors["c[0]"].zero_()
    assert before.any(), "what was read is a private copy"
    assert not arena.read(c.offset, c.nbytes).any()


def test_a_worker_cannot_shrink_the_memory() -> None:
    _, arena = small_arena()
    for size in (0, arena.size * 2):
        with pytest.raises(PermissionError):
            os.ftruncate(arena.fd, size)


def test_reading_past_the_end_is_refused() -> None:
    _, arena = small_arena()
    with pytest.raises(ValueError, match="past the arena"):
        arena.read(arena.size - 8, 16)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    order=st.randoms(use_true_random=False),
    gap=st.integers(1, 3),
)
def test_a_span_covers_exactly_the_reachable_bytes(shape: list[int], order: object, gap: int) -> None:
    strides, step = [0] * len(shape), gap
    axes = list(range(len(shape)))
    order.shuffle(axes)  # type: ignore[attr-defined]
    for axis in axes:
        strides[axis] = step
        step *= shape[axis]
    memory = torch.arange(step + 7, dtype=torch.int16)
    view = memory.as_strided(shape, strides, storage_offset=2)
    reachable = view.flatten().tolist()
    assert (min(reachable), max(reachable)) == (2, 1 + span_bytes(tuple(shape), tuple(strides), 2) // 2)
    assert storage_bytes(view).view("int16").tolist() == list(range(2, max(reachable) + 1))


def pair() -> tuple[Channel, socket.socket]:
    ours, theirs = socket.socketpair()
    return Channel(ours), theirs


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (struct.pack("<I", 1 << 31), BadMessage),
        (struct.pack("<I", 4) + b"\x80\x04N.", BadMessage),
        (struct.pack("<I", 2) + b"[]", BadMessage),
        (struct.pack("<I", 200_000) + b"[" * 200_000, BadMessage),
        (struct.pack("<I", 100) + b"{", ChannelTimeout),
        (b"", ChannelTimeout),
    ],
)
def test_what_is_no_message_is_refused(sent: bytes, error: type[Exception]) -> None:
    channel, worker = pair()
    worker.setblocking(False)
    worker.send(sent) if len(sent) < 100_000 else worker.sendall(sent)
    with pytest.raises(error):
        channel.receive(time.monotonic() + 0.2)


def test_a_closed_channel_is_told_from_a_silent_one() -> None:
    channel, worker = pair()
    worker.close()
    with pytest.raises(ChannelClosed):
        channel.receive(time.monotonic() + 1)


def test_a_descriptor_travels_with_its_message() -> None:
    channel, worker = pair()
    reader, writer = os.pipe()
    channel.send({"do": "run", "text": "x" * 100_000}, reader)
    message, fd = Channel(worker).receive_with_fd()
    os.write(writer, b"!")
    assert message["text"] == "x" * 100_000 and fd is not None and os.read(fd, 1) == b"!"


GOOD_OUTPUT = {
    "type": "torch.Tensor", "dtype": "float16", "shape": [1, 2, 1], "stride": [2, 1, 2], "device": "cpu",
    "alias": None, "offset": 512, "nbytes": 4,
}  # fmt: skip


def test_a_good_reply_parses() -> None:
    reply = parse_reply(
        {"is": "ran", "container": "list", "seconds": 1, "outputs": [GOOD_OUTPUT], "launches": [{"a": 1}]}
    )
    assert isinstance(reply, Ran)
    assert reply.outputs[0].shape == (1, 2, 1) and reply.launches == ({"a": 1},)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [1, 2]},
        {"shape": [1, 2.5, 1]},
        {"shape": [1, -2, 1]},
        {"shape": "[1, 2, 1]"},
        {"stride": [True, 1, 2]},
        {"offset": -1},
        {"offset": 1 << 70},
        {"nbytes": None},
        {"alias": [1]},
        {"alias": [0, -4]},
        {"dtype": 3},
    ],
)
def test_a_bad_output_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(BadMessage):
        parse_reply({"is": "ran", "container": "list", "seconds": 1, "outputs": [GOOD_OUTPUT | change]})


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"is": "passed"},
        {"is": "failed", "status": "PASS", "message": ""},
        {"is": "failed", "status": "JUDGE_ERROR", "message": ""},
        {"is": "ran", "container": "list", "seconds": float("nan"), "outputs": []},
        {"is": "ran", "container": "list", "seconds": 1, "outputs": [], "launches": [{"x": {"y": 1}}]},
        {"is": "window", "nanoseconds": -5, "flush": ""},
        {"is": "loaded", "seconds": 1, "versions": "all"},
    ],
)
def test_a_worker_cannot_say_just_anything(message: dict[str, object]) -> None:
    with pytest.raises(BadMessage):
        parse_reply(message)


def test_long_text_is_cut() -> None:
    reply = parse_reply({"is": "failed", "status": "RAISED", "message": "x" * 10**6})
    assert isinstance(reply, Failed) and reply.status is Status.RAISED and len(reply.message) <= 2000
