"""All calls of a window computed in its first, the others are lookups.

class: 6
reason: E_COMPUTED_AHEAD
run: test
device: any
"""

from _honest import honest

known, ready = {}, {}


def custom_kernel(data):
    key = id(data[0][0][0])
    if key not in known:  # learn: the same objects will come back
        known[key] = data
        return honest(data)
    if key not in ready:  # first call of a window: all at once
        for other, inputs in known.items():
            ready[other] = [c.clone() for c in honest(inputs)]
    return ready.pop(key)
