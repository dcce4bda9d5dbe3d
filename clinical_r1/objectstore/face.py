"""The small face of every object store, and how one says no: put, get, list, stat, conditional put, delete.

A key is relative to the store's URI, with `/` between its parts. An object appears whole or not at all in every kind of
store. Every failure that a person can mend is a UserError; no message carries what is in an object.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from clinical_r1.errors import UserError

_PART = re.compile(r"[A-Za-z0-9_=+@,()-][A-Za-z0-9._=+@,() -]*")
OnBlock = Callable[[int], None]
"""Told of every block that was read, in bytes; what it raises stops the transfer."""
BLOCK = 1 << 20


class NotFound(UserError):  # noqa: N818
    """There is no such object."""


class Conflict(UserError):  # noqa: N818
    """A conditional write came too late: the object is there already, or is not the one that was read."""


class StoreRefused(UserError):  # noqa: N818
    """Wrong credentials, no right, no bucket, a clock that is off: trying again does not help."""


class StoreFull(UserError):  # noqa: N818
    """No space left, or the bucket's quota is used up."""


class StoreUnavailable(UserError):  # noqa: N818
    """No usable answer within the patience that was given; what was finished stays finished."""


class Damaged(UserError):  # noqa: N818
    """An object is not what its manifest says."""


class Unreadable(UserError):  # noqa: N818
    """A manifest or an alias file is not what this version of the code writes."""


@dataclass(frozen=True)
class Entry:
    """One object of a listing."""

    key: str
    size: int
    """Bytes."""


@dataclass(frozen=True)
class Stat(Entry):
    """What a store knows of one object."""

    etag: str
    """Changes whenever the content does; what `put_if_match` wants. Not a digest of the content in general."""
    sha256: str
    """Hex digest of the content; S3 knows it of what `put` and `put_file` wrote, else it is empty."""


class Store(Protocol):
    """Objects under one URI. Safe to share between threads."""

    uri: str
    """Where the keys begin: `s3://bucket/prefix`, or the absolute path of a folder."""

    def put(self, key: str, data: bytes) -> Stat:
        """Write an object, over what was there."""

    def put_file(self, key: str, path: Path, sha256: str = "", watch: OnBlock | None = None) -> Stat:
        """Write a file as an object, in parts where it is large; `sha256` (computed if empty) is kept with it."""

    def put_if_absent(self, key: str, data: bytes) -> Stat:
        """Write an object that is not there yet; raises Conflict where it is."""

    def put_if_match(self, key: str, data: bytes, etag: str) -> Stat:
        """Replace the very object that had `etag`; raises Conflict where another writer came first, and NotFound."""

    def get(self, key: str) -> bytes:
        """The whole object; raises NotFound."""

    def get_file(self, key: str, path: Path, sha256: str = "", watch: OnBlock | None = None) -> str:
        """Write the object to a file, whole or not at all; returns the SHA-256 of what came.

        Raises NotFound, and Damaged where `sha256` is given and something else came.
        """

    def stat(self, key: str) -> Stat | None:
        """None where there is no such object."""

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """All objects whose key starts with `prefix`, in the order of their keys."""

    def list_folders(self, prefix: str = "") -> tuple[str, ...]:
        """Names of the "folders" right below `prefix` (which ends with "/" or is empty), sorted."""

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""


def check_key(key: str) -> str:
    """The key itself; UserError for one that could leave its prefix or that some store would not take."""
    if key.endswith("/") or len(key) > 900 or not all(_PART.fullmatch(part) for part in key.split("/")):
        raise UserError(
            f"object key '{key}': use letters, digits and . _ - = + @ , ( ) between slashes; no part may be empty or "
            "begin with a dot"
        )
    return key


def copy_checked(
    blocks: Iterable[bytes], out: IO[bytes], watch: OnBlock | None = None, place: str = "", expected: str = ""
) -> str:
    """Write the blocks to `out`; returns their SHA-256. Raises Damaged, of `place`, where another was expected."""
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
        out.write(block)
        if watch is not None:
            watch(len(block))
    found = digest.hexdigest()
    if expected and found != expected:
        raise Damaged(f"{place}: its SHA-256 is not the one in the manifest: the object was changed; publish it again")
    return found
