"""A finished step is reused: every output artifact must leave a file, or kfp.local takes the step for lost."""

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
