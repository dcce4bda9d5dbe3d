"""Programs that run beside a test: started with a log file, waited for, stopped. None of them outlives the test."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PATIENCE = float(os.environ.get("CLUSTER_PATIENCE", "1"))
"""Every wait may take this many times as long: for machines that are busy with other work."""


class Daemons:
    """The programs of one test run; logs are `<folder>/log/<name>.log`. The kernel kills them if the test is killed."""

    def __init__(self, folder: Path) -> None:
        self.logs = folder / "log"
        self.logs.mkdir(parents=True, exist_ok=True)
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: list[str | Path], env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a program in a session of its own; `env` adds to the environment."""
        with (self.logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | (env or {}),
                start_new_session=True,
            )
        self._running[name] = process
        return process

    def stop(self, name: str, seconds: float = 15) -> None:
        """SIGTERM, and SIGKILL when that was not enough; nothing when it does not run."""
        process = self._running.pop(name, None)
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop_all(self) -> None:
        """Stop everything, the last one first."""
        for name in reversed(list(self._running)):
            self.stop(name)

    def tail(self, name: str, lines: int = 15) -> str:
        """The end of a program's log."""
        path = self.logs / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    def wait_for(self, what: str, check: Callable[[], object], seconds: float, daemon: str = "") -> None:
        """Until `check` returns something true; an exception means not yet. Fails at once if `daemon` ends."""
        process = self._running.get(daemon)

        def guarded() -> object:
            if process is not None and process.poll() is not None:
                raise RuntimeError(f"{daemon} ended with {process.returncode}:\n{self.tail(daemon)}")
            with contextlib.suppress(Exception):
                return check()
            return None

        try:
            poll(what, guarded, seconds)
        except TimeoutError as late:
            raise TimeoutError(f"{late}\n{self.tail(daemon)}") from None


def poll(what: str, check: Callable[[], object], seconds: float, pause: float = 0.2) -> None:
    """Until `check` returns something true.

    Raises:
        TimeoutError: it did not within `seconds`.
    """
    seconds *= PATIENCE
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(pause)


@contextlib.contextmanager
def stopping(daemons: Daemons) -> Iterator[Daemons]:
    """Stops all of them at the end, whatever happened."""
    try:
        yield daemons
    finally:
        daemons.stop_all()
