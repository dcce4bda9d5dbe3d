"""What a user sees while a pipeline runs under kfp.local: one row a step, not the executor's dumps.

`StepTracker` reads the worker's output line by line and knows which step is where; `LiveView` draws it on a terminal,
`PlainView` prints sparse lines elsewhere (CI, a file). The raw output goes to the run's log.txt in either case.
"""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from clinical_r1.atomic import write_text

_EXECUTING = re.compile(r"Executing task '(?P<task>[^']+)'")
_FINISHED = re.compile(r"Task '(?P<task>[^']+)' finished with status (?P<status>\w+)")
_CACHED = re.compile(r"Task (?P<task>\S+) cache hit")
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# What a step says in the end (clinical_r1.step.one_sentence), or the last line of a child's traceback.
_USER_ERROR = re.compile(r"^(?:clinical_r1\.[\w.]+|error): (?P<message>.+)")
_SHARE = re.compile(r"(\d+)\s*/\s*(\d+)|(\d+(?:\.\d+)?)\s*%")
_NOISE = re.compile(r"^(\[KFP Executor|\d\d:\d\d:\d\d\.\d+ - |[{}\]\"]|Traceback|File |warnings\.warn|W\d{4} |\[W)")
_QUOTED_CODE = " " * 5
"""kfp.local indents what a step prints by four; deeper is a traceback's code or a dump."""


@dataclass
class Step:
    """One task of the pipeline as the user sees it."""

    title: str
    state: str = "waiting"
    """waiting | running | done | reused | failed."""
    started: float = 0.0
    seconds: float = 0.0
    message: str = ""
    share: float | None = None
    """Progress in 0..1 where the last message tells one."""


class View(Protocol):
    """Something that shows the steps."""

    def __enter__(self) -> "View": ...
    def __exit__(self, *exception: object) -> None: ...
    def changed(self, step: Step, event: str) -> None:
        """`event` is started | finished | reused | failed | message."""


class StepTracker:
    """Turns the worker's lines into the state of steps."""

    def __init__(self, titles: dict[str, str], view: View) -> None:
        self.steps = {task: Step(title) for task, title in titles.items()}
        self.user_error = ""
        self.view = view
        self._current: Step | None = None

    @property
    def current(self) -> Step | None:
        """The step that runs now."""
        return self._current

    def read(self, line: str) -> None:
        """Take one line of output."""
        plain = _ANSI.sub("", line)
        text = plain.strip()
        if match := _EXECUTING.search(text):
            self._start(self._step(match["task"]))
        elif match := _FINISHED.search(text):
            self._finish(self._step(match["task"]), match["status"] == "SUCCESS")
        elif match := _CACHED.search(text):
            step = self._step(match["task"])
            step.state = "reused"
            self.view.changed(step, "reused")
        elif match := _USER_ERROR.search(text):
            self.user_error = match["message"].strip()
        elif self._current and text and not plain.startswith(_QUOTED_CODE) and not _NOISE.match(text):
            self._say(self._current, text)

    def _step(self, task: str) -> Step:
        return self.steps.setdefault(task, Step(task))

    def _start(self, step: Step) -> None:
        step.state, step.started = "running", time.monotonic()
        self._current = step
        self.view.changed(step, "started")

    def _finish(self, step: Step, well: bool) -> None:
        step.state, step.seconds = "done" if well else "failed", time.monotonic() - step.started
        step.share = None
        self._current = None
        self.view.changed(step, "finished" if well else "failed")

    def _say(self, step: Step, text: str) -> None:
        step.message = text
        if match := _SHARE.search(text):
            done, total, percent = match.groups()
            share = float(percent) / 100 if percent else float(done) / max(float(total), 1.0)
            step.share = share if 0 <= share <= 1 else None
        self.view.changed(step, "message")


DEMO_SECONDS: Mapping[str, float] = {
    "Synthesize traces": 52,
    "Fine-tune (SFT)": 586,
    "Evaluate after SFT": 21,
    "Reinforce (RL)": 282,
    "Evaluate after RL": 24,
    "Promotion gate": 27,
}
"""What the steps of `make run` that take ten seconds or more took on two idle cores (docs/benchmarks.md)."""


class Forecast:
    """How long a run takes here: what the same run took the last time, else its reference times (seconds by title) at
    the speed of the first of these steps that this machine has finished; nothing for a run of other sizes."""

    def __init__(self, past: Path, reference: Mapping[str, float]) -> None:
        self._past = past
        here: dict[str, float] = json.loads(past.read_text(encoding="utf-8")) if past.is_file() else {}
        self._seconds = here or reference
        self._open = not here and bool(reference)

    def at_start(self, steps: Mapping[str, Step]) -> str:
        """What will happen, and how long it takes as far as that is known."""
        whole = f"{len(steps)} steps: " + ", ".join(step.title for step in steps.values())
        if not self._seconds:
            return whole
        known = "it took {} here the last time" if not self._open else (
            "about {} on two cores; how long on this machine, its first minutes will tell"
        )  # fmt: skip
        return f"{whole}; {known.format(_minutes(sum(self._seconds.values())))}"

    def measured(self, steps: Mapping[str, Step]) -> str:
        """Once, when the first step that has a reference time is done: what is left at this machine's speed; or ""."""
        done = [step for step in steps.values() if step.state == "done" and self._seconds.get(step.title)]
        if not self._open or not done:
            return ""
        self._open = False
        speed = sum(step.seconds for step in done) / sum(self._seconds[step.title] for step in done)
        over = {step.title for step in steps.values() if step.state in ("done", "reused")}
        left = sum(seconds for title, seconds in self._seconds.items() if title not in over)
        return f"at this machine's speed: about {_minutes(speed * left)} more"

    def keep(self, steps: Mapping[str, Step]) -> None:
        """Remember what a run took that did all of its steps here."""
        took = {step.title: round(step.seconds, 1) for step in steps.values() if step.state == "done"}
        if took and not any(step.state == "reused" for step in steps.values()):
            self._past.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._past, json.dumps(took, ensure_ascii=False))


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


class PlainView:
    """A line when a step starts and ends, and at most one line each `interval` seconds between."""

    def __init__(self, console: Console, interval: float = 15.0) -> None:
        self._console, self._interval, self._last = console, interval, 0.0

    def __enter__(self) -> "PlainView":
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def changed(self, step: Step, event: str) -> None:
        """Print what is worth a line."""
        now = time.monotonic()
        if event == "message" and now - self._last < self._interval:
            return
        self._last = now
        words = {
            "started": f"> {step.title}",
            "finished": f"  {step.title}: done in {step.seconds:.0f} s",
            "reused": f"  {step.title}: reused, nothing changed",
            "failed": f"  {step.title}: FAILED after {step.seconds:.0f} s",
            "message": f"  {step.title}: {step.message[:150]}",
        }
        self._console.print(words[event], markup=False, highlight=False)


class LiveView:
    """A table that is redrawn in place."""

    _MARK = {"waiting": "[dim]·[/]", "running": "[cyan]▶[/]", "done": "[green]✓[/]", "reused": "[green]↺[/]"}

    def __init__(self, console: Console, steps: dict[str, Step]) -> None:
        self._steps = steps
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=4)

    def __enter__(self) -> "LiveView":
        self._live.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.__exit__(None, None, None)

    def changed(self, step: Step, event: str) -> None:
        """Rows are read when the table is drawn next; nothing to do per event."""

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for step in self._steps.values():
            running = step.state == "running"
            seconds = time.monotonic() - step.started if running else step.seconds
            bar = ProgressBar(total=1.0, completed=step.share, width=24) if running and step.share is not None else ""
            note = {"reused": "reused, nothing changed", "running": step.message[:90]}.get(step.state, "")
            mark = self._MARK.get(step.state, "[red]✗[/]")
            table.add_row(
                mark, step.title, f"{seconds:.0f} s" if seconds else "", bar, f"[dim]{note}[/]" if note else ""
            )
        return table
