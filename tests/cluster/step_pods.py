"""The pod of a step as Kubeflow Pipelines 2.17 makes it: its compiler's template with what its driver patches in.

The backend cannot be built from its Go module, so this is done here, after backend/src/v2/compiler/argocompiler
(container.go, security_context.go, common.go) and backend/src/v2/driver/k8s.go; `launcher.py` runs inside of the pod.
Nothing in a pod is ours but what the compiled pipeline asks for.
"""

import json
from typing import Any

import yaml

from tests.cluster.api import Document
from tests.cluster.bench import BUCKET, POD, STEPS_ACCOUNT, TEAM, Bench
from tests.cluster.driver import Step, filled

CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap"}
LAUNCHER, AUTHORITY = "kfp-launcher-program", "r1-ca"
"""What the server would be told by CABUNDLE_CONFIGMAP_NAME (docs/install.md, step 6)."""
RUN = "test-run"
SCRATCH = ("/gcs", "/s3", "/minio", "/.local", "/.cache", "/.config")
SECURITY: Document = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""Of the user's container; whether it runs as root the pipeline says, or an administrator (here nobody)."""


def uri_of(task: str, name: str) -> str:
    """Where a task's artifact lies."""
    return f"minio://{BUCKET}/pipelines/train/{RUN}/{task}/{name}"


def key_of(uri: str) -> str:
    """Its key, for the store's user `pipelines`."""
    return uri.removeprefix(f"minio://{BUCKET}/pipelines/")


def pod_of(bench: Bench, step: Step) -> Document:
    """The pod of one step."""
    launcher = bench.api.find(CONFIG_MAP, "kfp-launcher", TEAM)
    assert launcher, "the chart made no kfp-launcher"
    store = yaml.safe_load(launcher["data"]["providers"])["minio"]["default"]
    secret = store["credentials"]["secretRef"]
    keys = {"S3_ACCESS_KEY": secret["accessKeyKey"], "S3_SECRET_KEY": secret["secretKeyKey"]}
    volumes, mounts = _volumes(step)
    main = {
        "name": "main",
        "image": filled(step.executor["image"], step.parameters),
        "command": ["python3", "/kfp-launcher/launcher.py", json.dumps(store)],
        "args": [json.dumps(executor_input(step)), "--", *step.executor["command"], *step.executor["args"]],
        "env": [
            *(_from_field(name, path) for name, path in _FIELDS.items()),
            *(_from(name, "secretKeyRef", secret["secretName"], key, False) for name, key in keys.items()),
            *_environment(step),
        ],
        "resources": _resources(step),
        "securityContext": SECURITY | step.platform.get("securityContext", {}),
        "volumeMounts": mounts,
    }
    asked = step.platform
    return POD | {
        "metadata": {
            "name": f"train-{step.task}",
            "namespace": TEAM,
            "labels": asked.get("podMetadata", {}).get("labels", {}) | {"pipeline/runid": RUN},
        },
        "spec": {
            "serviceAccountName": STEPS_ACCOUNT,
            "restartPolicy": "Never",
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "imagePullSecrets": [
                {"name": _name(step, entry, "secretName")} for entry in asked.get("imagePullSecret", [])
            ],
            "containers": [main],
            "volumes": volumes,
            "nodeSelector": _json(step, asked.get("nodeSelector", {}).get("nodeSelectorJson"), {}),
            "tolerations": [
                one
                for entry in asked.get("tolerations", [])
                for one in _listed(_json(step, entry.get("tolerationJson"), []))
            ],
        },
    }


_FIELDS = {"KFP_POD_NAME": "metadata.name", "KFP_POD_UID": "metadata.uid", "NAMESPACE": "metadata.namespace"}


def executor_input(step: Step) -> Document:
    """As the driver writes it: parameters by value, artifacts with type and URI, places for the outputs."""
    made = step.component.get("outputDefinitions", {})
    typed = step.component.get("inputDefinitions", {}).get("artifacts", {})
    inputs = {
        name: {
            "artifacts": [{"name": name, "type": typed[name]["artifactType"], "metadata": {}, **item} for item in found]
        }
        for name, found in step.artifacts.items()
    }
    return {
        "inputs": {"parameterValues": step.parameters, "artifacts": inputs},
        "outputs": {
            "parameters": {name: {"outputFile": f"/tmp/kfp/outputs/{name}"} for name in made.get("parameters", {})},
            "artifacts": {
                name: {
                    "artifacts": [
                        {"name": name, "type": entry["artifactType"], "uri": uri_of(step.task, name), "metadata": {}}
                    ]
                }
                for name, entry in made.get("artifacts", {}).items()
            },
            "outputFile": "/tmp/kfp_outputs/output_metadata.json",
        },
    }


def _resources(step: Step) -> Document:
    """Requests and limits; accelerators are asked for only where there are any."""
    asked = step.executor.get("resources", {})
    found: Document = {"requests": {}, "limits": {}}
    for kind, field, place in (
        ("cpu", "resourceCpuRequest", "requests"),
        ("memory", "resourceMemoryRequest", "requests"),
        ("cpu", "resourceCpuLimit", "limits"),
        ("memory", "resourceMemoryLimit", "limits"),
    ):
        if field in asked:
            found[place][kind] = filled(asked[field], step.parameters)
    if "accelerator" in asked:
        count = filled(asked["accelerator"]["resourceCount"], step.parameters)
        if count != "0":
            found["limits"][filled(asked["accelerator"]["resourceType"], step.parameters)] = count
    return found


def _volumes(step: Step) -> tuple[list[Document], list[Document]]:
    """The step's own volumes, and those of the launcher."""
    asked = step.platform
    found: list[tuple[str, Document]] = [
        ("/kfp-launcher", {"configMap": {"name": LAUNCHER}}),
        ("/kfp/certs", {"configMap": {"name": AUTHORITY}}),
        *((path, {"emptyDir": {}}) for path in SCRATCH),
    ]
    for entry in asked.get("configMapAsVolume", []):
        name = _name(step, entry, "configMapName")
        found.append((entry["mountPath"], {"configMap": {"name": name, "optional": entry["optional"]}}))
    for entry in asked.get("secretAsVolume", []):
        name = _name(step, entry, "secretName")
        found.append((entry["mountPath"], {"secret": {"secretName": name, "optional": entry["optional"]}}))
    for entry in asked.get("emptyDirMounts", []):
        found.append((entry["mountPath"], {"emptyDir": {"medium": entry["medium"]}}))
    for entry in asked.get("pvcMount", []):
        claim = {"claimName": _name(step, entry, "pvcName")}
        found.append((entry["mountPath"], {"persistentVolumeClaim": claim}))
    volumes = [{"name": f"v{number}", **source} for number, (_, source) in enumerate(found)]
    mounts = [{"name": f"v{number}", "mountPath": path} for number, (path, _) in enumerate(found)]
    return volumes, mounts


def _environment(step: Step) -> list[Document]:
    """Variables from ConfigMaps and Secrets."""
    return [
        _from(pair["envVar"], kind, _name(step, entry, field), pair[key], entry["optional"])
        for form, kind, field, key in (
            ("configMapAsEnv", "configMapKeyRef", "configMapName", "configMapKey"),
            ("secretAsEnv", "secretKeyRef", "secretName", "secretKey"),
        )
        for entry in step.platform.get(form, [])
        for pair in entry["keyToEnv"]
    ]


def _name(step: Step, entry: Document, field: str) -> str:
    """A name that stands there, or is a run parameter."""
    source = entry.get(f"{field}Parameter", {})
    if "componentInputParameter" in source:
        name = step.around[source["componentInputParameter"]]
    else:
        name = source.get("runtimeValue", {}).get("constant") or entry[field]
    assert name, f"{step.task}: {field}: Kubeflow's driver refuses an empty name"
    return str(name)


def _json(step: Step, source: Document | None, default: Any) -> Any:
    return step.around[source["componentInputParameter"]] if source else default


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _from(variable: str, kind: str, name: str, key: str, optional: bool) -> Document:
    return {"name": variable, "valueFrom": {kind: {"name": name, "key": key, "optional": optional}}}


def _from_field(variable: str, path: str) -> Document:
    return {"name": variable, "valueFrom": {"fieldRef": {"fieldPath": path}}}
