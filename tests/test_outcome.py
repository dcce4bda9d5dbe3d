"""What a finished training run says on the console, from the files of its steps."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from pipelines.outcome import publish_train


def _steps(folder: Path, algorithm: str, said: str) -> None:
    """Folders of the steps that `publish_train` reads, and outputs.json with their places."""
    model = {"accuracy": 0.5, "n": 40, "reasoning_rate": 1.0, "mean_reasoning_tokens": 60}
    records = {
        "sources": [],
        "reject_reasons": {},
        "icd10": {},
        "lost": {},
        "phi": {"policy": "off", "off_because": "public"},
    }
    gate = {"decision": "hold", "reasons": [], "forgetting_unread": {}}
    summary = {"sft": model, "ppo": model, "algorithm": algorithm, "learning": {"said": said}, "mcnemar_p": 1.0,
               "gate": gate, "records": records}  # fmt: skip
    files = {
        "report": {
            "summary.json": summary,
            "report.html": "",
            "MODEL_CARD.md": "",
            "README.md": "",
            "step.json": {"seconds": 1.0},
        },
        "gate": {"reasoning_baseline.json": {}, "gate.json": {}},
        "traces": {"step.json": {"metrics": {"address": str(folder / "traces" / "t" / "0")}}},
        "sft_model": {"model/config.json": {}},
        "model": {"model/config.json": {}},
    }
    for step, parts in files.items():
        for name, content in parts.items():
            path = folder / "steps" / step / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content), encoding="utf-8")
    (folder / "outputs.json").write_text(
        json.dumps({step: str(folder / "steps" / step) for step in files}), encoding="utf-8"
    )


@pytest.mark.parametrize("algorithm", ["PPO", "GRPO", "RLOO"])
def test_the_last_lines_name_the_algorithm_and_what_it_did_not_change(algorithm: str, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    _steps(run_dir, algorithm, f"{algorithm} has learnt nothing.")
    console = Console(file=StringIO(), width=200)
    publish_train("train", run_dir, tmp_path, console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line.split(":")[0] for line in lines if "accuracy 0.500" in line] == ["sft", algorithm.lower()]
    assert f"{algorithm} has learnt nothing." in lines
