"""Server-sent events out of bytes that are cut anywhere."""

from collections.abc import Iterator


class EventTooLongError(Exception):
    """One event is longer than the limit."""


class EventReader:
    """Feed bytes, get the `data` of each complete event; comments and other fields are dropped.

    Handles LF, CRLF and CR line ends and events of several data lines (joined by LF, as the standard says).
    """

    def __init__(self, limit: int = 1_048_576) -> None:
        self._buffer = b""
        self._after_cr = False
        self._limit = limit

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the data of each event that is complete now."""
        if self._after_cr:
            data = data.removeprefix(b"\n")  # the CR before it ended the line already
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        elif data:
            self._after_cr = False
        buffer = self._buffer + data if self._buffer else data
        start = 0
        while (end := buffer.find(b"\n\n", start)) >= 0:
            event = _data(buffer[start:end])
            start = end + 2
            if event:
                yield event
        self._buffer = buffer[start:]
        if len(self._buffer) > self._limit:
            raise EventTooLongError

    def finish(self) -> bytes:
        """The data of an event that the end of the stream left without its blank line (empty if none)."""
        rest, self._buffer = self._buffer.strip(b"\n"), b""
        return _data(rest)


def _data(event: bytes) -> bytes:
    if b"\n" not in event:
        return event[5:].strip() if event.startswith(b"data:") else b""
    lines = (line for line in event.split(b"\n") if line.startswith(b"data:"))
    return b"\n".join(line[6:] if line[5:6] == b" " else line[5:] for line in lines).strip()
