"""Audit sampling: off by default, whole segments, nothing lost at shutdown, a dead store holds nobody up."""

import json
from pathlib import Path
from typing import Any

import pytest
from gateway_fixture import ASK, running, until
from scripted_engine import Script

from clinical_r1.objectstore.face import StoreUnavailable


async def test_off_by_default(tmp_path: Path) -> None:
    async with running() as r:
        await r.unary()
        assert await r.sample("clinical_r1_audit_samples_total") == 0


async def test_whole_segments_with_what_a_judge_needs(tmp_path: Path) -> None:
    async with running(model_version="m/v@1", sampling={"rate": 1.0, "store": str(tmp_path), "segment": 2}) as r:
        for _ in range(3):
            await r.unary()
        await r.stream(n=2)
        r.engine.script = Script(die_after=3)
        await r.stream()  # aborted: not kept
        await r.settled()
        assert await r.sample("clinical_r1_audit_samples_total") == 4
        await until(lambda: len(list(tmp_path.rglob("*.jsonl"))) == 2)
    rows = [json.loads(line) for path in sorted(tmp_path.rglob("*.jsonl")) for line in path.read_text().splitlines()]
    assert len(rows) == 4
    assert rows[0]["thinking"] == "weigh it"
    assert rows[0]["messages"] == ASK["messages"]
    assert rows[0]["request_id"].startswith("req-")
    assert {path.parts[-4:-2] for path in tmp_path.rglob("*.jsonl")} == {("samples", "m-v-1")}


async def test_the_rest_is_written_at_shutdown_and_after_a_while(tmp_path: Path) -> None:
    async with running(sampling={"rate": 1.0, "store": str(tmp_path / "a")}) as r:
        await r.unary()
        assert not list(tmp_path.rglob("*.jsonl"))
    assert len(list(tmp_path.rglob("*.jsonl"))) == 1
    async with running(sampling={"rate": 1.0, "store": str(tmp_path / "b"), "seconds": 0.1}) as r:
        await r.unary()
        await until(lambda: len(list((tmp_path / "b").rglob("*.jsonl"))) == 1)


async def test_a_dead_store_holds_up_no_request_and_losses_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def dead(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("CANARY")

    async with running(sampling={"rate": 1.0, "store": str(tmp_path), "segment": 1}) as r:
        monkeypatch.setattr(r.listener.gateway.sampler._store, "put", dead)
        for _ in range(3):
            assert (await r.unary())[0] == 200
        await r.reaches(3, "clinical_r1_audit_samples_lost_total")
    assert "CANARY" not in caplog.text
