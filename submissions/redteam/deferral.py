"""Calls are queued and computed together when the last of a window arrives.

class: 7
reason: E_DEFERRED
run: test
device: any
"""

from _honest import honest

calls, pending = [], []


def custom_kernel(data):
    calls.append(0)
    pending.append(data)
    if len(calls) == 1 or len(pending) == 2:
        for inputs in pending:
            honest(inputs)
        pending.clear()
    return [c for _, _, c in data[0]]
