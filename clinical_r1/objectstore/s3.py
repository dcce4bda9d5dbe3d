"""MinIO, or any S3, through the public face of the `minio` SDK."""

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple, TypeVar, cast
from urllib.parse import urlsplit

import minio.time
import urllib3
from minio import Minio
from minio.credentials import Credentials, Provider
from minio.error import S3Error, ServerError
from minio.signer import sign_v4_s3
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from clinical_r1.atomic import atomic_writer, file_sha256
from clinical_r1.errors import UserError
from clinical_r1.objectstore.face import (
    BLOCK,
    Conflict,
    Entry,
    NotFound,
    Stat,
    StoreRefused,
    Watch,
    check_digest,
    check_key,
    copy_hashed,
)
from clinical_r1.objectstore.settings import StoreSettings
from clinical_r1.objectstore.trying import keep_trying


class Slice(NamedTuple):
    """A part of a file, as one piece of a request's body, which the kernel copies to the socket (urllib3 reads and
    sends files 16 kB at a time)."""

    handle: BinaryIO
    offset: int
    length: int


def slices(handle: BinaryIO, size: int, each: int, watch: Watch | None = None) -> Iterator[Slice]:
    """The first `size` bytes in pieces of `each`; `watch` is told of a piece before it is sent."""
    for offset in range(0, size, each):
        count = min(each, size - offset)
        if watch is not None:
            watch(count)
        yield Slice(handle, offset, count)


class _Plain(HTTPConnection):
    def send(self, data: Any) -> None:
        if not isinstance(data, Slice):
            super().send(data)
        elif self.sock.sendfile(data.handle, data.offset, data.length) < data.length:
            raise _shorter(data)


class _Secure(HTTPSConnection):
    def send(self, data: Any) -> None:
        if isinstance(data, Slice):
            # The socket's own sendfile would read, encrypt and send 8 kB at a time.
            data.handle.seek(data.offset)
            block = data.handle.read(data.length)
            if len(block) < data.length:
                raise _shorter(data)
            data = block
        super().send(data)


def _shorter(data: Slice) -> UserError:
    return UserError(f"{data.handle.name}: became shorter while it was sent: send it when nothing writes to it")


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure


POOLS = {"http": _PlainPool, "https": _SecurePool}
"""For a PoolManager's `pool_classes_by_scheme`."""


ONE_REQUEST = 5 << 30
"""Bytes that S3 takes in one request; what is larger goes up in parts."""
_PART_SIZE, _PARTS_AT_ONCE = 64 << 20, 2
_SLICE = 1 << 20
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

    def __init__(self, handle: BinaryIO, watch: Watch | None) -> None:
        self._handle, self._watch = handle, watch

    def read(self, size: int = -1) -> bytes:
        block = self._handle.read(size)
        if self._watch is not None:
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
        self._credentials = _SecretFiles(settings)
        self._http.pool_classes_by_scheme = POOLS
        scheme, _, host = settings.endpoint.partition("://")
        self._client = Minio(
            host,
            secure=scheme == "https",
            region=settings.region,
            credentials=self._credentials,
            http_client=self._http,
        )

    def put(self, key: str, data: bytes) -> Stat:
        digest = hashlib.sha256(data).hexdigest()
        etag = self._try(key, lambda: self._send(key, data, len(data), digest))
        return Stat(key, len(data), etag, digest)

    def put_file(self, key: str, path: Path, sha256: str = "", watch: Watch | None = None) -> Stat:
        digest = sha256 or file_sha256(path)
        size = path.stat().st_size

        def write() -> str:
            with open(path, "rb") as handle:
                if size > ONE_REQUEST:
                    return self._send_parts(key, _Watched(handle, watch), size, digest)
                return self._send(key, slices(handle, size, _SLICE, watch), size, digest)

        return Stat(key, size, self._try(key, write), digest)

    def _send(
        self, key: str, body: bytes | Iterator[Slice], size: int, digest: str, condition: dict[str, str] | None = None
    ) -> str:
        """One signed PUT; returns the etag.

        The SDK's `put_object` reads everything into memory, hashes it again for the signature, and has no word for
        conditions. Here the kernel copies the file, and over plain http the SHA-256 that is known already is signed, so
        that the store checks what arrives. Over https TLS does, and the payload is not signed: the SDK's rule too.
        """
        url = urlsplit(self._client.get_presigned_url("PUT", self.bucket, self._name(key)))._replace(query="")
        credentials, now = self._credentials.retrieve(), minio.time.utcnow()
        signed_hash = "UNSIGNED-PAYLOAD" if url.scheme == "https" else digest
        headers: dict[str, str | list[str] | tuple[str]] = {
            "Host": url.netloc,
            "Content-Length": str(size),
            "Content-Type": "application/octet-stream",
            "x-amz-date": minio.time.to_amz_date(now),
            "x-amz-content-sha256": signed_hash,
            f"x-amz-meta-{_META}": digest,
            **(condition or {}),
        }
        if credentials.session_token:
            headers["X-Amz-Security-Token"] = credentials.session_token
        signed = sign_v4_s3(
            method="PUT",
            url=url,
            region=self.settings.region,
            headers=headers,
            credentials=credentials,
            content_sha256=signed_hash,
            date=now,
        )
        response = self._http.request("PUT", url.geturl(), body=cast(Any, body), headers=cast(dict[str, str], signed))
        if response.status == 200:
            return response.headers.get("etag", "").strip('"')
        if not response.data:
            raise ServerError(f"no body with status {response.status}", response.status)
        raise S3Error.fromxml(response)

    def _send_parts(self, key: str, body: _Watched, size: int, digest: str) -> str:
        written = self._client.put_object(
            self.bucket,
            self._name(key),
            cast(BinaryIO, body),
            size,
            part_size=_PART_SIZE,
            num_parallel_uploads=_PARTS_AT_ONCE,
            metadata={_META: digest},
        )
        return written.etag or ""

    def put_if_absent(self, key: str, data: bytes) -> Stat:
        return self._put_if(key, data, {"If-None-Match": "*"}, "already there")

    def put_if_match(self, key: str, data: bytes, etag: str) -> Stat:
        return self._put_if(key, data, {"If-Match": f'"{etag}"'}, "changed since it was read")

    def _put_if(self, key: str, data: bytes, condition: dict[str, str], why: str) -> Stat:
        digest, attempts = hashlib.sha256(data).hexdigest(), 0

        def write() -> str:
            nonlocal attempts
            attempts += 1
            return self._send(key, data, len(data), digest, condition)

        try:
            etag = self._try(key, write)
        except Conflict:
            # An earlier attempt may have been carried out although its answer was lost on the way.
            if attempts == 1 or self._current(key) != data:
                raise Conflict(f"{self.uri}/{key}: {why}: another writer came first") from None
            there = self.stat(key)
            etag = there.etag if there else ""
        return Stat(key, len(data), etag, digest)

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
