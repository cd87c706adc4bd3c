#!POPCORN leaderboard nvfp4_group_gemm
#!POPCORN gpu B200

"""The plainest right submission: widen to fp16 with a table, multiply with torch. Runs on any device.

Every e2m1 value times its e4m3 scale has at most six significant bits, so fp16 holds the product exactly as
long as it neither overflows (448 * 6 does not) nor falls below fp16's subnormals (2**-9 * 0.5 does not);
cuBLAS accumulates in fp32. On the host, where fp16 sums are not kept in fp32, the product is made in fp32.
"""

import torch

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
# Partial sums of a split K must not be rounded to fp16.
torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False

tables: dict[torch.device, torch.Tensor] = {}


def byte_table(device: torch.device) -> torch.Tensor:
    """fp16 (256, 2): both values of every byte, the low nibble's first. Made once per device."""
    if device not in tables:
        values = torch.tensor(E2M1 + tuple(-v for v in E2M1), dtype=torch.float16)
        codes = torch.arange(256)
        tables[device] = torch.stack([values[codes & 15], values[codes >> 4]], 1).to(device)
    return tables[device]


def widen(packed: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """fp16 (rows, k) from e2m1 pairs (rows, k/2) and e4m3 scales (rows, k/16)."""
    rows = packed.shape[0]
    values = byte_table(packed.device)[packed.view(torch.uint8).int()].view(rows, -1, 16)
    return (values * scales.to(packed.device).half().unsqueeze(-1)).view(rows, -1)


def custom_kernel(data):
    abc, scales, _, _ = data
    for (a, b, c), (sfa, sfb) in zip(abc, scales, strict=True):
        left, right = widen(a[:, :, 0], sfa[:, :, 0]), widen(b[:, :, 0], sfb[:, :, 0])
        if left.device.type == "cpu":
            left, right = left.float(), right.float()
        c[:, :, 0] = left @ right.T
    return [c for _, _, c in abc]
