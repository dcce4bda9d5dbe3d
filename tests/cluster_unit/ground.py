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
        """What the kind's controller would report; `observedGeneration` is filled in."""
        custom = self.cluster._custom
        live = self.cluster.get(kind, name)
        assert live is not None
        generation = (
            {"observedGeneration": live["metadata"]["generation"]} if kind.plural == "inferenceservices" else {}
        )
        custom.patch_namespaced_custom_object_status(
            kind.group,
            kind.version,
            self.cluster.namespace,
            kind.plural,
            name,
            {"status": generation | status},
        )
