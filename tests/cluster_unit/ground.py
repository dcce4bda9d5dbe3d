"""A namespace of the test API server."""

from dataclasses import dataclass
from typing import Any

from clinical_r1.cluster.api import Cluster, Kind
from tests.cluster.control_plane import ControlPlane


@dataclass
class Ground:
    """A namespace of its own, seen as its administrator."""

    plane: ControlPlane
    cluster: Cluster

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
