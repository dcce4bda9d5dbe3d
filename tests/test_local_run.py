"""The local run around kfp: what a changed setting invalidates, one run at a time, no process left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clinical_r1.errors import UserError
from clinical_r1.runs.config import load_config
from clinical_r1.runs.resolve import resolve
from pipelines.local_run import forget_finished_steps, only_run
from pipelines.runner import state_name

# A stand-in for the worker: follows its parent, and has a child of its own as the worker has its steps.
_WORKER = """
import os, subprocess, sys, threading, time
from pipelines.local_run import follow_parent
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
threading.Thread(target=follow_parent, args=(os.getppid(), 0.05), daemon=True).start()
print(os.getpid(), child.pid, flush=True)
time.sleep(600)
"""
_COMMAND = """
import subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", sys.argv[1]], start_new_session=True)
time.sleep(600)
"""


def test_a_late_setting_changes_the_arguments_of_its_own_step_only(tmp_path: Path) -> None:
    def arguments(*overrides: str) -> dict[str, object]:
        config = load_config("demo", list(overrides))
        state = tmp_path / state_name(config, "hash")
        return resolve("train", config, "hash", state, tmp_path, str(tmp_path))[1]

    before, after = arguments(), arguments("report.samples=0")
    assert [name for name in before if before[name] != after[name]] == ["report"]


def test_another_simulated_teacher_gets_a_state_of_its_own() -> None:
    plain, weaker = load_config("demo"), load_config("demo", ["simulator.endpoint.competence=0.3"])
    assert state_name(plain, "hash") != state_name(weaker, "hash")
    assert state_name(plain, "hash") != state_name(plain, "other cases")


def test_two_runs_on_the_same_cases_are_refused(tmp_path: Path) -> None:
    state = tmp_path / ".state" / "train-x"
    with only_run(state):
        with pytest.raises(UserError, match="under way"), only_run(state):
            pass
        with only_run(tmp_path / ".state" / "train-y"):
            pass
    with only_run(state):
        pass


_ORPHAN = """
import os, signal, subprocess, sys, threading, time
from pipelines.local_run import follow_parent, on_sigterm
signal.signal(signal.SIGTERM, on_sigterm)
threading.Thread(target=follow_parent, args=(os.getppid(), 0.05), daemon=True).start()
writes = '''
import os, signal, sys, time
from pathlib import Path
def write(*_):  # until the test lets it end
    told = Path(os.environ["STEP_TOLD"])
    told.touch()
    while told.exists():
        time.sleep(0.05)
    sys.exit()
signal.signal(15, write)
print(flush=True)
time.sleep(600)
'''
shell = ["sh", "-c", '"$0" -c "$1"; true', sys.executable, writes]  # as kfp starts its steps
step = subprocess.Popen(shell, stdout=subprocess.PIPE)
step.stdout.readline()
print(os.getpid(), flush=True)
step.stdout.read()
step.wait()
"""
_LOCKING = """
import subprocess, sys, time
from pathlib import Path
from pipelines.local_run import only_run
with only_run(Path(sys.argv[2])) as lock:
    subprocess.Popen([sys.executable, "-c", sys.argv[1]], start_new_session=True, pass_fds=(lock,))
    time.sleep(600)
"""


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the step of _ORPHAN makes when it is told to stop; it writes until the file is removed."""
    monkeypatch.setenv("STEP_TOLD", str(tmp_path / "told"))
    return tmp_path / "told"


def _eventually(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 300
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_killed_command_holds_its_state_until_the_step_has_written(tmp_path: Path, told: Path) -> None:
    state = tmp_path / ".state" / "train-x"
    arguments = [sys.executable, "-c", _LOCKING, _ORPHAN, str(state)]
    command = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert command.stdout is not None
    worker = int(command.stdout.readline())
    command.send_signal(signal.SIGKILL)
    command.wait()
    _eventually(told.exists)
    assert _alive(worker)
    with pytest.raises(UserError, match="last checkpoint"), only_run(state):
        pass
    told.unlink()
    _eventually(lambda: not _alive(worker))
    with only_run(state):
        pass


_STOPPED = """
import signal, subprocess, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
from pathlib import Path
from rich.console import Console
from pipelines import local_run
from pipelines.progress import Forecast
def worker(job):
    told = [sys.executable, "-c", sys.argv[1]]
    return subprocess.Popen(told, stdout=subprocess.PIPE, text=True, start_new_session=True)
local_run._start_worker = worker
folder = Path(sys.argv[2])
job = local_run.LocalJob("train", {}, folder, folder, {}, "x", 0, Forecast(folder / "none.json", {}))
local_run.run_local(job, Console())
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_a_stopped_command_waits_for_its_step_and_says_how_to_go_on(
    tmp_path: Path, told: Path, number: signal.Signals, code: int
) -> None:
    arguments = [sys.executable, "-c", _STOPPED, _ORPHAN, str(tmp_path)]
    command = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    _eventually(lambda: _text(tmp_path / "log.txt"))
    lines = _text(tmp_path / "log.txt")
    command.send_signal(number)
    _eventually(told.exists)
    if number == signal.SIGTERM:
        command.send_signal(number)
    time.sleep(0.2)
    assert command.poll() is None, "it ended while the step was writing"
    told.unlink()
    said = command.communicate(timeout=300)[0]
    assert command.returncode == code
    assert "stopping: a training ends its step" in said and "stopped; the same command goes on there" in said
    assert not _alive(int(lines))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def test_fresh_forgets_these_cases_only(tmp_path: Path) -> None:
    state = tmp_path / ".state" / "train-x"
    for folder in (state, tmp_path / ".cache" / "train-x", tmp_path / ".cache" / "train-y"):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    forget_finished_steps(tmp_path, state)
    assert not state.exists() and not (tmp_path / ".cache" / "train-x").exists()
    assert (tmp_path / ".cache" / "train-y" / "file").exists()


def test_a_killed_command_leaves_no_worker_and_no_step() -> None:
    command = subprocess.Popen([sys.executable, "-c", _COMMAND, _WORKER], stdout=subprocess.PIPE, text=True)
    assert command.stdout is not None
    processes = [int(word) for word in command.stdout.readline().split()]
    assert len(processes) == 2 and all(map(_alive, processes))
    command.send_signal(signal.SIGKILL)
    command.wait()
    _eventually(lambda: not any(map(_alive, processes)))


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # A zombie that nobody has collected yet is not alive.
    status = Path(f"/proc/{process}/stat")
    return not status.is_file() or status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
