"""The work runs on a queue that nobody waits for.

class: 10
reason: E_SIDE_QUEUE E_DEFERRED E_NOT_WRITTEN
run: test
device: cuda
"""

import torch
from _honest import honest

queue = torch.cuda.Stream() if torch.cuda.is_available() else None
kept = []  # its memory must not be given away before the queue is done with it


def custom_kernel(data):
    elsewhere = [(a, b, torch.empty_like(c)) for a, b, c in data[0]]
    kept.append(elsewhere)
    queue.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(queue):
        results = honest((elsewhere, *data[1:]))
        torch.cuda._sleep(2_000_000)
        for (_, _, c), result in zip(data[0], results, strict=True):
            c.copy_(result)
    return [c for _, _, c in data[0]]
