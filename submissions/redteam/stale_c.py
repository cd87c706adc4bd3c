"""After one right call nothing is computed: c still holds the result, officially.

class: 15
reason: E_NOT_WRITTEN
run: test
device: any
"""

from _honest import honest

done = []


def custom_kernel(data):
    if not done:
        done.append(True)
        return honest(data)
    return [c for _, _, c in data[0]]
