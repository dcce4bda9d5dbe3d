"""A finished step is reused: every output artifact must leave a file, or kfp.local takes the step for lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

from clinical_r1.schema import write_jsonl
from clinical_r1.simulator.world import sample_records

ROOT = Path(__file__).resolve().parent.parent


def run(cases: Path, root: Path) -> str:
    command = [sys.executable, str(ROOT / "tests" / "reuse_pipeline.py"), str(cases), str(root)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_the_second_run_reuses_a_step_with_metrics(tmp_path: Path) -> None:
    cases = tmp_path / "cases.jsonl"
    write_jsonl(cases, sample_records(60, seed=0))
    assert "cache hit" not in run(cases, tmp_path)
    assert "prepare-records cache hit" in run(cases, tmp_path)


def test_the_configure_step_runs_as_a_step(tmp_path: Path) -> None:
    """Its parameters come from an executor's input, a mapping and lists with them."""
    cases = tmp_path / "cases.jsonl"
    write_jsonl(cases, sample_records(20, seed=0))
    command = [sys.executable, str(ROOT / "tests" / "configure_pipeline.py"), str(cases), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    told = json.loads(done.stdout.strip().splitlines()[-1])
    assert json.loads(told["sft"])["epochs"] == 2 and told["shards"] == ["0/2", "1/2"]
    assert "steps: 7" in told["page"] and str(cases) in told["page"]
