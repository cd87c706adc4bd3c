"""Compare wgmma on the GPU here with the simulator, on many more operands than the recorded cases hold.

    python scripts/silicon/sweep.py [--seeds N] [--scale N] [--processes N] [--json FILE] [--dry-run]

Each seed is every numeric case of tests/silicon/silicon_wgmma.py with other numbers, `scale` times as many.
Prints and writes how many results differ per case, with the first few of each: seed, place, GPU's and
simulator's bits. Nothing is recorded. --dry-run compares the simulator with itself. Needs what record.py
needs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import record
from silicon_case import simulate
from silicon_wgmma import numeric_cases

SHOWN = 6  # differing results per case
SECONDS = 240  # for one seed


def work(seed: int, scale: int, dry: bool) -> int:
    """One line of JSON per case on standard output."""
    device = record.Simulator() if dry else record.Gpu()
    for case in numeric_cases(f"-sweep{seed}", scale):
        dtype = np.uint16 if case.name.startswith("wgmma/f16") else np.uint32
        found, wanted = device.run(case).view(dtype), simulate(case).view(dtype)
        places = np.flatnonzero(found != wanted)
        shown = [[int(i), f"{found[i]:#x}", f"{wanted[i]:#x}"] for i in places[:SHOWN]]
        name = case.name.removesuffix(f"-sweep{seed}")
        print(
            json.dumps({"case": name, "sums": found.size, "wrong": len(places), "first": shown}), flush=True
        )
    return 0


def run_seed(seed: int, options: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    """Its cases, and what ended it early, if anything."""
    command = [sys.executable, __file__, "--work", str(seed), "--scale", str(options.scale)]
    command += ["--dry-run"] * options.dry_run
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        output, problem = done.stdout, done.stderr[-500:] if done.returncode else ""
    except subprocess.TimeoutExpired as late:
        output, problem = (late.stdout or b"").decode(), f"not done after {SECONDS} s"
    return [json.loads(line) for line in output.splitlines() if line.endswith("}")], problem


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--scale", type=int, default=24)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work is not None:
        return work(options.work, options.scale, options.dry_run)
    started = time.monotonic()
    cases: dict[str, dict[str, Any]] = {}
    with ThreadPoolExecutor(options.processes) as pool:
        for seed, (rows, problem) in enumerate(
            pool.map(lambda seed: run_seed(seed, options), range(options.seeds))
        ):
            for row in rows:
                total = cases.setdefault(row["case"], {"sums": 0, "wrong": 0, "first": []})
                total["sums"] += row["sums"]
                total["wrong"] += row["wrong"]
                total["first"] += [[seed, *shown] for shown in row["first"]]
            if problem:
                print(f"seed {seed}: {problem}", file=sys.stderr)
    for name, total in cases.items():
        if total["wrong"]:
            print(f"{name}: {total['wrong']} of {total['sums']} differ, {total['first'][:2]}")
    sums, wrong = (sum(total[key] for total in cases.values()) for key in ("sums", "wrong"))
    print(
        f"{len(cases)} kinds of cases, {sums} sums, {wrong} differ, {time.monotonic() - started:.0f} s",
        flush=True,
    )
    if options.json:
        facts = {"seeds": options.seeds, "scale": options.scale, "sums": sums, "wrong": wrong}
        options.json.write_text(json.dumps({**facts, "cases": cases}))
    return 1 if wrong or not cases else 0


if __name__ == "__main__":
    sys.exit(main())
