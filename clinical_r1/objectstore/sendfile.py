"""Files as request bodies that the kernel copies to the socket; urllib3 reads and sends them 16 kB at a time."""

from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from clinical_r1.errors import UserError
from clinical_r1.objectstore.store import Watch


class Slice(NamedTuple):
    """A part of a file, as one piece of a request's body."""

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
