"""An object whose unpickling runs code in the judge.

class: 73
reason: E_TYPE
run: test
device: any
"""

import os


class Bomb:
    """Runs a command in whatever process unpickles it."""

    def __reduce__(self):
        return os.system, ("echo check: pass",)


def custom_kernel(data):
    return [Bomb() for _ in data[0]]
