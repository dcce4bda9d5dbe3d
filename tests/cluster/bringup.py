"""From nothing to a platform: control plane, node, DNS, KServe, a disk, and Prometheus; inside `isolated` only."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clinical_r1 import __version__
from tests.cluster import addons
from tests.cluster.api import Api, Document
from tests.cluster.control_plane import DNS_SERVICE_IP, ControlPlane
from tests.cluster.daemons import Daemons, stopping
from tests.cluster.images import GPU_FILES, Image, built_image, program_image
from tests.cluster.node import ADDRESS, Node, make_network

TAG = __version__
INITIALIZER = "localhost/kserve/storage-initializer:v0.20.0"
GATEWAY, TRAINER = f"localhost/clinical-r1/gateway:{TAG}", f"localhost/clinical-r1/trainer:{TAG}"
BUILT = (GATEWAY, TRAINER, INITIALIZER)
"""Images of `make images IMAGES="trainer gateway initializer"`."""
DEPLOYMENT = {"apiVersion": "apps/v1", "kind": "Deployment"}


@dataclass(frozen=True)
class Machine:
    """A running platform."""

    plane: ControlPlane
    node: Node
    daemons: Daemons
    seconds: dict[str, float]
    """How long each part took to come up."""

    @property
    def api(self) -> Api:
        """As administrator."""
        return self.plane.api


def images() -> list[Image]:
    """What the chart and KServe run here."""
    return [
        program_image(f"localhost/clinical-r1/minio:{TAG}", "minio", folder="usr/bin"),
        program_image(addons.MANAGER_IMAGE, "kserve"),
        built_image(GATEWAY),
        built_image(INITIALIZER, code=False),
        built_image(TRAINER, GPU_FILES),
    ]


@contextmanager
def machine() -> Iterator[Machine]:
    """Brings everything up, and down again."""
    folder = Path(os.environ["CLUSTER_FOLDER"])
    seconds: dict[str, float] = {}
    with stopping(Daemons(folder)) as daemons:
        began = time.monotonic()

        def done(part: str) -> None:
            seconds[part] = round(time.monotonic() - began - sum(seconds.values()), 1)
            print(f"{part}: {seconds[part]} s", flush=True)

        make_network(folder)
        _resolve_cluster_names(folder)
        plane = ControlPlane(folder, daemons, ADDRESS, 6443).start(scheduler=True)
        done("control plane")
        node = Node(plane, daemons, os.environ["CLUSTER_CGROUP"])
        node.start_runtime()
        for image in images():
            node.load(image)
        done("images")
        node.start()
        done("node")
        addons.install_resource_types(plane.api)
        addons.install_kserve(plane.api, plane.ca, authority=plane.authority, initializer=INITIALIZER)
        plane.api.apply(*_disks(folder, {"objects": "5Gi", "state": "1Gi"}))
        for name, namespace in (("coredns", "kube-system"), ("kserve-controller-manager", "kserve")):
            wait_available(plane.api, name, namespace, 120)
        addons.wait_for_webhooks(plane.api, daemons)
        done("DNS and KServe")
        yield Machine(plane, node, daemons, seconds)


def wait_available(api: Api, name: str, namespace: str, seconds: float) -> None:
    """Until every replica of a Deployment is available in its newest form."""

    def available() -> bool:
        found = api.find(DEPLOYMENT, name, namespace) or {}
        status, wanted = found.get("status", {}), found.get("spec", {}).get("replicas", 1)
        fresh = status.get("observedGeneration") == found.get("metadata", {}).get("generation")
        return fresh and status.get("updatedReplicas") == status.get("availableReplicas") == wanted

    api.wait(f"{namespace}/{name} is available", available, seconds)


def _resolve_cluster_names(folder: Path) -> None:
    """This process and its children ask the cluster's DNS; nobody outside of these namespaces sees the change."""
    path = folder / "host-resolv.conf"
    path.write_text(f"nameserver {DNS_SERVICE_IP}\nsearch svc.cluster.local cluster.local\n", encoding="ascii")
    subprocess.run(["mount", "--bind", str(path), "/etc/resolv.conf"], check=True)


def _disks(folder: Path, sizes: dict[str, str]) -> list[Document]:
    """Volumes of the default storage class, on this machine's disk."""
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    storage_class: Document = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "disk", "annotations": default},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    return [storage_class, *(_volume(folder / name, name, size) for name, size in sizes.items())]


def _volume(folder: Path, name: str, size: str) -> Document:
    folder.mkdir()
    folder.chmod(0o777)
    terms = [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "Exists"}]}]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "disk",
            "local": {"path": str(folder)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": terms}},
        },
    }
