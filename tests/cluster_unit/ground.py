"""A namespace of the test API server."""

import json
from dataclasses import dataclass
from typing import Any

from clinical_r1.cluster.api import Cluster, Kind
from clinical_r1.cluster.facts import PLATFORM, Facts
from tests.cluster.control_plane import ControlPlane

RUN_PARAMETERS = {
    "image": "localhost/trainer:1",
    "image_pull_secret": "r1-pull",
    "claim": "r1-state",
    "store_secret": "r1-store-pipelines",
    "endpoint_secret": "r1-endpoints",
    "patient_secret": "r1-patient-key",
    "client_key_secret": "r1-first-client",
    "ca_config_map": "r1-ca",
}


def facts_data(**changes: str) -> dict[str, str]:
    """What the chart's ConfigMap holds for a release r1; every key, as the chart writes it."""
    names = {str(field.validation_alias): "" for field in Facts.model_fields.values()}
    return names | {
        "CLINICAL_R1_RELEASE": "r1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "CLINICAL_R1_BUCKET": "clinical-r1",
        "CLINICAL_R1_CA_KEY": "ca.crt",
        "CLINICAL_R1_RUN_PARAMETERS": json.dumps(RUN_PARAMETERS),
        "CLINICAL_R1_KUBEFLOW_NAMESPACE": "kubeflow",
        "CLINICAL_R1_KUBEFLOW_ACCOUNT": "default-editor",
        "CLINICAL_R1_KUBEFLOW_REGISTERED": "none",
        "CLINICAL_R1_TRAINING_RUNTIME": "r1",
        "CLINICAL_R1_SERVING_NAME": "clinical-r1",
        "CLINICAL_R1_ROLLOUT_MIN_REQUESTS": "3",
        **changes,
    }


@dataclass
class Ground:
    """A namespace of its own, seen as its administrator."""

    plane: ControlPlane
    cluster: Cluster

    def install(self, **changes: str) -> None:
        """The chart's facts."""
        body = {"metadata": {"name": PLATFORM}, "data": facts_data(**changes)}
        self.cluster.core.create_namespaced_config_map(self.cluster.namespace, body)

    def set_status(self, kind: Kind, name: str, status: dict[str, Any]) -> None:
        """What the kind's controller would report."""
        custom = self.cluster._custom
        custom.patch_namespaced_custom_object_status(
            kind.group,
            kind.version,
            self.cluster.namespace,
            kind.plural,
            name,
            {"status": status},
        )

    def make_pod(self, name: str, labels: dict[str, str], annotations: dict[str, str]) -> None:
        """A pod that says of itself that it is ready; nothing runs."""
        namespace, core = self.cluster.namespace, self.cluster.core
        metadata = {"name": name, "labels": labels, "annotations": annotations}
        spec = {"containers": [{"name": "c", "image": "localhost/none:1"}]}
        core.create_namespaced_pod(namespace, {"metadata": metadata, "spec": spec})
        status = {"conditions": [{"type": "Ready", "status": "True"}]}
        core.patch_namespaced_pod_status(name, namespace, {"status": status})
