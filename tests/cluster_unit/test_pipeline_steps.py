"""What `make test-cluster` runs in pods: every step of the compiled `train`, told what the pipeline would tell it."""

import yaml

from clinical_r1.runs.form import settle
from clinical_r1.runs.resolve import OUTPUTS
from tests.cluster.step_pods import COMPILED, executor_input
from tests.cluster.steps_pipeline import TINY, data_steps, first_steps, last_step, model_steps


def test_every_step_of_train_is_run_once_with_the_parameters_and_artifacts_that_it_takes() -> None:
    spec = next(yaml.safe_load_all(COMPILED.read_text(encoding="utf-8")))
    given = dict.fromkeys(OUTPUTS, "") | {"state_dir": "/state/train-x"}
    steps = [*first_steps(), *data_steps(given), *model_steps(given, "/state/base"), last_step(given, "s3://x")]
    tasks = {name.removeprefix("exec-") for name in spec["deploymentSpec"]["executors"]}
    assert sorted(step.task for step in steps) == sorted(tasks)
    made: set[str] = set()
    for step in steps:
        told = executor_input(step, spec["components"][f"comp-{step.task}"])
        assert set(step.inputs.values()) <= made, f"{step.task} takes what no step before it made"
        made |= {entry["artifacts"][0]["uri"] for entry in told["outputs"]["artifacts"].values()}


def test_what_the_form_is_filled_in_with_is_a_configuration() -> None:
    config = settle("train", "small", {"overrides": TINY})
    assert config.ppo.steps == 2 and config.records.sources[0].path == "/state/cases.jsonl"
