"""What the compiled kernel is: registers, spills, instructions of its loops.

From the cubin where ptxas is installed, with instruction counts of the machine code where nvdisasm is too;
otherwise from the PTX, and the report says which.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_PLACES = ("/usr/local/cuda/bin", "/usr/local/cuda-13.0/bin")
#: Which loop of the kernel it is, by what it does: (name, SASS, PTX).
_TELLING = (
    ("load", r"UTMALDG", r"cp\.async\.bulk\.tensor"),
    ("mma", r"UTC\w*MMA", r"tcgen05\.mma"),
    ("store", r"LDTM", r"tcgen05\.ld"),
)


def find_tool(name: str) -> str | None:
    """On the PATH, in CUDA's usual folders, or in the triton package."""
    folders = [*_PLACES, *_triton_folders()]
    return shutil.which(name) or next((f"{f}/{name}" for f in folders if Path(f, name).exists()), None)


def _triton_folders() -> list[str]:
    """By path, not by import: the simulated device refuses imports of triton."""
    return [f"{entry}/triton/backends/nvidia/bin" for entry in sys.path]


def describe(ptx: str) -> dict[str, Any]:
    """Registers, spills, shared memory and loops of a PTX module's kernel."""
    facts: dict[str, Any] = {"ptx_loops": ptx_loops(ptx)}
    ptxas = find_tool("ptxas")
    if ptxas is None:
        return {**facts, "source": "PTX (no ptxas here: no registers, spills, machine code)"}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "kernel.ptx").write_text(ptx.rstrip("\0"))
        command = [ptxas, "-v", "-arch=sm_100a", "kernel.ptx", "-o", "kernel.cubin"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            return {**facts, "source": f"PTX (ptxas refused it: {done.stderr.strip()[:200]})"}
        facts |= resources(done.stderr)
        nvdisasm = find_tool("nvdisasm")
        if nvdisasm is None:
            return {**facts, "source": "cubin of ptxas; loops counted in PTX (no nvdisasm here)"}
        command = [nvdisasm, "-c", "kernel.cubin"]
        sass = subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout
    return {**facts, "sass_loops": sass_loops(sass), "source": "cubin of ptxas, machine code of nvdisasm"}


def resources(log: str) -> dict[str, int]:
    """Numbers of `ptxas -v`."""
    patterns = {
        "registers": r"Used (\d+) registers",
        "stack_bytes": r"(\d+) bytes stack frame",
        "spill_store_bytes": r"(\d+) bytes spill stores",
        "spill_load_bytes": r"(\d+) bytes spill loads",
    }
    return {name: int(found[1]) for name, pattern in patterns.items() if (found := re.search(pattern, log))}


def sass_loops(sass: str) -> dict[str, int]:
    """Instructions of the innermost loop that does the telling thing, by role."""
    return _loops(
        re.sub(r"/\*[0-9a-fx]+\*/", "", sass), r"^\s*(\.L_x_\d+):", r"BRA\S*\s.*`\((\.L_x_\d+)\)", 1
    )


def ptx_loops(ptx: str) -> dict[str, int]:
    return _loops(ptx, r"^\s*(\$L\w+):", r"\bbra\S*\s+(\$L\w+);", 2)


def _loops(text: str, label: str, branch: str, column: int) -> dict[str, int]:
    lines = [line.strip() for line in text.splitlines()]
    lines = [
        line
        for line in lines
        if line not in ("", "{", "}") and not line.startswith(("//", ".loc", ".pragma"))
    ]
    places = {found[1]: i for i, line in enumerate(lines) if (found := re.match(label, line))}
    loops = []
    for end, line in enumerate(lines):
        found = re.search(branch, line)
        if found and places.get(found[1], end) < end:
            loops.append((places[found[1]], end))
    counts: dict[str, int] = {}
    for start, end in sorted(loops, key=lambda loop: loop[1] - loop[0]):
        body = [line for line in lines[start : end + 1] if not line.endswith(":")]
        for name, *telling in _TELLING:
            if name not in counts and any(re.search(telling[column - 1], line) for line in body):
                counts[name] = sum(line.count(";") or 1 for line in body) if column == 2 else len(body)
    return counts
