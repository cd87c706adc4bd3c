"""Small submissions for the evaluator's tests: one that is right, and one that misbehaves case by case."""

from __future__ import annotations

RIGHT = """
import torch

VALUES = torch.tensor([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6])


def dequantise(packed, scales):
    codes = packed[:, :, 0].view(torch.uint8)
    values = VALUES.to(codes.device)
    pairs = torch.stack([values[(codes & 15).long()], values[(codes >> 4).long()]], -1)
    scales = scales[:, :, 0].to(codes.device).float()
    return pairs.reshape(codes.shape[0], -1) * scales.repeat_interleave(16, 1)


def right(data):
    for (a, b, c), (sfa, sfb) in zip(data[0], data[1]):
        c[:, :, 0] = (dequantise(a, sfa) @ dequantise(b, sfb).T).half()
    return [c for _, _, c in data[0]]
"""

PASSING = RIGHT + "\n\ncustom_kernel = right\n"

#: What `MISBEHAVING` does is chosen by the row count of the first group, the index in this list plus one.
BEHAVIOURS = [
    "right",
    "one_element_wrong",
    "missing_group",
    "wrong_dtype",
    "nan",
    "raises",
    "sys_exit",
    "os_exit",
    "hangs",
    "segfaults",
    "prints_much",
    "returns_input",
    "returns_none",
    "changes_input",
    "writes_nothing",
    "wrong_shape",
    "subclass",
    "same_twice",
    "forges_messages",
    "hostile_exception",
    "leaves_daemon",
    "fresh_tensors",
    "broadcast",
    "last_rows_missing",
]

MISBEHAVING = (
    RIGHT
    + f"BEHAVIOURS = {BEHAVIOURS!r}\n"
    + """
import ctypes, os, socket, struct, subprocess, sys, time


def one_element_wrong(data):
    outputs = right(data)
    outputs[1][3, 5, 0] += 2
    return outputs


def missing_group(data):
    return right(data)[:1]


def wrong_dtype(data):
    return [c.float() for c in right(data)]


def nan(data):
    outputs = right(data)
    outputs[0][0, 0, 0] = float("nan")
    return outputs


def raises(data):
    raise ValueError("k = 64 is not supported: expected a multiple of 256")


def sys_exit(data):
    sys.exit(0)


def os_exit(data):
    os._exit(0)


def hangs(data):
    while True:
        pass


def segfaults(data):
    ctypes.string_at(0)


def prints_much(data):
    for _ in range(200):
        print("x" * 50_000)
    return right(data)


def returns_input(data):
    right(data)
    return [data[0][0][0].view(torch.uint8)[:, :, 0].view(torch.float16).unsqueeze(2), data[0][1][2]]


def returns_none(data):
    right(data)


def changes_input(data):
    outputs = right(data)
    data[0][1][1].view(torch.uint8)[0, 0, 0] ^= 1
    return outputs


def writes_nothing(data):
    return [c for _, _, c in data[0]]


def wrong_shape(data):
    return [c[:, :, 0] for c in right(data)]


class Lazy(torch.Tensor):
    pass


def subclass(data):
    return [c.as_subclass(Lazy) for c in right(data)]


def same_twice(data):
    outputs = right(data)
    return [outputs[0], outputs[0]]


def forges_messages(data):
    for name in os.listdir("/proc/self/fd"):
        try:
            channel = socket.socket(fileno=os.dup(int(name)))
            channel.sendall(struct.pack("<I", 3) + b"[1]")
        except OSError:
            pass
    time.sleep(60)


class Hostile(Exception):
    def __str__(self):
        raise SystemExit(0)


def hostile_exception(data):
    raise Hostile


def leaves_daemon(data):
    subprocess.Popen(["sleep", "987654"], start_new_session=True)
    subprocess.Popen("sleep 987655 & disown", shell=True, executable="/bin/bash", start_new_session=True)
    return right(data)


def fresh_tensors(data):
    return tuple(c.clone() for c in right(data))


def broadcast(data):
    return [c[:1].expand(c.shape) for c in right(data)]


def last_rows_missing(data):
    outputs = [c.clone() for _, _, c in data[0]]
    right(data)
    for output, (_, _, c) in zip(outputs, data[0]):
        output[:-2] = c[:-2]
    return outputs


def custom_kernel(data):
    return globals()[BEHAVIOURS[data[3][0][0] - 1]](data)
"""
)


def case_line(behaviour: str) -> str:
    """A case of two groups that makes `MISBEHAVING` behave so."""
    rows = BEHAVIOURS.index(behaviour) + 1
    return f"m: [{rows}, 16]; n: [16, 8]; k: [64, 128]; g: 2; seed: {rows}"
