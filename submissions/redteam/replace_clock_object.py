"""The worker's own measurements are falsified in its memory.

class: 32
reason: E_CLOCK
run: benchmark
device: any
"""

import gc

from _honest import honest


class Tenfold:
    """The worker's clock, ten times as fast."""

    def __init__(self, clock):
        self.clock = clock

    def __getattr__(self, name):
        return getattr(self.clock, name)

    def result(self):
        nanoseconds, late = self.clock.result()
        return nanoseconds / 10, late


for thing in gc.get_objects():
    if type(thing).__name__ == "Server":
        thing.device.clock = Tenfold(thing.device.clock)


def custom_kernel(data):
    return honest(data)
