"""What `make test-cluster` runs in pods: every step of the compiled `train`, told what the pipeline would tell it."""

import yaml

from pipelines.submit import run_arguments
from tests.cluster.step_pods import COMPILED, RUN_PARAMETERS, executor_input
from tests.cluster.steps_pipeline import TINY, data_steps, end_step, model_steps


def test_every_step_of_train_is_run_once_with_the_parameters_and_artifacts_that_it_takes() -> None:
    spec = next(yaml.safe_load_all(COMPILED.read_text(encoding="utf-8")))
    given = run_arguments("train", "small", list(TINY), [f"{name}={value}" for name, value in RUN_PARAMETERS.items()])
    assert given["state_dir"].startswith("/state/train-")
    steps = [*data_steps(given), *model_steps(given, "/state/base"), end_step()]
    tasks = {name.removeprefix("exec-") for name in spec["deploymentSpec"]["executors"]}
    assert sorted(step.task for step in steps) == sorted(tasks)
    made: set[str] = set()
    for step in steps:
        told = executor_input(step, spec["components"][f"comp-{step.task}"])
        assert set(step.inputs.values()) <= made, f"{step.task} takes what no step before it made"
        made |= {entry["artifacts"][0]["uri"] for entry in told["outputs"]["artifacts"].values()}
