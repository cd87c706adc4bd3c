"""A graph captured over the first inputs is replayed for all others.

class: 9
reason: E_NOT_WRITTEN E_STALE_OUTPUT E_WRONG_RESULT
run: test
device: cuda
"""

import torch
from _honest import honest

graphs = {}


def custom_kernel(data):
    key = tuple(data[3])
    if key not in graphs:
        honest(data)
        torch.cuda.synchronize()
        graphs[key] = (torch.cuda.CUDAGraph(), data)
        with torch.cuda.graph(graphs[key][0]):
            honest((data[0], data[1], data[2], data[3]), on_device_scales(data))
    graphs[key][0].replay()
    return [c for _, _, c in data[0]]


def on_device_scales(data):
    return [
        tuple(plain(s, rows) for s, rows in zip(pair, sizes[:2], strict=True))
        for pair, sizes in zip(data[2], data[3], strict=True)
    ]


def plain(reordered, rows):
    blocks = reordered[..., 0].view(torch.uint8).permute(2, 1, 0, 4, 3)
    flat = blocks.reshape(blocks.shape[0] * 128, -1)[:rows]
    return flat.contiguous().view(torch.float8_e4m3fn).unsqueeze(-1)
