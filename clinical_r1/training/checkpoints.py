"""Checkpoints that outlive the step: whole or not at all, the newest whole one wins, old ones go.

A checkpoint is a folder `step-00000040` with a marker file that is written last; a folder without it is a torso left
by a kill and is removed. The state directory belongs to one run, known by its mathematics (model, data, algorithm,
optimizer): `claim` refuses another one's checkpoints, or parks them beside where a fork is asked for, and deletes none.

With `checkpoints: s3://bucket/prefix` they live in an object store too: a lost disk costs no more than the steps since
the last one, and the disk holds no more than one. A run's place is PREFIX/FOLDER/STATE/run-HASH, by the names of its
state folder and by its mathematics; what a checkpoint consists of (`files.json`) is sent last and taken away first.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError
from clinical_r1.objectstore.store import open_store
from clinical_r1.objectstore.transfer import FileEntry, describe_files, download_files, upload_files
from clinical_r1.training.group import barrier, rank, world_size

MARKER, RUN_FILE, FILES = "complete.json", "run.json", "files.json"
FORK_VARIABLE = "CLINICAL_R1_FORK"
"""Set by `--fork`: a run that does not match the state it finds starts its own, and that state stays."""
BESIDE = ("metrics.jsonl", "samples.jsonl", "metrics/*.jsonl", "best-*/*")
"""What a checkpoint goes on with besides its own files, in the state folder; the same for all of a run."""
_ENTRIES = TypeAdapter(list[FileEntry])


def claim(state_dir: Path, identity: dict[str, Any], layout: dict[str, Any] | None = None) -> bool:
    """Make the directory this run's own; True where it already was (so there may be something to resume).

    `identity` is what determines the result, `layout` how a checkpoint is cut into files (the ZeRO stage): it must
    fit only where there is one. A run that was parked by an earlier fork is taken up again. Call in one process,
    before the others look. Raises UserError with the difference where checkpoints of another run are there.
    """
    ours = json.loads(json.dumps({"identity": identity, "layout": layout or {}}, default=str))
    theirs = _read(state_dir / RUN_FILE)
    held = any(state_dir.rglob(MARKER)) if state_dir.is_dir() else False
    same = theirs.get("identity") == ours["identity"] and (theirs.get("layout") == ours["layout"] or not held)
    if not same:
        parked = _parked(state_dir, ours)
        if held and not os.environ.get(FORK_VARIABLE) and not parked.is_dir():
            raise UserError(_refusal(str(state_dir), theirs, ours))
        if held:
            state_dir.rename(_parked(state_dir, theirs))
        elif state_dir.is_dir():
            shutil.rmtree(state_dir)  # torsos, and numbers of a run that left its results elsewhere
        if parked.is_dir():
            parked.rename(state_dir)
            return True
    write_text(state_dir / RUN_FILE, json.dumps(ours, sort_keys=True, indent=1) + "\n")
    return same


def layout_of(stage: int | None, processes: int) -> dict[str, Any]:
    """What of a run's layout its checkpoints are bound to. Under ZeRO-3 the number of processes too: SFT from shards
    that DeepSpeed cut anew ended .0006 from the uninterrupted run (docs/log.md)."""
    return {"deepspeed.stage": stage} | ({"processes": processes} if stage == 3 else {})


def _parked(state_dir: Path, run: dict[str, Any]) -> Path:
    return state_dir.with_name(f"{state_dir.name}.run-{_digest(run)}")


def _digest(run: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:12]


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _refusal(place: str, theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    differences = _differences(theirs, ours)
    more = f" and {len(differences) - 4} more" if len(differences) > 4 else ""
    return (
        f"{place}: its checkpoints are of another run ({'; '.join(differences[:4])}{more}): set that back to go on, or "
        "add --fork to start a run of its own; those checkpoints stay either way"
    )


def _differences(theirs: Any, ours: Any, name: str = "") -> list[str]:
    """`key was A, now B` for every leaf that is not the same."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return [
            text
            for key in sorted({*theirs, *ours})
            for text in _differences(theirs.get(key), ours.get(key), f"{name}.{key}".lstrip("."))
        ]
    key = name.removeprefix("identity.").removeprefix("config.")
    return [] if theirs == ours else [f"{key} was {json.dumps(theirs)[:60]}, now {json.dumps(ours)[:60]}"]


def step_of(folder: Path) -> int:
    """The step that a checkpoint's name carries."""
    return int(folder.name.rsplit("-", 1)[1])


def processes_of(folder: Path) -> int:
    """How many processes wrote a checkpoint."""
    return int(_read(folder / MARKER)["processes"])


def whole(root: Path, pattern: str = "step-*") -> list[Path]:
    """The checkpoints that were written to their end, oldest first."""
    return sorted((marker.parent for marker in root.glob(f"{pattern}/{MARKER}")), key=step_of)


def latest(root: Path, pattern: str = "step-*") -> Path | None:
    """The newest whole checkpoint."""
    return next(reversed(whole(root, pattern)), None)


def prune(root: Path, keep: int, pattern: str = "step-*") -> None:
    """Remove torsos and all but the newest `keep` whole checkpoints (one process only)."""
    kept = whole(root, pattern)[-keep:]
    for folder in set(root.glob(pattern)).difference(kept):
        shutil.rmtree(folder, ignore_errors=True)


def save(root: Path, step: int, write: Callable[[Path], None], keep: int = 2, remote: "Remote | None" = None) -> None:
    """Write a checkpoint from all processes: `write(folder)` puts this process's part into the folder.

    Collective; without a process group it is this process alone.
    """
    folder = root / f"step-{step:08d}"
    if rank() == 0:
        if remote:
            remote.make_room()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    barrier()
    write(folder)
    seal(folder, keep, remote)


def seal(folder: Path, keep: int, remote: "Remote | None") -> None:
    """Make a checkpoint whole when every process has written its part, and remove older ones; collective.

    `remote`, of the first process, sends it to the object store, and the disk holds this one alone.
    """
    barrier()
    if rank() == 0:
        facts = {"processes": world_size(), "step": step_of(folder)}
        write_text(folder / MARKER, json.dumps(facts) + "\n")
        prune(folder.parent, keep, f"{folder.name.rpartition('-')[0]}-*")
        if remote:
            remote.push(folder, keep)
    barrier()


class Remote:
    """One run's checkpoints in a store. The first process alone uses it; the others see the folder that it fills."""

    def __init__(self, uri: str, state_dir: Path, root: Path) -> None:
        """`state_dir` is this run's already (`claim`); `root`, in it or itself, holds the checkpoints."""
        self.state_dir, self.root = state_dir, root
        self.store, self.run = open_store(uri), _read(state_dir / RUN_FILE)
        self.place = f"{state_dir.parent.name}/{state_dir.name}/run-{_digest(self.run)}"

    def fetch(self) -> None:
        """Bring the newest whole checkpoint here, unless what is here is as new.

        Raises UserError where only other runs' checkpoints are in the place of this state folder, and no fork is asked
        for.
        """
        here = max((step_of(marker.parent) for marker in self.root.glob(f"*/{MARKER}")), default=-1)
        there = self._whole(self.place)
        if not there and here < 0 and not os.environ.get(FORK_VARIABLE):
            around = self.place.rpartition("/")[0]
            for other in (f"{around}/{name}" for name in self.store.list_folders(f"{around}/")):
                if self._whole(other):
                    theirs = json.loads(self.store.get(f"{other}/{RUN_FILE}"))
                    raise UserError(_refusal(f"{self.store.uri}/{other}", theirs, self.run))
        if not there or step_of(there[-1]) <= here:
            return
        folder, prefix = self.root / there[-1], f"{self.place}/{there[-1]}"
        entries = _ENTRIES.validate_json(self.store.get(f"{prefix}/{FILES}"))
        for entry in self.store.list(f"{self.place}/beside/"):
            self.store.get_file(entry.key, self.state_dir / entry.key.removeprefix(f"{self.place}/beside/"))
        shutil.rmtree(folder, ignore_errors=True)
        for last in (False, True):  # the marker makes it whole
            download_files(self.store, prefix, [e for e in entries if (e.path == MARKER) == last], folder)

    def make_room(self) -> None:
        """Remove from the disk what the store has whole."""
        for name in self._whole(self.place):
            shutil.rmtree(self.root / name, ignore_errors=True)

    def push(self, folder: Path, keep: int) -> None:
        """Send a whole checkpoint; then all but the newest `keep` go from the store."""
        found = (path for pattern in BESIDE for path in self.state_dir.glob(pattern) if path.is_file())
        beside = {path.relative_to(self.state_dir).as_posix(): path for path in found}
        self.store.put(f"{self.place}/{RUN_FILE}", json.dumps(self.run).encode())
        if beside:
            upload_files(self.store, f"{self.place}/beside", describe_files(self.state_dir, only=beside))
        prefix = f"{self.place}/{folder.name}"
        self._remove(prefix)  # one of the same step: this is another content of it
        files = describe_files(folder)
        upload_files(self.store, prefix, files)
        self.store.put(f"{prefix}/{FILES}", _ENTRIES.dump_json(sorted(files, key=lambda e: e.path)))
        kept = {"beside", *map(str, self._whole(self.place)[-keep:])}
        for name in self.store.list_folders(f"{self.place}/"):
            if name not in kept:
                self._remove(f"{self.place}/{name}")
        for entry in list(self.store.list(f"{self.place}/beside/")):
            if entry.key.removeprefix(f"{self.place}/beside/") not in beside:
                self.store.delete(entry.key)

    def release(self) -> None:
        """Remove this run's checkpoints: its results are safe elsewhere."""
        for name in self._whole(self.place):
            self.store.delete(f"{self.place}/{name}/{FILES}")
        self._remove(self.place)

    def _whole(self, place: str) -> list[Path]:
        """The names of a run's whole checkpoints, oldest first."""
        names = [Path(name) for name in self.store.list_folders(f"{place}/") if name != "beside"]
        return sorted((name for name in names if self.store.stat(f"{place}/{name}/{FILES}")), key=step_of)

    def _remove(self, prefix: str) -> None:
        self.store.delete(f"{prefix}/{FILES}")
        for entry in list(self.store.list(f"{prefix}/")):
            self.store.delete(entry.key)


def release(state_dir: Path, uri: str = "") -> None:
    """Remove the checkpoints of a state folder whose results are safe elsewhere, from the store (where there is one)
    and from the disk; the run's numbers and its identity stay."""
    for run in state_dir.rglob(RUN_FILE) if uri else ():
        Remote(uri, run.parent, run.parent).release()
    for folder in [*(marker.parent for marker in state_dir.rglob(MARKER)), *state_dir.glob("best-*")]:
        shutil.rmtree(folder, ignore_errors=True)


def claim_state(job: Any, root: Path) -> Remote | None:
    """The first process makes the state folder this job's own, and brings its newest checkpoint into `root`, in it or
    itself; the others wait. `job` is an SFTJob or a PPOJob. Raises UserError where the folder is another run's."""
    remote = None
    if rank() == 0:
        if job.state_dir.resolve() == job.out_dir.resolve():
            raise UserError(f"{job.out_dir}: state and output folder are the same; give two folders")
        sharding = job.config.deepspeed
        claim(job.state_dir, job.identity(), layout_of(sharding.stage if sharding else None, world_size()))
        if job.config.checkpoints:
            remote = Remote(job.config.checkpoints, job.state_dir, root)
            remote.fetch()
    barrier()
    return remote
