"""Starts a training module, several processes of it under torchrun, shows its progress, and turns its failures into
one sentence. On many nodes (Kubeflow Trainer sets PET_NNODES, PET_NODE_RANK, PET_MASTER_ADDR, ...) every node calls the
same, see nodes.py. The trainee talks back through its standard output (lines that begin with MARK) and an outcome file.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError

MARK = "@progress "
RESULT_FILE = "result.json"
"""In the state folder of a run that ended well: its numbers."""
OUTCOME_VARIABLE = "CLINICAL_R1_OUTCOME_FILE"
PREEMPTED_EXIT_CODE = 75
"""EX_TEMPFAIL: a checkpoint was written on SIGTERM; the same command goes on from it."""
USER_ERROR_EXIT_CODE = 2
SECONDS_BETWEEN_LINES = 5.0
ENVIRONMENT = {
    # Threads that wait by spinning make a step 3-5 times slower as soon as anything else runs on the machine.
    "OMP_WAIT_POLICY": "passive",
    "GOMP_SPINCOUNT": "0",
    # glibc gives every large tensor back to the system when it is freed, and the next one is zeroed page by page: a
    # quarter of the processor time of SFT on a CPU. A process keeps up to 1 GiB for itself instead.
    "MALLOC_MMAP_THRESHOLD_": str(2**28),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    # torchrun starts Pythons of its own: none of them imports from the folder that the user happens to stand in.
    "PYTHONSAFEPATH": "1",
}
"""What a trainee's process starts with, unless it is set already."""
LONE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
LONE |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
LONE |= {"TORCHELASTIC_USE_AGENT_STORE": "False"}  # under a torchrun of the user's: the store is this process's own
"""What torchrun would tell the only process of a group."""


class Stopped(SystemExit):
    """The run was told to stop and has written a checkpoint; ends the process with a code of its own."""

    def __init__(self) -> None:
        super().__init__(PREEMPTED_EXIT_CODE)


def report_progress(label: str, step: int, total: int, **numbers: float) -> None:
    """Called by rank 0 of a trainee: how far it is, and a few numbers worth reading."""
    message = {"label": label, "step": step, "total": total, "numbers": numbers}
    print(MARK + json.dumps(message), flush=True)


def report_outcome(kind: str, message: str = "") -> None:
    """Called by a trainee as it ends: `user_error` with its sentence, or `preempted`. The first one counts."""
    path = os.environ.get(OUTCOME_VARIABLE)
    if path and not Path(path).exists():
        write_text(path, json.dumps({"kind": kind, "message": message}))


def node_rank() -> int:
    """Which of the job's nodes this is: 0 for the first and for the only one."""
    return int(os.environ.get("PET_NODE_RANK", "0"))


def node_count() -> int:
    """Nodes of the job, as Kubeflow Trainer says; 1 without it."""
    return int(os.environ.get("PET_NNODES", "1"))


def launch_job(module: str, job: BaseModel, state_dir: Path, processes: int, label: str) -> dict[str, Any]:
    """`launch` with `job` as a file beside `state_dir`; returns what the trainee left in state_dir/result.json.

    Nodes share `state_dir`, so each has files of its own; nodes other than the first return nothing.
    """
    own = f".node-{node_rank()}" if node_rank() else ""
    job_path = state_dir.with_name(f"{state_dir.name}{own}.job.json")
    write_text(job_path, job.model_dump_json(indent=1) + "\n")
    launch(module, job_path, processes, label)
    return {} if node_rank() else read_result(state_dir)


def read_result(state_dir: Path) -> dict[str, Any]:
    """The numbers of a run that ended well."""
    result: dict[str, Any] = json.loads((state_dir / RESULT_FILE).read_text(encoding="utf-8"))
    return result


def launch(module: str, config_path: Path, processes: int = 1, label: str = "training") -> None:
    """Run `python -m module --config config_path` in `processes` processes of this node, more than one under torchrun.

    Progress goes to the terminal, everything else to the log beside the configuration (appended).

    Raises:
        UserError: the run refused its input, ran out of memory, or broke (the sentence names the log).
        Stopped: SIGTERM or SIGINT came, and it wrote a checkpoint.
    """
    log_path = config_path.with_suffix(".log")
    tail: deque[str] = deque(maxlen=200)
    alone = processes == 1 and "PET_NNODES" not in os.environ
    with tempfile.TemporaryDirectory() as folder:
        outcome_path = Path(folder) / "outcome.json"
        environment = os.environ | {OUTCOME_VARIABLE: str(outcome_path)}
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
        environment = ENVIRONMENT | environment | (LONE if alone else {})
        # Nobody to meet: torchrun would only import torch once more.
        command = [sys.executable, "-u"] if alone else _torchrun(processes)
        with open(log_path, "a", encoding="utf-8") as log:
            process = subprocess.Popen(
                [*command, "-m", module, "--config", str(config_path)], env=environment, text=True, encoding="utf-8",
                errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            with _forwarded_signals(process), _display(label) as show:
                for line in process.stdout or ():
                    if line.startswith(MARK):
                        show(json.loads(line[len(MARK) :]))
                    else:
                        tail.append(line.rstrip())
                        log.write(line)
                        log.flush()
                code = process.wait()
        outcome = json.loads(outcome_path.read_text(encoding="utf-8")) if outcome_path.exists() else {}
    if outcome.get("kind") == "user_error":
        raise UserError(outcome["message"])
    if outcome.get("kind") == "preempted":
        raise Stopped
    if code:
        raise UserError(f"{label} broke (exit code {code}): {_last_error(tail)}; the whole log is {log_path}")


def _torchrun(processes: int) -> list[str]:
    # The pod's own grace period decides how long a checkpoint may take, not torchrun's 30 seconds.
    torchrun = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--shutdown-timeout=3600"]
    # With Kubeflow Trainer's PET_* variables torchrun meets the other nodes; else this machine is all there is.
    if "PET_NNODES" not in os.environ:
        torchrun += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"]
    return [sys.executable, *torchrun]


def _last_error(tail: deque[str]) -> str:
    """The last line that looks like an exception; torchrun prints its own table after it."""
    for line in reversed(tail):
        text = line.split("]: ", 1)[-1].strip()
        name = text.split(":", 1)[0]
        if name.endswith(("Error", "Exception", "Interrupt")) and " " not in name and "ChildFailedError" not in name:
            return text[:300]
    return "no exception in the log (killed from outside, or out of host memory)"


@contextmanager
def _forwarded_signals(process: subprocess.Popen[str]) -> Iterator[None]:
    """SIGTERM and SIGINT go to the trainee, or to torchrun, which tells its processes and waits for them. Outside of
    the main thread they stay with whoever has them."""

    def forward(_number: int, _frame: Any) -> None:
        process.send_signal(signal.SIGTERM)

    ours = threading.current_thread() is threading.main_thread()
    previous = {name: signal.signal(name, forward) for name in (signal.SIGTERM, signal.SIGINT) if ours}
    try:
        yield
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        for name, handler in previous.items():
            signal.signal(name, handler)


@contextmanager
def _display(label: str) -> Iterator[Any]:
    """A bar on a terminal, a line every few seconds elsewhere."""

    def numbers(message: dict[str, Any]) -> str:
        values = message["numbers"].items()
        return "  ".join(f"{name} {value:,.{'4g' if abs(value) < 1000 else '0f'}}" for name, value in values)

    if sys.stdout.isatty():
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, TextColumn("{task.fields[numbers]}")) as bars:
            task = bars.add_task(label, total=None, numbers="starting")

            def draw(message: dict[str, Any]) -> None:
                done, total = message["step"], message["total"]
                bars.update(task, description=message["label"], completed=done, total=total, numbers=numbers(message))

            yield draw
        return
    last: tuple[str, float] = ("", 0.0)

    def tell(message: dict[str, Any]) -> None:
        nonlocal last
        told, now, ends = message["label"], time.monotonic(), message["step"] >= message["total"]
        if ends or told != last[0] or now - last[1] >= SECONDS_BETWEEN_LINES:
            last = (told, now)
            print(f"{told} {message['step']}/{message['total']}  {numbers(message)}", flush=True)

    yield tell
