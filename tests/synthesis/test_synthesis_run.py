"""Whole runs against the simulated endpoint: files, determinism, resume, shards, budget, privacy, wrong input."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from clinical_r1.errors import UserError
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.llm.journal import JOURNAL, journaled_keys
from clinical_r1.schema import Case, Trace, TraceOutcome, read_jsonl, write_jsonl
from clinical_r1.synthesis.config import SynthesisConfig
from clinical_r1.synthesis.dataset import merge_shards, read_report, store_dataset
from clinical_r1.synthesis.run import synthesize

Simulate = Callable[..., AbstractContextManager[EndpointConfig]]


@pytest.fixture
def cases(tmp_path: Path, world_cases: list[Case]) -> Path:
    write_jsonl(tmp_path / "cases.jsonl", world_cases)
    return tmp_path / "cases.jsonl"


def config(endpoint: EndpointConfig, **settings: object) -> SynthesisConfig:
    return SynthesisConfig.model_validate(
        {"synthesizer": endpoint, "verifier": {"kind": "rule"}, "max_guided_share": 1.0, **settings}
    )


def made(folder: Path) -> list[Trace]:
    return read_jsonl(folder / "traces.jsonl", Trace) + read_jsonl(folder / "rejected.jsonl", Trace)


def test_every_case_ends_as_a_trace_or_a_reject_and_files_agree(
    endpoint: EndpointConfig, cases: Path, world_cases: list[Case], tmp_path: Path
) -> None:
    report = synthesize(config(endpoint, samples_per_case=2), cases, tmp_path / "out", tmp_path / "state")
    traces = made(tmp_path / "out")
    assert sorted((t.case_id, t.sample) for t in traces) == sorted((c.id, s) for c in world_cases for s in (0, 1))
    assert all(trace.reason for trace in traces if not trace.accepted)
    accepted = read_jsonl(tmp_path / "out/traces.jsonl", Trace)
    order = {case.id: place for place, case in enumerate(world_cases)}
    assert [order[t.case_id] for t in accepted] == sorted(order[t.case_id] for t in accepted)
    assert report.traces == len(accepted) > 30
    assert set(report.languages) == {"en", "zh"}
    assert report.usage.calls > 0
    assert report.usage.cost > 0
    assert report == read_report(tmp_path / "out")
    import pyarrow.parquet as pq

    table = pq.read_table(tmp_path / "out/traces.parquet")
    assert table.column("thinking").to_pylist() == [trace.thinking for trace in accepted]
    card = (tmp_path / "out/card.md").read_text()
    assert report.dataset_hash in card
    assert not any(case.question in card for case in world_cases)


def test_same_dataset_whatever_the_concurrency_and_the_shards(
    endpoint: EndpointConfig, cases: Path, tmp_path: Path
) -> None:
    settings: dict[str, object] = {"samples_per_case": 2, "max_guided_share": 0.1, "seed": 3}
    whole = synthesize(config(endpoint, concurrency=64, **settings), cases, tmp_path / "a", tmp_path / "sa")
    again = synthesize(config(endpoint, concurrency=2, **settings), cases, tmp_path / "b", tmp_path / "sb")
    assert whole.dataset_hash == again.dataset_hash
    shards = []
    for index in range(3):
        part = config(endpoint, shard={"index": index, "count": 3}, **settings)
        shards.append(tmp_path / f"shard-{index}")
        synthesize(part, cases, shards[-1], tmp_path / f"state-{index}")
    merged = merge_shards(config(endpoint, **settings), cases, reversed(shards), tmp_path / "m", tmp_path / "sm")
    assert merged.dataset_hash == whole.dataset_hash
    for name in ("traces.jsonl", "rejected.jsonl", "traces.parquet"):
        assert (tmp_path / "m" / name).read_bytes() == (tmp_path / "a" / name).read_bytes()
    assert merged.outcomes == whole.outcomes
    assert merged.usage == whole.usage
    with pytest.raises(UserError, match="are in no shard"):
        merge_shards(config(endpoint, **settings), cases, shards[:2], tmp_path / "n", tmp_path / "sn")


def test_second_run_pays_nothing_and_makes_the_same(endpoint: EndpointConfig, cases: Path, tmp_path: Path) -> None:
    first = synthesize(config(endpoint), cases, tmp_path / "a", tmp_path / "state")
    second = synthesize(config(endpoint), cases, tmp_path / "b", tmp_path / "state")
    assert second.dataset_hash == first.dataset_hash
    assert second.endpoints[0]["calls"] == 0
    assert second.endpoints[0]["from_journal"] == first.endpoints[0]["calls"]
    assert second.usage == first.usage


KILLED = """
import os, signal, sys, threading, time
from pathlib import Path
from clinical_r1.synthesis.config import SynthesisConfig
from clinical_r1.synthesis.run import synthesize

here = Path(sys.argv[1])
log = here / f"state/{sys.argv[3]}-wal"

def kill():  # in the process itself, or it could be done before somebody else has looked
    while not log.is_file() or log.stat().st_size < 40_000:
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=kill, daemon=True).start()
config = SynthesisConfig.model_validate_json((here / "config.json").read_text())
synthesize(config, Path(sys.argv[2]), here / "out", here / "state")
"""


def test_kill_and_rerun_ends_with_the_same_dataset(simulate: Simulate, cases: Path, tmp_path: Path) -> None:
    with simulate(tmp_path / "sim", "--latency-ms", "10") as entry:
        whole = synthesize(config(entry, concurrency=4), cases, tmp_path / "whole", tmp_path / "fresh")
        (tmp_path / "config.json").write_text(config(entry, concurrency=4).model_dump_json())
        command = [sys.executable, "-c", KILLED, str(tmp_path), str(cases), JOURNAL]
        assert subprocess.run(command, stderr=subprocess.DEVNULL).returncode == -signal.SIGKILL
        assert not (tmp_path / "out/report.json").exists()
        resumed = synthesize(config(entry, concurrency=4), cases, tmp_path / "out", tmp_path / "state")
    assert resumed.dataset_hash == whole.dataset_hash
    assert 0 < int(str(resumed.endpoints[0]["from_journal"])) < int(str(whole.endpoints[0]["calls"]))


def test_faults_lose_no_case(simulate: Simulate, cases: Path, world_cases: list[Case], tmp_path: Path) -> None:
    faults = ["--malformed", "0.1", "--rate-limited", "0.05", "--server-error", "0.05", "--truncated", "0.01"]
    with simulate(tmp_path / "sim", *faults, "--retry-after", "0.05") as entry:
        report = synthesize(config(entry), cases, tmp_path / "out", tmp_path / "state")
    assert report.traces + report.rejected == len(world_cases)
    assert not [reason for reason in report.reasons if reason.startswith("call_failed")]


def test_guided_share_is_capped_over_the_dataset(endpoint: EndpointConfig, cases: Path, tmp_path: Path) -> None:
    free = synthesize(config(endpoint, retries=0), cases, tmp_path / "free", tmp_path / "state")
    capped = synthesize(config(endpoint, retries=0, max_guided_share=0.1), cases, tmp_path / "cap", tmp_path / "state")
    assert free.guided_share > 0.2
    assert capped.guided_share <= 0.1
    assert capped.reasons["guided_cap"] == free.outcomes["guided"] - capped.outcomes["guided"]
    assert capped.outcomes["direct"] == free.outcomes["direct"]


def test_repeated_cases_are_rejected_once_each(
    endpoint: EndpointConfig, world_cases: list[Case], tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "cases.jsonl", [*world_cases[:5], world_cases[2]])
    report = synthesize(config(endpoint), tmp_path / "cases.jsonl", tmp_path / "out", tmp_path / "state")
    assert report.cases == 5
    assert report.reasons["duplicate_case"] == 1


def test_budget_stops_cleanly_and_goes_on(endpoint: EndpointConfig, cases: Path, tmp_path: Path) -> None:
    out, state = tmp_path / "out", tmp_path / "state"
    small = config(endpoint, budget={"max_tokens": 20_000}, concurrency=4)
    with pytest.raises(UserError, match="max_tokens"):
        synthesize(small, cases, out, state)
    assert not out.exists()
    spent = journaled_keys(state / JOURNAL)
    published = synthesize(
        config(endpoint, budget={"max_tokens": 20_000, "when_spent": "publish"}, concurrency=4), cases, out, state
    )
    assert published.traces > 0
    assert published.reasons["budget"] > 0
    assert journaled_keys(state / JOURNAL) == spent
    whole = synthesize(config(endpoint, concurrency=4), cases, out, state)
    fresh = synthesize(config(endpoint, concurrency=4), cases, tmp_path / "fresh", tmp_path / "fresh-state")
    assert whole.dataset_hash == fresh.dataset_hash


def test_untrusted_endpoint_needs_the_gate_and_a_policy(endpoint: EndpointConfig, cases: Path, tmp_path: Path) -> None:
    outside = endpoint.model_copy(update={"trusted": False, "terms": "train", "data_region": "eu"})
    crossing = {"allow_external": True}
    with pytest.raises(UserError, match="PHI gate"):
        synthesize(config(outside, crossing=crossing), cases, tmp_path / "out", tmp_path / "state")
    declared = {"allow_external": True, "gate_passed": True}
    with pytest.raises(UserError, match="security boundary"):
        synthesize(config(outside, crossing={"gate_passed": True}), cases, tmp_path / "out", tmp_path / "state")
    config(outside, crossing=declared).check_privacy(cases)
    no_train = outside.model_copy(update={"terms": "no_train"})
    with pytest.raises(UserError, match="may not train"):
        config(no_train, crossing=declared).check_privacy(cases)
    judged = config(endpoint, judge=outside, verifier={"kind": "llm"})
    with pytest.raises(UserError, match="security boundary"):
        judged.check_privacy(cases)


def test_wrong_input_is_one_sentence_and_leaves_nothing(endpoint: EndpointConfig, tmp_path: Path) -> None:
    def attempt(cases: Path, entry: EndpointConfig = endpoint) -> str:
        with pytest.raises(UserError) as raised:
            synthesize(config(entry), cases, tmp_path / "out", tmp_path / "state")
        assert not (tmp_path / "out").exists()
        return str(raised.value)

    assert "missing.jsonl" in attempt(tmp_path / "missing.jsonl")
    (tmp_path / "empty.jsonl").write_text("")
    assert "no cases" in attempt(tmp_path / "empty.jsonl")
    (tmp_path / "bad.jsonl").write_text('{"language": "en", "question": "secret text"}\n')
    message = attempt(tmp_path / "bad.jsonl")
    assert "bad.jsonl:1" in message
    assert "secret" not in message
    write_jsonl(tmp_path / "cases.jsonl", [Case(language="en", question="q", reference="r")])
    dead = endpoint.model_copy(update={"base_url": "http://127.0.0.1:9/v1"})
    assert "simulated" in attempt(tmp_path / "cases.jsonl", dead)


def test_llm_judge_is_metered_and_its_calls_are_counted(endpoint: EndpointConfig, cases: Path, tmp_path: Path) -> None:
    report = synthesize(config(endpoint, verifier={"kind": "llm"}), cases, tmp_path / "out", tmp_path / "state")
    direct = [t for t in read_jsonl(tmp_path / "out/traces.jsonl", Trace) if t.outcome is TraceOutcome.DIRECT]
    assert {trace.usage.calls for trace in direct} <= {
        5,
        4,
    }
    assert report.calls_per_trace > 5


def test_stored_dataset_has_an_immutable_address(endpoint: EndpointConfig, cases: Path, tmp_path: Path) -> None:
    report = synthesize(config(endpoint, name="demo"), cases, tmp_path / "out", tmp_path / "state")
    target = store_dataset(tmp_path / "out", tmp_path / "store")
    assert target == tmp_path / "store/traces/demo" / report.dataset_hash[:16]
    before = os.stat(target / "traces.jsonl").st_mtime_ns
    assert store_dataset(tmp_path / "out", tmp_path / "store") == target
    assert os.stat(target / "traces.jsonl").st_mtime_ns == before
    assert json.loads((target / "report.json").read_text())["dataset_hash"] == report.dataset_hash
