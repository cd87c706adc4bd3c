"""Run the silicon cases (tests/silicon) on the GPU here and record what it gives, for the CPU tests.

    python scripts/silicon/record.py [--only PATTERN ...] [--missing] [--out DIR] [--seconds N] [--dry-run]

--only     cases whose name matches one of the patterns ("wgmma/*"); others keep their record
--missing  cases that have no record, or changed since
--out      where recorded.npz and recorded.json go (default: tests/silicon, where the present ones lie)
--seconds  after which no further case begins; what has run by then is written
--dry-run  the simulator in place of the GPU, to try this script; refuses to write to tests/silicon

recorded.npz holds all outputs, one after the other; recorded.json per case the digest of kernel and input,
the place among the outputs and the run it comes from, per run the GPU, driver and date, and what failed, with
digest and reason: to end the launch is what some cases are for (`Case.fault`).
Needs cuda-bindings and a GPU of compute capability 9.0. A case that fails takes the CUDA context with it, and
one that hangs a process: cases run in worker processes that are replaced.
"""

from __future__ import annotations

import argparse
import ctypes
import fnmatch
import json
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "tests" / "silicon"
sys.path[:0] = [str(ROOT), str(HERE)]

import silicon_encode  # noqa: E402
from silicon_case import ALIGN, BUFFER_BYTES, FILL, Case, simulate  # noqa: E402
from silicon_encode import EncodeCase  # noqa: E402
from silicon_suite import all_cases  # noqa: E402

WORKERS = 4
START_SECONDS = 60  # for a worker to begin: imports, all cases, a CUDA context
CASE_SECONDS = 15  # a case takes milliseconds, and its compilation less than a second


class Gpu:
    """Launches one kernel at a time through the driver API."""

    def __init__(self) -> None:
        from cuda.bindings import driver

        self.driver = driver
        self.call("cuInit", 0)
        self.device = self.call("cuDeviceGet", 0)
        self.call("cuCtxSetCurrent", self.call("cuDevicePrimaryCtxRetain", self.device))
        self.buffers = {name: self.aligned(BUFFER_BYTES) for name in ("in", "out", "map")}

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
            if array.nbytes > BUFFER_BYTES:
                raise RuntimeError(f"{array.nbytes} bytes, more than BUFFER_BYTES")
            self.call("cuMemcpyHtoD", self.buffers[name], array.ctypes.data, array.nbytes)
        module = self.call("cuModuleLoadData", case.text().encode() + b"\0")
        kernel = self.call("cuModuleGetFunction", module, b"kernel")
        pointers = np.array([self.buffers[name] for name in ("in", "out", "map")], np.uint64)
        arguments = np.array([pointers.ctypes.data + 8 * i for i in range(3)], np.uint64)
        block = (case.threads, 1, 1)
        self.call(
            "cuLaunchKernel", kernel, *case.grid, *block, case.shared_bytes, 0, arguments.ctypes.data, 0
        )
        self.call("cuCtxSynchronize")
        self.call("cuMemcpyDtoH", output.ctypes.data, self.buffers["out"], output.nbytes)
        self.call("cuModuleUnload", module)
        return output

    def encode(self, case: EncodeCase) -> np.ndarray:
        """cuTensorMapEncodeTiled through ctypes, which hands over any code, legal or not."""
        library = ctypes.CDLL("libcuda.so.1")
        # The driver wants the descriptor on a boundary of 64 bytes.
        room = np.zeros(256, np.uint8)
        start = -room.ctypes.data % 64
        kind, rank, address, dims, strides, box, steps, *modes = case.arguments
        wide, narrow = ctypes.c_uint64 * 8, ctypes.c_uint32 * 8
        code = library.cuTensorMapEncodeTiled(
            ctypes.c_void_p(room.ctypes.data + start),
            ctypes.c_int(kind),
            ctypes.c_uint32(rank),
            ctypes.c_void_p(address),
            wide(*dims),
            wide(*strides),
            narrow(*box),
            narrow(*steps),
            *(ctypes.c_int(mode) for mode in modes),
        )
        descriptor = bytes(128) if code else room[start : start + 128].tobytes()
        return np.frombuffer(int(code).to_bytes(4, "little") + descriptor, np.uint8)

    def facts(self) -> dict[str, str]:
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        name, driver = subprocess.run(query, capture_output=True, text=True).stdout.strip().split(", ")
        return {
            "gpu": name,
            "driver": driver,
            "cuda_driver_api": str(self.call("cuDriverGetVersion")),
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
        }


class Simulator:
    """The simulator under the GPU's interface."""

    def run(self, case: Case) -> np.ndarray:
        return simulate(case)

    def encode(self, case: EncodeCase) -> np.ndarray:
        return silicon_encode.output(*silicon_encode.simulated(case))

    def facts(self) -> dict[str, str]:
        return {"gpu": "simulated", "driver": "none", "cuda_driver_api": "0", "date": "never"}


def work(dry: bool) -> int:
    """For each name on standard input one line of hex, or the error, on standard output."""
    device: Gpu | Simulator = Simulator() if dry else Gpu()
    cases = {case.name: case for case in all_cases()}
    print(json.dumps(device.facts()), flush=True)
    for line in sys.stdin:
        case = cases[line.strip()]
        try:
            result = device.encode(case) if isinstance(case, EncodeCase) else device.run(case)
            print(result.tobytes().hex(), flush=True)
        except Exception as error:
            print(f"! {type(error).__name__}: {error}".replace("\n", " ")[:300], flush=True)
            return 1
    return 0


class Worker:
    """A process that runs cases, and how long it is waited for."""

    def __init__(self, dry: bool) -> None:
        command = [sys.executable, __file__, "--work", *(["--dry-run"] if dry else [])]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        first = self._answer(START_SECONDS)
        if not first.startswith("{"):
            raise RuntimeError(f"a worker does not start: {first}")
        self.facts = json.loads(first)

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.put(line.strip())
        self.lines.put("! the process ended")

    def _answer(self, seconds: float) -> str:
        try:
            return self.lines.get(timeout=seconds)
        except queue.Empty:
            return f"! no answer for {seconds} s"

    def run(self, name: str) -> str:
        assert self.process.stdin
        try:
            self.process.stdin.write(name + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return "! the process ended"
        return self._answer(CASE_SECONDS)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def run_all(
    names: list[str], dry: bool, deadline: float
) -> tuple[dict[str, bytes], dict[str, str], dict[str, str]]:
    """(outputs, what failed and why, facts) of the cases, by name."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in names:
        waiting.put(name)
    results: dict[str, bytes] = {}
    failed: dict[str, str] = {}
    facts: dict[str, str] = {}

    def serve() -> None:
        worker: Worker | None = None
        while time.monotonic() < deadline:
            try:
                name = waiting.get_nowait()
            except queue.Empty:
                break
            if worker is None:
                try:
                    worker = Worker(dry)
                except RuntimeError as error:
                    failed[name] = str(error)
                    return
                facts.update(worker.facts)
            answer = worker.run(name)
            if answer.startswith("!"):
                failed[name] = answer[2:]
                print(f"{name}: {answer[2:]}", file=sys.stderr, flush=True)
                worker.end()
                worker = None
            else:
                results[name] = bytes.fromhex(answer)
        if worker is not None:
            worker.end()

    threads = [threading.Thread(target=serve) for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while not waiting.empty():
        failed[waiting.get()] = "not begun: no worker or no time was left"
    return results, failed, facts


def write(
    out: Path,
    cases: list[Case | EncodeCase],
    results: dict[str, bytes],
    failed: dict[str, str],
    facts: dict[str, str],
) -> tuple[int, int]:
    """The new outputs beside those recorded before. Returns how many old ones are kept, how many changed."""
    old = json.loads((HERE / "recorded.json").read_text())
    old_outputs = np.load(HERE / "recorded.npz")["outputs"]
    runs = [*old["runs"], facts]
    index, parts, place, kept, changed = {}, [], 0, 0, 0
    for case in cases:
        before = old["cases"].get(case.name)
        if before and before["digest"] != case.digest():
            before = None
        output = before and old_outputs[before["at"] : before["at"] + before["bytes"]]
        run = before["run"] if before else 0
        if case.name in results:
            new = np.frombuffer(results[case.name], np.uint8)
            if before and not np.array_equal(new, output):
                changed += 1
                print(f"{case.name}: not what was recorded before", file=sys.stderr)
            output, run = new, len(runs) - 1
        elif before:
            kept += 1
        if output is None:
            continue
        index[case.name] = {"digest": case.digest(), "at": place, "bytes": output.size, "run": run}
        parts.append(output)
        place += output.size
    used = sorted({entry["run"] for entry in index.values()})
    for entry in index.values():
        entry["run"] = used.index(entry["run"])
    np.savez_compressed(out / "recorded.npz", outputs=np.concatenate(parts))
    names = {case.name for case in cases}
    failures = {name: entry for name, entry in old["failed"].items() if name in names - results.keys()}
    digests = {case.name: case.digest() for case in cases}
    failures |= {name: {"digest": digests[name], "why": why} for name, why in failed.items()}
    record = {"runs": [runs[i] for i in used], "failed": failures, "cases": index}
    (out / "recorded.json").write_text(json.dumps(record).replace("}, ", "},\n ") + "\n")
    return kept, changed


def chosen(cases: list[Case | EncodeCase], patterns: list[str], missing: bool) -> list[str]:
    record = json.loads((HERE / "recorded.json").read_text()) if missing else {"cases": {}, "failed": {}}
    known = record["cases"] | {
        case.name: record["failed"][case.name]
        for case in cases
        if isinstance(case, Case) and case.fault and case.name in record["failed"]
    }
    return [
        case.name
        for case in cases
        if any(fnmatch.fnmatch(case.name, pattern) for pattern in patterns)
        and (known.get(case.name) or {}).get("digest") != case.digest()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN")
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work(options.dry_run)
    if options.dry_run and options.out.resolve() == HERE:
        parser.error("--dry-run wants an --out of its own: tests/silicon holds what a GPU gave")
    started = time.monotonic()
    cases = all_cases()
    names = chosen(cases, options.only, options.missing)
    if not names:
        parser.error("no case to run")
    results, failed, facts = run_all(names, options.dry_run, started + options.seconds)
    if not results:
        print(f"nothing ran: {next(iter(failed.values()))}", file=sys.stderr)
        return 1
    kept, changed = write(options.out, cases, results, failed, facts)
    meant = {case.name for case in cases if isinstance(case, Case) and case.fault}
    surprises = meant & results.keys() | failed.keys() - meant
    print(
        f"{len(results)} of {len(names)} cases recorded on {facts} in {time.monotonic() - started:.0f} s; "
        f"{kept} records kept, {changed} not as before, {len(failed)} failed, "
        f"{len(surprises)} of the outcomes not meant: {sorted(surprises)}"
    )
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main())
