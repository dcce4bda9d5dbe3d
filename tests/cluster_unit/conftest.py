"""A real kube-apiserver with the real CRDs of Trainer and KServe; what their controllers would write, tests write."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from ground import Ground

from clinical_r1.cluster.api import INFERENCE_SERVICE, TRAINJOB, Cluster
from tests.cluster.addons import install_kserve_types, install_resource_types
from tests.cluster.control_plane import ControlPlane, skip_without_programs
from tests.cluster.daemons import Daemons, stopping

_numbers = itertools.count()


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    skip_without_programs()
    folder: Path = tmp_path_factory.mktemp("plane")
    with stopping(Daemons(folder)) as daemons:
        plane = ControlPlane(folder, daemons).start()
        install_resource_types(plane.api)
        install_kserve_types(plane.api)
        # Served, a new type still has no schema for some seconds, or a minute where the machine is slow.
        for kind in (TRAINJOB, INFERENCE_SERVICE):
            path = f"/openapi/v3/apis/{kind.group}/{kind.version}"
            daemons.wait_for(f"the schema of {kind.plural}", lambda path=path: plane.api.raw(path), 120)
        yield plane


@pytest.fixture
def ground(plane: ControlPlane) -> Ground:
    name = f"ground-{next(_numbers)}"
    plane.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    config = plane.kubeconfig("admin", "admin", ("system:masters",))
    return Ground(plane, Cluster(name, kubeconfig=str(config)))
