"""python -m b200sim SCRIPT [ARGUMENTS...]: run a Python script that expects a GPU, on the simulated one.

python -m b200sim train.py --steps 3
python -m b200sim --gpu h200 --sms 8 kernel.py
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

# The simulator multiplies many small matrices: on a busy machine threads for them cost several times what
# they gain. Read when numpy and torch are imported, by children too.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from b200sim.gpus import B200, GPUS  # noqa: E402
from b200sim.script import Setup, run  # noqa: E402


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m b200sim",
        description="Run a Python script as if this machine had a GPU, with torch and CuTe-DSL.",
        epilog="""\
The script's children by multiprocessing (start method spawn, or fork) have the GPU too, each one of its own.
Other programs it starts do not: let it start them with `python -m b200sim`.

There is no clock: an event can be recorded, but asking for the time between two raises `Unsupported`. Device
memory is this machine's memory: a script that fills 180 GB does not run here. Threads that the script starts
have no GPU.

exit codes: the script's; 1 if it ended with an exception; 2 wrong usage, or no such script""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--gpu", choices=sorted(GPUS), default=B200.key, help="default: %(default)s")
    parser.add_argument("--sms", type=int, metavar="N", help="only so many SMs")
    parser.add_argument("--time-limit", type=float, metavar="S", help="seconds until a launch counts as hung")
    parser.add_argument("script", type=Path, metavar="SCRIPT")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGUMENTS")
    options = parser.parse_args(arguments)
    setup = Setup(options.gpu, options.sms, options.time_limit)
    try:
        setup.chosen()
    except ValueError as error:
        parser.error(str(error))
    try:
        source = options.script.read_bytes()
    except OSError as error:
        parser.error(f"cannot read {options.script}: {error.strerror}")
    return run(options.script, source, options.arguments, setup)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
