"""Runs a pipeline on this machine through Kubeflow Pipelines' own local runner, with readable progress.

Layout under the runs folder (default `runs/`):
    <time>-<pipeline>/   one run: config.yaml, log.txt, report.html, summary.json, links to the models
    latest               link to the newest finished run
    .outputs/ .cache/    artifacts of the steps and kfp's cache of them
    .state/              journals and checkpoints: what lets a stopped run go on where it was

kfp.local prints executor dumps and patches `print`: it runs in a process of its own, the worker (`python -m
pipelines.local_run JOB.json`), whose output is read here.
"""

import fcntl
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.live import Live

from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError
from pipelines.progress import Forecast, StepTracker, live_table, plain_view
from pipelines.registry import load_pipeline

_STOPPING = threading.Lock()


class Terminated(SystemExit):
    """SIGTERM: the same orderly stop as Ctrl-C, and the exit code of its own."""


@contextmanager
def _sigterm_stops() -> Iterator[None]:
    """SIGTERM (a batch system, `timeout`, a shutdown) would end the command without a word about the run.

    It counts once: `timeout` sends it to the command and then to its group.
    """

    def stop(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise Terminated(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclass
class LocalJob:
    """One run of one pipeline: `arguments` go to the pipeline function."""

    pipeline: str
    arguments: dict[str, object]
    runs_dir: Path
    run_dir: Path
    titles: dict[str, str]
    """Task name in the compiled pipeline -> what the user reads, in the order of the definition."""
    cache: str
    """Folder under runs_dir/.cache where finished steps are looked up."""
    lock: int
    """Descriptor of the state folder's lock (only_run); the worker holds it while a step still writes."""
    forecast: Forecast
    fresh: bool = False
    """The user asked for --fresh (the word at the end of a stopped run says to leave it out)."""


@contextmanager
def only_run(state_dir: Path) -> Iterator[int]:
    """Hold the state folder: two runs at once would empty each other's checkpoints. Raises UserError where held.

    Yields the lock's descriptor: who inherits it holds the folder on when this process is killed.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    with open(state_dir.with_name(state_dir.name + ".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            runs = state_dir.parent.parent
            raise UserError(
                f"{runs}: another run on the same cases is under way, or writes its last checkpoint: wait for it, "
                "or give --runs another folder"
            ) from None
        yield lock.fileno()


def forget_finished_steps(runs_dir: Path, state_dir: Path) -> None:
    """Begin anew: drop the cache of finished steps, the journals and the checkpoints of one run's cases."""
    shutil.rmtree(runs_dir / ".cache" / state_dir.name, ignore_errors=True)
    shutil.rmtree(state_dir, ignore_errors=True)


def run_local(job: LocalJob, console: Console) -> None:
    """Run to the end; raises UserError with the failing step's sentence.

    Ctrl-C and SIGTERM are passed on (KeyboardInterrupt, Terminated) when the steps have ended.
    """
    job.run_dir.mkdir(parents=True, exist_ok=True)
    log_path = job.run_dir / "log.txt"
    process = _start_worker(job)
    live = console.is_terminal
    tracker = StepTracker(job.titles, (lambda *_: None) if live else plain_view(console))
    view = Live(console=console, get_renderable=lambda: live_table(tracker.steps)) if live else nullcontext()
    console.print(job.forecast.at_start(tracker.steps))
    assert process.stdout is not None
    with _sigterm_stops(), open(log_path, "w", encoding="utf-8") as log:
        try:
            with view:
                for line in process.stdout:
                    log.write(line)
                    log.flush()
                    tracker.read(line)
                    if told := job.forecast.measured(tracker.steps):
                        console.print(told)
            code = process.wait()
        except (KeyboardInterrupt, Terminated):
            where = f" in step '{tracker.current.title}'" if tracker.current else ""
            console.print(f"stopping{where}: a training ends its step and writes a checkpoint first")
            # There is no limit to a training's last step. After another Ctrl-C this command ends at once; the worker
            # does not, and holds the run's lock until its steps have ended.
            process.terminate()
            log.writelines(process.stdout)
            process.wait()
            command = "the same command without --fresh" if job.fresh else "the same command"
            console.print(f"stopped{where}; {command} goes on there")
            raise
    if code != 0:
        failed = next((step.title for step in tracker.steps.values() if step.state in ("failed", "running")), "start")
        raise UserError(tracker.user_error or f"step '{failed}' failed: the full output is in {log_path}")
    job.forecast.keep(tracker.steps)


def _start_worker(job: LocalJob) -> subprocess.Popen:
    description = {
        "pipeline": job.pipeline,
        "arguments": job.arguments,
        "pipeline_root": str(job.runs_dir / ".outputs"),
        "cache_root": str(job.runs_dir / ".cache" / job.cache),
        "outputs_file": str(job.run_dir / "outputs.json"),
        "parent": os.getpid(),
    }
    job_file = job.run_dir / "job.json"
    write_text(job_file, json.dumps(description, indent=1))
    # OpenMP threads that spin while they wait slow every other process on a small machine down by a factor of 3 to 5.
    # Steps start Python of their own: none of them imports from the folder that the user happens to stand in.
    told = {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}
    environment = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"} | os.environ | told
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "pipelines.local_run", str(job_file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
        errors="replace",
        # Its own session: Ctrl-C reaches only us, and the steps are stopped in order.
        start_new_session=True,
        pass_fds=(job.lock,),
        env=environment,
    )


def on_sigterm(_number: int, _frame: object) -> None:
    """In the worker: stop in a thread; kfp's loop in this one goes on passing the step's words to who reads them."""
    threading.Thread(target=end_with_steps).start()


def follow_parent(parent: int, every: float = 1.0) -> None:
    """End the worker and its steps when the command that started it is gone, even by kill -9."""
    while os.getppid() == parent:
        time.sleep(every)
    end_with_steps()


def end_with_steps() -> None:
    """Tell the steps to stop, each once, and end when they have: a training ends its step and writes a checkpoint.

    However long that takes, the worker stays, and with it the run's lock. What kfp starts meanwhile is told as well.
    """
    if not _STOPPING.acquire(blocking=False):
        return
    told: set[int] = set()
    while steps := _steps():
        for pid in steps - told:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        told |= steps
        time.sleep(0.1)
    os._exit(128 + signal.SIGTERM)


def _steps() -> set[int]:
    """What runs in this process's group: kfp starts a step through a shell, which ends at once and leaves its child."""
    found = set()
    for process in psutil.process_iter(["status"]):
        with suppress(ProcessLookupError):
            if process.info["status"] != psutil.STATUS_ZOMBIE and os.getpgid(process.pid) == os.getpgrp():
                found.add(process.pid)
    return found - {os.getpid()}


def work() -> None:
    """The worker: runs what JOB.json describes, writes the folders of the pipeline's output artifacts."""
    from kfp import local

    with open(sys.argv[1], encoding="utf-8") as handle:
        job = json.load(handle)
    signal.signal(signal.SIGTERM, on_sigterm)
    threading.Thread(target=follow_parent, args=(job["parent"],), daemon=True).start()
    # kfp says at this level that it reuses a finished step; progress.py reads it.
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    warnings.filterwarnings("ignore", category=RuntimeWarning)
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=job["pipeline_root"],
        cache_root=job["cache_root"],
        enable_caching=True,
    )
    task = load_pipeline(job["pipeline"])(**job["arguments"])
    folders = {name: artifact.path for name, artifact in task.outputs.items()}
    write_text(job["outputs_file"], json.dumps(folders, indent=1))


if __name__ == "__main__":
    work()
