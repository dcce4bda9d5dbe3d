"""One progress line for long work: a rich bar on a terminal, a sparse line every so often elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self


class Progress:
    """How much of some work is done, shown as it grows. A kind of work may have more to say (`state`, `line`)."""

    first = every = 15.0  # seconds before the first line, and between two, where there is no terminal

    def __init__(self, label: str, total: int, done: int = 0) -> None:
        """`done` of `total` were finished before; a total of 0 is not known."""
        self.label, self.total, self.done = label, total, done
        self.started = self._shown = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich import progress as bars
            from rich.console import Console

            done = (bars.TextColumn("{task.description}"), bars.BarColumn(bar_width=24), bars.MofNCompleteColumn())
            times = (bars.TimeElapsedColumn(), bars.TextColumn("left"), bars.TimeRemainingColumn())
            columns = (*done, *times, bars.TextColumn("{task.fields[state]}"))
            self._bar = bars.Progress(*columns, console=Console(stderr=True), refresh_per_second=4)
            self._bar.add_task(self.label, total=self.total or None, completed=self.done, state="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self.tell()
            self._bar.stop()

    def advance(self, count: int) -> None:
        """Count what is finished, and show it where it is time."""
        self.done += count
        now = time.monotonic()
        pause = 0.25 if self._bar is not None else self.first if self._shown == self.started else self.every
        if now - self._shown >= pause:
            self._shown = now
            self.tell()

    def tell(self) -> None:
        """Show how the work stands."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self.done, state=self.state())
        else:
            print(self.line(), file=sys.stderr, flush=True)

    def state(self) -> str:
        """What the bar says beside its numbers."""
        return ""

    def line(self) -> str:
        """The line for logs."""
        return f"{self.label}: {self.done}" + (f"/{self.total}" if self.total else "")


@contextmanager
def progress(label: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Yield `advance(count)` of a `Progress`."""
    with Progress(label, total, done) as shown:
        yield shown.advance
