"""Finished calls in one SQLite file, so that nothing is lost and no finished call is paid twice.

A call is finished when its row is committed; many calls share one commit (one fsync). Keys and tags are keyed hashes:
without the key file nobody can test whether a given text was sent. Replies are in the journal in full; it lives under
its own prefix with its own retention.

Write-ahead logging lets any number of processes of one machine read and write it at once; it needs their common
memory, so a process of another machine (a shared volume) is refused.
"""

import asyncio
import fcntl
import hashlib
import os
import platform
import secrets
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from clinical_r1.atomic import atomic_writer
from clinical_r1.errors import UserError
from clinical_r1.recognise import CUT
from clinical_r1.schema import Usage

JOURNAL, JOURNAL_KEY = "journal.sqlite", "journal.key"
"""A folder's journal and the secret of its hashes; `forget` finds journals by these names."""
NO_ROOM = "no_room"
"""What finish_reason says where the prompt did not fit beside the wanted room: nothing was asked."""
PATIENCE = 60.0
"""Seconds to wait for other processes of this machine that are writing."""
GATHER = 0.005
"""Seconds that a commit waits for others to share it: a thread and an fsync for each call cost more than the call."""
_TABLE = """CREATE TABLE IF NOT EXISTS calls (
    key BLOB UNIQUE, subject BLOB, calls INTEGER, prompt_tokens INTEGER, completion_tokens INTEGER, cost REAL,
    model TEXT, prompt_version TEXT, finish_reason TEXT, room INTEGER, reasoning_tokens INTEGER, text TEXT,
    reasoning TEXT)"""
"""A row without a key is what was paid and is of no use any more."""
_INSERT = "INSERT INTO calls VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_Row = tuple[bytes | None, bytes | None, *tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class Entry:
    """A finished call as it is kept."""

    text: str
    model: str
    finish_reason: str
    usage: Usage
    prompt_version: str = ""
    reasoning: str | None = None  # the thought, where it came in a field of its own
    reasoning_tokens: int | None = None  # as usage stated them
    room: int = 0  # tokens that the reply was given

    def fits(self, room: int, keep_cut: bool) -> bool:
        """Whether it is the reply to the same call with this much room: a whole one is, in any room that it fits in;
        one that was cut is where the same cut is wanted again."""
        if self.finish_reason in (*CUT, NO_ROOM):
            return keep_cut and self.room == room
        return not keep_cut or self.room <= room or self.usage.completion_tokens <= room


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


def open_journal(folder: str | os.PathLike[str]) -> "Journal":
    """The journal of a folder, which is made where it is missing."""
    return Journal(Path(folder) / JOURNAL, load_key(Path(folder) / JOURNAL_KEY))


def journaled_keys(path: str | os.PathLike[str]) -> list[str]:
    """Keys of the finished calls, while others write."""
    found = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=PATIENCE)
    try:
        return [key.hex() for (key,) in found.execute("SELECT key FROM calls WHERE key IS NOT NULL ORDER BY rowid")]
    finally:
        found.close()


class _AbandonedError(Exception):
    """The first asker of a key was cancelled; the next one makes the call."""


class Journal:
    """The calls of one file. `key` is the secret of the keyed hashes (`load_key`). For one event loop at a time."""

    def __init__(self, path: str | os.PathLike[str], key: bytes) -> None:
        self.path = Path(path)
        self._key = key[:64]
        self._in_flight: dict[str, asyncio.Future[Entry]] = {}
        self._pending: list[tuple[_Row, asyncio.Future[None]]] = []
        self._flusher: asyncio.Task[None] | None = None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._machine = _share(self.path)
        try:
            with self._told():
                # Private from the first byte. Never open the file of a journal beside SQLite: the end of any handle
                # on it drops the locks of all (POSIX).
                with suppress(FileExistsError):
                    os.close(os.open(self.path, os.O_CREAT | os.O_EXCL, 0o600))
                self._writer, self._reader = self._connect(), self._connect()
                self.usage = self._sum()
        except BaseException:
            os.close(self._machine)
            raise

    def _connect(self) -> sqlite3.Connection:
        # Autocommit, and two of them: a look-up never waits for a commit.
        made = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        for setting in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
            made.execute(f"PRAGMA {setting}")
        made.execute(_TABLE)
        return made

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            why = f"cannot use the journal ({error}); mend that (is the disk full?) and run again"
            raise UserError(f"{self.path}: {why}") from None
        except sqlite3.DatabaseError as error:
            why = f"the journal is damaged ({error}); restore it, or move it away and pay again"
            raise UserError(f"{self.path}: {why}") from None

    def __len__(self) -> int:
        return self._reader.execute("SELECT count(key) FROM calls").fetchone()[0]

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file. Calls still pending must have been awaited."""
        if self._machine >= 0:
            self._reader.close()
            self._writer.close()
            os.close(self._machine)
            self._machine = -1

    def call_key(self, request: bytes, prompt_version: str, sample_index: int) -> str:
        """Keyed hash of a call: 32 hex digits. `request` is canonical JSON with model and sampling parameters."""
        digest = hashlib.blake2b(request, digest_size=16, key=self._key, person=b"llm-call")
        digest.update(f"\x1f{prompt_version}\x1f{sample_index}".encode())
        return digest.hexdigest()

    def subject_tag(self, subject: str) -> bytes | None:
        """Keyed hash of whom a call is about (patient or case), for `forget`; None for no subject."""
        if not subject:
            return None
        return hashlib.blake2b(subject.encode(), digest_size=8, key=self._key, person=b"llm-subject").digest()

    def get(self, key: str) -> Entry | None:
        with self._told():
            row = self._reader.execute("SELECT * FROM calls WHERE key = ?", (bytes.fromhex(key),)).fetchone()
        if row is None:
            return None
        model, version, finish, room, tokens, text, reasoning = row[6:]
        usage = Usage(**dict(zip(Usage.model_fields, row[2:6], strict=True)))
        return Entry(text, model, finish, usage, version, reasoning, tokens, room)

    async def once(
        self, key: str, subject: str, call: Callable[[], Awaitable[Entry]], fits: Callable[[Entry], bool]
    ) -> tuple[Entry, bool]:
        """The journaled call that fits, or the result of `call` once it is on disk; with True where nothing was called.

        The same key is never called twice at once: later askers wait for the first one's result or exception.
        """
        while (running := self._in_flight.get(key)) is not None:
            try:
                return await asyncio.shield(running), True
            except _AbandonedError:
                continue
        if (entry := self.get(key)) is not None and fits(entry):
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
        """Keep a call, in place of one of the same key that was cut; returns when it is on disk."""
        await self._write(self._row(key, entry, subject))

    async def append_waste(self, usage: Usage) -> None:
        """Account for attempts that were paid and gave nothing usable, so that a budget survives a restart."""
        if usage.calls:
            await self._write(self._row("", Entry("", "", "waste", usage), ""))

    def append_now(self, calls: Iterable[tuple[str, Entry, str]]) -> None:
        """Keep calls (key, entry, subject) outside of an event loop."""
        with self._told():
            self._commit([self._row(*call) for call in calls])

    def _row(self, key: str, entry: Entry, subject: str) -> _Row:
        self.usage = self.usage + entry.usage
        paid = entry.usage.model_dump().values()
        kept = (entry.model, entry.prompt_version, entry.finish_reason, entry.room, entry.reasoning_tokens)
        texts = (_whole(entry.text), entry.reasoning and _whole(entry.reasoning))
        return bytes.fromhex(key) or None, self.subject_tag(subject), *paid, *kept, *texts

    async def _write(self, row: _Row) -> None:
        done = asyncio.get_running_loop().create_future()
        self._pending.append((row, done))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        await asyncio.shield(done)

    async def _flush(self) -> None:
        """Commit what is pending until nothing is; what arrives during one commit shares the next."""
        while self._pending:
            if len(self._in_flight) > len(self._pending):  # others are about to end
                await asyncio.sleep(GATHER)
            batch, self._pending = self._pending, []
            problem = None
            try:
                with self._told():
                    await asyncio.to_thread(self._commit, [row for row, _ in batch])
            except Exception as error:  # whatever it is, nobody waits for ever
                problem = error
            for _, done in batch:
                if not done.done():
                    done.set_exception(problem) if problem else done.set_result(None)

    def _commit(self, rows: Sequence[_Row]) -> None:
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            # What a new reply replaces stays as what it cost.
            self._writer.executemany(
                "UPDATE calls SET key = NULL, text = '', reasoning = NULL WHERE key = ?", ((row[0],) for row in rows)
            )
            self._writer.executemany(_INSERT, rows)
            self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:  # a full disk has rolled it back already
                self._writer.execute("ROLLBACK")
            raise

    def _sum(self) -> Usage:
        columns = ", ".join(f"total({name})" for name in Usage.model_fields)
        sums = self._reader.execute(f"SELECT {columns} FROM calls").fetchone()
        return Usage(**dict(zip(Usage.model_fields, sums, strict=True)))

    def forget(self, subjects: Iterable[str], dry_run: bool = False) -> int:
        """Remove all calls about the given subjects (patients, cases), so that no byte of them is left in the file;
        returns how many."""
        tags = [(tag,) for tag in map(self.subject_tag, set(subjects)) if tag]
        with self._told():
            found = sum(self._reader.execute("SELECT count(*) FROM calls WHERE subject = ?", tag).fetchone()[0]
                        for tag in tags)  # fmt: skip
            if found and not dry_run:
                self._writer.executemany("DELETE FROM calls WHERE subject = ?", tags)
                self._writer.execute("VACUUM")  # pages that were split or moved may hold old text
                self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                self.usage = self._sum()
        return found


def _whole(text: str) -> str:
    """The text without halves of surrogate pairs, which can be in a reply, but not in a file."""
    return text.encode("utf-8", "replace").decode()


def _share(path: Path) -> int:
    """Hold `<journal>.lock`, which names the machine whose processes use the journal, until they all have ended."""
    try:
        machine = Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    except OSError:
        machine = platform.node().encode()
    handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    until = time.monotonic() + 5
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody else: it is this machine's from now on
            os.ftruncate(handle, 0)
            os.pwrite(handle, machine, 0)
            fcntl.flock(handle, fcntl.LOCK_SH)
        except OSError:
            pass
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if os.pread(handle, 256, 0) == machine:
                return handle
        except OSError:  # another process is at the lines above
            pass
        if time.monotonic() > until:
            os.close(handle)
            raise UserError(
                f"{path}: a process of another machine has this journal open; wait for it, or use another state folder"
            )
        time.sleep(0.05)
