"""Every call returns the same memory: the next call overwrites the last one's result.

class: 71
reason: E_DEFERRED E_STALE_OUTPUT E_WRONG_RESULT
run: test
device: any
"""

import torch
from _honest import honest

workspace = {}


def custom_kernel(data):
    for c, (m, n, _, _) in zip(honest(data), data[3], strict=True):
        workspace.setdefault((m, n), torch.empty_like(c)).copy_(c)
    return [workspace[m, n] for m, n, _, _ in data[3]]
