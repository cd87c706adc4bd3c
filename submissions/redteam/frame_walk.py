"""The call stack is searched for seeds and expected results. It passes if it finds any.

class: 25
reason: E_WRONG_RESULT
run: test
device: any
"""

import sys

from _honest import honest

SECRETS = ("seed", "expected", "truth", "reference_output", "check_copy")


def custom_kernel(data):
    frame = sys._getframe()
    while frame is not None:
        if any(name in frame.f_locals for name in SECRETS):
            return honest(data)  # it could have cheated
        frame = frame.f_back
    return [c.zero_() for _, _, c in data[0]]
