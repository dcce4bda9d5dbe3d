"""Checkpoints in an object store (`checkpoints: s3://bucket/prefix`): a lost disk costs no more than the steps since
the last one, and the disk holds no more than one.

A run's place is PREFIX/FOLDER/STATE/run-HASH, by the names of its state folder and by its mathematics. What a
checkpoint consists of (`files.json`) is sent last and taken away first: one without it is a torso. The first process
alone uses this; the others see the folder that it fills.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from clinical_r1.errors import UserError
from clinical_r1.objectstore.face import Store
from clinical_r1.objectstore.store import open_store
from clinical_r1.objectstore.transfer import FileEntry, describe_files, download_files, upload_files
from clinical_r1.training.checkpoints import (
    FORK_VARIABLE,
    MARKER,
    RUN_FILE,
    claim,
    digest_of,
    layout_of,
    read_run,
    refusal,
    step_of,
)
from clinical_r1.training.checkpoints import release as release_here
from clinical_r1.training.group import barrier, rank, world_size

FILES = "files.json"
BESIDE = ("metrics.jsonl", "samples.jsonl", "metrics/*.jsonl", "best-*/*")
"""What a checkpoint goes on with besides its own files, in the state folder; the same for all of a run."""
_ENTRIES = TypeAdapter(list[FileEntry])


class Remote:
    """One run's checkpoints in a store."""

    def __init__(self, uri: str, state_dir: Path, root: Path) -> None:
        """`state_dir` is this run's already (`checkpoints.claim`); `root`, in it or itself, holds the checkpoints."""
        self.state_dir, self.root = state_dir, root
        self.store: Store = open_store(uri)
        self.run = read_run(state_dir)
        self.around = f"{state_dir.parent.name}/{state_dir.name}"
        self.place = f"{self.around}/run-{digest_of(self.run)}"

    def fetch(self) -> None:
        """Bring the newest whole checkpoint here, unless what is here is as new.

        Raises UserError where only other runs' checkpoints are in the place of this state folder, and no fork is asked
        for.
        """
        here = max((step_of(marker.parent) for marker in self.root.glob(f"*/{MARKER}")), default=-1)
        there = self._whole(self.place)
        if not there and here < 0 and not os.environ.get(FORK_VARIABLE):
            self._refuse_others()
        if not there or step_of(there[-1]) <= here:
            return
        name = there[-1].name
        prefix = f"{self.place}/{name}"
        entries = _ENTRIES.validate_json(self.store.get(f"{prefix}/{FILES}"))
        for entry in self.store.list(f"{self.place}/beside/"):
            self.store.get_file(entry.key, self.state_dir / entry.key.removeprefix(f"{self.place}/beside/"))
        shutil.rmtree(self.root / name, ignore_errors=True)
        for last in (False, True):  # the marker makes it whole
            download_files(self.store, prefix, [e for e in entries if (e.path == MARKER) == last], self.root / name)

    def make_room(self) -> None:
        """Remove from the disk what the store has whole."""
        for folder in self._whole(self.place):
            shutil.rmtree(self.root / folder.name, ignore_errors=True)

    def push(self, folder: Path, keep: int) -> None:
        """Send a whole checkpoint; then all but the newest `keep` go from the store."""
        beside = {path.relative_to(self.state_dir).as_posix(): path for path in self._beside()}
        self.store.put(f"{self.place}/{RUN_FILE}", json.dumps(self.run).encode())
        if beside:
            upload_files(self.store, f"{self.place}/beside", describe_files(self.state_dir, only=beside))
        self._remove(f"{self.place}/{folder.name}")  # one of the same step: this is another content of it
        files = describe_files(folder)
        upload_files(self.store, f"{self.place}/{folder.name}", files)
        self.store.put(f"{self.place}/{folder.name}/{FILES}", _ENTRIES.dump_json(sorted(files, key=lambda e: e.path)))
        kept = {path.name for path in self._whole(self.place)[-keep:]} | {"beside"}
        for name in self.store.list_folders(f"{self.place}/"):
            if name not in kept:
                self._remove(f"{self.place}/{name}")
        for entry in list(self.store.list(f"{self.place}/beside/")):
            if entry.key.removeprefix(f"{self.place}/beside/") not in beside:
                self.store.delete(entry.key)

    def release(self) -> None:
        """Remove this run's checkpoints: its results are safe elsewhere."""
        for folder in self._whole(self.place):
            self.store.delete(f"{self.place}/{folder.name}/{FILES}")
        self._remove(self.place)

    def _beside(self) -> Iterator[Path]:
        for pattern in BESIDE:
            yield from (path for path in self.state_dir.glob(pattern) if path.is_file())

    def _whole(self, place: str) -> list[Path]:
        """The whole checkpoints of a run, oldest first."""
        names = self.store.list_folders(f"{place}/")
        return sorted(
            (Path(n) for n in names if n != "beside" and self.store.stat(f"{place}/{n}/{FILES}") is not None),
            key=step_of,
        )

    def _remove(self, prefix: str) -> None:
        self.store.delete(f"{prefix}/{FILES}")
        for entry in list(self.store.list(f"{prefix}/")):
            self.store.delete(entry.key)

    def _refuse_others(self) -> None:
        for name in self.store.list_folders(f"{self.around}/"):
            place = f"{self.around}/{name}"
            if self._whole(place):
                theirs: dict[str, Any] = json.loads(self.store.get(f"{place}/{RUN_FILE}"))
                raise UserError(refusal(f"{self.store.uri}/{place}", theirs, self.run))


def release(state_dir: Path, uri: str) -> None:
    """Remove the checkpoints of a state folder whose results are safe elsewhere, from the store (where there is one)
    and from the disk."""
    for run in state_dir.rglob(RUN_FILE) if uri else ():
        Remote(uri, run.parent, run.parent).release()
    release_here(state_dir)


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
