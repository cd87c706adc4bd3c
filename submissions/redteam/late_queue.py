"""Right results, but a queue beside the timed one goes on working.

class: 10
reason: E_SIDE_QUEUE
run: benchmark
device: cuda
"""

import torch
from _honest import honest

queue = torch.cuda.Stream() if torch.cuda.is_available() else None


def custom_kernel(data):
    outputs = honest(data)
    with torch.cuda.stream(queue):
        torch.cuda._sleep(2_000_000)
    return outputs
