"""InferenceServices through KServe's SDK: built and checked as `V1beta1InferenceService`, made by `KServeClient`.

What the service looks like (resources, replicas, security, labels) is the chart's: it lies in the ConfigMap as a
manifest without a model (`Facts.inference_service`), with Helm's marks, so that the next `helm upgrade` takes it over.
"""

import copy
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from clinical_r1.baseline import FILE_NAME, Baseline
from clinical_r1.cluster.api import Cluster, Object, Refused, message_of
from clinical_r1.cluster.facts import Facts
from clinical_r1.errors import UserError
from clinical_r1.objectstore.face import Store
from clinical_r1.sampling import differences

TRAFFIC, VERSION, PREVIOUS = "clinical-r1/traffic", "clinical-r1/model-version", "clinical-r1/previous-uri"
_PLAIN = {"str": str, "bool": bool, "int": int, "float": (int, float)}


def model_version(uri: str) -> str:
    """What the metrics call a model: s3://bucket/models/NAME/VERSION -> NAME/VERSION."""
    return re.sub(r"^s3://[^/]+/models/", "", uri.rstrip("/"))


def manifest(facts: Facts, uri: str, traffic: str = "on") -> Object:
    """The InferenceService of this installation with the model at `uri`; `traffic` "off" keeps it from clients."""
    body = copy.deepcopy(facts.inference_service)
    if not body:
        raise UserError(
            "nothing is served in this namespace: helm upgrade with serving.enabled=true, and KServe installed"
        )
    predictor = body["spec"]["predictor"]
    predictor["model"]["storageUri"] = uri
    predictor["annotations"] = predictor.get("annotations", {}) | {VERSION: model_version(uri)}
    predictor["labels"] = predictor.get("labels", {}) | {TRAFFIC: traffic}
    return body


def engine_line(cluster: Cluster, service: str) -> list[str]:
    """Command line of the engine in the pods of a service; empty where none runs."""
    for pod in cluster.pods(f"serving.kserve.io/inferenceservice={service}"):
        for container in pod.spec.containers:
            if container.name == "kserve-container":
                return [*(container.command or []), *(container.args or [])]
    return []


def drawn_otherwise(model: Store, engine: Sequence[str]) -> list[str]:
    """How what is served differs from what was evaluated, for requests that leave sampling out; one sentence each.

    `model` is the folder that is served, `engine` the engine's command line (vLLM fills in what a request omits from
    the model's generation_config.json unless it is told not to).
    """
    baseline = Baseline.model_validate_json(model.get(FILE_NAME)) if model.stat(FILE_NAME) else None
    if baseline is None or baseline.decoding is None:
        return ["the model holds no record of how its answers were drawn when it was evaluated: evaluate it again"]
    filled: dict[str, Any] = {}
    vllm = any("vllm" in word for word in engine)
    if _flag(engine, "--generation-config") != "vllm" and vllm and model.stat("generation_config.json"):
        filled = json.loads(model.get("generation_config.json"))
    filled |= json.loads(_flag(engine, "--override-generation-config") or "{}")
    found = differences(baseline.decoding, filled)
    return [f"{one}, where a request leaves it out: start vLLM with --generation-config vllm" for one in found]


def _flag(line: Sequence[str], name: str) -> str:
    """The value of a command line's option, in one word or in two."""
    for word, after in zip(line, [*line[1:], ""], strict=False):
        if word == name:
            return after
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return ""


def typed(document: Object, kind: str = "V1beta1InferenceService") -> Any:
    """The document as an object of the SDK. UserError names the first field that KServe does not know, or that has the
    wrong type."""
    return _typed(document, kind, kind.removeprefix("V1beta1"))


def _typed(value: Any, kind: str, place: str) -> Any:
    if inner := re.fullmatch(r"list\[(.+)\]", kind):
        _is(isinstance(value, list), place, "a list", value)
        return [_typed(item, inner[1], f"{place}[{index}]") for index, item in enumerate(value)]
    if inner := re.fullmatch(r"dict\(str, (.+)\)", kind):
        _is(isinstance(value, dict), place, "a map", value)
        return {key: _typed(item, inner[1], f"{place}.{key}") for key, item in value.items()}
    if kind in _PLAIN:
        fits = isinstance(value, _PLAIN[kind]) and (kind == "bool" or not isinstance(value, bool))  # type: ignore[arg-type]
        _is(fits, place, kind, value)
        return value
    model = _model(kind)
    if model is None:  # quantities, int-or-string, and types newer than the Kubernetes client at hand
        return value
    _is(isinstance(value, dict), place, "a map", value)
    attributes = {key: name for name, key in model.attribute_map.items()}
    if unknown := sorted(set(value) - set(attributes)):
        raise UserError(f"{place}.{unknown[0]}: KServe knows no such field: correct the chart's values")
    given = {
        attributes[key]: _typed(item, model.openapi_types[attributes[key]], f"{place}.{key}")
        for key, item in value.items()
        if item is not None
    }
    try:
        made = model(**given)
    except ValueError as error:
        raise UserError(f"{place}: {error}") from None
    for name in set(model.openapi_types) - set(given):
        setattr(made, f"_{name}", None)  # the SDK fills some with empty texts, which KServe would take for ours
    return made


def _is(fits: bool, place: str, wanted: str, value: Any) -> None:
    if not fits:
        raise UserError(f"{place}: must be {wanted}, not {type(value).__name__}")


def _model(kind: str) -> Any:
    import kserve.models
    from kubernetes.client import models

    return getattr(kserve.models, kind, None) or getattr(models, kind, None)


class KServe:
    """KServe's own client in one namespace, its refusals as sentences."""

    def __init__(self, cluster: Cluster) -> None:
        """The same access as `cluster`."""
        from kserve import KServeClient

        place = {"config_file": cluster.kubeconfig or None, "context": cluster.context or None}
        self._client = KServeClient(**(place if any(place.values()) else {}))
        self._namespace = cluster.namespace

    def create(self, document: Object) -> None:
        """Checked by the SDK first. Raises Refused (409 where it is there already)."""
        service = typed(document)
        with _sentences(f"create inferenceservices/{document['metadata']['name']}"):
            self._client.create(service, namespace=self._namespace)

    def wait_ready(self, name: str, seconds: float) -> None:
        """Until KServe says that it is ready; UserError with its last condition when time is over."""
        polling = 2
        try:
            self._client.wait_isvc_ready(name, self._namespace, timeout_seconds=seconds, polling_interval=polling)
        except RuntimeError:
            live = self._client.get(name, namespace=self._namespace)
            conditions = live.get("status", {}).get("conditions", [])
            why = next((c.get("message") or c.get("reason") or "" for c in conditions if c["status"] != "True"), "")
            raise UserError(
                f"{name}: not ready after {seconds:g} s{f' ({why})' if why else ''}: "
                f"see `kubectl describe inferenceservice {name}`, its pods"
            ) from None


@contextmanager
def _sentences(what: str) -> Iterator[None]:
    """The SDK wraps the API server's refusal into a RuntimeError; its cause has status and words."""
    try:
        yield
    except RuntimeError as error:
        cause = error.__context__
        status = int(getattr(cause, "status", 0) or 0)
        if status == 403:
            raise Refused(f"{what}: not allowed: give this account the chart's role", status) from None
        raise Refused(f"{what}: {message_of(cause) if status else error}", status) from None
