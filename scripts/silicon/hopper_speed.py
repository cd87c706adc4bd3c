"""Check and time submissions/hopper.py against torch, on one GPU in one run; print a table, write JSON.

    python scripts/silicon/hopper_speed.py [--check] [--speed] [--json FILE] [--submission FILE]

--check   shapes with ragged edges, one token, single units of K, many groups, every value and scale: against
          float64 products, counting elements that are not the correctly rounded float16.
--speed   the four benchmark shapes, against (1) a loop of torch fp16 GEMMs, (2) torch._grouped_mm in bf16,
          both on operands dequantised beforehand, and (3) the floors max(FLOP / measured fp16 peak,
          bytes / measured copy bandwidth). 15 data sets rotate, so that inputs come from DRAM. A sleeping
          kernel ahead of each window of 15 calls hides the host's time.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import reference  # noqa: E402

SETS = 15
BENCHMARKS = [
    ([80, 176, 128, 72, 64, 248, 96, 160], [4096] * 8, [7168] * 8),
    ([40, 76, 168, 72, 164, 148, 196, 160], [7168] * 8, [2048] * 8),
    ([192, 320], [3072] * 2, [4096] * 2),
    ([128, 384], [4096] * 2, [1536] * 2),
]
CHECKS = [
    ([96, 128], [128, 256], [256, 512], "official"),
    ([1], [8], [64], "full"),
    ([1, 7, 9], [8, 136, 1000], [64, 192, 320], "full"),
    ([257, 513, 31], [264, 128, 2048], [128, 64, 1088], "full"),
    ([40, 56, 384, 512], [512, 384, 256, 128], [256] * 4, "nan_padding"),
    (
        [3 * i + 1 for i in range(17)],
        [128 + 8 * i for i in range(17)],
        [64 * (i % 5 + 1) for i in range(17)],
        "full",
    ),
    ([300], [5000], [1536], "full"),
    *[(*sizes, "official") for sizes in BENCHMARKS],
]
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def dequantised(packed: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """float32 (rows, k) from packed e2m1 (rows, k / 2, 1) and reordered scales; signs of scales are void."""
    table = torch.tensor([*E2M1, *(-value for value in E2M1)], device=packed.device)
    raw = packed[:, :, 0].view(torch.uint8).int()
    values = table[torch.stack([raw & 15, raw >> 4], dim=-1)].flatten(1)
    blocks = scales[..., 0].permute(2, 1, 0, 4, 3)  # rest, 4, 32, rest_k, 4
    plain = blocks.reshape(-1, blocks.shape[3] * 4)[: packed.shape[0]].float().abs()
    return values * plain.repeat_interleave(16, dim=1)


def check(kernel: Callable[..., Any]) -> int:
    failures = 0
    for m, n, k, distribution in CHECKS:
        data = reference.generate_input(m, n, k, len(m), 7, device="cuda", distribution=distribution)
        start = time.perf_counter()
        outputs = kernel(data)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        kernel(data)
        outputs = kernel(data)
        torch.cuda.synchronize()
        inexact = total = 0
        for (a, b, _), (sfa, sfb), got in zip(data[0], data[2], outputs, strict=True):
            want = (dequantised(a, sfa).double() @ dequantised(b, sfb).double().t()).half()
            result = got[:, :, 0]
            inexact += int(((result != want) & ~(result.isnan() & want.isnan())).sum())
            total += result.numel()
        # Where large terms cancel, fp32 sums cannot be exact: the evaluator knows how far off they may be.
        passed, message = reference.check_implementation(data, outputs) if inexact else (True, "")
        failures += not passed
        print(
            f"check {'ok' if passed else 'WRONG'} m {m} n {n[:4]} k {k[:4]} {distribution}: "
            f"{inexact} of {total} not correctly rounded, first call {seconds:.1f} s {message}",
            flush=True,
        )
    return failures


def window_us(calls: list[Callable[[], object]], windows: int) -> tuple[float, float]:
    """Median and best over windows of the mean microseconds per call."""
    for call in calls[:3]:
        call()
    torch.cuda.synchronize()
    means = []
    for _ in range(windows):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda._sleep(8_000_000)
        begin.record()
        for call in calls:
            call()
        end.record()
        torch.cuda.synchronize()
        means.append(begin.elapsed_time(end) * 1000 / len(calls))
    return statistics.median(means), min(means)


def peaks() -> tuple[float, float]:
    """Measured fp16 FLOP/s (8192 cubed, random) and bytes/s of a device copy (read + written)."""
    x, y = (torch.randn(8192, 8192, device="cuda", dtype=torch.float16) for _ in range(2))
    out = torch.empty_like(x)
    multiply, _ = window_us([lambda: torch.mm(x, y, out=out)] * 10, 5)
    source = torch.empty(2**31, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copy, _ = window_us([lambda: target.copy_(source)] * 5, 5)
    return 2 * 8192**3 / multiply * 1e6, 2 * 2**31 / copy * 1e6


def facts() -> dict[str, str]:
    names = ("name", "driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit")
    query = ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader"]
    values = subprocess.run(query, capture_output=True, text=True).stdout.strip().split(", ")
    found = dict(zip(names, values, strict=False))
    import cutlass

    versions = {"torch": torch.__version__, "cutlass": getattr(cutlass, "__version__", "?")}
    return {
        **found,
        **versions,
        "cuda": str(torch.version.cuda),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def speed(kernel: Callable[..., Any], windows: int, baselines: bool) -> dict[str, Any]:
    peak, bandwidth = peaks()
    print(f"peak {peak / 1e12:.0f} TFLOP/s, copy {bandwidth / 1e12:.2f} TB/s", flush=True)
    rows = []
    for m, n, k in BENCHMARKS:
        sets = [reference.generate_input(m, n, k, len(m), 11 + i, device="cuda") for i in range(SETS)]
        ours, ours_best = window_us([lambda data=data: kernel(data) for data in sets], windows)
        row: dict[str, Any] = {"m": m, "n": n[0], "k": k[0], "ours_us": ours, "ours_best_us": ours_best}
        if baselines:
            halves = [
                [
                    (
                        dequantised(a, sa).half(),
                        dequantised(b, sb).half(),
                        torch.empty(a.shape[0], b.shape[0], device="cuda", dtype=torch.float16),
                    )
                    for (a, b, _), (sa, sb) in zip(d[0], d[2], strict=True)
                ]
                for d in sets
            ]

            def loop(operands: list[Any]) -> None:
                for a, b, c in operands:
                    torch.mm(a, b.t(), out=c)

            row["loop_us"], _ = window_us([lambda o=o: loop(o) for o in halves], windows)
            ends = torch.tensor(m, device="cuda").cumsum(0).int()
            grouped = [
                (torch.cat([a for a, _, _ in o]).bfloat16(), torch.stack([b for _, b, _ in o]).bfloat16())
                for o in halves
            ]
            row["grouped_mm_us"], _ = window_us(
                [
                    lambda x=x, w=w, ends=ends: torch._grouped_mm(
                        x, w.transpose(1, 2), offs=ends, out_dtype=torch.bfloat16
                    )
                    for x, w in grouped
                ],
                windows,
            )
        work = 2 * sum(a * b * c for a, b, c in zip(m, n, k, strict=True))
        moved = sum((a + b) * (c // 2 + c // 16) + 2 * a * b for a, b, c in zip(m, n, k, strict=True))
        row["floor_us"] = max(work / peak, moved / bandwidth) * 1e6
        rows.append(row)
        print(
            "  ".join(
                f"{key} {value:.2f}" if isinstance(value, float) else f"{key} {value}"
                for key, value in row.items()
            ),
            flush=True,
        )
    if baselines:
        ratios = [min(row["loop_us"], row["grouped_mm_us"]) / row["ours_us"] for row in rows]
        print(
            "speedup over the faster of loop and grouped_mm:",
            " ".join(f"{r:.2f}" for r in ratios),
            f"geomean {math.prod(ratios) ** 0.25:.3f}",
        )
    print(
        "over the floor:",
        " ".join(f"{row['ours_us'] / row['floor_us']:.2f}" for row in rows),
        f"geomean of times {math.prod(row['ours_us'] for row in rows) ** 0.25:.2f} us",
        flush=True,
    )
    return {"facts": facts(), "peak_fp16": peak, "copy_bandwidth": bandwidth, "benchmarks": rows}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--alone", action="store_true", help="do not time the baselines")
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--submission", type=Path, default=ROOT / "submissions" / "hopper.py")
    options = parser.parse_args()
    kernel = load(options.submission).custom_kernel
    failures = check(kernel) if options.check else 0
    if options.speed:
        result = speed(kernel, options.windows, not options.alone)
        if options.json:
            options.json.write_text(json.dumps(result, indent=1))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
