"""Results by the address of the inputs.

class: 2
reason: E_STALE_OUTPUT
run: test
device: any
"""

from _honest import honest

results = {}


def custom_kernel(data):
    key = tuple(a.data_ptr() for a, _, _ in data[0])
    if key not in results:
        results[key] = [c.clone() for c in honest(data)]
    return results[key]
