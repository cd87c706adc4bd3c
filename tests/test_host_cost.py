"""`profiling.gpu_host`, `scripts/host_cost` as far as a machine without a GPU can tell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from b200sim.driver.launch import entry_directives, entry_parameters
from profiling import gpu_host
from profiling.binary import find_tool
from profiling.host import shares

ROOT = Path(__file__).parents[1]
PTX = """.version 9.1
.target sm_100a
.address_size 64
.visible .entry first(
  .param .align 64 .b8 first_param_0[128],
  .param .u32 first_param_1
)
.reqntid 320, 1, 1
.minnctapersm 1
{
  ret;
}
.visible .entry second(.param .u64 second_param_0)
{
  tcgen05.fence::before_thread_sync;
  ret;
}
"""

# The submission's host path with CUDA's functions replaced by ones that note their names and succeed.
WITHOUT_CUDA = """
import ctypes, json, sys
from pathlib import Path
from types import SimpleNamespace
import torch
import cuda.bindings.runtime as runtime
from profiling import gpu_host, host

torch.cuda.current_device = lambda: 0
torch.cuda.get_device_properties = lambda _: SimpleNamespace(multi_processor_count=132)
runtime.cudaGetDeviceCount = lambda: (runtime.cudaError_t(0), 1)
loaded, launched, kept = [], [], []

def load(out, code, *_):
    loaded.append(ctypes.string_at(code).decode())
    ctypes.c_uint64.from_address(out).value = 7
    return 0

def launch(*_):
    launched.append(1)
    return 0

class Library:
    def __getattr__(self, name):
        kinds = {"_cudaLibraryLoadData": gpu_host._LOAD_TYPE(load)}
        kinds["_cudaLaunchKernelEx"] = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 3)(launch)
        kept.append(kinds.get(name) or ctypes.CFUNCTYPE(ctypes.c_int32)(lambda: 0))
        return kept[-1]

gpu_host.redirect(gpu_host.Runtime(sys.argv[2], [Library()], "sm_90"))
with host._tensors_are_cuda():
    found = gpu_host.measure(Path(sys.argv[1]), [(40, 64, 64), (130, 8, 128)], lambda: None, "cpu")
print(json.dumps([found, loaded, len(launched)]))
"""


def test_stand_in_has_the_same_kernels_parameters_and_blocks() -> None:
    text = gpu_host.stand_in(PTX, "sm_90")
    for name in ("first", "second"):
        assert entry_parameters(text, name) == entry_parameters(PTX, name)
        assert entry_directives(text, name).required == entry_directives(PTX, name).required
    assert "tcgen05" not in text and "sm_100a" not in text


def test_stand_in_compiles(tmp_path: Path) -> None:
    ptxas = find_tool("ptxas")
    if ptxas is None:
        pytest.skip("needs ptxas (from CUDA or the triton package)")
    (tmp_path / "kernel.ptx").write_text(gpu_host.stand_in(PTX, "sm_90"))
    subprocess.run([ptxas, "-arch=sm_90", "kernel.ptx", "-o", "kernel.cubin"], cwd=tmp_path, check=True)


def test_stand_in_of_no_kernel() -> None:
    with pytest.raises(ValueError, match="no kernel"):
        gpu_host.stand_in(".version 9.1\n", "sm_90")


def test_parts_make_up_the_call() -> None:
    measured = {"call": 48.0, "checks": 24.0, "plan": 1.0, "function": 14.0, "compiled_host_code": 2.0}
    expected = {"call": 48.0, "checks": 24.0, "plan": 1.0, "compiled_host_code": 2.0, "arguments": 12.0}
    assert shares(measured) == {**expected, "rest": 9.0}
    assert shares({"call": 3.0}) == {"call": 3.0}, "nothing that was compiled by the DSL"


@pytest.mark.heavy
@pytest.mark.parametrize("mode", ["nothing", "empty"])
def test_host_path_of_a_foreign_kernel(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUTE_DSL_ARCH", "sm_100a")
    monkeypatch.setenv("CUTE_DSL_KEEP", "ptx")
    monkeypatch.setenv("CUTE_DSL_DUMP_DIR", str(tmp_path))
    monkeypatch.setenv("CUTE_DSL_DISABLE_FILE_CACHING", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [sys.executable, "-c", WITHOUT_CUDA, str(ROOT / "submission.py"), mode]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found, loaded, launched = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == {"call", "checks", "plan", "function", "compiled_host_code"}
    assert all(0 < times["best"] <= times["median"] for times in found.values())
    assert loaded and all(".target sm_90" in text and "grouped_gemm" in text for text in loaded)
    assert (launched > 0) == (mode == "empty")


def test_script_needs_a_gpu() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "host_cost")], capture_output=True, text=True
    )
    assert done.returncode == 2 and "no CUDA device" in done.stderr and "--mode profile" in done.stderr
