"""What the driver of Kubeflow Pipelines makes of a step of the compiled `train`: its pod and what it is told.

The backend cannot be built from its Go module, so this is done here; `launcher.py` runs inside of the pod.
"""

import json
from dataclasses import dataclass
from typing import Any

import yaml

from tests.cluster.addons import RESTRICTED
from tests.cluster.api import Document
from tests.cluster.bench import BUCKET, POD, STEPS_ACCOUNT, TEAM, Bench
from tests.cluster.bringup import TRAINER
from tests.cluster.chart import ROOT

COMPILED = ROOT / "manifests" / "pipelines" / "train.yaml"
CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap"}
LAUNCHER = "kfp-launcher-program"
RUN_PARAMETERS = {"image": TRAINER, "cpu": "50m", "data_cpu": "50m", "memory": "4Gi", "data_memory": "1Gi"}
"""What this machine can give; all others have the compiled pipeline's own defaults."""


@dataclass(frozen=True)
class Step:
    """One task of the pipeline, with what the driver knows once its upstream tasks are done."""

    task: str
    parameters: dict[str, Any]
    inputs: dict[str, str]
    """Artifact -> URI."""


def uri_of(task: str, name: str) -> str:
    """Where a task's artifact lies."""
    return f"minio://{BUCKET}/pipelines/train/test-run/{task}/{name}"


def key_of(uri: str) -> str:
    """Its key, for the store's user `pipelines`."""
    return uri.removeprefix(f"minio://{BUCKET}/pipelines/")


def pod_of(bench: Bench, step: Step) -> Document:
    """What the driver makes of a compiled step."""
    spec, extra = yaml.safe_load_all(COMPILED.read_text(encoding="utf-8"))
    executor = f"exec-{step.task}"
    container = spec["deploymentSpec"]["executors"][executor]["container"]
    platform = extra["platforms"]["kubernetes"]["deploymentSpec"]["executors"].get(executor, {})
    given = spec["root"]["inputDefinitions"]["parameters"]
    run = {name: entry.get("defaultValue") for name, entry in given.items()} | RUN_PARAMETERS
    # One node: `plan-nodes` hands on what it was given.
    run |= {f"plan-nodes-{name}": run[name] for name in ("cpu", "memory", "accelerators")}
    # In a loop they are inputs of the loop's DAG.
    run |= {f"pipelinechannel--{name}": value for name, value in run.items()}
    component = spec["components"][f"comp-{step.task}"]
    launcher = bench.api.find(CONFIG_MAP, "kfp-launcher", TEAM)
    assert launcher, "the chart made no kfp-launcher"
    store = yaml.safe_load(launcher["data"]["providers"])["minio"]["default"]
    secret = store["credentials"]["secretRef"]
    keys = {"S3_ACCESS_KEY": secret["accessKeyKey"], "S3_SECRET_KEY": secret["secretKeyKey"]}
    volumes, mounts = _volumes(platform, run)
    asked = {kind: text for kind, text in container.get("resources", {}).items() if isinstance(text, str)}
    resources = {kind: _filled(text, run) for kind, text in asked.items()}
    assert run["accelerators"] == "0", "this machine has no accelerator"
    command = [*container["command"], *container["args"]]
    main = {
        "name": "main",
        "image": _filled(container["image"], run),
        "command": ["python3", "/kfp-launcher/launcher.py", json.dumps(store)],
        "args": [json.dumps(executor_input(step, component)), "--", *command],
        "env": [
            *({"name": name, "valueFrom": _from_secret(secret["secretName"], key)} for name, key in keys.items()),
            *_environment(platform, run),
        ],
        "resources": {
            "requests": {"cpu": resources.get("resourceCpuRequest", "50m"), "memory": "128Mi"},
            "limits": {"memory": resources.get("resourceMemoryLimit", "1Gi")},
        },
        "securityContext": RESTRICTED,
        "volumeMounts": mounts,
    }
    return POD | {
        "metadata": {
            "name": f"train-{step.task}",
            "namespace": TEAM,
            "labels": platform.get("podMetadata", {}).get("labels", {}) | {"pipeline/runid": "test"},
        },
        "spec": {
            "serviceAccountName": STEPS_ACCOUNT,
            "restartPolicy": "Never",
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [main],
            "volumes": volumes,
            "nodeSelector": run["node_selector"] if "nodeSelector" in platform else {},
            "tolerations": run["tolerations"] if "tolerations" in platform else [],
        },
    }


def executor_input(step: Step, component: Document) -> Document:
    """As the driver writes it: parameters by value, artifacts with type and URI, places for the outputs."""
    wanted = component.get("inputDefinitions", {})
    made = component.get("outputDefinitions", {})
    assert set(wanted.get("parameters", {})) == set(step.parameters), f"{step.task} has other parameters"
    outputs = {name: uri_of(step.task, name) for name in made.get("artifacts", {})}
    return {
        "inputs": {
            "parameterValues": step.parameters,
            "artifacts": _artifacts(wanted.get("artifacts", {}), step.inputs),
        },
        "outputs": {
            "parameters": {name: {"outputFile": f"/tmp/kfp/outputs/{name}"} for name in made.get("parameters", {})},
            "artifacts": _artifacts(made.get("artifacts", {}), outputs),
            "outputFile": "/tmp/kfp_outputs/output_metadata.json",
        },
    }


def _artifacts(defined: Document, uris: dict[str, str]) -> Document:
    assert set(defined) == set(uris), (set(defined), set(uris))
    return {
        name: {"artifacts": [{"name": name, "type": entry["artifactType"], "uri": uris[name], "metadata": {}}]}
        for name, entry in defined.items()
    }


def _volumes(platform: Document, run: Document) -> tuple[list[Document], list[Document]]:
    """The step's own volumes, and those of the launcher."""
    found: list[tuple[str, Document]] = [
        ("/kfp-launcher", {"configMap": {"name": LAUNCHER}}),
        ("/kfp-launcher-ca", {"configMap": {"name": run["ca_config_map"]}}),
        ("/minio", {"emptyDir": {}}),
        ("/.cache", {"emptyDir": {}}),
    ]
    for entry in platform.get("configMapAsVolume", []):
        name = run[entry["configMapNameParameter"]["componentInputParameter"]]
        found.append((entry["mountPath"], {"configMap": {"name": name, "optional": entry["optional"]}}))
    for entry in platform.get("secretAsVolume", []):
        name = run[entry["secretNameParameter"]["componentInputParameter"]]
        found.append((entry["mountPath"], {"secret": {"secretName": name, "optional": entry["optional"]}}))
    for entry in platform.get("emptyDirMounts", []):
        found.append((entry["mountPath"], {"emptyDir": {"medium": entry["medium"]}}))
    for entry in platform.get("pvcMount", []):
        name = run[entry["pvcNameParameter"]["componentInputParameter"]]
        found.append((entry["mountPath"], {"persistentVolumeClaim": {"claimName": name}}))
    volumes = [{"name": f"v{number}"} | source for number, (_, source) in enumerate(found)]
    return volumes, [{"name": f"v{number}", "mountPath": path} for number, (path, _) in enumerate(found)]


def _environment(platform: Document, run: Document) -> list[Document]:
    """Variables from ConfigMaps and Secrets."""
    maps = [
        (pair["envVar"], "configMapKeyRef", entry["configMapName"], pair["configMapKey"], entry["optional"])
        for entry in platform.get("configMapAsEnv", [])
        for pair in entry["keyToEnv"]
    ]
    secrets = [
        (pair["envVar"], "secretKeyRef", run[parameter], pair["secretKey"], entry["optional"])
        for entry in platform.get("secretAsEnv", [])
        for parameter in [entry["secretNameParameter"]["componentInputParameter"]]
        for pair in entry["keyToEnv"]
    ]
    return [
        {"name": variable, "valueFrom": {kind: {"name": name, "key": key, "optional": optional}}}
        for variable, kind, name, key, optional in maps + secrets
    ]


def _from_secret(name: str, key: str) -> Document:
    return {"secretKeyRef": {"name": name, "key": key}}


def _filled(text: str, run: Document) -> str:
    """A run parameter in place of its placeholder."""
    name = text.removeprefix("{{$.inputs.parameters['pipelinechannel--").removesuffix("']}}")
    return str(run[name]) if name != text else text
