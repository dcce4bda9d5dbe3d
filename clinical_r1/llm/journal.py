"""Append-only log of finished calls, so that nothing is lost and no finished call is paid twice.

One JSON object a line (`lines.py`). A call is finished when its line is fsynced; many calls share one fsync (group
commit). Keys and tags are keyed hashes: without the key file nobody can test whether a given text was sent. Replies
are in the journal in full; it lives under its own prefix with its own retention.
"""

import asyncio
import fcntl
import hashlib
import os
import secrets
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path

from clinical_r1.atomic import atomic_writer
from clinical_r1.errors import UserError
from clinical_r1.llm.index import OffsetIndex
from clinical_r1.llm.lines import HEAD, WASTE, Entry, entry_line, journaled_keys, line_at, parse_entry, usage_of
from clinical_r1.schema import Usage


def load_key(path: str | os.PathLike[str]) -> bytes:
    """The secret key of a journal, made on first use (mode 0600). Keep it as long as the journal, and apart from it."""
    target = Path(path)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        # Two processes that begin at once must end with one key: with the other's, every call would be paid again.
        with open(target.with_name(target.name + ".lock"), "wb") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            if not target.exists():
                with atomic_writer(target, "wb") as handle:
                    os.fchmod(handle.fileno(), 0o600)
                    handle.write(secrets.token_bytes(32))
    key = target.read_bytes()
    if len(key) < 16:
        raise UserError(f"{target}: not a journal key (shorter than 16 bytes); restore it, or start a new state folder")
    return key


JOURNAL, JOURNAL_KEY = "journal.jsonl", "journal.key"
"""A folder's journal and the secret of its hashes; `forget` finds journals by these names."""


def open_journal(folder: str | os.PathLike[str]) -> "Journal":
    """The journal of a folder, which is made where it is missing."""
    return Journal(Path(folder) / JOURNAL, load_key(Path(folder) / JOURNAL_KEY))


class _AbandonedError(Exception):
    """The first asker of a key was cancelled; the next one makes the call."""


class Journal:
    """One file, one process. `key` is the secret of the keyed hashes (`load_key`).

    Raises UserError where another process has it open. A last line torn by a crash is cut off; other unreadable lines
    are skipped and counted in `damaged`. Not for use from several threads at once.
    """

    def __init__(self, path: str | os.PathLike[str], key: bytes) -> None:
        self.path = Path(path)
        self._key = key[:64]
        self.usage = Usage()
        self.damaged = 0
        self.appended = 0
        self._index = OffsetIndex()
        self._in_flight: dict[str, asyncio.Future[Entry]] = {}
        self._pending: list[tuple[str, bytes, asyncio.Future[None]]] = []
        self._flusher: asyncio.Task[None] | None = None
        self._interrupted = False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.path)
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            self._end = self._recover()
        except BaseException:
            os.close(self._lock)
            raise

    def __len__(self) -> int:
        return len(self._index)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file and the lock. Calls still pending must have been awaited."""
        if self._file >= 0:
            os.close(self._file)
            os.close(self._lock)
            self._file = -1

    # ---------------------------------------------------------------------------------------------------------- keys

    def call_key(self, request: bytes, prompt_version: str, sample_index: int) -> str:
        """Keyed hash of a call: 32 hex digits. `request` is canonical JSON with model and sampling parameters."""
        digest = hashlib.blake2b(request, digest_size=16, key=self._key, person=b"llm-call")
        digest.update(f"\x1f{prompt_version}\x1f{sample_index}".encode())
        return digest.hexdigest()

    def subject_tag(self, subject: str) -> str:
        """Keyed hash of whom a call is about (patient or case), for `forget`: 16 hex digits, empty for no subject."""
        if not subject:
            return ""
        return hashlib.blake2b(subject.encode(), digest_size=8, key=self._key, person=b"llm-subject").hexdigest()

    # ---------------------------------------------------------------------------------------------------- read, write

    def get(self, key: str) -> Entry | None:
        """The finished call of a key, or None."""
        prefix = f'{{"k":"{key}"'.encode()
        for offset in self._index.find(int(key[:16], 16)):
            line = line_at(self._file, offset)
            if line.startswith(prefix) and (entry := parse_entry(line)) is not None:
                return entry
        return None

    async def once(self, key: str, subject: str, call: Callable[[], Awaitable[Entry]]) -> tuple[Entry, bool]:
        """The journaled call, or the result of `call` once it is fsynced; with True where nothing was called.

        The same key is never called twice at once: later askers wait for the first one's result or exception.
        """
        while (running := self._in_flight.get(key)) is not None:
            try:
                return await asyncio.shield(running), True
            except _AbandonedError:
                continue
        if (entry := self.get(key)) is not None:
            return entry, True
        mine = self._in_flight[key] = asyncio.get_running_loop().create_future()
        try:
            entry = await call()
            await self.append(key, entry, subject)
        except BaseException as error:
            mine.set_exception(error if isinstance(error, Exception) else _AbandonedError())
            mine.exception()  # read here, so that a result nobody waits for is no warning
            raise
        else:
            mine.set_result(entry)
            return entry, False
        finally:
            del self._in_flight[key]

    async def append(self, key: str, entry: Entry, subject: str = "") -> None:
        """Write a line; returns when it is on disk."""
        self._count(entry.usage)
        await self._write(key, entry_line(key, self.subject_tag(subject), entry))

    async def append_waste(self, usage: Usage) -> None:
        """Account for attempts that were paid and gave nothing usable, so that a budget survives a restart."""
        if usage.calls:
            self._count(usage)
            await self._write(WASTE, entry_line(WASTE, "", Entry("", "", "waste", usage)))

    def _count(self, usage: Usage) -> None:
        self.usage = self.usage + usage

    async def _write(self, key: str, line: bytes) -> None:
        done = asyncio.get_running_loop().create_future()
        self._pending.append((key, line, done))
        if self._flusher is None or self._flusher.done():
            if (
                self._interrupted
            ):  # an event loop ended within a commit: what reached the disk is known from the disk only
                self._rescan()
            self._flusher = asyncio.create_task(self._flush())
        await asyncio.shield(done)

    async def _flush(self) -> None:
        """Write and fsync what is pending until nothing is; what arrives during one fsync shares the next."""
        while self._pending:
            batch, self._pending = self._pending, []
            try:
                await asyncio.to_thread(self._commit, [line for _, line, _ in batch])
            except OSError as error:
                problem = UserError(
                    f"{self.path}: cannot write the journal ({error.strerror}); free space and run again"
                )
                for _, _, done in batch:
                    if not done.done():
                        done.set_exception(problem)
                continue
            except asyncio.CancelledError:
                self._interrupted = True
                raise
            for key, line, done in batch:
                if key != WASTE:
                    self._index.add(int(key[:16], 16), self._end)
                self._end += len(line)
                self.appended += 1
                if not done.done():
                    done.set_result(None)

    def _commit(self, lines: list[bytes]) -> None:
        data = memoryview(b"".join(lines))
        start = self._end
        try:
            while data:
                data = data[os.write(self._file, data) :]
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, start)
            raise

    # ------------------------------------------------------------------------------------------------ recovery, forget

    def _recover(self) -> int:
        """Scan the file into the index; cut a torn last line; returns the end of the good part."""
        end = 0
        with open(self.path, "rb") as handle:
            for line in handle:
                if not line.endswith(b"\n"):
                    break
                head = HEAD.match(line)
                if head is None or not line.endswith(b"}\n"):
                    self.damaged += 1
                else:
                    self._count(usage_of(head))
                    if (key := head[1].decode()) != WASTE:
                        self._index.add(int(key[:16], 16), end)
                end += len(line)
        if os.fstat(self._file).st_size > end:
            os.ftruncate(self._file, end)
            os.fsync(self._file)
        return end

    def keys(self) -> Iterator[str]:
        """Keys of all finished calls, in the order of the file."""
        yield from journaled_keys(self.path)

    def forget(self, subjects: Iterable[str]) -> int:
        """Remove all lines about the given subjects (patients, cases); returns how many. Whole or not at all."""
        tags = {self.subject_tag(subject).encode() for subject in subjects if subject}
        removed = 0
        with open(self.path, "rb") as old, atomic_writer(self.path, "wb") as new:
            os.fchmod(new.fileno(), 0o600)
            for line in old:
                head = HEAD.match(line)
                if head is not None and head[2] in tags:
                    removed += 1
                else:
                    new.write(line)
        os.close(self._file)
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND)
        self._rescan()
        return removed

    def _rescan(self) -> None:
        self._index, self.usage, self.damaged, self._interrupted = OffsetIndex(), Usage(), 0, False
        self._end = self._recover()


def _lock(path: Path) -> int:
    """Hold `<journal>.lock` while the process lives; the kernel frees it when the process dies, however it dies."""
    handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
        os.close(handle)
        raise UserError(
            f"{path}: another process (id {holder}) has this journal open; wait for it, or use another state folder"
        ) from None
    os.ftruncate(handle, 0)
    os.write(handle, str(os.getpid()).encode())
    return handle
