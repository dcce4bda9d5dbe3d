"""`make test-cluster`: two steps of the compiled pipeline as containers, called as Kubeflow Pipelines calls them.

The backend of Kubeflow Pipelines cannot be built from its Go module, so what its driver and launcher do is done here:
`pod_of` makes the pod out of the compiled step and its platform settings, `launcher.py` runs inside of it.
"""

import json
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client

from tests.cluster.addons import RESTRICTED
from tests.cluster.api import Document
from tests.cluster.bench import BUCKET, CLAIM, POD, STEPS_ACCOUNT, TEAM, Bench
from tests.cluster.bringup import TRAINER
from tests.cluster.chart import ROOT
from tests.cluster.daemons import poll
from tests.cluster.model import write_cases

COMPILED = ROOT / "manifests" / "pipelines" / "train.yaml"
CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap"}
LAUNCHER = "kfp-launcher-program"
RECORDS = {
    "sources": [{"path": "/state/cases.jsonl"}],
    "group_by": ["patient"],
    "dedup": {"near": "off"},
    "leakage": "keep",
    "phi": {"policy": "off", "off_because": "synthetic"},
}
TINY = {"tiny": {"hidden_size": 32, "layers": 1, "vocab_size": 400}}


def pipeline_steps(bench: Bench) -> dict[str, Any]:
    """`prepare-records` reads from the claim and writes to the store; `base-model` reads what it wrote, and trains a
    tokenizer on it. Pods, entry points, environment, volumes, artifacts and rights are those of the compiled pipeline.
    """
    _prepare(bench)
    first = _run(bench, "prepare-records", {"config": json.dumps(RECORDS), "sources_sha256": "0" * 64}, {})
    traces = _uri("by-hand", "traces")
    row = {"question": "A made-up patient coughs.", "thinking": "Cough, so the lungs.", "response": "Pneumonia."}
    bench.store("pipelines").put(_key(traces) + "/traces.jsonl", (json.dumps(row) + "\n").encode() * 20)
    inputs = {"splits": _uri("prepare-records", "splits"), "traces": traces}
    second = _run(bench, "base-model", {"config": json.dumps(TINY), "state_dir": ""}, inputs)
    assert first["uploaded"]["splits"] >= 4, first
    assert second["fetched"]["splits"] == first["uploaded"]["splits"], (first, second)
    assert second["uploaded"]["model"] >= 4, second
    metrics = first["executor_output"]["artifacts"]["metrics"]["artifacts"][0]["metadata"]
    assert metrics, "prepare-records logged no metric"
    store = bench.store("pipelines")
    assert store.get(_key(_uri("prepare-records", "splits")) + "/sft.jsonl")
    return {"pipeline_steps": {"run": ["prepare-records", "base-model"], "files_stored": _stored(first, second)}}


def _stored(*results: dict[str, Any]) -> int:
    return sum(sum(result["uploaded"].values()) for result in results)


def _prepare(bench: Bench) -> None:
    """The launcher's program, and a claim with records on it."""
    write_cases(bench.folder / "state" / "cases.jsonl")
    (bench.folder / "state" / "cases.jsonl").chmod(0o644)
    program = Path(__file__).with_name("launcher.py").read_text(encoding="utf-8")
    claim = {
        "metadata": {"name": "clinical-r1-state", "namespace": TEAM},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    bench.api.apply(
        CONFIG_MAP | {"metadata": {"name": LAUNCHER, "namespace": TEAM}, "data": {"launcher.py": program}},
        CLAIM | claim,
    )


def _run(bench: Bench, task: str, parameters: dict[str, str], inputs: dict[str, str]) -> dict[str, Any]:
    """Run one step to its end; what its launcher printed last."""
    pod = pod_of(bench, task, parameters | {"code_version": "test"}, inputs)
    name = pod["metadata"]["name"]
    bench.api.apply(pod)

    def phase() -> str:
        return str((bench.api.find(POD, name, TEAM) or {}).get("status", {}).get("phase"))

    poll(f"{task} ends", lambda: phase() in ("Succeeded", "Failed"), 300, 1)
    log = client.CoreV1Api(bench.api.http).read_namespaced_pod_log(name, TEAM, container="main")
    assert phase() == "Succeeded", f"{task} failed:\n{log[-3000:]}"
    found: dict[str, Any] = json.loads(log.strip().splitlines()[-1])
    return found


def pod_of(bench: Bench, task: str, parameters: dict[str, str], inputs: dict[str, str]) -> Document:
    """What the driver makes of a compiled step."""
    spec, extra = yaml.safe_load_all(COMPILED.read_text(encoding="utf-8"))
    executor = f"exec-{task}"
    container = spec["deploymentSpec"]["executors"][executor]["container"]
    platform = extra["platforms"]["kubernetes"]["deploymentSpec"]["executors"][executor]
    given = spec["root"]["inputDefinitions"]["parameters"]
    run = {name: entry.get("defaultValue") for name, entry in given.items()} | {"data_cpu": "50m"}
    run |= {"image": TRAINER, "data_memory": "1Gi"}
    component = spec["components"][f"comp-{task}"]
    launcher = bench.api.find(CONFIG_MAP, "kfp-launcher", TEAM)
    assert launcher, "the chart made no kfp-launcher"
    store = yaml.safe_load(launcher["data"]["providers"])["minio"]["default"]
    secret = store["credentials"]["secretRef"]
    keys = {"S3_ACCESS_KEY": secret["accessKeyKey"], "S3_SECRET_KEY": secret["secretKeyKey"]}
    volumes, mounts = _volumes(platform, run)
    resources = {kind: _filled(text, run) for kind, text in container["resources"].items()}
    command = [*container["command"], *container["args"]]
    main = {
        "name": "main",
        "image": _filled(container["image"], run),
        "command": ["python3", "/kfp-launcher/launcher.py", json.dumps(store)],
        "args": [json.dumps(_executor_input(task, component, parameters, inputs)), "--", *command],
        "env": [
            *({"name": name, "valueFrom": _from_secret(secret["secretName"], key)} for name, key in keys.items()),
            *_environment(platform),
        ],
        "resources": {
            "requests": {"cpu": resources["resourceCpuRequest"], "memory": "128Mi"},
            "limits": {"memory": resources["resourceMemoryLimit"]},
        },
        "securityContext": RESTRICTED,
        "volumeMounts": mounts,
    }
    return POD | {
        "metadata": {
            "name": f"train-{task}",
            "namespace": TEAM,
            "labels": platform["podMetadata"]["labels"] | {"pipeline/runid": "test"},
        },
        "spec": {
            "serviceAccountName": STEPS_ACCOUNT,
            "restartPolicy": "Never",
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [main],
            "volumes": volumes,
        },
    }


def _executor_input(task: str, component: Document, parameters: dict[str, str], inputs: dict[str, str]) -> Document:
    """As the driver writes it: parameters by value, artifacts with type and URI, places for the outputs."""
    wanted = component.get("inputDefinitions", {})
    made = component.get("outputDefinitions", {})
    assert set(wanted.get("parameters", {})) == set(parameters), f"{task} has other parameters"
    outputs = {name: _uri(task, name) for name in made.get("artifacts", {})}
    return {
        "inputs": {
            "parameterValues": parameters,
            "artifacts": _artifacts(wanted.get("artifacts", {}), inputs),
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
        ("/minio", {"emptyDir": {}}),
        ("/.cache", {"emptyDir": {}}),
    ]
    for entry in platform.get("configMapAsVolume", []):
        name = run[entry["configMapNameParameter"]["componentInputParameter"]]
        found.append((entry["mountPath"], {"configMap": {"name": name, "optional": entry["optional"]}}))
    for entry in platform.get("secretAsVolume", []):
        name = run[entry["secretNameParameter"]["componentInputParameter"]]
        found.append((entry["mountPath"], {"secret": {"secretName": name, "optional": entry["optional"]}}))
    for entry in platform.get("pvcMount", []):
        name = run[entry["pvcNameParameter"]["componentInputParameter"]]
        found.append((entry["mountPath"], {"persistentVolumeClaim": {"claimName": name}}))
    volumes = [{"name": f"v{number}"} | source for number, (_, source) in enumerate(found)]
    return volumes, [{"name": f"v{number}", "mountPath": path} for number, (path, _) in enumerate(found)]


def _environment(platform: Document) -> list[Document]:
    """Variables from ConfigMaps."""
    return [
        {
            "name": pair["envVar"],
            "valueFrom": {
                "configMapKeyRef": {
                    "name": entry["configMapName"],
                    "key": pair["configMapKey"],
                    "optional": entry["optional"],
                }
            },
        }
        for entry in platform.get("configMapAsEnv", [])
        for pair in entry["keyToEnv"]
    ]


def _from_secret(name: str, key: str) -> Document:
    return {"secretKeyRef": {"name": name, "key": key}}


def _filled(text: str, run: Document) -> str:
    """A run parameter in place of its placeholder."""
    name = text.removeprefix("{{$.inputs.parameters['pipelinechannel--").removesuffix("']}}")
    return str(run[name]) if name != text else text


def _uri(task: str, name: str) -> str:
    return f"minio://{BUCKET}/pipelines/train/test-run/{task}/{name}"


def _key(uri: str) -> str:
    return uri.removeprefix(f"minio://{BUCKET}/pipelines/")
