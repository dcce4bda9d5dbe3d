"""The journal: nothing lost, nothing twice, whatever dies when."""

import asyncio
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from clinical_r1.errors import UserError
from clinical_r1.llm.config import BudgetConfig
from clinical_r1.llm.journal import Entry, Journal, journaled_keys, load_key
from clinical_r1.llm.limits import Budget
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
    path = tmp_path / "j"
    await fill(path, range(50))
    long = entry("长" * 20_000)
    with Journal(path, KEY) as journal:
        await journal.append(key_of(journal, 99), long)
        assert journal.get(key_of(journal, 7)) == entry("text 7\n第7")
        assert journal.get(key_of(journal, 99)) == long
        assert journal.get(key_of(journal, 100)) is None
        assert len(journal) == 51
        assert journal.usage.calls == 51 and journal.usage.cost == pytest.approx(51 * 0.25)


async def test_a_damaged_file_is_one_sentence(tmp_path) -> None:
    path = tmp_path / "j"
    path.write_bytes(b"no database" * 500)
    with pytest.raises(UserError, match="j: the journal is damaged"):
        Journal(path, KEY)
    await fill(tmp_path / "k", range(3))  # and it holds no lock


def test_processes_share_it(tmp_path) -> None:
    path = tmp_path / "j"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(first), "60"], stdout=subprocess.PIPE)
               for first in (0, 1000, 2000)]  # fmt: skip
    with Journal(path, KEY) as journal:
        asyncio.run(fill(path, range(3000, 3060)))
        assert [writer.wait(300) for writer in writers] == [0, 0, 0]
        assert len(journal) == 240
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.close()


def test_a_process_of_another_machine_is_refused(tmp_path, monkeypatch) -> None:
    path, there = tmp_path / "j", Path.read_bytes
    with Journal(path, KEY):
        monkeypatch.setattr(Path, "read_bytes", lambda self: b"other" if self.name == "boot_id" else there(self))
        with pytest.raises(UserError, match="another machine has this journal open"):
            Journal(path, KEY)
    with Journal(path, KEY) as journal:
        assert len(journal) == 0


async def test_a_cut_reply_is_replaced_and_its_cost_stays(tmp_path) -> None:
    path = tmp_path / "j"
    whole, cut = entry("whole"), replace(entry("cut"), finish_reason="length", room=5)
    with Journal(path, KEY) as journal:
        key = key_of(journal, 0)
        await journal.append(key, cut)
        assert cut.fits(5, True) and not cut.fits(9, True) and not cut.fits(5, False)
        await journal.append(key, whole)
        assert journal.get(key) == whole and len(journal) == 1
    with Journal(path, KEY) as journal:
        assert journal.usage.calls == 2 and journal.usage.cost == 0.5
    assert b"cut" not in path.read_bytes()
    whole = replace(whole, room=100)  # of 5 tokens
    assert whole.fits(200, True) and whole.fits(50, True) and not whole.fits(4, True) and whole.fits(4, False)


async def test_any_text_comes_back(tmp_path) -> None:
    with Journal(tmp_path / "j", KEY) as journal:
        for number, text in enumerate(["", "\0 nul \0", "half \ud83d", "\u2028\r\n'\"; DROP TABLE calls"]):
            await journal.append(key_of(journal, number), replace(entry(text), reasoning=text))
            found = journal.get(key_of(journal, number))
            assert found is not None and found.text == found.reasoning == text.replace("\ud83d", "?")


async def test_keys_and_tags_tell_nothing_without_the_secret(tmp_path) -> None:
    with Journal(tmp_path / "a", KEY) as one, Journal(tmp_path / "b", b"x" * 32) as other:
        assert key_of(one, 0) != key_of(other, 0)
        assert one.subject_tag("patient-1") != other.subject_tag("patient-1")
        await one.append(key_of(one, 0), entry("reply"), "patient-1")
        assert b"patient-1" not in bytes_of(tmp_path / "a")


async def test_forget_removes_the_calls_of_a_subject_and_no_others_to_the_last_byte(tmp_path) -> None:
    path, rng = tmp_path / "j", random.Random(0)
    with Journal(path, KEY) as journal:
        for number in range(300):  # of all lengths, so that pages split and rows overflow them
            who = "patient-1" if number % 3 else "patient-2"
            text = f"{who} said " * rng.choice([1, 30, 300, 3000])
            await journal.append(key_of(journal, number), entry(text), who)
        assert journal.forget(["patient-1", ""], dry_run=True) == 200 and len(journal) == 300
        with Journal(path, KEY) as another:
            assert another.forget(["patient-1", ""]) == 200, "while another has it open"
        assert journal.get(key_of(journal, 1)) is None and journal.get(key_of(journal, 3)) is not None
        left = bytes_of(path)
        assert b"patient-2" in left and b"patient-1" not in left
        await journal.append(key_of(journal, 1), entry("new"), "patient-3")
        assert journal.get(key_of(journal, 1)) == entry("new")
    with Journal(path, KEY) as journal:
        assert journal.usage.calls == len(journal) == 101


def bytes_of(path: Path) -> bytes:
    """All that lies on disk of a journal, its write-ahead log included."""
    parts = sorted(path.parent.glob(f"{path.name}*"))  # by another process: a handle of ours would drop SQLite's locks
    return subprocess.run(["cat", *parts], capture_output=True, check=True).stdout


def test_the_key_file_is_made_once_and_private(tmp_path) -> None:
    path = tmp_path / "key"
    key = load_key(path)
    assert load_key(path) == key and len(key) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"short")
    with pytest.raises(UserError, match="not a journal key"):
        load_key(path)


async def test_waste_counts_but_is_no_call(tmp_path) -> None:
    path = tmp_path / "j"
    with Journal(path, KEY) as journal:
        await journal.append_waste(Usage(calls=3, prompt_tokens=30, completion_tokens=9, cost=1.5))
    with Journal(path, KEY) as journal:
        assert len(journal) == 0 and journal.usage.calls == 3 and journal.usage.cost == 1.5


async def test_a_budget_is_that_of_all_who_share_a_journal(tmp_path) -> None:
    await fill(tmp_path / "j", range(8))
    with Journal(tmp_path / "j", KEY) as journal:
        whole = BudgetConfig(max_cost=3, max_tokens=1000)
        rank = Budget(whole.shared(4), sharers=4)  # four processes of one machine
        rank.adopt(journal)
        assert rank.spent.cost == 0.5 and rank.limits.max_cost == 0.75
        rank.check()
        rank.charge(Usage(calls=1, cost=0.25))
        with pytest.raises(UserError, match="max_cost"):
            rank.check()


async def test_many_calls_share_a_commit(tmp_path, monkeypatch) -> None:
    commits = []
    commit = Journal._commit
    monkeypatch.setattr(Journal, "_commit", lambda self, lines: (commits.append(len(lines)), commit(self, lines)))
    await fill(tmp_path / "j", range(200))
    assert sum(commits) == 200 and len(commits) < 20


async def test_a_full_disk_fails_the_call_and_keeps_the_others(tmp_path) -> None:
    with Journal(tmp_path / "j", KEY) as journal:
        await journal.append(key_of(journal, 0), entry("kept"))
        journal._writer.execute("PRAGMA max_page_count = 10")
        with pytest.raises(UserError, match=r"j: cannot use the journal \(database or disk is full\)"):
            await journal.append(key_of(journal, 1), entry("lost" * 100_000))
        journal._writer.execute("PRAGMA max_page_count = 1000000")
        await journal.append(key_of(journal, 2), entry("after"))
        assert journal.get(key_of(journal, 2)) == entry("after")
        assert len(journal) == 2


async def test_what_the_file_cannot_hold_fails_its_call_and_leaves_nobody_waiting(tmp_path) -> None:
    with Journal(tmp_path / "j", KEY) as journal:
        with pytest.raises(OverflowError):
            await asyncio.wait_for(journal.append_waste(Usage(calls=10**30)), 120)
        await journal.append(key_of(journal, 1), entry("after"))
        assert len(journal) == 1


def test_an_event_loop_that_ends_within_a_commit_leaves_the_journal_usable(tmp_path) -> None:
    path = tmp_path / "j"
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
from clinical_r1.llm.limits import Budget
from clinical_r1.llm.config import BudgetConfig
from clinical_r1.llm.journal import Entry, Journal
from clinical_r1.schema import Usage

async def main(journal, n, most):
    async def one(n):
        key = journal.call_key(b"request", "v-1", n)
        await journal.append(key, Entry("text " * 200, "m", "stop", Usage(calls=1)))
        print(key, flush=True)
    while most > 0:
        await asyncio.gather(*(one(n + i) for i in range(20)))
        n, most = n + 20, most - 20

asyncio.run(main(Journal(sys.argv[1], b"k" * 32), int(sys.argv[2]), int(sys.argv[3])))
"""


def test_kill_9_loses_no_finished_call(tmp_path) -> None:
    path, rng = tmp_path / "j", random.Random(0)
    finished: set[str] = set()
    for turn in range(4):
        command = [sys.executable, "-c", WRITER, str(path), str(100_000 * turn), "100000"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        finished.add(process.stdout.readline().strip())
        time.sleep(rng.uniform(0.0, 0.1))
        process.send_signal(signal.SIGKILL)
        finished |= {line.strip() for line in process.stdout if len(line) == 33}
        process.wait()
    with Journal(path, KEY) as journal:
        assert len(finished) > 20
        assert finished <= set(journaled_keys(path))
        assert all(journal.get(key) is not None for key in finished)
