"""JSON schemas for kubeconform, strict: Kubernetes' own kinds and the real CRDs, all out of Go modules.

`python -m tests.chart.schemas` prints the folder; it is made once per set of versions, outside the checkout.
"""

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from tests.chart.gomodules import CACHE, module

KUBERNETES = ("k8s.io/kubernetes", "v1.34.4", "api/openapi-spec/swagger.json")
CRDS = (
    ("github.com/kserve/kserve", "v0.20.0", "config/crd/full"),
    ("github.com/kserve/kserve", "v0.20.0", "config/crd/full/llmisvc"),
    ("github.com/prometheus-operator/prometheus-operator", "v0.85.0", "example/prometheus-operator-crd"),
    ("github.com/kedacore/keda/v2", "v2.21.0", "config/crd/bases"),
    ("github.com/kubeflow/trainer/v2", "v2.3.0", "manifests/base/crds"),
    ("sigs.k8s.io/kueue", "v0.11.4", "config/components/crd/bases"),
)
"""Module, version, folder. Kubeflow Pipelines is not to be had as a module: its two kinds are not checked here."""


class _Loader(yaml.CSafeLoader):
    """YAML as Kubernetes reads it: `=` is a string, not YAML 1.1's default value."""


_Loader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: loader.construct_scalar(node))


def closed(schema: Any) -> Any:
    """The same schema without room for unknown keys, in JSON Schema's own words."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string") or schema.get("format") == "int-or-string":
        return {"type": ["string", "integer"]}
    result = {key: closed(value) for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and not open_ended:
        result["additionalProperties"] = False
    return result


def crd_schemas(text: str) -> dict[str, Any]:
    """File name -> schema, for every kind and version of a file of CRDs."""
    found = {}
    for crd in yaml.load_all(text, Loader=_Loader):
        if not crd or crd.get("kind") != "CustomResourceDefinition" or "versions" not in crd["spec"]:
            continue  # kustomize's own files, and patches of what they name
        spec = crd["spec"]
        for version in spec["versions"]:
            schema = closed(version["schema"]["openAPIV3Schema"])
            # Every object has these; a CRD need not say so.
            schema.setdefault("properties", {}).update(
                {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
            )
            found[f"{spec['names']['kind']}-{spec['group']}-{version['name']}.json".lower()] = schema
    return found


def kubernetes_schemas(text: str) -> dict[str, Any]:
    """File name -> schema, for every kind that the API server knows by itself."""
    definitions = closed(json.loads(text)["definitions"])
    # What the generator of swagger.json calls a string, and people write as numbers too.
    definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"] = {"type": ["string", "number"]}
    definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"] = {"type": ["string", "integer"]}
    files: dict[str, Any] = {}
    for name, definition in json.loads(text)["definitions"].items():
        for kind in definition.get("x-kubernetes-group-version-kind", []):
            # kubeconform takes the part of apiVersion before the slash for the group, so the core group is "v1".
            file = f"{kind['kind']}-{kind['group'] or kind['version']}-{kind['version']}.json".lower()
            needed = reachable(name, definitions)
            files[file] = {"$ref": f"#/definitions/{name}", "definitions": {key: definitions[key] for key in needed}}
    return files


def reachable(name: str, definitions: dict[str, Any]) -> set[str]:
    """The definition and all that it refers to."""
    found, todo = set(), [name]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += re.findall(r'"#/definitions/([^"]+)"', json.dumps(definitions[name]))
    return found


def folder() -> Path:
    """The folder with all schemas, made where it is missing."""
    versions = "-".join(dict.fromkeys(version for _, version, _ in (KUBERNETES, *CRDS))) + "-llm"
    target = CACHE / f"chart-schemas-{versions}"
    if target.is_dir():
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    name, version, path = KUBERNETES
    files = kubernetes_schemas((module(name, version) / path).read_text(encoding="utf-8"))
    for name, version, path in CRDS:
        for file in sorted((module(name, version) / path).glob("*.yaml")):
            files |= crd_schemas(file.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=".schemas-") as scratch:
        made = Path(scratch, "schemas")
        made.mkdir()
        for file_name, schema in files.items():
            (made / file_name).write_text(json.dumps(schema), encoding="utf-8")
        made.rename(target)
    return target


LOCATION = "{{ .ResourceKind }}-{{ .Group }}-{{ .ResourceAPIVersion }}.json"
"""What kubeconform puts after the folder to find a schema."""

if __name__ == "__main__":
    print(folder())
    sys.exit(0)
