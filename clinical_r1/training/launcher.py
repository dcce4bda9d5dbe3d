"""Starts a training module, several processes of it under torchrun, shows its progress, and turns its failures into
one sentence.

`launch("clinical_r1.training.sft.main", config_path, processes=1)`; on many nodes (Kubeflow Trainer sets PET_NNODES,
PET_NODE_RANK, PET_MASTER_ADDR, ...) every node calls the same, see nodes.py.

The trainee talks back through its standard output (lines that begin with MARK) and an outcome file.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
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
LONE = {
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_WORLD_SIZE": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "0",
    # Under a torchrun of the user's: the store is this process's own.
    "TORCHELASTIC_USE_AGENT_STORE": "False",
}
"""What torchrun would tell the only process of a group."""


class Preempted(SystemExit):
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
    launch(module, job_path, processes, job_path.with_suffix(".log"), label)
    return {} if node_rank() else read_result(state_dir)


def read_result(state_dir: Path) -> dict[str, Any]:
    """The numbers of a run that ended well."""
    result: dict[str, Any] = json.loads((state_dir / RESULT_FILE).read_text(encoding="utf-8"))
    return result


def launch(
    module: str, config_path: Path, processes: int = 1, log_path: Path | None = None, label: str = "training"
) -> None:
    """Run `python -m module --config config_path` in `processes` processes of this node, more than one under torchrun.

    Progress goes to the terminal, everything else to `log_path` (appended).

    Raises:
        UserError: the run refused its input, ran out of memory, or broke (the sentence names the log).
        Preempted: it was stopped by SIGTERM or SIGINT and wrote a checkpoint.
    """
    log_path = log_path or config_path.with_suffix(".log")
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        outcome_path = Path(folder) / "outcome.json"
        environment = os.environ | {OUTCOME_VARIABLE: str(outcome_path)}
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
        environment = ENVIRONMENT | environment | (LONE if _alone(processes) else {})
        with open(log_path, "a", encoding="utf-8") as log:
            process = subprocess.Popen(
                _command(module, config_path, processes), env=environment, text=True, encoding="utf-8",
                errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            with _forwarded_signals(process), _display(label) as show:
                tail = _read(process, log, show)
                code = process.wait()
        outcome = json.loads(outcome_path.read_text(encoding="utf-8")) if outcome_path.exists() else {}
    if outcome.get("kind") == "user_error":
        raise UserError(outcome["message"])
    if outcome.get("kind") == "preempted":
        raise Preempted
    if code:
        raise UserError(f"{label} broke (exit code {code}): {_last_error(tail)}; the whole log is {log_path}")


def _alone(processes: int) -> bool:
    return processes == 1 and "PET_NNODES" not in os.environ


def _command(module: str, config_path: Path, processes: int) -> list[str]:
    trainee = ["-m", module, "--config", str(config_path)]
    if _alone(processes):  # nobody to meet: torchrun would only import torch once more
        return [sys.executable, "-u", *trainee]
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    # The pod's own grace period decides how long a checkpoint may take, not torchrun's 30 seconds.
    torchrun += ["--shutdown-timeout=3600"]
    # With Kubeflow Trainer's PET_* variables torchrun meets the other nodes; else this machine is all there is.
    if "PET_NNODES" not in os.environ:
        torchrun += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"]
    return [*torchrun, *trainee]


def _read(process: subprocess.Popen[str], log: Any, show: Any) -> deque[str]:
    """Pass progress on, write the rest to the log; returns the last lines."""
    tail: deque[str] = deque(maxlen=200)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(MARK):
            show(json.loads(line[len(MARK) :]))
        else:
            tail.append(line.rstrip())
            log.write(line)
            log.flush()
    return tail


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
    """SIGTERM and SIGINT go to the trainee, or to torchrun, which tells its processes and waits for them."""

    def forward(number: int, _frame: Any) -> None:
        process.send_signal(signal.SIGTERM)

    previous: dict[signal.Signals, Any] = {}
    try:
        for name in (signal.SIGTERM, signal.SIGINT):
            previous[name] = signal.signal(name, forward)
    except ValueError:  # not the main thread: signals stay with whoever has it
        pass
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
    if sys.stdout.isatty():
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, TextColumn("{task.fields[numbers]}")) as bars:
            task = bars.add_task(label, total=None, numbers="starting")

            def draw(message: dict[str, Any]) -> None:
                text = _numbers(message["numbers"])
                name = message["label"]
                bars.update(task, description=name, completed=message["step"], total=message["total"], numbers=text)

            yield draw
        return
    last: dict[str, Any] = {"label": "", "time": 0.0}

    def tell(message: dict[str, Any]) -> None:
        now, ends = time.monotonic(), message["step"] >= message["total"]
        if message["label"] == last["label"] and now - last["time"] < SECONDS_BETWEEN_LINES and not ends:
            return
        last.update(label=message["label"], time=now)
        print(f"{message['label']} {message['step']}/{message['total']}  {_numbers(message['numbers'])}", flush=True)

    yield tell


def _numbers(values: dict[str, float]) -> str:
    return "  ".join(
        f"{name} {value:,.4g}" if abs(value) < 1000 else f"{name} {value:,.0f}" for name, value in values.items()
    )
