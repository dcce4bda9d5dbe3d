"""What a compiled pipeline refers to in its namespace, by the defaults of its run parameters."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

_KINDS = {
    "secretAsVolume": ("Secret", "secretName"),
    "secretAsEnv": ("Secret", "secretName"),
    "configMapAsVolume": ("ConfigMap", "configMapName"),
    "configMapAsEnv": ("ConfigMap", "configMapName"),
    "pvcMount": ("PersistentVolumeClaim", "pvcName"),
    "imagePullSecret": ("Secret", "secretName"),
}


class Reference(NamedTuple):
    """One object that a step's pod needs."""

    step: str
    kind: str
    name: str
    keys: frozenset[str]
    """Keys that the object must have."""
    optional: bool


def load(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(pipeline spec, its steps' settings for Kubernetes)."""
    spec, *rest = yaml.load_all(text, Loader=yaml.CSafeLoader)
    return spec, rest[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"] if rest else {}


def references(text: str) -> Iterator[Reference]:
    """Every Secret, ConfigMap and claim of every step. KeyError for a run parameter without a default."""
    spec, executors = load(text)
    defaults = {
        name: entry["defaultValue"]
        for name, entry in spec["root"].get("inputDefinitions", {}).get("parameters", {}).items()
        if "defaultValue" in entry
    }
    for step, settings in executors.items():
        for form, (kind, field) in _KINDS.items():
            for entry in settings.get(form, []):
                keys = {pair.get("secretKey") or pair.get("configMapKey") for pair in entry.get("keyToEnv", [])}
                name = _resolved(entry, field, defaults)
                if not name:  # as Kubeflow's driver does
                    raise ValueError(f"{step}: {form}: an empty name")
                # Kubernetes goes on without a pull Secret that is not there.
                optional = form == "imagePullSecret" or bool(entry.get("optional"))
                yield Reference(step, kind, name, frozenset(keys), optional)


def images(text: str) -> set[str]:
    """Images of all steps."""
    spec, _ = load(text)
    given = spec["root"]["inputDefinitions"]["parameters"]
    found = set()
    for executor in spec["deploymentSpec"]["executors"].values():
        image = executor.get("container", {}).get("image", "")
        if "{{" in image:
            image = str(given[image.split("'")[1].removeprefix("pipelinechannel--")]["defaultValue"])
        found.add(image)
    return found - {""}


def _resolved(entry: dict[str, Any], field: str, defaults: dict[str, Any]) -> str:
    parameter = entry.get(f"{field}Parameter", {})
    if "componentInputParameter" in parameter:
        return str(defaults[parameter["componentInputParameter"].removeprefix("pipelinechannel--")])
    return str(parameter.get("runtimeValue", {}).get("constant") or entry.get(field) or entry.get("constant", ""))
