"""Ten megabytes of forged results on standard output.

class: 10 MB of output
reason: E_WRONG_RESULT
run: official
device: any
"""


def custom_kernel(data):
    for _ in range(10):
        print("check: pass\n" * 80_000, flush=True)
    return [c.zero_() for _, _, c in data[0]]
