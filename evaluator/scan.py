"""A text scan of the submission: what a reader should look at. It never refuses anything.

Honest files use many of these words, and a scan sees no intent; verdicts come from what a submission does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_MOST = 20
#: Pattern -> why it is worth a look.
_LOOK_AT: tuple[tuple[str, str], ...] = (
    (r"POPCORN_", "names the official runner's variables"),
    (r"\b(sys\._getframe|inspect\.(stack|currentframe)|tb_frame|f_back)\b", "walks the call stack"),
    (r"\bgc\.(get_objects|get_referrers|get_referents)\b", "searches all objects of the process"),
    (r"/proc/|/dev/shm|\bptrace\b|process_vm_(read|write)v", "looks at processes or shared memory"),
    (r"__code__|__globals__|__reduce__|\bsys\.modules\b", "reaches into other modules or objects"),
    (r"(?<![.\w])(exec|eval|compile)\s*\(", "runs text as code"),
    (r"\bbase64\b|\bmarshal\b|\bpickle\b|\bzlib\b", "unpacks data"),
    (
        r"\b(threading|multiprocessing|subprocess|concurrent\.futures|os\.fork)\b",
        "starts threads or processes",
    ),
    (r"torch\.cuda\.(Event|synchronize|Stream|stream|CUDAGraph|graph)\b", "handles queues, events or graphs"),
    (r"\b(current_stream|side_?stream|cudaStreamCreate\w*|cuStreamCreate\w*)\b", "names queues"),
    (r"\b(data_ptr\(\)|id\(\w+\))\s*(in|not in)\b|\[\s*\w+\.data_ptr\(\)\s*\]", "looks things up by address"),
    (r"\b(cudaLimitPersistingL2|accessPolicyWindow|PERSISTING_L2)\w*", "keeps data in the L2 cache"),
    (r"\b(urllib|requests|socket|http\.client|pip)\b", "may use the network"),
    (r"\b(perf_counter|monotonic|time\.time)\b\s*=", "replaces a clock"),
    (r"torch\.(allclose|isclose|equal|cuda\.\w+)\s*=[^=]", "replaces a function of torch"),
)
_COMPILED = [(re.compile(pattern), why) for pattern, why in _LOOK_AT]


@dataclass(frozen=True)
class Remark:
    """A line of the submission and why to look at it."""

    line: int
    text: str
    why: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.why}: {self.text}"


def scan(source: bytes) -> list[Remark]:
    """Remarks on a submission's text, at most 20; comments are scanned as well."""
    remarks: list[Remark] = []
    for number, line in enumerate(source.decode(errors="replace").splitlines(), 1):
        for pattern, why in _COMPILED:
            if pattern.search(line):
                remarks.append(Remark(number, line.strip()[:100], why))
                break
        if len(remarks) == _MOST:
            break
    return remarks
