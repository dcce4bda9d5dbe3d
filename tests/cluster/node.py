"""A node: containerd, kubelet, kube-proxy and cluster DNS, inside namespaces of their own (see `isolated`)."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import yaml

from clinical_r1.atomic import write_text
from tests.chart.gomodules import CACHE
from tests.cluster.api import Document
from tests.cluster.control_plane import DNS_SERVICE_IP, KUBERNETES, POD_CIDR, SERVICE_CIDR, ControlPlane
from tests.cluster.daemons import Daemons
from tests.cluster.images import Image, program_image, write_archive

NAME = "node1"
ADDRESS = "10.240.0.1"
PAUSE = "localhost/pause:1"
IMAGES = CACHE / "containerd"
"""containerd's store: images stay from one run to the next."""


@dataclass
class Node:
    """One node of a cluster whose control plane listens on ADDRESS."""

    plane: ControlPlane
    daemons: Daemons
    cgroup: str
    """The cgroup that all pods are put under; it exists."""

    @property
    def folder(self) -> Path:
        """State of this run."""
        return self.plane.folder

    @property
    def socket(self) -> Path:
        """containerd's."""
        return self.folder / "containerd.sock"

    def start_runtime(self) -> None:
        """containerd, with the images that the cluster itself needs."""
        path = self.folder / "containerd.toml"
        path.write_text(
            _CONTAINERD.format(pause=PAUSE, store=IMAGES, run=self.folder, socket=self.socket), encoding="utf-8"
        )
        IMAGES.mkdir(parents=True, exist_ok=True)
        self.daemons.start("containerd", ["containerd", "--config", path])
        self.daemons.wait_for("containerd", lambda: self.ctr("version"), 30, "containerd")
        for container in self.ctr("containers", "ls", "-q").split():  # of a run that was killed
            self.ctr("containers", "rm", container)
        self.load(program_image(PAUSE, "pause"))
        self.load(program_image("localhost/coredns:1", "coredns", user="0:0"))

    def start(self) -> None:
        """kubelet, kube-proxy and DNS; returns when the node and a Service's name resolution are ready."""
        config = self.plane.kubeconfig("kubelet", f"system:node:{NAME}", ("system:nodes",))
        flags = [
            f"--config={self._kubelet_config()}",
            f"--kubeconfig={config}",
            f"--root-dir={self.folder / 'kubelet'}",
        ]
        flags += [f"--cert-dir={self.folder / 'kubelet-pki'}", f"--hostname-override={NAME}", f"--node-ip={ADDRESS}"]
        self.daemons.start("kubelet", [KUBERNETES, "kubelet", *flags])
        self.daemons.start("kube-proxy", [KUBERNETES, "kube-proxy", f"--config={self._proxy_config()}"])
        node = {"apiVersion": "v1", "kind": "Node"}
        self.daemons.wait_for("the node is ready", lambda: _ready(self.plane.api.find(node, NAME)), 60, "kubelet")
        self.plane.api.apply(*_dns())

    def load(self, image: Image) -> None:
        """Put an image into containerd unless it is there; layers that are there already are not written again."""
        record = IMAGES / "loaded.json"
        known = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {"images": {}, "layers": {}}
        identity = image.identity
        if known["images"].get(image.name) == identity and image.name in self.ctr("images", "ls", "-q").split():
            return
        present = set(self.ctr("content", "ls", "-q").split())
        command = [*self._ctr, "images", "import", "--digests", "-"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as importing:
            assert importing.stdin
            write_archive(image, importing.stdin, known["layers"], present)
            importing.stdin.close()
        write_text(record, json.dumps(known))
        if importing.returncode:
            raise RuntimeError(f"{image.name}: `ctr images import` ended with {importing.returncode}")
        known["images"][image.name] = identity
        write_text(record, json.dumps(known))

    @property
    def _ctr(self) -> list[str]:
        return ["ctr", "--address", str(self.socket), "--namespace", "k8s.io"]

    def ctr(self, *words: str) -> str:
        """containerd's own client; its output."""
        command = [*self._ctr, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def stop(self) -> None:
        """Pods first, while kubelet can still stop them."""
        api = self.plane.api
        for kind in ("Deployment", "StatefulSet", "Job"):
            group = "batch/v1" if kind == "Job" else "apps/v1"
            for item in api.list({"apiVersion": group, "kind": kind}):
                api.delete({"apiVersion": group, "kind": kind}, item["metadata"]["name"], item["metadata"]["namespace"])

    def _kubelet_config(self) -> Path:
        pair = self.plane.authority.issue("kubelet-server", f"system:node:{NAME}", ("system:nodes",), (NAME, ADDRESS))
        (self.folder / "resolv.conf").write_text("", encoding="utf-8")
        return self._write(
            "kubelet.yaml",
            {
                "apiVersion": "kubelet.config.k8s.io/v1beta1",
                "kind": "KubeletConfiguration",
                "authentication": {
                    "anonymous": {"enabled": False},
                    "webhook": {"enabled": True},
                    "x509": {"clientCAFile": str(self.plane.ca)},
                },
                "authorization": {"mode": "Webhook"},
                "tlsCertFile": str(pair.certificate),
                "tlsPrivateKeyFile": str(pair.key),
                "cgroupDriver": "cgroupfs",
                "cgroupRoot": self.cgroup,
                "failCgroupV1": False,
                "failSwapOn": False,
                "oomScoreAdj": 0,  # nobody may lower it on a machine without CAP_SYS_RESOURCE
                "clusterDNS": [DNS_SERVICE_IP],
                "clusterDomain": "cluster.local",
                "resolvConf": str(self.folder / "resolv.conf"),
                "containerRuntimeEndpoint": f"unix://{self.socket}",
                "podLogsDir": str(self.folder / "podlogs"),
                "volumePluginDir": str(self.folder / "volumeplugins"),
                # Images cannot be pulled again: never collect them, never evict for a full disk.
                "imageGCHighThresholdPercent": 100,
                "imageGCLowThresholdPercent": 99,
                "evictionHard": {
                    "memory.available": "200Mi",
                    "nodefs.available": "1%",
                    "imagefs.available": "1%",
                    "nodefs.inodesFree": "1%",
                },
            },
        )

    def _proxy_config(self) -> Path:
        kubeconfig = self.plane.kubeconfig("proxy", "system:kube-proxy")
        return self._write(
            "proxy.yaml",
            {
                "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
                "kind": "KubeProxyConfiguration",
                "clientConnection": {"kubeconfig": str(kubeconfig)},
                "mode": "nftables",
                "clusterCIDR": POD_CIDR,
                "hostnameOverride": NAME,
                "oomScoreAdj": 0,
                # The machine's own connection tracking is left as it is.
                "conntrack": {
                    "maxPerCore": 0,
                    "min": 0,
                    "tcpEstablishedTimeout": "0s",
                    "tcpCloseWaitTimeout": "0s",
                },
                "metricsBindAddress": "127.0.0.1:10249",
            },
        )

    def _write(self, name: str, document: dict[str, object]) -> Path:
        path = self.folder / name
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        return path


def make_network(folder: Path) -> None:
    """Addresses, routes and pod network of this (new, empty) network namespace; it has no way out."""
    for words in (
        "link set lo up",
        "link add node0 type veth peer name node0p",  # some kernels have no dummy device
        f"addr add {ADDRESS}/24 dev node0",
        "link set node0 up",
        "link set node0p up",
        f"route add {SERVICE_CIDR} dev node0",  # so that nftables sees Service addresses
    ):
        subprocess.run(["ip", *words.split()], check=True)
    for name, value in (("ip_forward", 1), ("conf/all/rp_filter", 0), ("conf/default/rp_filter", 0)):
        Path("/proc/sys/net/ipv4", name).write_text(str(value), encoding="ascii")
    ranges = {"type": "host-local", "ranges": [[{"subnet": POD_CIDR}]], "dataDir": str(folder / "cni")}
    pods = {"type": "ptp", "ipMasq": False, "ipam": ranges | {"routes": [{"dst": "0.0.0.0/0"}]}}
    plugins = {"cniVersion": "0.4.0", "name": "pods", "plugins": [pods]}
    (folder / "cni.d").mkdir()
    (folder / "cni.d" / "10-pods.conflist").write_text(json.dumps(plugins), encoding="utf-8")


def _ready(node: Document | None) -> bool:
    conditions = (node or {}).get("status", {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _dns() -> list[Document]:
    path = Path(__file__).with_name("dns.yaml")
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


_CONTAINERD = """\
version = 2
root = "{store}"
state = "{run}/containerd"
oom_score = 0
[grpc]
  address = "{socket}"
[ttrpc]
  address = "{socket}.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{run}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{run}/cni.d"
"""
