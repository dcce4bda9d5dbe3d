"""`open_store(uri)`: MinIO, any S3, or a folder behind the one face (clinical_r1.objectstore.face).

store = open_store("s3://clinical-r1/reports")      # MinIO or any S3; or a folder: open_store("runs/reports")
store.put("2026/report.html", page.encode())

A plain folder is for laptops, tests and shared volumes.
"""

import errno
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clinical_r1.atomic import atomic_writer, file_sha256
from clinical_r1.errors import UserError
from clinical_r1.objectstore import face
from clinical_r1.objectstore.settings import StoreSettings

_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]*)://")


def open_store(uri: str | Path, settings: StoreSettings | None = None) -> face.Store:
    """The store at `s3://bucket[/prefix]`, `file:///folder` or a plain path (made on the first write).

    Endpoint, credentials and CA bundle of S3 come from `settings`, else from the environment: see StoreSettings.
    Nothing is contacted yet. Raises UserError for a URI that is none and for missing settings.
    """
    text = str(uri)
    scheme = _SCHEME.match(text)
    if scheme is None or scheme[1] == "file":
        path = text.removeprefix("file://")
        if not path:
            raise UserError(f"object store '{text}': no folder given: write a path or s3://BUCKET/PREFIX")
        return FolderStore(Path(path))
    if scheme[1] not in ("s3", "minio"):
        raise UserError(f"object store {text}: unknown scheme '{scheme[1]}': write s3://BUCKET/PREFIX or a folder")
    bucket, _, prefix = text[scheme.end() :].partition("/")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket):
        raise UserError(f"object store {text}: '{bucket}' is no bucket name: write s3://BUCKET/PREFIX")
    from clinical_r1.objectstore.s3 import S3Store

    return S3Store(bucket, prefix.strip("/"), settings or StoreSettings.from_environment())


class FolderStore:
    """Objects are files under `root`; the etag of a file is its SHA-256. Names with a leading dot are not objects."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))
        self.uri = str(self.root)

    def put(self, key: str, data: bytes) -> face.Stat:
        with self._writing(key) as path, atomic_writer(path, "wb") as handle:
            handle.write(data)
        digest = hashlib.sha256(data).hexdigest()
        return face.Stat(key, len(data), digest, digest)

    def put_file(self, key: str, path: Path, sha256: str = "", watch: face.OnBlock | None = None) -> face.Stat:
        with self._writing(key) as target, open(path, "rb") as source, atomic_writer(target, "wb") as handle:
            digest = face.copy_checked(iter(lambda: source.read(face.BLOCK), b""), handle, watch, str(path), sha256)
        return face.Stat(key, path.stat().st_size, digest, digest)

    def put_if_absent(self, key: str, data: bytes) -> face.Stat:
        with self._writing(key) as path, self._lock():
            if path.exists():
                raise face.Conflict(f"{self.uri}/{key}: already there: another writer came first")
            return self.put(key, data)

    def put_if_match(self, key: str, data: bytes, etag: str) -> face.Stat:
        with self._writing(key) as path, self._lock():
            if not path.is_file():
                raise face.NotFound(f"{self.uri}/{key}: no such object")
            if file_sha256(path) != etag:
                raise face.Conflict(f"{self.uri}/{key}: changed since it was read: another writer came first")
            return self.put(key, data)

    def get(self, key: str) -> bytes:
        with self._reading(key) as path:
            return path.read_bytes()

    def get_file(self, key: str, path: Path, sha256: str = "", watch: face.OnBlock | None = None) -> str:
        with self._reading(key) as source, open(source, "rb") as handle, atomic_writer(path, "wb") as out:
            return face.copy_checked(
                iter(lambda: handle.read(face.BLOCK), b""), out, watch, f"{self.uri}/{key}", sha256
            )

    def stat(self, key: str) -> face.Stat | None:
        path = self.root / face.check_key(key)
        if not path.is_file():
            return None
        digest = file_sha256(path)
        return face.Stat(key, path.stat().st_size, digest, digest)

    def list(self, prefix: str = "") -> Iterator[face.Entry]:
        # A root that is not there yet has no objects.
        files = {path.relative_to(self.root).as_posix(): path for path in self.root.rglob("*")}
        for key, path in sorted(files.items()):
            if key.startswith(prefix) and not any(part.startswith(".") for part in key.split("/")) and path.is_file():
                yield face.Entry(key, path.stat().st_size)

    def list_folders(self, prefix: str = "") -> tuple[str, ...]:
        folders = (path.name for path in (self.root / prefix).glob("*") if path.is_dir())
        return tuple(sorted(name for name in folders if not name.startswith(".")))

    def delete(self, key: str) -> None:
        (self.root / face.check_key(key)).unlink(missing_ok=True)

    @contextmanager
    def _writing(self, key: str) -> Iterator[Path]:
        path = self.root / face.check_key(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield path
        except PermissionError:
            raise face.StoreRefused(f"{path}: no right to write: correct the folder's owner or mode") from None
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise face.StoreFull(f"{self.uri}: no space left: free some or give another folder") from None
            raise UserError(f"{path}: {error.strerror}") from None

    @contextmanager
    def _reading(self, key: str) -> Iterator[Path]:
        try:
            yield self.root / face.check_key(key)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise face.NotFound(f"{self.uri}/{key}: no such object") from None
        except PermissionError:
            raise face.StoreRefused(f"{self.uri}/{key}: no right to read: correct the folder's owner or mode") from None

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One conditional write at a time among all processes that see this folder."""
        with open(self.root / ".lock", "w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
