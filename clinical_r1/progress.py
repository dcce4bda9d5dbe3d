"""One progress line for long work: a rich bar on a terminal, a sparse line every so often elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_BETWEEN_LINES = 15.0


@contextmanager
def progress(label: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Yield `advance(count)`; `done` of `total` were finished before; a total of 0 is not known."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as bars:
            task = bars.add_task(label, total=total or None, completed=done)
            yield lambda count: bars.advance(task, count)
        return
    state = {"done": done, "told": time.monotonic()}

    def advance(count: int) -> None:
        state["done"] += count
        if time.monotonic() - state["told"] >= SECONDS_BETWEEN_LINES:
            state["told"] = time.monotonic()
            of = f"/{total}" if total else ""
            print(f"{label}: {int(state['done'])}{of}", file=sys.stderr, flush=True)

    yield advance
