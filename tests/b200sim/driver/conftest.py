"""A registry that keeps books and a device that records its launches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from b200sim.driver import Launch, SimulatedCuda, simulated_device


class Registry:
    """Live allocations by address; complains about overlaps and unknown addresses."""

    def __init__(self) -> None:
        self.live: dict[int, tuple[str, int]] = {}

    def add(self, name: str, address: int, nbytes: int, writable: bool = True) -> None:
        for other, (_, size) in self.live.items():
            assert address + nbytes <= other or other + size <= address, "allocations overlap"
        self.live[address] = (name, nbytes)

    def remove(self, address: int) -> None:
        del self.live[address]


@dataclass
class Recorder:
    """Keeps launches and their parameters' bytes; `react` may raise."""

    launches: list[Launch] = field(default_factory=list)
    values: list[list[bytes]] = field(default_factory=list)
    react: Callable[[Launch], None] | None = None

    def __call__(self, launch: Launch) -> None:
        self.launches.append(launch)
        self.values.append(launch.parameter_values())
        if self.react is not None:
            self.react(launch)


@dataclass
class Device:
    recorder: Recorder
    registry: Registry
    cuda: SimulatedCuda


@contextlib.contextmanager
def recording_device() -> Iterator[Device]:
    recorder, registry = Recorder(), Registry()
    with simulated_device(recorder, registry) as cuda:
        yield Device(recorder, registry, cuda)


@pytest.fixture
def device() -> Iterator[Device]:
    with recording_device() as active:
        yield active


@pytest.fixture
def open_device() -> Callable[[], contextlib.AbstractContextManager[Device]]:
    return recording_device
