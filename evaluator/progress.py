"""Progress while a run goes on: live on a terminal, a line per case (and a sign of life) elsewhere."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from evaluator.results import CaseResult

#: Without a terminal, a case that takes long is mentioned this often.
_SIGN_OF_LIFE_SECONDS = 20.0


class PlainProgress:
    """One line per finished case, in the order in which they finish."""

    def __init__(self, line: Callable[[CaseResult], str], count: int, out: TextIO) -> None:
        self.line, self.count, self.out = line, count, out
        self.done = 0
        self._lock = threading.Lock()
        self._stages: dict[int, tuple[CaseResult, str, float]] = {}
        self._over = threading.Event()

    def stage(self, lane: int, result: CaseResult, text: str) -> None:
        with self._lock:
            known = self._stages.get(lane)
            since = known[2] if known and known[0] is result else time.monotonic()
            self._stages[lane] = (result, text, since)

    def finished(self, lane: int, result: CaseResult) -> None:
        with self._lock:
            self._stages.pop(lane, None)
            self.done += 1
            self._print(f"[{self.done}/{self.count}] {self.line(result)}", result.verdict.passed)

    def __enter__(self) -> PlainProgress:
        threading.Thread(target=self._live_signs, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _print(self, line: str, good: bool = True) -> None:
        print(line, file=self.out, flush=True)

    def _live_signs(self) -> None:
        while not self._over.wait(_SIGN_OF_LIFE_SECONDS):
            with self._lock:
                for result, text, since in self._stages.values():
                    self._print(f"    {result.case.name}: {text}, {time.monotonic() - since:.0f} s")


class RichProgress(PlainProgress):
    """A bar for the run and a moving line for every lane."""

    def __init__(self, line: Callable[[CaseResult], str], count: int, progress: Any) -> None:
        super().__init__(line, count, sys.stdout)
        self.progress = progress
        self.total = progress.add_task("cases", total=count)
        self.lanes: dict[int, Any] = {}

    def stage(self, lane: int, result: CaseResult, text: str) -> None:
        super().stage(lane, result, text)
        described = f"  {result.case.name}: {text}"
        if lane not in self.lanes:
            self.lanes[lane] = self.progress.add_task(described, total=None)
        self.progress.update(self.lanes[lane], description=described, visible=True)

    def finished(self, lane: int, result: CaseResult) -> None:
        super().finished(lane, result)
        self.progress.advance(self.total)
        if lane in self.lanes:
            self.progress.reset(self.lanes[lane], visible=False)

    def _print(self, line: str, good: bool = True) -> None:
        from rich.markup import escape

        colour = "green" if good else "red"
        self.progress.console.print(f"[{colour}]{escape(line)}[/{colour}]", highlight=False)

    def _live_signs(self) -> None:
        pass  # the moving lines are sign enough

    def __enter__(self) -> RichProgress:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()


@contextlib.contextmanager
def display(
    line: Callable[[CaseResult], str], count: int, out: TextIO = sys.stdout
) -> Iterator[PlainProgress]:
    """The progress display that suits `out`; `line` is what it says of a case that is done."""
    chosen: PlainProgress = PlainProgress(line, count, out)
    if out.isatty():
        with contextlib.suppress(ImportError):
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
            )
            chosen = RichProgress(line, count, Progress(*columns, transient=True))
    with chosen:
        yield chosen
