"""MinIO, or any S3, through the public face of the `minio` SDK."""

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar, cast

import urllib3
from minio import Minio
from minio.credentials import Credentials, Provider
from minio.error import S3Error, ServerError

from clinical_r1.atomic import atomic_writer, file_sha256
from clinical_r1.objectstore.failures import Conflict, NotFound, StoreRefused
from clinical_r1.objectstore.settings import StoreSettings
from clinical_r1.objectstore.store import BLOCK, Entry, Stat, Watch, check_digest, check_key, copy_hashed
from clinical_r1.objectstore.trying import keep_trying

PART_SIZE = 16 << 20
"""Bytes of one part of a large object (S3 takes 10,000 of them); up to three are in memory for each file under way."""
_PARTS_AT_ONCE = 2
_META = "sha256"
_CONNECTIONS = 32
T = TypeVar("T")


class _SecretFiles(Provider):
    """Credentials of a mounted Secret, read at each request: the SDK's own providers read files once."""

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings

    def retrieve(self) -> Credentials:
        access, secret = self._settings.keys()
        return Credentials(access, secret, self._settings.session_token or None)


class _Watched:
    """A file whose reader reports each block; the SDK asks for nothing but `read`."""

    def __init__(self, handle: IO[bytes], watch: Watch) -> None:
        self._handle, self._watch = handle, watch

    def read(self, size: int = -1) -> bytes:
        block = self._handle.read(size)
        self._watch(len(block))
        return block


class S3Store:
    """One bucket and prefix."""

    def __init__(self, bucket: str, prefix: str, settings: StoreSettings) -> None:
        self.bucket, self.prefix, self.settings = bucket, prefix, settings
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")
        # Retries are ours (trying.py): the SDK's default gives up after six seconds, a MinIO restart takes longer.
        self._http = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=10, read=120),
            maxsize=_CONNECTIONS,
            retries=False,
            cert_reqs="CERT_REQUIRED",
            ca_certs=str(settings.ca_bundle) if settings.ca_bundle else None,
        )
        scheme, _, host = settings.endpoint.partition("://")
        self._client = Minio(
            host,
            secure=scheme == "https",
            region=settings.region,
            credentials=_SecretFiles(settings),
            http_client=self._http,
        )

    def put(self, key: str, data: bytes) -> Stat:
        digest = hashlib.sha256(data).hexdigest()
        name = self._name(key)
        write = lambda: self._client.put_object(  # noqa: E731
            self.bucket, name, io.BytesIO(data), len(data), metadata={_META: digest}
        )
        return Stat(key, len(data), self._try(key, write).etag or "", digest)

    def put_file(self, key: str, path: Path, sha256: str = "", watch: Watch | None = None) -> Stat:
        digest = sha256 or file_sha256(path)
        name, size = self._name(key), path.stat().st_size

        def write() -> Any:
            with open(path, "rb") as handle:
                return self._client.put_object(
                    self.bucket,
                    name,
                    cast(BinaryIO, _Watched(handle, watch) if watch else handle),
                    size,
                    part_size=PART_SIZE if size > PART_SIZE else 0,
                    num_parallel_uploads=_PARTS_AT_ONCE,
                    metadata={_META: digest},
                )

        return Stat(key, size, self._try(key, write).etag or "", digest)

    def put_if_absent(self, key: str, data: bytes) -> Stat:
        return self._put_if(key, data, {"If-None-Match": "*"}, "already there")

    def put_if_match(self, key: str, data: bytes, etag: str) -> Stat:
        return self._put_if(key, data, {"If-Match": f'"{etag}"'}, "changed since it was read")

    def _put_if(self, key: str, data: bytes, condition: dict[str, str], why: str) -> Stat:
        """A conditional write by a signed URL: the SDK's `put_object` has no word for conditions."""
        attempts = 0

        def write() -> str:
            nonlocal attempts
            attempts += 1
            url = self._client.get_presigned_url("PUT", self.bucket, self._name(key))
            response = self._http.request("PUT", url, body=data, headers=condition)
            if response.status == 200:
                return response.headers.get("etag", "").strip('"')
            if not response.data:
                raise ServerError(f"no body with status {response.status}", response.status)
            raise S3Error.fromxml(response)

        try:
            etag = self._try(key, write)
        except Conflict:
            # An earlier attempt may have been carried out although its answer was lost on the way.
            if attempts == 1 or self._current(key) != data:
                raise Conflict(f"{self.uri}/{key}: {why}: another writer came first") from None
            there = self.stat(key)
            etag = there.etag if there else ""
        return Stat(key, len(data), etag, hashlib.sha256(data).hexdigest())

    def _current(self, key: str) -> bytes | None:
        try:
            return self.get(key)
        except NotFound:
            return None

    def get(self, key: str) -> bytes:
        def read() -> bytes:
            out = io.BytesIO()
            self._read(key, out, None)
            return out.getvalue()

        return self._try(key, read)

    def get_file(self, key: str, path: Path, sha256: str = "", watch: Watch | None = None) -> str:
        def read() -> str:
            with atomic_writer(path, "wb") as out:
                return check_digest(f"{self.uri}/{key}", self._read(key, out, watch), sha256)

        return self._try(key, read)

    def _read(self, key: str, out: IO[bytes], watch: Watch | None) -> str:
        response = self._client.get_object(self.bucket, self._name(key))
        try:
            return copy_hashed(response.stream(BLOCK), out, watch)
        finally:
            response.close()
            response.release_conn()

    def stat(self, key: str) -> Stat | None:
        name = self._name(key)
        try:
            found = self._try(key, lambda: self._client.stat_object(self.bucket, name))
        except (NotFound, StoreRefused):
            self._why_not(key)
            return None
        digest = (found.metadata or {}).get(f"x-amz-meta-{_META}", "")
        return Stat(key, found.size or 0, found.etag or "", digest)

    def _why_not(self, key: str) -> None:
        """HEAD has no body and so no reason: a GET tells an absent object from an absent bucket or a wrong key."""

        def ask() -> None:
            response = self._client.get_object(self.bucket, self._name(key))
            response.close()
            response.release_conn()

        with suppress(NotFound):
            self._try(key, ask)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        start = f"{self.prefix}/{prefix}".lstrip("/")
        found = self._try(prefix, lambda: list(self._client.list_objects(self.bucket, start, recursive=True)))
        return (Entry(self._key(o.object_name), o.size or 0) for o in found if not o.is_dir)

    def list_folders(self, prefix: str = "") -> tuple[str, ...]:
        start = f"{self.prefix}/{prefix}".lstrip("/")
        found = self._try(prefix, lambda: list(self._client.list_objects(self.bucket, start)))
        return tuple(sorted(self._key(o.object_name).rstrip("/").rpartition("/")[2] for o in found if o.is_dir))

    def delete(self, key: str) -> None:
        self._try(key, lambda: self._client.remove_object(self.bucket, self._name(key)))

    def _name(self, key: str) -> str:
        return f"{self.prefix}/{check_key(key)}".lstrip("/")

    def _key(self, name: str | None) -> str:
        assert name is not None
        return name.removeprefix(f"{self.prefix}/") if self.prefix else name

    def _try(self, key: str, operation: Callable[[], T]) -> T:
        return keep_trying(operation, self.settings, self.bucket, f"{self.uri}/{key}")
