"""Folders to and from a store: files in parallel, what is finished is not sent again, sizes and SHA-256 of all."""

import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from clinical_r1.atomic import file_sha256
from clinical_r1.errors import UserError
from clinical_r1.objectstore.face import OnBlock, Store, check_key

WORKERS = 4
"""Files under way at once."""
_REPORT_EVERY = 2.0


class FileEntry(BaseModel):
    """One file of a published folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    """Relative to the folder, with `/` between its parts."""
    size: int = Field(ge=0)
    """Bytes."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Hex digest of the content."""


def describe_files(
    folder: Path, extra: dict[str, Path] | None = None, only: dict[str, Path] | None = None
) -> dict[FileEntry, Path]:
    """Every file below `folder`, and `extra` files under the names given there, with size and SHA-256; or `only` those.

    Names with a leading dot are left out (temporary files, caches). Raises UserError where there is no file.
    """
    found = only or {path.relative_to(folder).as_posix(): path for path in _files(folder)} | (extra or {})
    if not found:
        raise UserError(f"{folder}: no files to publish: give the folder that holds the model")
    with ThreadPoolExecutor(WORKERS) as pool:
        digests = dict(zip(found, pool.map(file_sha256, found.values()), strict=True))
    return {
        FileEntry(path=check_key(name), size=path.stat().st_size, sha256=digests[name]): path
        for name, path in sorted(found.items())
    }


def _files(folder: Path) -> Iterable[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder: give the folder that holds the model")
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root) / name for name in sorted(names) if not name.startswith("."))


def upload_files(
    store: Store, prefix: str, files: dict[FileEntry, Path], say: Callable[[str], None] = print
) -> list[str]:
    """Send files to `prefix/path`. An object of the same size and SHA-256 is finished and not sent again. Returns the
    paths that travelled."""
    sizes = {entry.key: entry.size for entry in store.list(f"{prefix}/")}

    def send(entry: FileEntry, watch: OnBlock) -> bool:
        key = f"{prefix}/{entry.path}"
        if sizes.get(key) == entry.size and (there := store.stat(key)) is not None and there.sha256 == entry.sha256:
            return False
        store.put_file(key, files[entry], entry.sha256, watch)
        return True

    return _in_parallel(files, send, "uploaded", say)


def download_files(
    store: Store, prefix: str, entries: Iterable[FileEntry], folder: Path, say: Callable[[str], None] = print
) -> list[str]:
    """Fetch `prefix/path` of each entry into `folder`, checked by SHA-256. Files that are there already stay.
    Returns the paths that travelled."""

    def fetch(entry: FileEntry, watch: OnBlock) -> bool:
        target = folder / check_key(entry.path)
        if target.is_file() and target.stat().st_size == entry.size and file_sha256(target) == entry.sha256:
            return False
        store.get_file(f"{prefix}/{entry.path}", target, entry.sha256, watch)
        return True

    return _in_parallel(entries, fetch, "downloaded", say)


class _Stopped(Exception):  # noqa: N818
    """Another file failed: this one need not go on."""


def _in_parallel(
    entries: Iterable[FileEntry], move: Callable[[FileEntry, OnBlock], bool], verb: str, say: Callable[[str], None]
) -> list[str]:
    """Largest first, so that no big file is left alone at the end. The first failure, and whatever else ends this early
    (Ctrl-C too), stops the others at their next block."""
    queue = sorted(entries, key=lambda entry: -entry.size)
    whole = size_text(sum(entry.size for entry in queue))
    stop, lock = threading.Event(), threading.Lock()
    done, told = 0, time.monotonic()

    def watch(count: int) -> None:
        nonlocal done, told
        if stop.is_set():
            raise _Stopped
        with lock:
            done += count
            due = time.monotonic() - told > _REPORT_EVERY
            if due:
                told = time.monotonic()
        if due:
            say(f"{verb} {size_text(done)} of {whole}")

    with ThreadPoolExecutor(WORKERS) as pool:
        try:
            futures = {pool.submit(move, entry, watch): entry for entry in queue}
            ended, _ = wait(futures, return_when=FIRST_EXCEPTION)
            failed = next((f for f in ended if f.exception() and not isinstance(f.exception(), _Stopped)), None)
            if failed is not None:
                failed.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    sent = [entry for future, entry in futures.items() if future.result()]
    total = size_text(sum(entry.size for entry in sent))
    say(f"{verb} {len(sent)} files, {total}; {len(queue) - len(sent)} were there already")
    return sorted(entry.path for entry in sent)


def size_text(count: float) -> str:
    """Bytes as a person writes them: 15.2 GB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
