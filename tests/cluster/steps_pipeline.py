"""`make test-cluster`: the pipeline `train` as the chart registered it, with its defaults, step by step in pods.

What is registered comes out of the chart's ConfigMap; the driver's and the launcher's work is done by driver.py,
step_pods.py and launcher.py. Nothing is filled in but what this machine can give.
"""

import json
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client

from tests.cluster.api import Document
from tests.cluster.bench import POD, RELEASE, TEAM, VALUES, Bench
from tests.cluster.daemons import poll
from tests.cluster.driver import Done, Run, Step
from tests.cluster.step_pods import CONFIG_MAP, LAUNCHER, key_of, pod_of, uri_of

SMALL = {"cpu": "50m", "data_cpu": "50m", "memory": "4Gi", "data_memory": "2Gi"}
"""What this machine can give; all else has the defaults of the registered pipeline."""
STEP_SECONDS = 1800


def pipeline_steps(bench: Bench) -> dict[str, Any]:
    """Every step of the run, each with what the ones before it made, to a published model."""
    run = Run(registered(bench, "train"), SMALL | bench.parameters, lambda step: _run(bench, step))
    program = Path(__file__).with_name("launcher.py").read_text(encoding="utf-8")
    body = {"metadata": {"name": LAUNCHER, "namespace": TEAM}, "data": {"launcher.py": program}}
    bench.api.apply(CONFIG_MAP | body)
    run.finish()
    published = str(run.steps["publish-model"].parameters["uri"])
    name, version = published.rstrip("/").split("/")[-2:]
    assert bench.store("pipelines", "models").get(f"{name}/{version}/manifest.json"), published
    assert bench.store("pipelines").get(key_of(uri_of("prepare-records", "splits")) + "/sft.jsonl")
    result = str(run.steps["deploy-published"].parameters["result"])
    return {"pipeline_steps": {"run": list(run.steps), "published": published, "deploy": result}}


def registered(bench: Bench, pipeline: str) -> str:
    """The compiled pipeline that the chart's job would upload, with this installation's names."""
    values = VALUES | {"kubeflow": VALUES["kubeflow"] | {"register": {"mode": "job"}}}
    text = bench.helm.template(values)
    for document in yaml.load_all(text, Loader=yaml.CSafeLoader):
        if document and document["metadata"]["name"] == f"{RELEASE}-pipelines-{pipeline}":
            return str(document["data"][f"{pipeline}.yaml"])
    raise AssertionError(f"the chart registers no {pipeline}")


def _run(bench: Bench, step: Step) -> Done:
    """Run one step to its end; what its launcher printed last."""
    pod = pod_of(bench, step)
    name = pod["metadata"]["name"]
    print(f"  {step.task}", flush=True)
    bench.api.apply(pod)

    def phase() -> str:
        return str((bench.api.find(POD, name, TEAM) or {}).get("status", {}).get("phase"))

    poll(f"{step.task} ends", lambda: phase() in ("Succeeded", "Failed"), STEP_SECONDS, 0.5)
    log = client.CoreV1Api(bench.api.http).read_namespaced_pod_log(name, TEAM, container="main")
    assert phase() == "Succeeded", f"{step.task} failed:\n{log[-3000:]}"
    found: Document = json.loads(log.strip().splitlines()[-1])
    made = step.component.get("outputDefinitions", {})
    kept = found["executor_output"].get("artifacts", {})
    artifacts = {
        artifact: [
            {
                "uri": uri_of(step.task, artifact),
                "metadata": kept.get(artifact, {}).get("artifacts", [{}])[0].get("metadata", {}),
            }
        ]
        for artifact in made.get("artifacts", {})
    }
    types = {name: entry["parameterType"] for name, entry in made.get("parameters", {}).items()}
    return Done({name: _typed(value, types[name]) for name, value in found["parameters"].items()}, artifacts)


def _typed(value: Any, kind: str) -> Any:
    """What lies in a parameter's file is text; the declared type says what it is."""
    if not isinstance(value, str) or kind == "STRING":
        return value
    return json.loads(value)
