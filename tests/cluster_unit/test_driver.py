"""The stand-in for Kubeflow's driver, on pipelines that kfp compiles here, and on ours."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import yaml
from kfp import compiler, dsl

from tests.cluster.chart import ROOT
from tests.cluster.driver import Done, Run, Step, filled

OURS = sorted((ROOT / "manifests" / "pipelines").glob("*.yaml"))


@dsl.component(base_image="python", install_kfp_package=False)
def count(text: str, out: dsl.Output[dsl.Dataset]) -> int:
    return len(text)


@dsl.component(base_image="python", install_kfp_package=False)
def join(parts: dsl.Input[list[dsl.Dataset]], longest: int) -> str:
    return str(longest)


@dsl.pipeline(name="walk")
def walk(words: list[str] = ["a", "bcd"], switch: str = "on") -> str:  # noqa: B006
    first = count(text="start")
    with dsl.ParallelFor(words) as word:
        each = count(text=word)
    with dsl.If(switch == "on"):
        count(text=switch)
    joined = join(parts=dsl.Collected(each.outputs["out"]), longest=first.outputs["Output"])
    return joined.output


def compiled(path: Path) -> str:
    with redirect_stdout(io.StringIO()):
        compiler.Compiler().compile(walk, str(path))
    return path.read_text()


def execute(step: Step) -> Done:
    made = {name: [{"uri": f"minio://b/{step.task}/{name}"}] for name in outputs(step, "artifacts")}
    return Done(dict.fromkeys(outputs(step, "parameters"), step.parameters.get("text", "x")), made)


def outputs(step: Step, kind: str) -> dict:
    found: dict = step.component.get("outputDefinitions", {}).get(kind, {})
    return found


def test_loops_conditions_and_collected_outputs(tmp_path: Path) -> None:
    seen: dict[str, Step] = {}

    def remember(step: Step) -> Done:
        seen[step.task] = step
        return execute(step)

    text = compiled(tmp_path / "walk.yaml")
    run = Run(text, {"switch": "off"}, remember)
    run.finish()
    assert set(seen) == {"count", "count-2-0", "count-2-1", "join"}
    assert [item["uri"] for item in seen["join"].artifacts["parts"]] == [
        "minio://b/count-2-0/out",
        "minio://b/count-2-1/out",
    ]
    assert seen["join"].parameters["longest"] == "start"
    Run(text, {}, remember).finish()
    assert seen["count-3"].parameters["text"] == "{{$.inputs.parameters['pipelinechannel--switch']}}" or "on"


def test_placeholders_are_filled_in_by_text() -> None:
    text = json.dumps({"a": "{{$.inputs.parameters['x']}}"})
    assert json.loads(filled(text, {"x": "plain"})) == {"a": "plain"}
    with pytest.raises(ValueError):
        json.loads(filled(text, {"x": '{"quoted": 1}'}))


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_every_input_of_our_pipelines_comes_from_somewhere(path: Path) -> None:
    """And no text with a placeholder in it is anything but the placeholder: the launcher would break JSON around it."""
    text = path.read_text()

    def checked(step: Step) -> Done:
        for name, value in step.parameters.items():
            assert not (isinstance(value, str) and "{{$" in value) or value.count("{{$") == 1, (step.task, name)
            if isinstance(value, str) and "{{$.inputs" in value:
                assert value.startswith("{{$") and value.endswith("}}"), (step.task, name, value)
        for name in step.component.get("inputDefinitions", {}).get("artifacts", {}):
            assert step.artifacts[name], (step.task, name)
        return execute(step)

    Run(text, {}, checked).finish()


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_no_constant_holds_more_than_a_placeholder(path: Path) -> None:
    spec = next(yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader))
    for component in [spec["root"], *spec["components"].values()]:
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            for key, source in task.get("inputs", {}).get("parameters", {}).items():
                constant = source.get("runtimeValue", {}).get("constant")
                if isinstance(constant, str) and "{{$.inputs" in constant:
                    assert constant.startswith("{{$") and constant.count("{{") == 1, (name, key)
                    assert constant.endswith("}}"), (name, key)
