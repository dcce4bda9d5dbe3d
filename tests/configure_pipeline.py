"""Runs the configure step as an executor does; prints what it hands out: configure_pipeline.py CASES ROOT."""

import json
import sys
from pathlib import Path
from typing import NamedTuple

from kfp import dsl, local

from clinical_r1.runs.form import FORMS
from components.configure import configure


class Outputs(NamedTuple):
    """A text, a list and the page of the step."""

    sft: str
    shards: list
    page: dsl.Markdown


@dsl.pipeline(name="configure-only")
def configure_only(records: str, overrides: dict) -> Outputs:
    """The first step of the real pipelines."""
    form = {name: row[1] for name, row in FORMS["train"].items()}
    form |= {"records": records, "overrides": overrides, "shards": 2}
    form |= {"synthesizer_url": "http://teacher/v1", "synthesizer_model": "big", "sft_epochs": 2.0}
    task = configure(pipeline="train", **form)
    return Outputs(task.outputs["sft"], task.outputs["shards"], task.outputs["resolved_configuration"])


if __name__ == "__main__":
    cases, root = sys.argv[1], Path(sys.argv[2])
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(root / "outputs"))
    task = configure_only(records=cases, overrides={"ppo": {"steps": 7}})
    page = Path(task.outputs["page"].path).read_text(encoding="utf-8")
    print("\n" + json.dumps({name: task.outputs[name] for name in ("sft", "shards")} | {"page": page}))
