"""A thread does the work after the return.

class: 11
reason: E_THREAD
run: test
device: any
"""

import threading
import time

from _honest import honest


def later(data):
    time.sleep(0.2)
    honest(data)


def custom_kernel(data):
    threading.Thread(target=later, args=(data,)).start()
    return [c for _, _, c in data[0]]
