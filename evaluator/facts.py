"""What two people need to compare runs: hashes, versions, hardware."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import time
from pathlib import Path
from typing import Any

import torch

from evaluator import simulated
from evaluator.processes import ROOT

_HOPPER = ROOT / "submissions" / "hopper.py"
_HARNESS = ("eval.py", "evaluator*", "b200sim", "reference*.py", "task.py", "task.yml")


def choose_device(wanted: str, simulated_gpu: str = "B200") -> tuple[str, str]:
    """The device for "auto", "sim", "cuda" or "cpu", and one line that says which it is and why.

    Raises `LookupError` if CUDA is asked for and there is no GPU.
    """
    gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
    named = f"{gpu.name}, compute capability {gpu.major}.{gpu.minor}" if gpu else ""
    if wanted == "auto":
        if gpu and gpu.major == 10:
            return "cuda", named
        if importlib.util.find_spec("b200sim") is None:
            raise LookupError("no GPU of compute capability 10.x here, and no b200sim to stand in for it")
        reason = f"the GPU here is {named}, not 10.x" if gpu else "no GPU here"
        return "sim", f"simulated {simulated_gpu} ({reason})"
    if wanted == "cuda":
        if gpu is None:
            raise LookupError("--device cuda: torch finds no CUDA GPU here; --device sim needs none")
        judged = {10: "", 9: ": judged by the bounds of an H200, not by the task's targets"}
        return "cuda", named + judged.get(gpu.major, ": not a B200, its times compare with nothing")
    described = {"sim": f"simulated {simulated_gpu}", "cpu": "plain torch tensors on this CPU, no simulation"}
    return wanted, described[wanted]


def default_submission(device: str, gpu: str | None = None) -> tuple[Path, str]:
    """What is evaluated if no submission is named, and one line if that is not plain submission.py.

    `gpu` is the one to be simulated, if one was asked for. Raises `LookupError` for a GPU for which there is
    none here.
    """
    if gpu == "h200":
        return _HOPPER, f"no --submission named: on a simulated H200 that means {_HOPPER.relative_to(ROOT)}"
    major = torch.cuda.get_device_capability(0)[0] if device == "cuda" and torch.cuda.is_available() else 10
    if major == 10:
        return ROOT / "submission.py", ""
    if major == 9 and _HOPPER.exists():
        return _HOPPER, f"no --submission named: on a Hopper GPU that means {_HOPPER.relative_to(ROOT)}"
    raise LookupError(
        f"--device cuda: no kernel here for {torch.cuda.get_device_name(0)}, compute capability {major}.x; "
        "submission.py needs 10.x (B200), submissions/hopper.py 9.0 (H100, H200). Name one with --submission."
    )


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def harness_sha256() -> str:
    """One hash over the evaluator, the simulator and the problem, by path and content."""
    digest = hashlib.sha256()
    files: set[Path] = set()
    for pattern in _HARNESS:
        for path in ROOT.glob(pattern):
            files.update(path.rglob("*.py") if path.is_dir() else [path])
    for path in sorted(files):
        digest.update(f"{path.relative_to(ROOT)}\0{sha256(path)}\n".encode())
    return digest.hexdigest()


def gather(device: str, described: str, submission: Path, gpu: simulated.Gpu | None = None) -> dict[str, Any]:
    """The facts of one run, ready for JSON. `gpu`: the simulated one."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "submission": {
            "path": str(submission),
            "sha256": sha256(submission),
            "bytes": submission.stat().st_size,
        },
        "harness_sha256": harness_sha256(),
        "device": {"name": device, "description": described, **_gpu_facts(device, gpu)},
        "hardware": {
            "cpu": _cpu_name(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        },
        "versions": {
            "python": platform.python_version(),
            **_installed("torch", "numpy", "nvidia-cutlass-dsl"),
        },
    }


def _installed(*names: str) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def _gpu_facts(device: str, simulated_gpu: simulated.Gpu | None) -> dict[str, Any]:
    if device == "sim" and simulated_gpu is not None:
        return {
            "simulated_gpu": simulated_gpu.short_name,
            "compute_capability": list(simulated_gpu.compute_capability),
            "multiprocessors": simulated_gpu.sm_count,
        }
    if device != "cuda":
        return {}
    gpu = torch.cuda.get_device_properties(0)
    return {
        "gpu": gpu.name,
        "compute_capability": [gpu.major, gpu.minor],
        "memory_gib": round(gpu.total_memory / 2**30, 1),
        "multiprocessors": gpu.multi_processor_count,
        "cuda": str(torch.version.cuda),
    }


def _cpu_name() -> str:
    try:
        named = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        named = None
    return named[1] if named else platform.processor() or platform.machine()
