"""A plain folder with the face of an object store: for laptops, tests and shared volumes."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clinical_r1.atomic import atomic_writer, file_sha256
from clinical_r1.errors import UserError
from clinical_r1.objectstore.face import (
    BLOCK,
    Conflict,
    Entry,
    NotFound,
    Stat,
    StoreFull,
    StoreRefused,
    Watch,
    check_digest,
    check_key,
    copy_hashed,
)

_NO_SPACE = {28, 122}  # ENOSPC, EDQUOT


class FolderStore:
    """Objects are files under `root`; the etag of a file is its SHA-256. Names with a leading dot are not objects."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))
        self.uri = str(self.root)

    def put(self, key: str, data: bytes) -> Stat:
        with self._writing(key) as path, atomic_writer(path, "wb") as handle:
            handle.write(data)
        return _stat(key, data)

    def put_file(self, key: str, path: Path, sha256: str = "", watch: Watch | None = None) -> Stat:
        with self._writing(key) as target, open(path, "rb") as source, atomic_writer(target, "wb") as handle:
            digest = copy_hashed(iter(lambda: source.read(BLOCK), b""), handle, watch)
            check_digest(str(path), digest, sha256)
        return Stat(key, path.stat().st_size, digest, digest)

    def put_if_absent(self, key: str, data: bytes) -> Stat:
        with self._writing(key) as path, self._lock():
            if path.exists():
                raise Conflict(f"{self.uri}/{key}: already there: another writer came first")
            self.put(key, data)
        return _stat(key, data)

    def put_if_match(self, key: str, data: bytes, etag: str) -> Stat:
        with self._writing(key) as path, self._lock():
            if not path.is_file():
                raise NotFound(f"{self.uri}/{key}: no such object")
            if file_sha256(path) != etag:
                raise Conflict(f"{self.uri}/{key}: changed since it was read: another writer came first")
            self.put(key, data)
        return _stat(key, data)

    def get(self, key: str) -> bytes:
        with self._reading(key) as path:
            return path.read_bytes()

    def get_file(self, key: str, path: Path, sha256: str = "", watch: Watch | None = None) -> str:
        with self._reading(key) as source, open(source, "rb") as handle, atomic_writer(path, "wb") as out:
            digest = copy_hashed(iter(lambda: handle.read(BLOCK), b""), out, watch)
            return check_digest(f"{self.uri}/{key}", digest, sha256)

    def stat(self, key: str) -> Stat | None:
        path = self.root / check_key(key)
        if not path.is_file():
            return None
        digest = file_sha256(path)
        return Stat(key, path.stat().st_size, digest, digest)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        if not self.root.is_dir():
            return
        for path in sorted(self.root.rglob("*"), key=lambda p: p.relative_to(self.root).as_posix()):
            key = path.relative_to(self.root).as_posix()
            if key.startswith(prefix) and not any(part.startswith(".") for part in key.split("/")) and path.is_file():
                yield Entry(key, path.stat().st_size)

    def list_folders(self, prefix: str = "") -> tuple[str, ...]:
        folder = self.root / prefix
        if not folder.is_dir():
            return ()
        return tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")))

    def delete(self, key: str) -> None:
        (self.root / check_key(key)).unlink(missing_ok=True)

    @contextmanager
    def _writing(self, key: str) -> Iterator[Path]:
        path = self.root / check_key(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield path
        except PermissionError:
            raise StoreRefused(f"{path}: no right to write: correct the folder's owner or mode") from None
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise StoreFull(f"{self.uri}: no space left: free some or give another folder") from None
            raise UserError(f"{path}: {error.strerror}") from None

    @contextmanager
    def _reading(self, key: str) -> Iterator[Path]:
        try:
            yield self.root / check_key(key)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise NotFound(f"{self.uri}/{key}: no such object") from None
        except PermissionError:
            raise StoreRefused(f"{self.uri}/{key}: no right to read: correct the folder's owner or mode") from None

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One conditional write at a time among all processes that see this folder."""
        with open(self.root / ".lock", "w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def _stat(key: str, data: bytes) -> Stat:
    digest = hashlib.sha256(data).hexdigest()
    return Stat(key, len(data), digest, digest)
