"""The journal: nothing lost, nothing twice, whatever dies when."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical_r1.errors import UserError
from clinical_r1.llm.index import OffsetIndex
from clinical_r1.llm.journal import Journal, load_key
from clinical_r1.llm.lines import Entry, journaled_keys
from clinical_r1.schema import Usage

KEY = b"k" * 32


def entry(text: str, cost: float = 0.25) -> Entry:
    return Entry(text, "m-1", "stop", Usage(calls=1, prompt_tokens=10, completion_tokens=5, cost=cost), "v-1")


def key_of(journal: Journal, number: int) -> str:
    return journal.call_key(b"request", "v-1", number)


async def fill(path: Path, numbers: range, subject: str = "") -> None:
    with Journal(path, KEY) as journal:
        await asyncio.gather(*(journal.append(key_of(journal, n), entry(f"text {n}\n第{n}"), subject) for n in numbers))


async def test_entries_come_back_whole_after_reopening(tmp_path) -> None:
    path = tmp_path / "j.jsonl"
    await fill(path, range(50))
    long = entry("长" * 20_000)
    with Journal(path, KEY) as journal:
        await journal.append(key_of(journal, 99), long)
        assert journal.get(key_of(journal, 7)) == entry("text 7\n第7")
        assert journal.get(key_of(journal, 99)) == long
        assert journal.get(key_of(journal, 100)) is None
        assert len(journal) == 51
        assert journal.usage.calls == 51 and journal.usage.cost == pytest.approx(51 * 0.25)


async def test_a_torn_last_line_is_cut_and_written_anew(tmp_path) -> None:
    path = tmp_path / "j.jsonl"
    await fill(path, range(3))
    whole = path.read_bytes()
    for cut in (1, 2, 10, 60):
        path.write_bytes(whole[:-cut])
        with Journal(path, KEY) as journal:
            assert len(journal) == 2 and journal.get(key_of(journal, 2)) is None
            await journal.append(key_of(journal, 2), entry("again"))
        with Journal(path, KEY) as journal:
            assert journal.get(key_of(journal, 2)) == entry("again") and journal.damaged == 0


async def test_a_damaged_line_costs_one_call_only(tmp_path) -> None:
    path = tmp_path / "j.jsonl"
    await fill(path, range(3))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\x00\x00 damaged\n" + lines[2])
    with Journal(path, KEY) as journal:
        assert journal.damaged == 1
        assert [journal.get(key_of(journal, n)) is not None for n in range(3)] == [True, False, True]


def test_a_second_process_is_refused(tmp_path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path, KEY):
        code = f"from clinical_r1.llm.journal import Journal; Journal({str(path)!r}, b'k' * 32)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"UserError: {path}: another process (id {os.getpid()})" in done.stderr
    Journal(path, KEY).close()


async def test_keys_and_tags_tell_nothing_without_the_secret(tmp_path) -> None:
    with Journal(tmp_path / "a.jsonl", KEY) as one, Journal(tmp_path / "b.jsonl", b"x" * 32) as other:
        assert key_of(one, 0) != key_of(other, 0)
        assert one.subject_tag("patient-1") != other.subject_tag("patient-1")
        await one.append(key_of(one, 0), entry("reply"), "patient-1")
    assert b"patient-1" not in (tmp_path / "a.jsonl").read_bytes()


async def test_forget_removes_the_lines_of_a_subject_and_no_others(tmp_path) -> None:
    path = tmp_path / "j.jsonl"
    await fill(path, range(5), "patient-1")
    await fill(path, range(5, 9), "patient-2")
    with Journal(path, KEY) as journal:
        assert journal.forget(["patient-1", ""]) == 5
        assert len(journal) == 4 and journal.usage.calls == 4
        assert journal.get(key_of(journal, 0)) is None and journal.get(key_of(journal, 6)) is not None
        await journal.append(key_of(journal, 0), entry("new"), "patient-3")
        assert journal.get(key_of(journal, 0)) == entry("new")
    assert b"text 0" not in path.read_bytes()


def test_the_key_file_is_made_once_and_private(tmp_path) -> None:
    path = tmp_path / "key"
    key = load_key(path)
    assert load_key(path) == key and len(key) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"short")
    with pytest.raises(UserError, match="not a journal key"):
        load_key(path)


async def test_waste_counts_but_is_no_call(tmp_path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path, KEY) as journal:
        await journal.append_waste(Usage(calls=3, prompt_tokens=30, completion_tokens=9, cost=1.5))
    with Journal(path, KEY) as journal:
        assert len(journal) == 0 and journal.usage.calls == 3 and journal.usage.cost == 1.5


async def test_many_calls_share_an_fsync(tmp_path, monkeypatch) -> None:
    commits = []
    commit = Journal._commit
    monkeypatch.setattr(Journal, "_commit", lambda self, lines: (commits.append(len(lines)), commit(self, lines)))
    await fill(tmp_path / "j.jsonl", range(200))
    assert sum(commits) == 200 and len(commits) < 20


async def test_a_full_disk_fails_the_call_and_leaves_whole_lines(tmp_path, monkeypatch) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path, KEY) as journal:
        await journal.append(key_of(journal, 0), entry("kept"))
        write = os.write

        def full(handle: int, data: bytes) -> int:
            if handle != journal._file:
                return write(handle, data)
            write(handle, data[:10])
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(UserError, match="No space left"):
                await journal.append(key_of(journal, 1), entry("lost"))
        await journal.append(key_of(journal, 2), entry("after"))
        assert journal.get(key_of(journal, 2)) == entry("after")
    assert len(list(journaled_keys(path))) == 2


def test_an_event_loop_that_ends_within_a_commit_leaves_the_journal_usable(tmp_path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path, KEY) as journal:

        async def interrupted() -> None:
            task = asyncio.create_task(journal.append(key_of(journal, 0), entry("first")))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()

        asyncio.run(interrupted())
        asyncio.run(journal.append(key_of(journal, 1), entry("second")))
        assert journal.get(key_of(journal, 1)) == entry("second")


WRITER = """
import asyncio, sys
from clinical_r1.llm.journal import Journal
from clinical_r1.llm.lines import Entry
from clinical_r1.schema import Usage

async def main(journal):
    async def one(n):
        key = journal.call_key(b"request", "v-1", n)
        await journal.append(key, Entry("text " * 200, "m", "stop", Usage(calls=1)))
        print(key, flush=True)
    n = len(journal)
    while True:
        await asyncio.gather(*(one(n + i) for i in range(20)))
        n += 20

asyncio.run(main(Journal(sys.argv[1], b"k" * 32)))
"""


def test_kill_9_loses_no_finished_call(tmp_path) -> None:
    path, rng = tmp_path / "j.jsonl", random.Random(0)
    finished: set[str] = set()
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        finished.add(process.stdout.readline().strip())
        time.sleep(rng.uniform(0.0, 0.1))
        process.send_signal(signal.SIGKILL)
        finished |= {line.strip() for line in process.stdout if len(line) == 33}
        process.wait()
    with Journal(path, KEY) as journal:
        assert len(finished) > 20
        assert finished <= set(journal.keys())
        assert all(journal.get(key) is not None for key in finished)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 2**40)), max_size=300))
def test_index_finds_what_was_entered(pairs: list[tuple[int, int]]) -> None:
    index, expected = OffsetIndex(capacity=2), {}
    for fingerprint, offset in pairs:
        index.add(fingerprint, offset)
        expected.setdefault(fingerprint, []).append(offset)
    assert len(index) == len(pairs)
    assert all(sorted(index.find(key)) == sorted(offsets) for key, offsets in expected.items())
    assert list(index.find(10**9)) == []
