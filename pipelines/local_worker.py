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

from clinical_r1.atomic import write_text
from pipelines.registry import load_pipeline

_ORPHANED = threading.Event()


def end_on_sigterm(number: int, _: object) -> None:
    """End at once; an orphan stays until its steps have written their checkpoints, and with it the run's lock."""
    if not _ORPHANED.is_set():
        os._exit(128 + number)


def follow_parent(parent: int, every: float = 1.0) -> None:
    """End this process and its steps when the command that started it is gone, even by kill -9.

    SIGTERM to the whole group: training writes a checkpoint, as it does on Ctrl-C.
    """
    while os.getppid() == parent:
        time.sleep(every)
    _ORPHANED.set()
    os.killpg(os.getpgrp(), signal.SIGTERM)


def main() -> None:
    """JOB.json: {"pipeline", "arguments", "pipeline_root", "cache_root", "outputs_file", "parent"};
    the folders of the pipeline's output artifacts are written to outputs_file."""
    from kfp import local

    with open(sys.argv[1], encoding="utf-8") as handle:
        job = json.load(handle)
    signal.signal(signal.SIGTERM, end_on_sigterm)
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
