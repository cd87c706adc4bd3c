"""Processes are left behind in numbers.

class: 63
reason: E_SURVIVOR
run: test
device: cpu
"""

import os
import time

from _honest import honest


def custom_kernel(data):
    for _ in range(60):
        if os.fork() == 0:
            time.sleep(300)
            os._exit(0)
    return honest(data)
