"""Walks a compiled pipeline as the driver of Kubeflow Pipelines 2.17 does: which step next, and what it is told.

    Run(text, {"image": ...}, execute).finish()

Parameters and artifacts are handed on as the compiled YAML says: through nested DAGs, loops and conditions, by the
defaults of the run's own parameters. `execute` runs one step (in a pod, or in a test by a function). What is not
supported fails: nothing is guessed.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

Document = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One task that is a container, with everything that the driver knows when it starts."""

    task: str
    """Unique in the run; a loop's tasks carry the iteration."""
    executor: Document
    """`container` of the compiled pipeline."""
    platform: Document
    """What kfp-kubernetes set for it."""
    component: Document
    """Its declared inputs and outputs."""
    parameters: Document
    """By value; a text may hold placeholders, which the launcher fills in."""
    around: Document
    """Parameters of the DAG that it stands in: kfp-kubernetes names Secrets, claims and the like by these."""
    artifacts: dict[str, list[Document]]
    """Name -> artifacts ({uri, type})."""


@dataclass
class Done:
    """What a step, loop or DAG made."""

    parameters: Document = field(default_factory=dict)
    artifacts: dict[str, list[Document]] = field(default_factory=dict)


Execute = Callable[[Step], Done]


class Run:
    """One run of a compiled pipeline."""

    def __init__(self, text: str, arguments: Document, execute: Execute) -> None:
        """Raises KeyError for an argument that the pipeline does not take, or one that it misses."""
        self.spec, *rest = yaml.load_all(text, Loader=yaml.CSafeLoader)
        self._platforms = rest[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"] if rest else {}
        self._execute = execute
        given = self.spec["root"].get("inputDefinitions", {}).get("parameters", {})
        if unknown := set(arguments) - set(given):
            raise KeyError(f"the pipeline takes no {sorted(unknown)}")
        self.arguments = {name: arguments.get(name, entry.get("defaultValue")) for name, entry in given.items()}
        missing = [name for name, value in self.arguments.items() if value is None]
        if missing:
            raise KeyError(f"no value for {missing}")
        self.steps: dict[str, Done] = {}
        """Every step that ran."""

    def finish(self) -> Done:
        """Run to the end."""
        return self._dag(self.spec["root"], Done(self.arguments, {}), "")

    def _dag(self, component: Document, given: Done, suffix: str) -> Done:
        dag, made, skipped = component["dag"], dict[str, Done](), set[str]()
        waiting = dict(dag["tasks"])
        while waiting:
            ready = [name for name, task in waiting.items() if not self._needs(task) & set(waiting)]
            if not ready:
                raise ValueError(f"tasks wait for each other: {sorted(waiting)}")
            for name in ready:
                task = waiting.pop(name)
                if self._needs(task) & skipped or not self._wanted(task, given, made):
                    skipped.add(name)
                else:
                    made[name] = self._task(name, task, given, made, suffix)
        return self._outputs(dag.get("outputs", {}), made)

    def _needs(self, task: Document) -> set[str]:
        text = json.dumps(task.get("inputs", {}))
        return set(task.get("dependentTasks", [])) | set(re.findall(r'"producerTask": "([^"]+)"', text))

    def _wanted(self, task: Document, given: Done, made: dict[str, Done]) -> bool:
        policy = task.get("triggerPolicy", {})
        if "strategy" in policy and policy["strategy"] != "ALL_UPSTREAM_TASKS_SUCCEEDED":
            raise NotImplementedError(f"trigger strategy {policy['strategy']}")
        if "condition" not in policy:
            return True
        values = self._parameters(task, {}, given, made)
        text = re.sub(r"inputs\.parameter_values\['([^']+)'\]", lambda m: repr(values[m[1]]), policy["condition"])
        text = text.replace("&&", " and ").replace("||", " or ").replace("!(", " not (")
        return bool(eval(text, {"__builtins__": {}}, {"true": True, "false": False, "int": int, "string": str}))

    def _task(self, name: str, task: Document, given: Done, made: dict[str, Done], suffix: str) -> Done:
        component = self.spec["components"][task["componentRef"]["name"]]
        if "parameterIterator" not in task:
            return self._once(name, component, task, given, made, suffix)
        iterator = task["parameterIterator"]
        values = self._parameters(task, component, given, made)
        items = iterator["items"]
        listed = json.loads(items["raw"]) if "raw" in items else values[items["inputParameter"]]
        rounds = [
            self._once(name, component, task, given, made, f"{suffix}-{number}", {iterator["itemInput"]: item})
            for number, item in enumerate(listed)
        ]
        collected = Done()
        for done in rounds:
            for key, value in done.parameters.items():
                collected.parameters.setdefault(key, []).append(value)
            for key, found in done.artifacts.items():
                collected.artifacts.setdefault(key, []).extend(found)
        return collected

    def _once(
        self,
        name: str,
        component: Document,
        task: Document,
        given: Done,
        made: dict[str, Done],
        suffix: str,
        item: Document | None = None,
    ) -> Done:
        parameters = self._parameters(task, component, given, made, item or {})
        artifacts = {
            key: self._artifact(value, given, made)
            for key, value in task.get("inputs", {}).get("artifacts", {}).items()
        }
        if "dag" in component:
            return self._dag(component, Done(parameters, artifacts), suffix)
        label = component["executorLabel"]
        executor = self.spec["deploymentSpec"]["executors"][label]
        step = Step(
            task=f"{name}{suffix}",
            executor=executor["container"],
            platform=self._platforms.get(label, {}),
            component=component,
            parameters=parameters,
            around=given.parameters,
            artifacts=artifacts,
        )
        if step.task in self.steps:
            raise ValueError(f"{step.task} twice")
        self.steps[step.task] = done = self._execute(step)
        promised = component.get("outputDefinitions", {}).get("parameters", {})
        if lacking := set(promised) - set(done.parameters):
            raise AssertionError(f"{step.task} wrote no {sorted(lacking)}")
        return done

    def _parameters(
        self, task: Document, component: Document, given: Done, made: dict[str, Done], item: Document | None = None
    ) -> Document:
        declared = component.get("inputDefinitions", {}).get("parameters", {})
        values: Document = {
            name: entry.get("defaultValue")
            for name, entry in declared.items()
            if entry.get("isOptional") or "defaultValue" in entry
        }
        for name, source in task.get("inputs", {}).get("parameters", {}).items():
            values[name] = self._parameter(source, given, made)
        return values | (item or {})

    def _parameter(self, source: Document, given: Done, made: dict[str, Done]) -> Any:
        if "componentInputParameter" in source:
            return given.parameters[source["componentInputParameter"]]
        if "taskOutputParameter" in source:
            place = source["taskOutputParameter"]
            return made[place["producerTask"]].parameters[place["outputParameterKey"]]
        if "runtimeValue" in source:
            return source["runtimeValue"]["constant"]
        raise NotImplementedError(f"a parameter from {sorted(source)}")

    def _artifact(self, source: Document, given: Done, made: dict[str, Done]) -> list[Document]:
        if "componentInputArtifact" in source:
            return given.artifacts[source["componentInputArtifact"]]
        place = source["taskOutputArtifact"]
        return made[place["producerTask"]].artifacts[place["outputArtifactKey"]]

    def _outputs(self, outputs: Document, made: dict[str, Done]) -> Done:
        done = Done()
        for name, entry in outputs.get("artifacts", {}).items():
            for place in entry["artifactSelectors"]:
                if place["producerSubtask"] in made:
                    found = made[place["producerSubtask"]].artifacts[place["outputArtifactKey"]]
                    done.artifacts.setdefault(name, []).extend(found)
        for name, entry in outputs.get("parameters", {}).items():
            place = entry.get("valueFromParameter")
            if place is None:
                [place] = [p for p in entry["valueFromOneof"]["parameterSelectors"] if p["producerSubtask"] in made]
            done.parameters[name] = made[place["producerSubtask"]].parameters[place["outputParameterKey"]]
        return done


def filled(text: str, parameters: Document) -> str:
    """A text with the placeholders of parameters filled in as the launcher does it: by the value's text, whatever is
    around them."""

    def value(match: re.Match[str]) -> str:
        found = parameters[match[1]]
        return found if isinstance(found, str) else json.dumps(found)

    return re.sub(r"\{\{\$\.inputs\.parameters\['([^']+)'\]\}\}", value, text)
