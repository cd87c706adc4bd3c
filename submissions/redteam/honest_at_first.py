"""Right for a few calls, as long as a warm-up lasts; then the last result again and again.

class: 52
reason: E_STALE_OUTPUT
run: test
device: any
"""

from _honest import honest

calls, kept = [], {}


def custom_kernel(data):
    calls.append(0)
    if len(calls) <= 3:
        kept[tuple(data[3])] = [c.clone() for c in honest(data)]
    return kept[tuple(data[3])]
