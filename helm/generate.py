"""Writes the chart's values.schema.json and README.md from values.yaml: `python helm/generate.py`, or `make manifests`.

A test holds both equal to what this file would write.
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "clinical-r1"
REPOSITORY = Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY))

TEXT = {"type": "string"}
TEXT_MAP = {"type": "object", "additionalProperties": TEXT}
NAME = {"type": "string", "pattern": "^$|^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"}
QUANTITY = {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P|m)?$"}
AUTO = {"oneOf": [{"type": "boolean"}, {"const": "auto"}]}
IMAGE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["repository"],
    "properties": {
        "repository": {"type": "string", "pattern": "^[a-z0-9]([a-z0-9._/-]*[a-z0-9])?$"},
        "tag": {"type": "string", "pattern": "^$|^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"},
        "digest": {"type": "string", "pattern": "^$|^sha256:[0-9a-f]{64}$"},
        "pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    },
}
RESOURCES = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"requests": {"type": "object"}, "limits": {"type": "object"}},
}
TOLERATIONS = {"type": "array", "items": {"type": "object"}}
_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = f"({_BYTE}\\.){{3}}{_BYTE}/(3[0-2]|[12]?[0-9])"
_IPV6 = "[0-9a-fA-F:]*:[0-9a-fA-F:.]*/(12[0-8]|1[01][0-9]|[1-9]?[0-9])"
CIDR = {"type": "string", "pattern": f"^({_IPV4}|{_IPV6})$"}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}


def entries(**properties: Any) -> dict[str, Any]:
    """A list of objects with exactly these keys."""
    row = {"type": "object", "additionalProperties": False, "required": list(properties), "properties": properties}
    return {"type": "array", "items": row}


# What the default of a key does not say. A path ends with the key or, with `.`, starts somewhere below.
CONSTRAINTS: dict[str, dict[str, Any]] = {
    "fullnameOverride": NAME,
    "global.imageRegistry": {"type": "string", "pattern": "^$|^[A-Za-z0-9.-]+(:[0-9]+)?(/[a-z0-9._/-]*[a-z0-9])?$"},
    "global.imagePullSecrets": {"type": "array", "items": TEXT},
    "images.trainer": IMAGE,
    "images.gateway": IMAGE,
    "images.vllm": IMAGE,
    "images.minio": IMAGE,
    "objectStore.mode": {"enum": ["external", "minio"]},
    "objectStore.endpoint": {"type": "string", "pattern": "^$|^https?://[^/ ]+/?$"},
    "objectStore.bucket": {"type": "string", "pattern": "^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$"},
    "objectStore.setup.deadlineSeconds": {"type": "integer", "minimum": 60},
    "objectStore.minio.size": QUANTITY,
    "objectStore.minio.tls.mode": {"enum": ["generated", "existing", "none"]},
    "objectStore.minio.tls.days": {"type": "integer", "minimum": 1},
    "kubeflow.mode": {"enum": ["standalone", "multiuser"]},
    "kubeflow.register.mode": {"enum": ["auto", "job", "crd", "none"]},
    "kubeflow.state.size": QUANTITY,
    "kubeflow.state.accessMode": {"enum": ["ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"]},
    "kubeflow.audit.schedule": {"type": "string", "pattern": "^$|^(\\S+ ){5}\\S+$"},
    "kubeflow.audit.parameters": {"type": "object"},
    "kubeflow.register.endpoint": {"type": "string", "pattern": "^$|^https?://[^ ]+$"},
    "simulator.args": {"type": "array", "items": TEXT},
    "training.runtime.enabled": AUTO,
    "training.runtime.sharedMemory": QUANTITY,
    "serving.enabled": AUTO,
    "serving.kind": {"enum": ["InferenceService", "LLMInferenceService"]},
    "serving.llm": {"type": "object"},
    "serving.name": {"type": "string", "pattern": "^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"},
    "serving.model.uri": {"type": "string", "pattern": "^$|^s3://[^/\\s]+/models/[^/\\s?#]+/[^/\\s?#]+/?$"},
    "serving.engine.kind": {"enum": ["vllm", "cpu"]},
    "serving.engine.args": {"type": "array", "items": TEXT},
    "serving.engine.env": {"type": "array", "items": {"type": "object", "required": ["name"]}},
    "serving.engine.startupSeconds": {"type": "integer", "minimum": 30},
    "serving.engine.sharedMemory": QUANTITY,
    "serving.gateway.auth": {"enum": ["keys", "none"]},
    "serving.gateway.config": {"type": "object"},
    "serving.gateway.traceCollector": {"type": "string", "pattern": "^$|^https?://[^/ ]+:[0-9]+/?$"},
    "serving.gateway.thinkingBudget": {
        "oneOf": [{"type": "integer", "minimum": 0}, {"const": "auto"}, {"type": "null"}]
    },
    "serving.gateway.sampling.rate": {
        # `helm --set` hands fractions over as text.
        "oneOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "string", "pattern": "^(0?\\.[0-9]+|0|1)$"}]
    },
    "serving.replicas.min": {"type": "integer", "minimum": 1},
    "serving.replicas.max": {"type": "integer", "minimum": 1},
    "serving.autoscaling.prometheus": {"type": "string", "pattern": "^$|^https?://[^ ]+$"},
    "serving.autoscaling.inFlight": {"type": "integer", "minimum": 1},
    "serving.rollout.mode": {"enum": ["dark", "replicas", "replace"]},
    "serving.rollout.minRequests": {"type": "integer", "minimum": 1},
    "monitoring.podMonitor.enabled": AUTO,
    "monitoring.podMonitor.interval": {"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"},
    "monitoring.rules.enabled": AUTO,
    "networkPolicy.egress": {"enum": ["closed", "open"]},
    "networkPolicy.clientNamespaces": {"type": "array", "items": NAME},
    "networkPolicy.objectStoreCIDRs": {"type": "array", "items": CIDR},
    "networkPolicy.apiServerCIDRs": {"type": "array", "items": CIDR},
    "networkPolicy.llmEndpoints": entries(cidr=CIDR, port=PORT),
    "networkPolicy.llmNamespaces": entries(namespace=NAME, port=PORT),
    "istio.namespaces": {"type": "array", "items": NAME},
    "tests.timeoutSeconds": {"type": "integer", "minimum": 30},
}
BY_LAST_KEY = {
    "resources": RESOURCES,
    "tolerations": TOLERATIONS,
    "nodeSelector": TEXT_MAP,
    "labels": TEXT_MAP,
    "annotations": TEXT_MAP,
    **dict.fromkeys(("priorityClassName", "serviceAccountName", "storageClass"), NAME),
    **dict.fromkeys(("secret", "configMap", "namespace", "queue", "clusterQueue", "monitoringNamespace"), NAME),
    **dict.fromkeys(("existingSecret", "existingClaim", "endpointSecret", "patientSecret", "testKeySecret"), NAME),
}


class Value:
    """One key of values.yaml: its path, default, comment and whether it only holds others."""

    def __init__(self, path: str, default: Any, text: str, group: bool) -> None:
        self.path, self.default, self.text, self.group = path, default, text, group


def read_values() -> list[Value]:
    """All keys of values.yaml in their order; raises SystemExit for one without a description."""
    source = (CHART / "values.yaml").read_text(encoding="utf-8")
    lines, found = source.splitlines(), []

    def comment(line: int) -> str:
        block: list[str] = []
        while line > 0 and lines[line - 1].lstrip().startswith("#"):
            line -= 1
            block.insert(0, lines[line].strip().lstrip("#").strip())
        text = " ".join(block)
        return text.removeprefix("-- ") if text.startswith("-- ") else ""

    def walk(node: yaml.MappingNode, data: dict[str, Any], above: str) -> None:
        for key, child in node.value:
            path, default = above + key.value, data[key.value]
            group = isinstance(child, yaml.MappingNode) and not child.flow_style
            text = comment(key.start_mark.line)
            if not group and not text:
                raise SystemExit(f"error: values.yaml:{key.start_mark.line + 1}: {path} has no `# --` line above it")
            found.append(Value(path, default, text, group))
            if group:
                walk(child, default, path + ".")

    walk(yaml.compose(source), yaml.safe_load(source), "")
    return found


def schema_of(value: Value) -> dict[str, Any]:
    """What a key may hold, by its constraint or else by its default."""
    if value.path in CONSTRAINTS:
        return CONSTRAINTS[value.path]
    last = value.path.rpartition(".")[2]
    if last in BY_LAST_KEY:
        return BY_LAST_KEY[last]
    default = value.default
    if isinstance(default, dict):  # a closed map in one line: all values are of one type
        one = {"type": "integer", "minimum": 0} if isinstance(next(iter(default.values())), int) else NAME
        return {"type": "object", "additionalProperties": False, "properties": dict.fromkeys(default, one)}
    kinds: dict[type, str] = {bool: "boolean", int: "integer", str: "string"}
    if type(default) not in kinds:
        raise SystemExit(f"error: helm/generate.py: say in CONSTRAINTS what {value.path} may hold")
    return {"type": kinds[type(default)]}


def schema(values: list[Value]) -> str:
    """values.schema.json: closed, so that a misspelt key stops the installation."""
    top: dict[str, Any] = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the clinical-r1 chart",
        "type": "object",
        "additionalProperties": False,
        "properties": {},
    }
    groups = {"": top}
    for value in values:
        above, _, key = value.path.rpartition(".")
        made: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": {}}
        entry = made if value.group else {"description": value.text} | schema_of(value)
        groups[above]["properties"][key] = entry
        # `null` takes a key away; then this says so, where a template would stumble over it.
        groups[above].setdefault("required", []).append(key)
        if value.group:
            groups[value.path] = entry
    return json.dumps(top, indent=1, ensure_ascii=False) + "\n"


def readme(values: list[Value]) -> str:
    """The chart's README: README.head.md and one table a section."""
    rows: list[str] = [(CHART / "README.head.md").read_text(encoding="utf-8").rstrip(), ""]
    section = None
    for value in values:
        if value.group:
            continue
        top = value.path.partition(".")[0]
        if top != section:
            section = top
            rows += ["", f"### `{top}`", "", "| Key | Default | Meaning |", "|---|---|---|"]
        default = json.dumps(value.default, ensure_ascii=False).replace("|", "\\|")
        rows.append(f"| `{value.path}` | `{default}` | {value.text.replace('|', '&#124;')} |")
    return "\n".join(rows) + "\n"


def generated() -> dict[Path, str]:
    """Every generated file of the chart with its content."""
    values = read_values()
    return {CHART / "values.schema.json": schema(values), CHART / "README.md": readme(values)}


def main() -> int:
    """Write what has changed."""
    from clinical_r1.atomic import write_text

    for path, text in generated().items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
            print(f"written: {path.relative_to(REPOSITORY)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
