"""Run the silicon cases (tests/silicon) on the GPU here and record what it gives, for the CPU tests.

    python scripts/silicon/record.py [--only PATTERN] [--out tests/silicon/recorded]

Writes recorded.npz (all outputs, one after the other) and recorded.json (per case: digest of kernel and
input, place in the outputs; GPU, driver, date). Needs cuda-bindings and a GPU of compute capability 9.0. A
case that fails takes the CUDA context with it, so cases run in worker processes that are replaced.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "silicon")]

import silicon_async  # noqa: E402
import silicon_lanes  # noqa: E402
from silicon_case import ALIGN, FILL, Case  # noqa: E402


class Gpu:
    """Launches one kernel at a time through the driver API."""

    def __init__(self) -> None:
        from cuda.bindings import driver

        self.driver = driver
        self.call("cuInit", 0)
        self.device = self.call("cuDeviceGet", 0)
        self.call("cuCtxSetCurrent", self.call("cuDevicePrimaryCtxRetain", self.device))
        self.buffers = {name: self.aligned(16384) for name in ("in", "out", "map")}

    def call(self, name: str, *arguments: Any) -> Any:
        error, *result = getattr(self.driver, name)(*arguments)
        if int(error):
            raise RuntimeError(f"{name}: {error.name}")
        return result[0] if len(result) == 1 else result

    def aligned(self, count: int) -> int:
        return -(-int(self.call("cuMemAlloc", count + ALIGN)) // ALIGN) * ALIGN

    def run(self, case: Case) -> np.ndarray:
        data = np.zeros(max(case.data.size, 128), np.uint8)
        data[: case.data.size] = case.data
        output = np.full(case.output_bytes, FILL, np.uint8)
        tensor_map = np.frombuffer(case.encoded_map(self.buffers, 0), np.uint8).copy()
        for name, array in (("in", data), ("out", output), ("map", tensor_map)):
            self.call("cuMemcpyHtoD", self.buffers[name], array.ctypes.data, array.nbytes)
        module = self.call("cuModuleLoadData", case.text().encode() + b"\0")
        kernel = self.call("cuModuleGetFunction", module, b"kernel")
        pointers = np.array([self.buffers[name] for name in ("in", "out", "map")], np.uint64)
        arguments = np.array([pointers.ctypes.data + 8 * i for i in range(3)], np.uint64)
        self.call(
            "cuLaunchKernel",
            kernel,
            1,
            1,
            1,
            case.threads,
            1,
            1,
            case.shared_bytes,
            0,
            arguments.ctypes.data,
            0,
        )
        self.call("cuCtxSynchronize")
        self.call("cuMemcpyDtoH", output.ctypes.data, self.buffers["out"], output.nbytes)
        self.call("cuModuleUnload", module)
        return output

    def facts(self) -> dict[str, str]:
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        name, driver = subprocess.run(query, capture_output=True, text=True).stdout.strip().split(", ")
        return {
            "gpu": name,
            "driver": driver,
            "cuda_driver_api": str(self.call("cuDriverGetVersion")),
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
        }


def work(first: int, last: int) -> int:
    """Run cases first..last-1; per case one line of hex, or the error, on standard output."""
    gpu, cases = Gpu(), all_cases()
    print(json.dumps(gpu.facts()), flush=True)
    for case in cases[first:last]:
        try:
            print(gpu.run(case).tobytes().hex(), flush=True)
        except RuntimeError as error:
            print(f"! {error}", flush=True)
            return 1
    return 0


def all_cases() -> list[Case]:
    return [*silicon_lanes.cases(), *silicon_async.cases()]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="*")
    parser.add_argument("--out", type=Path, default=ROOT / "tests" / "silicon")
    parser.add_argument("--work", nargs=2, type=int)
    options = parser.parse_args()
    if options.work:
        return work(*options.work)

    cases = all_cases()
    results: dict[str, bytes] = {}
    facts: dict[str, str] = {}
    done = 0
    while done < len(cases):
        command = [sys.executable, __file__, "--work", str(done), str(len(cases))]
        try:
            lines = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout.splitlines()
        except subprocess.TimeoutExpired as late:
            lines = (late.stdout or b"").decode().splitlines()
            lines.append("! hangs")
        if not lines:
            print("the worker gave nothing", file=sys.stderr)
            return 1
        facts = json.loads(lines[0])
        for line in lines[1:]:
            if line.startswith("!"):
                print(f"{cases[done].name}: {line[2:]}", file=sys.stderr)
            else:
                results[cases[done].name] = bytes.fromhex(line)
            done += 1

    index, parts, place = {}, [], 0
    for case in cases:
        if case.name in results and fnmatch.fnmatch(case.name, options.only):
            output = np.frombuffer(results[case.name], np.uint8)
            index[case.name] = {"digest": case.digest(), "at": place, "bytes": output.size}
            parts.append(output)
            place += output.size
    np.savez_compressed(options.out / "recorded.npz", outputs=np.concatenate(parts))
    record = json.dumps({"facts": facts, "cases": index}).replace("}, ", "},\n ")
    (options.out / "recorded.json").write_text(record + "\n")
    print(f"{len(index)} of {len(cases)} cases recorded on {facts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
