"""What a user sees while a pipeline runs under kfp.local: one row a step, not the executor's dumps.

`StepTracker` reads the worker's output line by line and knows which step is where; `live_table` draws it on a terminal,
`plain_view` prints sparse lines elsewhere (CI, a file). The raw output goes to the run's log.txt in either case.
"""

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

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
_MARKS = {"waiting": ("·", "dim"), "running": ("▶", "cyan"), "done": ("✓", "green"), "reused": ("↺", "green")}


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


class StepTracker:
    """Turns the worker's lines into the state of steps; tells `view` of each change: the step, and its new state or
    `message`."""

    def __init__(self, titles: dict[str, str], view: Callable[[Step, str], None]) -> None:
        self.steps = {task: Step(title) for task, title in titles.items()}
        self.user_error = ""
        self.current: Step | None = None
        """The step that runs now."""
        self._view = view

    def read(self, line: str) -> None:
        """Take one line of output."""
        plain = _ANSI.sub("", line)
        text = plain.strip()
        if match := _EXECUTING.search(text) or _FINISHED.search(text) or _CACHED.search(text):
            self._change(self.steps.setdefault(match["task"], Step(match["task"])), match)
        elif match := _USER_ERROR.search(text):
            self.user_error = match["message"].strip()
        elif self.current and text and not plain.startswith(_QUOTED_CODE) and not _NOISE.match(text):
            self.current.message = text
            if match := _SHARE.search(text):
                done, total, percent = match.groups()
                share = float(percent) / 100 if percent else float(done) / max(float(total), 1.0)
                self.current.share = share if 0 <= share <= 1 else None
            self._view(self.current, "message")

    def _change(self, step: Step, match: re.Match[str]) -> None:
        if match.re is _EXECUTING:
            step.state, step.started, self.current = "running", time.monotonic(), step
        elif match.re is _CACHED:
            step.state = "reused"
        else:
            step.state = "done" if match["status"] == "SUCCESS" else "failed"
            step.seconds, step.share, self.current = time.monotonic() - step.started, None, None
        self._view(step, step.state)


def plain_view(console: Console, interval: float = 15.0) -> Callable[[Step, str], None]:
    """Prints a line when a step starts and ends, and at most one line each `interval` seconds between."""
    last = 0.0

    def show(step: Step, event: str) -> None:
        nonlocal last
        now = time.monotonic()
        if event == "message" and now - last < interval:
            return
        last = now
        words = {
            "running": f"> {step.title}",
            "done": f"  {step.title}: done in {step.seconds:.0f} s",
            "reused": f"  {step.title}: reused, nothing changed",
            "failed": f"  {step.title}: FAILED after {step.seconds:.0f} s",
            "message": f"  {step.title}: {step.message[:150]}",
        }
        console.print(words[event])

    return show


def live_table(steps: Mapping[str, Step]) -> Table:
    """The rows of all steps as they are now."""
    table = Table.grid(padding=(0, 2))
    for step in steps.values():
        running = step.state == "running"
        seconds = time.monotonic() - step.started if running else step.seconds
        bar = ProgressBar(total=1.0, completed=step.share, width=24) if running and step.share is not None else ""
        note = {"reused": "reused, nothing changed", "running": step.message[:90]}.get(step.state, "")
        mark = Text(*_MARKS.get(step.state, ("✗", "red")))
        table.add_row(mark, Text(step.title), f"{seconds:.0f} s" if seconds else "", bar, Text(note, "dim"))
    return table


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
        whole, time_ = ", ".join(step.title for step in steps.values()), _minutes(sum(self._seconds.values()))
        known = f"; it took {time_} here the last time" if self._seconds else ""
        if self._open:
            known = f"; about {time_} on two cores; how long on this machine, its first minutes will tell"
        return f"{len(steps)} steps: {whole}{known}"

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
