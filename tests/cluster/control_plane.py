"""etcd and the Kubernetes control plane as plain processes: a real API server in seconds, without a node."""

import base64
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.cluster.api import Api
from tests.cluster.build import BINARIES
from tests.cluster.certificates import Authority, Pair
from tests.cluster.daemons import Daemons
from tests.ports import free_port

SERVICE_CIDR = "10.96.0.0/16"
API_SERVICE_IP = "10.96.0.1"
DNS_SERVICE_IP = "10.96.0.10"
POD_CIDR = "10.244.0.0/24"
KUBERNETES = BINARIES["kubernetes"].binary


def skip_without_programs() -> None:
    """Skip the test that calls this, with what is missing and how to get it."""
    if not KUBERNETES.exists():
        pytest.skip("Kubernetes is not built; run python -m tests.cluster.build kubernetes kserve")
    if not shutil.which("etcd"):
        pytest.skip("etcd is not installed (Debian: etcd-server)")


@dataclass
class ControlPlane:
    """One API server with its etcd, controllers and, where there is a node, scheduler."""

    folder: Path
    daemons: Daemons
    address: str = "127.0.0.1"
    """Where it listens: loopback, or the node's address in a network namespace of its own."""
    port: int = 0
    """0 takes a free port."""
    authority: Authority = field(init=False)
    api: Api = field(init=False)

    def start(self, scheduler: bool = False) -> "ControlPlane":
        """Returns when the API answers and namespaces get their service account."""
        self.authority = Authority(self.folder / "pki")
        self.port = self.port or free_port()
        self._start_etcd()
        self._start_api_server()
        self.api = Api(self.kubeconfig("admin", "admin", ("system:masters",)))
        self.daemons.wait_for("the API server", self.api.ready, 90, "kube-apiserver")
        self._start_controllers()
        if scheduler:
            config = self.kubeconfig("scheduler", "system:kube-scheduler")
            self._start("kube-scheduler", _same_config(config) | {"leader-elect": "false", "secure-port": "0"})
        account = {"apiVersion": "v1", "kind": "ServiceAccount"}
        self.daemons.wait_for(
            "the default service account",
            lambda: self.api.find(account, "default", "default"),
            60,
            "kube-controller-manager",
        )
        return self

    def kubeconfig(self, name: str, user: str, groups: tuple[str, ...] = ()) -> Path:
        """A kubeconfig file with everything inline, for a user made for it."""
        pair = self.authority.issue(name, user, groups)
        path = self.folder / f"{name}.kubeconfig"
        server = {"server": f"https://{self.address}:{self.port}"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": server | {"certificate-authority-data": _b64(self.ca)}}],
            "users": [
                {
                    "name": "u",
                    "user": {
                        "client-certificate-data": _b64(pair.certificate),
                        "client-key-data": _b64(pair.key),
                    },
                }
            ],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(config), encoding="utf-8")
        return path

    @property
    def ca(self) -> Path:
        """The certificate authority's certificate."""
        return self.authority.pair.certificate

    def _start(self, program: str, flags: dict[str, object]) -> None:
        given = [f"--{name}={value}" for name, value in flags.items()]
        self.daemons.start(program, [KUBERNETES, program, *given])

    def _start_etcd(self) -> None:
        self._etcd = f"http://127.0.0.1:{free_port()}"
        peer = f"http://127.0.0.1:{free_port()}"
        flags = {
            "name": "one",
            "data-dir": self.folder / "etcd",
            "listen-client-urls": self._etcd,
            "advertise-client-urls": self._etcd,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"one={peer}",
            "log-level": "warn",
        }
        self.daemons.start("etcd", ["etcd", *(f"--{name}={value}" for name, value in flags.items())])

    def _start_api_server(self) -> None:
        names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost")
        server = self.authority.issue(
            "apiserver", "kube-apiserver", hosts=(*names, self.address, API_SERVICE_IP, "127.0.0.1")
        )
        kubelet_client = self.authority.issue("apiserver-kubelet", "apiserver-kubelet-client", ("system:masters",))
        signing = self._signing_keys()
        self._signing_key = signing.key
        self._start(
            "kube-apiserver",
            {
                "etcd-servers": self._etcd,
                "bind-address": self.address,
                "advertise-address": self.address,
                "secure-port": self.port,
                "service-cluster-ip-range": SERVICE_CIDR,
                "client-ca-file": self.ca,
                "tls-cert-file": server.certificate,
                "tls-private-key-file": server.key,
                "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
                "service-account-key-file": signing.certificate,
                "service-account-signing-key-file": signing.key,
                "kubelet-client-certificate": kubelet_client.certificate,
                "kubelet-client-key": kubelet_client.key,
                "kubelet-certificate-authority": self.ca,
                "kubelet-preferred-address-types": "InternalIP",
                "authorization-mode": "Node,RBAC",
                "enable-admission-plugins": "NodeRestriction",
                "allow-privileged": "true",
                "profiling": "false",
                # etcd 3.4 has no progress requests: streamed lists would hang until clients fall back.
                "feature-gates": "WatchList=false",
            },
        )

    def _start_controllers(self) -> None:
        config = self.kubeconfig("controllers", "system:kube-controller-manager")
        flags = {
            "service-account-private-key-file": self._signing_key,
            "root-ca-file": self.ca,
            "use-service-account-credentials": "true",
            "leader-elect": "false",
            "allocate-node-cidrs": "false",
            "secure-port": "0",
            "profiling": "false",
        }
        self._start("kube-controller-manager", _same_config(config) | flags)

    def _signing_keys(self) -> Pair:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pair = Pair(self.authority.folder / "accounts.pub", self.authority.folder / "accounts.key")
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        pair.certificate.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, form))
        nobody = serialization.NoEncryption()
        private = serialization.PrivateFormat.PKCS8
        pair.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, private, nobody))
        return pair


def _same_config(path: Path) -> dict[str, object]:
    return dict.fromkeys(("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"), path)


def _b64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
