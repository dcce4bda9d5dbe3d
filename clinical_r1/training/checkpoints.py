"""Checkpoints that outlive the step: whole or not at all, the newest whole one wins, old ones go.

A checkpoint is a folder `step-00000040` with a marker file that is written last; a folder without it is a torso left
by a kill and is removed. The state directory belongs to one run, known by its mathematics (model, data, algorithm,
optimizer): `claim` refuses another one's checkpoints, or parks them beside where a fork is asked for, and deletes none.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError
from clinical_r1.training.group import barrier, rank, world_size

MARKER = "complete.json"
RUN_FILE = "run.json"
FORK_VARIABLE = "CLINICAL_R1_FORK"
"""Set by `--fork`: a run that does not match the state it finds starts its own, and that state stays."""


class Elsewhere(Protocol):
    """Where checkpoints live besides the disk (clinical_r1.training.remote)."""

    def make_room(self) -> None:
        """Remove from the disk what is there whole."""

    def push(self, folder: Path, keep: int) -> None:
        """Send a whole checkpoint; the newest `keep` stay there."""


def claim(state_dir: Path, identity: dict[str, Any], layout: dict[str, Any] | None = None) -> bool:
    """Make the directory this run's own; True where it already was (so there may be something to resume).

    `identity` is what determines the result, `layout` how a checkpoint is cut into files (the ZeRO stage): it must
    fit only where there is one. A run that was parked by an earlier fork is taken up again. Call in one process,
    before the others look. Raises UserError with the difference where checkpoints of another run are there.
    """
    ours = json.loads(json.dumps({"identity": identity, "layout": layout or {}}, default=str))
    theirs = read_run(state_dir)
    same = theirs.get("identity") == ours["identity"]
    held = any(state_dir.rglob(MARKER)) if state_dir.is_dir() else False
    if same and (theirs.get("layout") == ours["layout"] or not held):
        write_text(state_dir / RUN_FILE, json.dumps(ours, sort_keys=True, indent=1) + "\n")
        return True
    parked = _parked(state_dir, ours)
    if held and not os.environ.get(FORK_VARIABLE) and not parked.is_dir():
        raise UserError(refusal(str(state_dir), theirs, ours))
    if held:
        state_dir.rename(_parked(state_dir, theirs))
    elif state_dir.is_dir():
        shutil.rmtree(state_dir)  # torsos, and numbers of a run that left its results elsewhere
    if parked.is_dir():
        parked.rename(state_dir)
        return True
    write_text(state_dir / RUN_FILE, json.dumps(ours, sort_keys=True, indent=1) + "\n")
    return False


def refusal(place: str, theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """The sentence for a place that holds another run's checkpoints."""
    differences = _differences(theirs, ours)
    more = f" and {len(differences) - 4} more" if len(differences) > 4 else ""
    return (
        f"{place}: its checkpoints are of another run ({'; '.join(differences[:4])}{more}): set that back to go on, or "
        "add --fork to start a run of its own; those checkpoints stay either way"
    )


def layout_of(stage: int | None, processes: int) -> dict[str, Any]:
    """What of a run's layout its checkpoints are bound to. Under ZeRO-3 the number of processes too: SFT from shards
    that DeepSpeed cut anew ended .0006 from the uninterrupted run (docs/log.md)."""
    return {"deepspeed.stage": stage} | ({"processes": processes} if stage == 3 else {})


def release(state_dir: Path) -> None:
    """Remove the checkpoints of a run whose results are safe elsewhere; its numbers and its identity stay."""
    for marker in list(state_dir.rglob(MARKER)):
        shutil.rmtree(marker.parent, ignore_errors=True)
    for folder in state_dir.glob("best-*"):
        shutil.rmtree(folder, ignore_errors=True)


def _parked(state_dir: Path, run: dict[str, Any]) -> Path:
    return state_dir.with_name(f"{state_dir.name}.run-{digest_of(run)}")


def digest_of(run: dict[str, Any]) -> str:
    """What names a run, short."""
    return hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:12]


def read_run(state_dir: Path) -> dict[str, Any]:
    """Whose a state folder is; empty where nobody has claimed it."""
    return _read(state_dir / RUN_FILE)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _differences(theirs: Any, ours: Any, name: str = "") -> list[str]:
    """`key was A, now B` for every leaf that is not the same."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return [
            text
            for key in sorted({*theirs, *ours})
            for text in _differences(theirs.get(key), ours.get(key), f"{name}.{key}".lstrip("."))
        ]
    if theirs == ours:
        return []
    key = name.removeprefix("identity.").removeprefix("config.")
    return [f"{key} was {json.dumps(theirs)[:60]}, now {json.dumps(ours)[:60]}"]


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


def processes_of(folder: Path) -> int:
    """How many processes wrote a checkpoint."""
    return int(_read(folder / MARKER)["processes"])


def prune(root: Path, keep: int, pattern: str = "step-*") -> None:
    """Remove torsos and all but the newest `keep` whole checkpoints (one process only)."""
    folders = sorted(root.glob(pattern), key=step_of)
    whole = [folder for folder in folders if is_complete(folder)]
    for folder in folders:
        if folder not in whole[-keep:]:
            shutil.rmtree(folder, ignore_errors=True)


def save(root: Path, step: int, write: Callable[[Path], None], keep: int = 2, remote: Elsewhere | None = None) -> Path:
    """Write a checkpoint from all processes: `write(folder)` puts this process's part into the folder.

    `remote`, of the first process, sends it to the object store, and the disk holds this one alone.

    Collective; without a process group it is this process alone. Returns the folder.
    """
    folder = step_folder(root, step)
    if rank() == 0:
        if remote:
            remote.make_room()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    barrier()
    write(folder)
    barrier()
    if rank() == 0:
        mark_complete(folder, step=step, processes=world_size())
        prune(root, keep)
        if remote:
            remote.push(folder, keep)
    barrier()
    return folder
