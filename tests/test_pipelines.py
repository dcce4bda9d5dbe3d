"""The pipelines compile, their steps carry what a cluster needs, and the tracker reads what kfp.local prints."""

import io
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from clinical_r1.cluster.nodes import ENDPOINT_KEYS, PATIENT_KEY
from clinical_r1.errors import UserError
from pipelines.placement import Placement
from pipelines.progress import PlainView, StepTracker
from pipelines.registry import PIPELINES, cluster_form, load_pipeline
from pipelines.train_run import TITLES

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_committed_yaml_is_what_the_code_compiles_to(name: str, tmp_path: Path) -> None:
    from kfp import compiler

    path = tmp_path / "pipeline.yaml"
    compiler.Compiler().compile(cluster_form(name), str(path))
    committed = ROOT / "manifests" / "pipelines" / f"{name}.yaml"
    assert path.read_text() == committed.read_text(), "run `make compile` and commit the result"


def test_titles_name_the_tasks_of_the_train_pipeline() -> None:
    spec = next(yaml.safe_load_all((ROOT / "manifests" / "pipelines" / "train.yaml").read_text()))
    dags = [spec["root"]["dag"], *(part["dag"] for part in spec["components"].values() if "dag" in part)]
    steps = {name for dag in dags for name, task in dag["tasks"].items() if "taskInfo" in task}
    around = {"for-loop-1", "exit-handler-1", "report-failure", "train-steps"}
    assert set(TITLES) == steps - around


def test_image_is_a_run_parameter_of_every_step() -> None:
    spec = next(yaml.safe_load_all((ROOT / "manifests" / "pipelines" / "train.yaml").read_text()))
    for executor in spec["deploymentSpec"]["executors"].values():
        assert executor["container"]["image"] == "{{$.inputs.parameters['pipelinechannel--image']}}"


def test_unknown_pipeline_names_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"unknown pipeline 'trian': choose one of .*train"):
        load_pipeline("trian")


def test_tracker_follows_the_runner_and_keeps_the_user_error() -> None:
    out = io.StringIO()
    tracker = StepTracker({"fine-tune": "sft"}, PlainView(Console(file=out, width=200), interval=0.0))
    for line in (
        "12:00:00.001 - INFO - Executing task \x1b[96m'fine-tune'\x1b[0m",
        "    [KFP Executor 12 INFO]: Got executor_input:",
        "    step 30/120 loss 1.25",
        '      File "ephemeral_component.py", line 3, in <module>',
        "        executor_main()",
        "    clinical_r1.errors.UserError: traces.jsonl:3: not a Trace: question: Field required",
    ):
        tracker.read(line)
    step = tracker.steps["fine-tune"]
    assert step.state == "running" and step.share == pytest.approx(0.25) and step.message.startswith("step 30/120")
    tracker.read("12:00:01.000 - INFO - Task \x1b[96m'fine-tune'\x1b[0m finished with status \x1b[91mFAILURE\x1b[0m")
    assert step.state == "failed" and tracker.user_error.startswith("traces.jsonl:3")
    assert "executor_input" not in out.getvalue() and "sft: FAILED" in out.getvalue()


def test_tracker_keeps_the_sentence_of_every_kind_of_user_error() -> None:
    tracker = StepTracker({"synthesize-shard": "synthesize"}, PlainView(Console(file=io.StringIO())))
    tracker.read("12:00:00.001 - INFO - Executing task 'synthesize-shard'")
    tracker.read("    clinical_r1.llm.failures.EndpointUnusable: endpoint x: no answer from http://127.0.0.1:9/v1")
    assert tracker.user_error == "endpoint x: no answer from http://127.0.0.1:9/v1"


def test_tracker_marks_reused_steps() -> None:
    out = io.StringIO()
    tracker = StepTracker({"reinforce": "ppo"}, PlainView(Console(file=out, width=200)))
    tracker.read("12:00:00.001 - INFO - Task reinforce cache hit (key=0123456789ab); skipping execution.")
    assert tracker.steps["reinforce"].state == "reused"
    assert "ppo: reused, nothing changed" in out.getvalue()


def compiled(name: str) -> tuple[dict, dict]:
    spec, platform = yaml.safe_load_all((ROOT / "manifests" / "pipelines" / f"{name}.yaml").read_text())
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def tasks_of(spec: dict) -> list[tuple[str, dict, dict]]:
    """Every task: its name, what stands in the DAG, and the parameters that this DAG is given."""
    return [
        (name, task, part.get("inputDefinitions", {}).get("parameters", {}))
        for part in [spec["root"], *spec["components"].values()]
        for name, task in part.get("dag", {}).get("tasks", {}).items()
    ]


WITHOUT_STATE = ("exec-provide-claim", "exec-plan-nodes", "exec-report-failure")
COMPUTING = ("exec-fine-tune", "exec-fine-tune-further", "exec-reinforce", "exec-evaluate-model", "exec-gate-model")
CALLING = (
    "synthesize-shard",
    "reinforce",
    "evaluate-model",
    "gate-model",
    "evaluate-endpoint",
    "audit-one-judge",
    "audit-answers",
)


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_every_step_of_every_pipeline_is_placed_by_run_parameters(name: str) -> None:
    """The claim, the store and the registry for all; accelerators, labels and taints where a model computes."""
    spec, settings = compiled(name)
    assert set(spec["root"]["inputDefinitions"]["parameters"]) >= set(Placement._fields)
    for step, executor in spec["deploymentSpec"]["executors"].items():
        assert executor["container"]["image"] == "{{$.inputs.parameters['pipelinechannel--image']}}", step
        if not step.startswith("exec-report-failure"):
            assert settings[step]["securityContext"] == {"runAsNonRoot": True}, step
        if step.startswith(WITHOUT_STATE):
            continue
        placed, resources = settings[step], executor["container"]["resources"]
        assert placed["pvcMount"][0]["pvcNameParameter"]["componentInputParameter"].endswith("claim"), step
        assert {mount["mountPath"] for mount in placed["secretAsVolume"]} == {"/etc/clinical-r1/store"}, step
        assert placed["imagePullSecret"] and placed["podMetadata"]["labels"]["sidecar.istio.io/inject"] == "false"
        assert "pipelinechannel" in resources["resourceCpuRequest"] + resources["resourceMemoryLimit"], step
        if step.startswith(COMPUTING):
            assert "accelerators'" in resources["accelerator"]["resourceCount"], step
            assert placed["nodeSelector"] and placed["tolerations"], step
        keys = {pair["envVar"] for entry in placed.get("secretAsEnv", []) for pair in entry["keyToEnv"]}
        if step.removeprefix("exec-").startswith(CALLING):
            assert keys == {*ENDPOINT_KEYS}
        if step.startswith("exec-prepare-records"):
            assert keys == {PATIENT_KEY}
        # What every step needs is there when its pod starts, or the pod says what is not.
        needed = [*placed["secretAsVolume"], *placed["configMapAsVolume"], *placed["configMapAsEnv"]]
        assert not any(entry["optional"] for entry in needed), step


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_no_step_takes_a_parameter_that_its_dag_is_not_given(name: str) -> None:
    """kfp 2.17 compiles resources of a task in a loop all the same; only the backend would find them missing."""
    for step, task, given in tasks_of(compiled(name)[0]):
        for parameter, value in task.get("inputs", {}).get("parameters", {}).items():
            wanted = value.get("componentInputParameter")
            assert wanted is None or wanted in given or "loop-item" in wanted, f"{step}: {parameter} from {wanted}"


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_endpoint_steps_are_retried_on_a_cluster_and_a_failure_is_told(name: str) -> None:
    spec = compiled(name)[0]
    for step, task, _ in tasks_of(spec):
        assert ("retryPolicy" in task) == step.startswith(CALLING), step
    assert spec["root"]["dag"]["tasks"]["report-failure"]["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert "retryPolicy" not in str(load_pipeline(name).pipeline_spec)


def test_every_knob_of_a_cluster_is_a_run_parameter() -> None:
    spec, platform = yaml.safe_load_all((ROOT / "manifests" / "pipelines" / "train.yaml").read_text())
    parameters = set(spec["root"]["inputDefinitions"]["parameters"])
    assert parameters >= {
        "accelerator", "accelerators", "cpu", "memory", "node_selector", "tolerations", "claim", "storage_class",
        "storage_size", "store_secret", "endpoint_secret", "ca_config_map", "image", "image_pull_secret", "shards",
        "models_uri", "model_name", "nodes", "deadline_hours",
    }  # fmt: skip
    executors = spec["deploymentSpec"]["executors"]
    for name, channel in (("exec-evaluate-model", "accelerators"), ("exec-reinforce", "plan-nodes-accelerators")):
        resources = executors[name]["container"]["resources"]
        assert f"pipelinechannel--{channel}'" in resources["accelerator"]["resourceCount"]
    settings = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for name in set(executors) - {"exec-provide-claim", "exec-plan-nodes", "exec-report-failure"}:
        assert settings[name]["pvcMount"][0]["pvcNameParameter"]["componentInputParameter"].endswith("claim"), name
    assert "nodeSelector" in settings["exec-fine-tune"] and "tolerations" in settings["exec-fine-tune"]


def test_endpoint_steps_are_retried_on_a_cluster_and_not_here() -> None:
    spec = next(yaml.safe_load_all((ROOT / "manifests" / "pipelines" / "train.yaml").read_text()))
    tasks = {
        name: task
        for part in spec["components"].values()
        for name, task in part.get("dag", {}).get("tasks", {}).items()
    }
    retried = {name for name, task in tasks.items() if "retryPolicy" in task}
    assert retried == {"synthesize-shard", "reinforce", "evaluate-model", "evaluate-model-2", "gate-model"}
    assert tasks["reinforce"]["retryPolicy"]["backoffFactor"] == 2.0
    assert spec["root"]["dag"]["tasks"]["report-failure"]["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert "retryPolicy" not in str(load_pipeline("train").pipeline_spec)
