"""The pipelines compile, their steps carry what a cluster needs, and the tracker reads what kfp.local prints."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from clinical_r1.cluster.nodes import ENDPOINT_KEYS, PATIENT_KEY
from clinical_r1.errors import UserError
from clinical_r1.runs.form import FORMS
from clinical_r1.runs.resolve import OUTPUTS
from components.configure import configure
from pipelines.placement import Placement
from pipelines.progress import Forecast, Step, StepTracker, plain_view
from pipelines.registry import PIPELINES, cluster_form, load_pipeline, titles_of

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_committed_yaml_is_what_the_code_compiles_to(name: str, tmp_path: Path) -> None:
    from kfp import compiler

    path = tmp_path / "pipeline.yaml"
    compiler.Compiler().compile(cluster_form(name), str(path))
    committed = ROOT / "manifests" / "pipelines" / f"{name}.yaml"
    assert path.read_text() == committed.read_text(), "run `make compile` and commit the result"


def test_titles_are_words_in_an_order_in_which_the_steps_can_run() -> None:
    titles = list(titles_of("train").values())
    order = ["Read and split records", "Synthesize traces", "Fine-tune (SFT)", "Reinforce (RL)", "Promotion gate"]
    places = [titles.index(title) for title in [*order, "Write the report", "Publish the model"]]
    assert places == sorted(places)
    for name in PIPELINES:
        assert all(" " in title or title.istitle() for title in titles_of(name).values()), titles_of(name)


def test_image_is_a_run_parameter_of_every_step() -> None:
    spec = next(yaml.safe_load_all((ROOT / "manifests" / "pipelines" / "train.yaml").read_text()))
    for executor in spec["deploymentSpec"]["executors"].values():
        assert executor["container"]["image"] == "{{$.inputs.parameters['pipelinechannel--image']}}"


def test_unknown_pipeline_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="unknown pipeline 'qqq': choose one of train, audit, experiments, ablate-rl"):
        load_pipeline("qqq")


def test_tracker_follows_the_runner_and_keeps_the_user_error() -> None:
    out = io.StringIO()
    tracker = StepTracker({"fine-tune": "sft"}, plain_view(Console(file=out, width=200), interval=0.0))
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
    tracker = StepTracker({"synthesize-shard": "synthesize"}, plain_view(Console(file=io.StringIO())))
    tracker.read("12:00:00.001 - INFO - Executing task 'synthesize-shard'")
    tracker.read("    clinical_r1.llm.reply.EndpointUnusable: endpoint x: no answer from http://127.0.0.1:9/v1")
    assert tracker.user_error == "endpoint x: no answer from http://127.0.0.1:9/v1"


def test_tracker_marks_reused_steps() -> None:
    out = io.StringIO()
    tracker = StepTracker({"reinforce": "ppo"}, plain_view(Console(file=out, width=200)))
    tracker.read("12:00:00.001 - INFO - Task reinforce cache hit (key=0123456789ab); skipping execution.")
    assert tracker.steps["reinforce"].state == "reused"
    assert "ppo: reused, nothing changed" in out.getvalue()


def followed(*lines: str) -> dict[str, Step]:
    tracker = StepTracker(
        {"prepare": "Read", "tune": "Tune", "deploy": "Deploy"}, plain_view(Console(file=io.StringIO()))
    )
    for line in lines:
        tracker.read(f"12:00:00.001 - INFO - {line}")
    return tracker.steps


def test_forecast_goes_by_the_speed_of_the_first_step(tmp_path: Path) -> None:
    forecast = Forecast(tmp_path / "seconds" / "run.json", {"Read": 10.0, "Tune": 600.0})
    steps = followed("Executing task 'prepare'")
    assert forecast.at_start(steps).startswith("3 steps: Read, Tune, Deploy; about 10 min on two cores")
    assert forecast.measured(steps) == ""
    steps["prepare"].state, steps["prepare"].seconds = "done", 20.0
    assert forecast.measured(steps) == "at this machine's speed: about 20 min more"
    assert forecast.measured(steps) == ""  # said once


def test_forecast_remembers_what_a_whole_run_took_here(tmp_path: Path) -> None:
    past = tmp_path / "seconds" / "run.json"
    steps = followed("Executing task 'prepare'", "Task 'prepare' finished with status SUCCESS")
    steps["prepare"].seconds = 240.0
    Forecast(past, {}).keep(steps)
    again = Forecast(past, {"Read": 10.0})
    assert again.at_start(steps) == "3 steps: Read, Tune, Deploy; it took 4 min here the last time"
    assert again.measured(steps) == ""


def test_forecast_says_nothing_of_sizes_it_does_not_know(tmp_path: Path) -> None:
    past = tmp_path / "run.json"
    forecast = Forecast(past, {})
    steps = followed("Task prepare cache hit (key=0123456789ab); skipping execution.")
    assert forecast.at_start(steps) == "3 steps: Read, Tune, Deploy" and forecast.measured(steps) == ""
    forecast.keep(steps)
    assert not past.exists()  # a reused step took no time: the next whole run would be promised too soon


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


WITHOUT_STATE = ("exec-provide-claim", "exec-plan-nodes")
COMPUTING = ("exec-fine-tune", "exec-reinforce", "exec-evaluate", "exec-gate-model", "exec-train-arm")
CALLING = (
    "synthesize-shard",
    "prepare-arms-data",
    "reinforce",
    "evaluate-model",
    "gate-model",
    "train-arm",
    "evaluate-arm",
    "audit-answers",
)
HASHING = ("exec-prepare-records", "exec-prepare-arms-data")
"""Steps that turn patient numbers into hashes."""


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_every_step_of_every_pipeline_is_placed_by_run_parameters(name: str) -> None:
    """The claim, the store and the registry for all; accelerators, labels and taints where a model computes."""
    spec, settings = compiled(name)
    for step, executor in spec["deploymentSpec"]["executors"].items():
        assert executor["container"]["image"] == "{{$.inputs.parameters['pipelinechannel--image']}}", step
        assert settings[step]["securityContext"] == {"runAsNonRoot": True}, step
        if step.startswith(WITHOUT_STATE):
            continue
        placed, resources = settings[step], executor["container"]["resources"]
        assert placed["pvcMount"][0]["pvcNameParameter"]["componentInputParameter"].endswith("claim"), step
        (keys,) = placed["secretAsVolume"]
        assert keys["mountPath"] == "/etc/clinical-r1/store" and not keys.get("optional"), step
        assert placed["imagePullSecret"] and placed["podMetadata"]["labels"]["sidecar.istio.io/inject"] == "false"
        assert "pipelinechannel" in resources["resourceCpuRequest"] + resources["resourceMemoryLimit"], step
        if step.startswith(COMPUTING):
            assert "accelerators'" in resources["accelerator"]["resourceCount"], step
            assert placed["nodeSelector"] and placed["tolerations"], step
        keys = {pair["envVar"] for entry in placed.get("secretAsEnv", []) for pair in entry["keyToEnv"]}
        if step.removeprefix("exec-").startswith(CALLING):
            assert keys >= {*ENDPOINT_KEYS}
        assert (PATIENT_KEY in keys) == step.startswith(HASHING), step
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
def test_endpoint_steps_are_retried_on_a_cluster_and_not_here(name: str) -> None:
    spec = compiled(name)[0]
    for step, task, _ in tasks_of(spec):
        assert ("retryPolicy" in task) == step.startswith(CALLING), step
    assert "retryPolicy" not in str(load_pipeline(name).pipeline_spec)


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_the_graph_shows_the_steps_at_its_root(name: str) -> None:
    """No exit handler and no pipeline inside of a pipeline: what failed stands on the failed step."""
    root, spec = compiled(name)[0]["root"]["dag"]["tasks"], compiled(name)[0]
    for task, content in root.items():
        component = spec["components"][content["componentRef"]["name"]]
        assert "executorLabel" in component or "iterator" in str(content).lower(), f"{task} hides its steps"
    assert "ALL_UPSTREAM_TASKS_COMPLETED" not in str(spec)


def strings(value: object, place: str = "") -> Iterator[tuple[str, str]]:
    """Every string of a document with its place."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from strings(below, f"{place}/{key}")
    elif isinstance(value, list):
        for number, below in enumerate(value):
            yield from strings(below, f"{place}/{number}")
    elif isinstance(value, str):
        yield place, value


def composite(documents: list[dict]) -> list[str]:
    """Places of constants that hold a channel among other text: the launcher fills it in textually, inside of JSON."""
    return [
        place
        for document in documents
        for place, text in strings(document)
        if "{{$" in text and re.fullmatch(r"\{\{\$(\.[^{}]*)?\}\}", text) is None
    ]


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_no_pipeline_puts_a_channel_inside_of_a_string(name: str) -> None:
    text = (ROOT / "manifests" / "pipelines" / f"{name}.yaml").read_text()
    assert composite(list(yaml.safe_load_all(text))) == []


def test_a_channel_inside_of_a_string_is_seen() -> None:
    whole = "{{$.inputs.parameters['pipelinechannel--ppo']}}"
    spec = {"a": whole, "b": ["{{$}}"], "constant": {"c": '{"ppo": ' + whole + "}"}}
    assert composite([spec]) == ["/constant/c"]


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_the_form_asks_for_nothing_and_describes_everything(name: str) -> None:
    spec = compiled(name)[0]
    kinds = {"STRING": str, "NUMBER_INTEGER": (int, float), "NUMBER_DOUBLE": float, "BOOLEAN": bool}
    kinds |= {"STRUCT": dict, "LIST": list}
    for parameter, told in spec["root"]["inputDefinitions"]["parameters"].items():
        assert told.get("isOptional") and "defaultValue" in told, f"{parameter} is required"
        assert 10 < len(told.get("description", "")) < 120, f"{parameter}: {told.get('description')}"
        assert isinstance(told["defaultValue"], kinds[told["parameterType"]]), parameter
    assert spec["pipelineInfo"]["description"]


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_every_field_of_the_form_is_read_by_a_step(name: str) -> None:
    """The first step looks at all of them: it is enough for what makes the claim, and for nothing else."""
    spec, settings = compiled(name)
    readers = [task for step, task, _ in tasks_of(spec) if step != "provide-claim"]
    readers += [placed for step, placed in settings.items() if step != "exec-provide-claim"]
    found = [text for place, text in strings(readers) if place.endswith("/componentInputParameter")]
    read = {"storage_class", "storage_size", *(text.removeprefix("pipelinechannel--") for text in found)}
    assert set(spec["root"]["inputDefinitions"]["parameters"]) <= read


def test_every_field_of_the_form_reaches_the_resolution() -> None:
    """A field that nothing reads would be a promise that is not kept."""
    others = {"preset", "state_dir", "records", "record_map", "endpoints_trusted", "overrides"}
    others |= {f"{role}_{what}" for role in ("synthesizer", "judge") for what in ("url", "model", "key")}
    assert {name for name, (_, _, _, *settings) in FORMS["train"].items() if not settings} == others
    asked = set(compiled("experiments")[0]["root"]["inputDefinitions"]["parameters"])
    assert asked - set(Placement._fields) == {*FORMS["train"], "experiment"}


def test_the_configure_step_hands_out_what_the_resolution_names() -> None:
    outputs = compiled("train")[0]["components"]["comp-configure"]["outputDefinitions"]
    assert set(outputs["parameters"]) == set(OUTPUTS)
    assert set(outputs["artifacts"]) == {"resolved_configuration"}
    annotation = configure.python_func.__annotations__["return"]
    assert list(annotation._fields) == list(OUTPUTS)


def test_every_knob_of_a_cluster_is_a_run_parameter() -> None:
    spec, platform = yaml.safe_load_all((ROOT / "manifests" / "pipelines" / "train.yaml").read_text())
    parameters = set(spec["root"]["inputDefinitions"]["parameters"])
    assert parameters >= {
        "accelerator", "accelerators", "cpu", "memory", "node_selector", "tolerations", "claim", "storage_class",
        "storage_size", "store_secret", "endpoint_secret", "ca_config_map", "image", "image_pull_secret",
        "patient_secret", "shards", "models_uri", "model_name", "nodes", "deadline_hours",
    }  # fmt: skip
    executors = spec["deploymentSpec"]["executors"]
    for name, channel in (("exec-evaluate-model", "accelerators"), ("exec-reinforce", "plan-nodes-accelerators")):
        resources = executors[name]["container"]["resources"]
        assert f"pipelinechannel--{channel}'" in resources["accelerator"]["resourceCount"]
    settings = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for name in set(executors) - {"exec-provide-claim", "exec-plan-nodes"}:
        assert settings[name]["pvcMount"][0]["pvcNameParameter"]["componentInputParameter"].endswith("claim"), name
    assert "nodeSelector" in settings["exec-fine-tune"] and "tolerations" in settings["exec-fine-tune"]
