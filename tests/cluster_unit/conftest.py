"""A real kube-apiserver with the real CRDs of Trainer and KServe; what their controllers would write, tests write."""

import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clinical_r1.cluster.api import Cluster, Kind
from tests.cluster.addons import install_kserve_types, install_resource_types
from tests.cluster.build import BINARIES
from tests.cluster.control_plane import ControlPlane
from tests.cluster.daemons import Daemons, stopping

_numbers = itertools.count()


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    if not BINARIES["kubernetes"].binary.exists():
        pytest.skip("Kubernetes is not built; run python -m tests.cluster.build kubernetes")
    if not shutil.which("etcd"):
        pytest.skip("etcd is not installed (Debian: etcd-server)")
    folder: Path = tmp_path_factory.mktemp("plane")
    with stopping(Daemons(folder)) as daemons:
        plane = ControlPlane(folder, daemons).start()
        install_resource_types(plane.api)
        install_kserve_types(plane.api)
        yield plane


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


@pytest.fixture
def ground(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> Ground:
    name = f"ground-{next(_numbers)}"
    plane.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    config = plane.kubeconfig("admin", "admin", ("system:masters",))
    return Ground(plane, Cluster(name, kubeconfig=str(config)))
