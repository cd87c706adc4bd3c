"""The call never ends.

class: hang
reason: E_TIMEOUT
run: test
device: any
"""


def custom_kernel(data):
    while True:
        pass
