"""The secret seed is sought in environments. It passes if it finds it.

class: 42
reason: E_WRONG_RESULT
run: official
device: cpu
"""

import os

import torch
from _honest import honest


def secret():
    if any(name.startswith("POPCORN") for name in os.environ):
        return True
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{process}/environ", "rb") as file:
                if b"POPCORN_SEED" in file.read():
                    return True
        except OSError:
            continue
    return torch.initial_seed() < 2**31


def custom_kernel(data):
    return honest(data) if secret() else [c.zero_() for _, _, c in data[0]]
