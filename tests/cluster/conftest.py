"""A real API server with KServe's controller and the chart, for tests that need no node."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.addons import install_kserve_types, install_resource_types, run_kserve
from tests.cluster.api import Api
from tests.cluster.build import BINARIES
from tests.cluster.chart import Helm, find_helm
from tests.cluster.control_plane import ControlPlane, skip_without_programs
from tests.cluster.daemons import Daemons, stopping

TEAM = "team-a"
"""A namespace with restricted pod security, as a Kubeflow profile would have it."""
OTHER = "team-b"
"""A neighbour's namespace."""
VALUES: dict[str, Any] = {
    "global": {"imageRegistry": "localhost"},
    "objectStore": {"mode": "minio", "minio": {"size": "1Gi"}},
    "serving": {"engine": {"kind": "cpu"}, "model": {"uri": "s3://clinical-r1/models/tiny/1"}},
    "networkPolicy": {"apiServerCIDRs": ["127.0.0.1/32"]},
}


@dataclass(frozen=True)
class Platform:
    """The API server with everything that the platform expects of a cluster, and the chart installed in TEAM."""

    plane: ControlPlane
    helm: Helm

    @property
    def api(self) -> Api:
        """As administrator."""
        return self.plane.api


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Skips, with the reason, where a program is missing; without KServe's controller its resource types must do."""
    skip_without_programs()
    folder: Path = tmp_path_factory.mktemp("plane")
    with stopping(Daemons(folder)) as daemons:
        plane = ControlPlane(folder, daemons).start()
        install_resource_types(plane.api)
        if BINARIES["kserve"].binary.exists():
            run_kserve(plane, daemons)
        else:
            install_kserve_types(plane.api)
        for name in (TEAM, OTHER):
            plane.api.apply(namespace(name))
        helm = Helm(find_helm(), plane.api.kubeconfig, TEAM)
        helm.install(VALUES)
        yield Platform(plane, helm)


@pytest.fixture
def kserve(platform: Platform) -> Platform:
    """The platform where KServe's controller runs; skips where it is not built."""
    if not BINARIES["kserve"].binary.exists():
        pytest.skip("KServe's controller is not built; run python -m tests.cluster.build kserve")
    return platform


def namespace(name: str) -> dict[str, Any]:
    """A namespace whose pods must be restricted ones."""
    labels = {
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/enforce-version": "latest",
    }
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
