"""The work runs on a queue that nobody waits for.

class: 10
reason: E_SIDE_QUEUE E_NOT_WRITTEN E_DEFERRED
run: test
device: cuda
"""

import torch
from _honest import honest

queue = torch.cuda.Stream() if torch.cuda.is_available() else None


def custom_kernel(data):
    queue.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(queue):
        torch.cuda._sleep(2_000_000)
        honest(data)
    return [c for _, _, c in data[0]]
