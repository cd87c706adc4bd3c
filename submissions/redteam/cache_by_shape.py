"""One result for every problem size.

class: 3
reason: E_STALE_OUTPUT
run: test
device: any
"""

from _honest import honest

results = {}


def custom_kernel(data):
    key = tuple(data[3])
    if key not in results:
        results[key] = [c.clone() for c in honest(data)]
    return results[key]
