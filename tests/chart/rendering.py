"""A rendered chart, to be asked for its resources."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "helm" / "clinical-r1"
APIS = (
    "serving.kserve.io/v1beta1/InferenceService",
    "trainer.kubeflow.org/v1alpha1/TrainingRuntime",
    "monitoring.coreos.com/v1/PodMonitor",
    "monitoring.coreos.com/v1/PrometheusRule",
    "keda.sh/v1alpha1/ScaledObject",
    "kueue.x-k8s.io/v1beta1/LocalQueue",
    "pipelines.kubeflow.org/v2beta1/PipelineVersion",
    "serving.kserve.io/v1alpha2/LLMInferenceService",
)
EXAMPLES = ("laptop", "one-gpu", "production")
MODEL = "serving.model.uri=s3://clinical-r1/models/demo/1"


class ChartError(Exception):
    """What helm said."""


class Rendered:
    """The resources of one rendering."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.all: list[dict[str, Any]] = [doc for doc in yaml.load_all(text, Loader=yaml.CSafeLoader) if doc]

    def kind(self, kind: str) -> list[dict[str, Any]]:
        """All resources of a kind."""
        return [doc for doc in self.all if doc["kind"] == kind]

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """One resource by name, without the release's prefix."""
        for doc in self.kind(kind):
            if doc["metadata"]["name"] in (name, f"r1-{name}"):
                return doc
        raise KeyError(f"no {kind} {name}; there are {[doc['metadata']['name'] for doc in self.kind(kind)]}")

    def pods(self) -> Iterator[tuple[str, dict[str, Any], dict[str, str]]]:
        """(where, pod spec, pod labels) of everything that makes pods."""
        for doc in self.all:
            where, spec = f"{doc['kind']}/{doc['metadata']['name']}", doc.get("spec", {})
            if doc["kind"] == "Pod":
                yield where, spec, doc["metadata"].get("labels", {})
            elif doc["kind"] in ("Job", "StatefulSet", "Deployment"):
                yield where, spec["template"]["spec"], spec["template"]["metadata"]["labels"]
            elif doc["kind"] == "TrainingRuntime":
                template = spec["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
                yield where, template["spec"], template["metadata"]["labels"]
            elif doc["kind"] == "LLMInferenceService":
                yield where, spec["template"], spec["labels"]
            elif doc["kind"] == "InferenceService":
                # KServe puts the runtime's containers and volumes into the predictor's pod.
                predictor = copy.deepcopy(spec["predictor"])
                runtime = self.get("ServingRuntime", predictor["model"]["runtime"])["spec"]
                yield where, predictor | {key: runtime[key] for key in ("containers", "volumes")}, predictor["labels"]


Render = Callable[..., Rendered]
