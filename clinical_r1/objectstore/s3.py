"""MinIO, or any S3, through the public face of the `minio` SDK. An operation is tried again while the endpoint is away,
and put into one sentence where it says no."""

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, NamedTuple, TypeVar, cast
from urllib.parse import urlsplit

import minio.time
import urllib3
from minio import Minio
from minio.credentials import Credentials, Provider
from minio.error import InvalidResponseError, S3Error, ServerError
from minio.signer import sign_v4_s3
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from clinical_r1.atomic import atomic_writer, file_sha256
from clinical_r1.errors import UserError
from clinical_r1.objectstore import face
from clinical_r1.objectstore.settings import StoreSettings

ONE_REQUEST = 5 << 30
"""Bytes that S3 takes in one request; what is larger goes up in parts."""
_PART_SIZE, _PARTS_AT_ONCE = 64 << 20, 2
_META = "x-amz-meta-sha256"
_CONNECTIONS = 32
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 5.0
_PASSING = {"ConditionalRequestConflict", "IncompleteBody", "InternalError", "OperationAborted", "RequestTimeout"}
_PASSING |= {"ServiceUnavailable", "SlowDown", "SlowDownRead", "SlowDownWrite", "XMinioServerNotInitialized"}
_PASSING |= {"NoSuchUpload"}  # the parts of a large object that a restart forgot: the file is sent anew
"""Busy or starting: the same request may well succeed later."""
_FULL = {"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded", "InsufficientStorage"}
T = TypeVar("T")


class Slice(NamedTuple):
    """A part of a file, as one piece of a request's body, which the kernel copies to the socket (urllib3 reads and
    sends files 16 kB at a time)."""

    handle: BinaryIO
    offset: int
    length: int


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


class _SecretFiles(Provider):
    """Credentials of a mounted Secret, read at each request: the SDK's own providers read files once."""

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings

    def retrieve(self) -> Credentials:
        access, secret = self._settings.keys()
        return Credentials(access, secret, self._settings.session_token or None)


class S3Store:
    """One bucket and prefix."""

    def __init__(self, bucket: str, prefix: str, settings: StoreSettings) -> None:
        self.bucket, self.prefix, self.settings = bucket, prefix, settings
        self.uri, self._endpoint = f"s3://{bucket}/{prefix}".rstrip("/"), f"object store {settings.endpoint}"
        # Retries are ours: the SDK's default gives up after six seconds, a MinIO restart takes longer.
        self._http = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=10, read=120),
            maxsize=_CONNECTIONS,
            retries=False,
            cert_reqs="CERT_REQUIRED",
            ca_certs=str(settings.ca_bundle) if settings.ca_bundle else None,
        )
        self._http.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}
        self._credentials = _SecretFiles(settings)
        told: dict[str, Any] = {"credentials": self._credentials, "region": settings.region, "http_client": self._http}
        scheme, _, host = settings.endpoint.partition("://")
        self._client = Minio(host, secure=scheme == "https", **told)

    def put(self, key: str, data: bytes) -> face.Stat:
        return self._put(key, data, {}, "")

    def put_if_absent(self, key: str, data: bytes) -> face.Stat:
        return self._put(key, data, {"If-None-Match": "*"}, "already there")

    def put_if_match(self, key: str, data: bytes, etag: str) -> face.Stat:
        return self._put(key, data, {"If-Match": f'"{etag}"'}, "changed since it was read")

    def _put(self, key: str, data: bytes, condition: dict[str, str], why: str) -> face.Stat:
        digest, attempts = hashlib.sha256(data).hexdigest(), 0

        def write() -> str:
            nonlocal attempts
            attempts += 1
            return self._send(key, data, len(data), digest, condition)

        try:
            etag = self._try(key, write)
        except face.Conflict:
            # An earlier attempt may have been carried out although its answer was lost on the way.
            there = None
            with suppress(face.NotFound):
                there = self.get(key) if attempts > 1 else None
            if there != data:
                raise face.Conflict(f"{self.uri}/{key}: {why}: another writer came first") from None
            stat = self.stat(key)
            etag = stat.etag if stat else ""
        return face.Stat(key, len(data), etag, digest)

    def put_file(self, key: str, path: Path, sha256: str = "", watch: face.OnBlock | None = None) -> face.Stat:
        digest, size = sha256 or file_sha256(path), path.stat().st_size

        def slices(handle: BinaryIO) -> Iterator[Slice]:
            for offset in range(0, size, face.BLOCK):
                count = min(face.BLOCK, size - offset)
                if watch is not None:
                    watch(count)
                yield Slice(handle, offset, count)

        def write() -> str:
            with open(path, "rb") as handle:
                if size <= ONE_REQUEST:
                    return self._send(key, slices(handle), size, digest, {})

                def read(count: int = -1) -> bytes:
                    block = handle.read(count)
                    if watch is not None:
                        watch(len(block))
                    return block

                source = cast(BinaryIO, SimpleNamespace(read=read))  # the SDK asks for nothing else
                how: Any = {"part_size": _PART_SIZE, "num_parallel_uploads": _PARTS_AT_ONCE}
                how["metadata"] = {_META: digest}
                return self._client.put_object(self.bucket, self._name(key), source, size, **how).etag or ""

        return face.Stat(key, size, self._try(key, write), digest)

    def _send(self, key: str, body: bytes | Iterator[Slice], size: int, digest: str, condition: dict[str, str]) -> str:
        """One signed PUT; returns the etag.

        The SDK's `put_object` reads everything into memory, hashes it again for the signature, and has no word for
        conditions. Here the kernel copies the file, and over plain http the SHA-256 that is known already is signed, so
        that the store checks what arrives. Over https TLS does, and the payload is not signed: the SDK's rule too.
        """
        url = urlsplit(self._client.get_presigned_url("PUT", self.bucket, self._name(key)))._replace(query="")
        credentials, now = self._credentials.retrieve(), minio.time.utcnow()
        signed_hash = "UNSIGNED-PAYLOAD" if url.scheme == "https" else digest
        headers: dict[str, Any] = {"Host": url.netloc, "Content-Length": str(size), _META: digest, **condition}
        headers |= {"Content-Type": "application/octet-stream", "x-amz-date": minio.time.to_amz_date(now)}
        headers["x-amz-content-sha256"] = signed_hash
        if credentials.session_token:
            headers["X-Amz-Security-Token"] = credentials.session_token
        by: Any = {"region": self.settings.region, "credentials": credentials, "content_sha256": signed_hash}
        signed = sign_v4_s3(method="PUT", url=url, headers=headers, date=now, **by)
        response = self._http.request("PUT", url.geturl(), body=cast(Any, body), headers=cast(Any, signed))
        if response.status == 200:
            return response.headers.get("etag", "").strip('"')
        if not response.data:
            raise ServerError(f"no body with status {response.status}", response.status)
        raise S3Error.fromxml(response)

    @contextmanager
    def _open(self, key: str) -> Iterator[Any]:
        response = self._client.get_object(self.bucket, self._name(key))
        try:
            yield response
        finally:
            response.close()
            response.release_conn()

    def get(self, key: str) -> bytes:
        def read() -> bytes:
            with self._open(key) as response:
                return b"".join(response.stream(face.BLOCK))

        return self._try(key, read)

    def get_file(self, key: str, path: Path, sha256: str = "", watch: face.OnBlock | None = None) -> str:
        def read() -> str:
            with atomic_writer(path, "wb") as out, self._open(key) as response:
                return face.copy_checked(response.stream(face.BLOCK), out, watch, f"{self.uri}/{key}", sha256)

        return self._try(key, read)

    def stat(self, key: str) -> face.Stat | None:
        def ask() -> None:
            with self._open(key):
                pass

        name = self._name(key)
        try:
            found = self._try(key, lambda: self._client.stat_object(self.bucket, name))
        except (face.NotFound, face.StoreRefused):
            # HEAD has no body and so no reason: a GET tells an absent object from an absent bucket or a wrong key.
            with suppress(face.NotFound):
                self._try(key, ask)
            return None
        return face.Stat(key, found.size or 0, found.etag or "", (found.metadata or {}).get(_META, ""))

    def list(self, prefix: str = "") -> Iterator[face.Entry]:
        start = f"{self.prefix}/{prefix}".lstrip("/")
        found = self._try(prefix, lambda: list(self._client.list_objects(self.bucket, start, recursive=True)))
        return (face.Entry(self._key(o.object_name), o.size or 0) for o in found if not o.is_dir)

    def list_folders(self, prefix: str = "") -> tuple[str, ...]:
        start = f"{self.prefix}/{prefix}".lstrip("/")
        found = self._try(prefix, lambda: list(self._client.list_objects(self.bucket, start)))
        return tuple(sorted(self._key(o.object_name).rstrip("/").rpartition("/")[2] for o in found if o.is_dir))

    def delete(self, key: str) -> None:
        self._try(key, lambda: self._client.remove_object(self.bucket, self._name(key)))

    def _name(self, key: str) -> str:
        return f"{self.prefix}/{face.check_key(key)}".lstrip("/")

    def _key(self, name: str | None) -> str:
        assert name is not None
        return name.removeprefix(f"{self.prefix}/") if self.prefix else name

    def _try(self, key: str, operation: Callable[[], T]) -> T:
        """Run `operation` until it ends or `settings.patience` seconds are over."""
        deadline = time.monotonic() + self.settings.patience
        wait = _FIRST_WAIT
        while True:
            try:
                return operation()
            except S3Error as error:
                if error.code not in _PASSING:
                    raise self._refusal(error, f"{self.uri}/{key}") from None
                last = str(error.code)
            except ServerError as error:
                last = f"HTTP {error.status_code}"
            except InvalidResponseError as error:
                status = re.search(r"code: (\d+)", str(error))
                last = f"HTTP {status[1]}" if status else "no status"
                if not last.startswith("HTTP 5"):  # those come from a proxy in front while the store restarts
                    raise face.StoreUnavailable(
                        f"{self._endpoint}: the answer is not S3's ({last}): is this the S3 port of the store, and "
                        "http or https as it wants?"
                    ) from None
            except urllib3.exceptions.SSLError:
                raise face.StoreRefused(
                    f"{self._endpoint}: its certificate is not trusted: set AWS_CA_BUNDLE to the PEM file of the "
                    "authority that signed it (or use http where the store has no TLS)"
                ) from None
            except (urllib3.exceptions.HTTPError, ConnectionError, TimeoutError) as error:
                last = type(error).__name__
            if time.monotonic() + wait > deadline:
                raise face.StoreUnavailable(
                    f"{self._endpoint}: no usable answer for {self.settings.patience:g} s ({last}): is it up, and "
                    "does a NetworkPolicy let us through? The same command goes on where this one stopped"
                )
            time.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)

    def _refusal(self, error: S3Error, place: str) -> UserError:
        """The sentence for an S3 error code, with what to do."""
        code, user = error.code or "unknown", self.settings.keys()[0]
        if code == "AccessDenied" and "not valid yet" in (error.message or ""):
            code = "RequestTimeTooSkewed"  # how a signed URL from the future is refused
        if code in ("NoSuchKey", "NoSuchObject", "ResourceNotFound"):
            return face.NotFound(f"{place}: no such object")
        if code == "PreconditionFailed":
            return face.Conflict(f"{place}: another writer came first")
        if code in _FULL:
            return face.StoreFull(
                f"{self._endpoint}: no space left for {place}: free some, or grow the volume or the quota"
            )
        sentences = {
            "NoSuchBucket": f"bucket '{self.bucket}' does not exist: create it, or correct the URI",
            "InvalidAccessKeyId": f"access key '{user}' is unknown there: correct AWS_ACCESS_KEY_ID or the Secret",
            "SignatureDoesNotMatch": f"the secret key of '{user}' is wrong: correct AWS_SECRET_ACCESS_KEY or the "
            "Secret",
            "RequestTimeTooSkewed": "this machine's clock and the store's differ by more than 15 minutes: set both by "
            "NTP",
            "AccessDenied": f"'{user}' has no right for this on {place}: add it to the key's policy",
            "AuthorizationHeaderMalformed": f"region '{self.settings.region}' is not the store's: correct AWS_REGION",
            "XAmzContentSHA256Mismatch": f"{place} arrived with other bytes than were hashed: did something write to "
            "the file meanwhile, or does a proxy change uploads? Send it again",
            "EntityTooLarge": f"{place} is larger than the store takes in one object",
        }
        return face.StoreRefused(f"{self._endpoint}: {sentences.get(code, f'{code} for {place}')}")
