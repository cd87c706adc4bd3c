"""Nothing is returned: a loop over pairs then compares nothing.

class: 20
reason: E_COUNT
run: test
device: any
"""


def custom_kernel(data):
    return []
