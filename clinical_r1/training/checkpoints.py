"""Checkpoints that outlive the step: whole or not at all, the newest whole one wins, old ones go.

A checkpoint is a folder `step-00000040` with a marker file that is written last; a folder without it is a torso left
by a kill and is removed. The state directory belongs to one run: `claim` empties it when the run's inputs changed.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clinical_r1.atomic import write_text

MARKER = "complete.json"
RUN_FILE = "run.json"


def claim(state_dir: Path, identity: dict[str, Any]) -> bool:
    """Make the directory this run's own; True where it already was (so there may be something to resume).

    `identity` is what determines the result: resolved config, hashes of inputs. Checkpoints of another run are removed.
    Call in one process, before the others look.
    """
    text = json.dumps(identity, sort_keys=True, indent=1, default=str) + "\n"
    run_file = state_dir / RUN_FILE
    if run_file.is_file() and run_file.read_text(encoding="utf-8") == text:
        return True
    if state_dir.is_dir():
        for path in state_dir.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_text(run_file, text)
    return False


def folder_hash(folder: Path) -> str:
    """Cheap identity of a model folder: config and tokenizer bytes, names and sizes of the weights, their headers."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if not path.is_file():
            continue
        size = path.stat().st_size
        digest.update(f"{path.name}\x1f{size}\x1f".encode())
        with open(path, "rb") as handle:
            digest.update(handle.read(1 << 20))
            if size > 2 << 20:
                handle.seek(-(1 << 20), os.SEEK_END)
                digest.update(handle.read())
    return digest.hexdigest()


def step_folder(root: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return root / f"step-{step:08d}"


def mark_complete(folder: Path, **facts: Any) -> None:
    """The last act of writing a checkpoint (rank 0, after every process has written its part)."""
    write_text(folder / MARKER, json.dumps(facts, sort_keys=True) + "\n")


def is_complete(folder: Path) -> bool:
    """Whether the checkpoint was written to its end."""
    return (folder / MARKER).is_file()


def latest(root: Path, pattern: str = "step-*") -> Path | None:
    """The newest whole checkpoint."""
    whole = [folder for folder in root.glob(pattern) if is_complete(folder)]
    return max(whole, key=step_of, default=None)


def step_of(folder: Path) -> int:
    """The step that a checkpoint's name carries."""
    return int(folder.name.rsplit("-", 1)[1])


def prune(root: Path, keep: int, pattern: str = "step-*") -> None:
    """Remove torsos and all but the newest `keep` whole checkpoints (one process only)."""
    folders = sorted(root.glob(pattern), key=step_of)
    whole = [folder for folder in folders if is_complete(folder)]
    for folder in folders:
        if folder not in whole[-keep:]:
            shutil.rmtree(folder, ignore_errors=True)


def save(root: Path, step: int, write: Callable[[Path], None], keep: int = 2) -> Path:
    """Write a checkpoint from all processes: `write(folder)` puts this process's part into the folder.

    Collective; without a process group it is this process alone. Returns the folder.
    """
    rank, barrier = _group()
    folder = step_folder(root, step)
    if rank == 0:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    barrier()
    write(folder)
    barrier()
    if rank == 0:
        mark_complete(folder, step=step)
        prune(root, keep)
    barrier()
    return folder


def _group() -> tuple[int, Callable[[], Any]]:
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.barrier
    return 0, lambda: None
