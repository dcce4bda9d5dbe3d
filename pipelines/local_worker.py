"""Runs one pipeline under kfp.local in a process of its own; `pipelines.local_run` reads what it prints.

kfp.local prints executor dumps and patches `print`; a process of its own keeps that away from the user's terminal.
Usage: python -m pipelines.local_worker JOB.json
"""

import json
import logging
import os
import signal
import sys
import threading
import time
import warnings
from contextlib import suppress

import psutil

from clinical_r1.atomic import write_text
from pipelines.registry import load_pipeline

_STOPPING = threading.Lock()


def on_sigterm(_number: int, _frame: object) -> None:
    """Stop in a thread of its own: kfp's loop in this one goes on passing the step's words to who reads them."""
    threading.Thread(target=end_with_steps).start()


def follow_parent(parent: int, every: float = 1.0) -> None:
    """End this process and its steps when the command that started it is gone, even by kill -9."""
    while os.getppid() == parent:
        time.sleep(every)
    end_with_steps()


def end_with_steps(every: float = 0.1) -> None:
    """Tell the steps to stop, each once, and end when they have: a training ends its step and writes a checkpoint.

    However long that takes, this process stays, and with it the run's lock. What kfp starts meanwhile is told as well.
    """
    if not _STOPPING.acquire(blocking=False):
        return
    told: set[int] = set()
    while steps := _steps():
        for pid in steps - told:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        told |= steps
        time.sleep(every)
    os._exit(128 + signal.SIGTERM)


def _steps() -> set[int]:
    """What runs in this process's group: kfp starts a step through a shell, which ends at once and leaves its child."""
    found = set()
    for process in psutil.process_iter(["status"]):
        with suppress(ProcessLookupError):
            if process.info["status"] != psutil.STATUS_ZOMBIE and os.getpgid(process.pid) == os.getpgrp():
                found.add(process.pid)
    return found - {os.getpid()}


def main() -> None:
    """JOB.json: {"pipeline", "arguments", "pipeline_root", "cache_root", "outputs_file", "parent"};
    the folders of the pipeline's output artifacts are written to outputs_file."""
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
    main()
