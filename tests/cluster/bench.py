"""What the steps of `make test-cluster` share: the installed chart, its Secrets and store, the served model."""

import base64
import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from kubernetes import client

from clinical_r1.objectstore.face import NotFound, Store
from clinical_r1.objectstore.settings import StoreSettings
from clinical_r1.objectstore.store import open_store
from clinical_r1.schema import Case
from tests.cluster import traffic
from tests.cluster.api import Api, Document
from tests.cluster.bringup import Machine
from tests.cluster.chart import Helm, find_helm
from tests.cluster.daemons import poll
from tests.cluster.prometheus import Prometheus

TEAM, NAME, RELEASE = "team-a", "clinical-r1", "r1"
"""Namespace, what is served in it, and the Helm release: names that are not each other's."""
GATEWAY = f"{RELEASE}-gateway.{TEAM}.svc.cluster.local"
BUCKET = "clinical-r1"
STEPS_ACCOUNT = "default-editor"
"""What Kubeflow calls the account of pipeline steps in a profile's namespace."""
POD = {"apiVersion": "v1", "kind": "Pod"}
SECRET = {"apiVersion": "v1", "kind": "Secret"}
CLAIM = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
ISVC = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService"}
VALUES: dict[str, Any] = {
    "global": {"imageRegistry": "localhost"},
    "objectStore": {"mode": "minio", "minio": {"size": "5Gi", "resources": {"requests": {"cpu": "10m"}}}},
    "serving": {
        "engine": {
            "kind": "cpu",
            "resources": {"requests": {"cpu": "10m", "memory": "256Mi"}, "limits": {"memory": "3Gi"}},
            "sharedMemory": "64Mi",
            "env": [{"name": "OMP_NUM_THREADS", "value": "1"}],
        },
        "gateway": {"resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}},
        "replicas": {"min": 2, "max": 2},
        "rollout": {"minRequests": 10},
        "model": {"baseline": False},
    },
    "kubeflow": {"state": {"size": "1Gi", "accessMode": "ReadWriteOnce"}},
    "simulator": {"enabled": True},
    "training": {"runtime": {"sharedMemory": "64Mi"}},
}
_TRAFFIC = f"serving.kserve.io/inferenceservice={NAME},clinical-r1/traffic=on"


@dataclass
class Bench:
    """The namespace of a team, with restricted pod security as a Kubeflow profile would have it."""

    machine: Machine
    model: Path
    """Folder of a model that thinks."""
    thoughtless: Path
    """Folder of a model that does not."""
    probes: list[Case]
    """What a rollout asks the new model: questions that the one that thinks knows how to think about."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """What the pipeline's run is told beside what this machine can give."""
    uris: dict[str, str] = field(default_factory=dict)
    """Published models by what they are: good, better, thoughtless."""
    written: dict[str, str] = field(default_factory=dict)
    """SHA-256 of every object that the store said it had taken, by user/prefix/key."""
    prometheus: Prometheus | None = None

    def __post_init__(self) -> None:
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": TEAM, "labels": labels}})
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": STEPS_ACCOUNT, "namespace": TEAM}}
        self.api.apply(account, *filled_by_kubeflow(TEAM))
        self.helm = Helm(find_helm(), self.api.kubeconfig, TEAM)

    @property
    def api(self) -> Api:
        """As administrator."""
        return self.machine.api

    @property
    def folder(self) -> Path:
        """State of this run; deleted afterwards."""
        return self.machine.plane.folder

    def secret(self, name: str, key: str) -> str:
        """One value of a Secret."""
        found = self.api.find(SECRET, name, TEAM)
        assert found, f"no Secret {name}"
        return base64.b64decode(found["data"][key]).decode()

    @cached_property
    def key(self) -> str:
        """The first client's API key."""
        return self.secret(f"{RELEASE}-first-client", "key")

    def secrets(self) -> dict[str, Any]:
        """What is in all Secrets but helm's own."""
        found = self.api.list(SECRET, TEAM)
        return {s["metadata"]["name"]: s.get("data") for s in found if not s["metadata"]["name"].startswith("sh.helm.")}

    def settings(self, user: str) -> StoreSettings:
        """How one of the store's users reaches it."""
        bundle = self.folder / "store-ca.crt"
        bundle.write_text(self.secret(f"{RELEASE}-minio-tls", "ca.crt"), encoding="utf-8")
        return StoreSettings(
            endpoint=f"https://{RELEASE}-minio.{TEAM}.svc:9000",
            access_key=self.secret(f"{RELEASE}-store-{user}", "AWS_ACCESS_KEY_ID"),
            secret_key=self.secret(f"{RELEASE}-store-{user}", "AWS_SECRET_ACCESS_KEY"),
            ca_bundle=bundle,
        )

    def store(self, user: str, prefix: str = "") -> Store:
        """A prefix of the object store (by default that of the user's name) as one of its users."""
        return open_store(f"s3://{BUCKET}/{prefix or user}", self.settings(user))

    def remember(self, user: str, keys: dict[str, bytes]) -> None:
        """Objects that must be there, unchanged, at the end."""
        self.written |= {f"{user}/{key}": hashlib.sha256(data).hexdigest() for key, data in keys.items()}

    def lost(self) -> list[str]:
        """Remembered objects that are missing or changed."""
        stores: dict[str, Store] = {}
        found = []
        for place, digest in self.written.items():
            user, _, key = place.partition("/")
            store = stores.setdefault(user, self.store(user))
            try:
                data = store.get(key)
            except NotFound:
                data = b""
            if hashlib.sha256(data).hexdigest() != digest:
                found.append(place)
        return found

    def call(self) -> traffic.Call:
        """One streamed call through the Service."""
        return traffic.stream(GATEWAY, self.key)

    def pods(self) -> list[Document]:
        """Ready pods of the model that take traffic."""
        found = self.api.list(POD, TEAM, _TRAFFIC)
        return [pod for pod in found if has(pod, "Ready") and not pod["metadata"].get("deletionTimestamp")]

    def wait_ready(self, uri: str = "", replicas: int = 2, seconds: float = 300) -> None:
        """Until so many pods are ready, no others are left, and all of them serve `uri`."""

        def ready() -> bool:
            everything = self.api.list(POD, TEAM, _TRAFFIC)
            sources = {pod["spec"]["initContainers"][0]["args"][0] for pod in everything}
            return len(self.pods()) == len(everything) == replicas and (not uri or sources == {uri})

        poll(f"{replicas} pods of the model are ready", ready, seconds, 0.5)

    def serving(self, kind: str, **more: Any) -> dict[str, Any]:
        """Values that serve a published model."""
        model = {"uri": self.uris[kind], "baseline": False} | more
        return VALUES | {"serving": VALUES["serving"] | {"model": model}}

    def steps_kubeconfig(self) -> Path:
        """A kubeconfig with the rights of pipeline steps and no more."""
        core = client.CoreV1Api(self.api.http)
        body = {"spec": {"expirationSeconds": 3600}}
        token = core.create_namespaced_service_account_token(STEPS_ACCOUNT, TEAM, body).status.token
        config = json.loads(self.api.kubeconfig.read_text(encoding="utf-8"))
        config["users"] = [{"name": "u", "user": {"token": token}}]
        path = self.folder / "steps.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(json.dumps(config), encoding="utf-8")
        return path

    def troubles(self) -> str:
        """Pods that are not well, and why: for the log of a failed step."""
        lines = []
        for pod in self.api.list(POD, TEAM):
            status = pod.get("status", {})
            for c in (status.get("initContainerStatuses") or []) + (status.get("containerStatuses") or []):
                lines.append(f"{pod['metadata']['name']}/{c['name']}: ready {c['ready']}, {c.get('state')}")
                if not c["ready"]:
                    lines.append(self.api.logs(TEAM, pod["metadata"]["name"], c["name"]))
        events = self.api.list({"apiVersion": "v1", "kind": "Event"}, TEAM)
        return "\n".join(lines + [e["message"][:200] for e in events if e.get("type") == "Warning"][-15:])


def filled_by_kubeflow(namespace: str) -> list[Document]:
    """What Kubeflow's profile controller puts into a namespace before anybody installs anything there."""
    place = {"namespace": namespace}
    launcher = {"defaultPipelineRoot": "minio://mlpipeline/v2/artifacts"}
    keys = {"accesskey": "kubeflow", "secretkey": "its own store's"}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kfp-launcher", **place}, "data": launcher},
        SECRET | {"metadata": {"name": "mlpipeline-minio-artifact", **place}, "stringData": keys},
    ]


def has(document: Document, condition: str) -> bool:
    """Whether a condition of an object's status is true."""
    conditions = document.get("status", {}).get("conditions") or []
    return any(c["type"] == condition and c["status"] == "True" for c in conditions)
