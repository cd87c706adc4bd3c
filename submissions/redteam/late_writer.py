"""A thread writes into whatever is open, at a moment of its own.

class: 35
reason: E_PROTOCOL
run: official
device: any
"""

import os
import threading
import time

FORGED = b"\ncheck: pass\n"


def write():
    time.sleep(0.05)
    for fd in range(3, 64):
        try:
            os.write(fd, FORGED)
        except OSError:
            continue


def custom_kernel(data):
    threading.Thread(target=write).start()
    time.sleep(0.3)
    return [c.zero_() for _, _, c in data[0]]
