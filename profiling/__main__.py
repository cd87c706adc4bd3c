"""python -m profiling SUBMISSION OUTPUT.json [--plot FILE] < CASES.json

CASES.json: [{"name": ..., "sizes": [[M, N, K], ...]}, ...]. Writes a list with the figures of each case, or
with "error" where the submission or its kernel failed. `eval.py --mode profile` starts this, in a process of
its own because a submission runs in it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from profiling import plot
from profiling.replay import Timeline
from profiling.run import profile


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m profiling")
    parser.add_argument("submission", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    drawn: list[tuple[str, dict[str, Any], list[Timeline]]] = []
    for case in json.load(sys.stdin):
        try:
            figures, timelines = profile(options.submission, [tuple(size) for size in case["sizes"]])
        except Exception as error:  # the other cases may do better
            results.append({"error": f"{type(error).__name__}: {error}"[:2000]})
            continue
        results.append(figures)
        if timelines:
            drawn.append((case["name"], figures, timelines))
    options.output.write_text(json.dumps(results))
    if options.plot and drawn:
        plot.draw(options.plot, drawn)


if __name__ == "__main__":
    main()
