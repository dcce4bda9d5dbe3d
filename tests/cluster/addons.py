"""What clusters of this platform have besides Kubernetes: the real resource types and KServe's controller.

Everything comes out of the projects' own Go modules, at the versions that the chart is written for.
"""

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from clinical_r1.atomic import write_text
from tests.chart.gomodules import CACHE, module
from tests.chart.schemas import CRDS
from tests.cluster.api import Api, Document
from tests.cluster.build import BINARIES
from tests.cluster.certificates import Authority
from tests.cluster.control_plane import ControlPlane
from tests.cluster.daemons import Daemons
from tests.ports import free_port

KSERVE = BINARIES["kserve"]
MANAGER_IMAGE = "localhost/kserve/manager:1"
CRD_FILES = ("trainer.kubeflow.org_*.yaml", "monitoring.coreos.com_p*.yaml", "keda.sh_*.yaml", "kueue.x-k8s.io_*.yaml")
"""Which files of `tests.chart.schemas.CRDS` are applied; KServe's come with its own manifest."""
RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True}
CRD = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}


def resource_types() -> list[Document]:
    """The CRDs of Trainer, the Prometheus operator, KEDA and Kueue."""
    modules = [(name, version, folder) for name, version, folder in CRDS if name != KSERVE.module]
    return _cached(
        "crds-" + "-".join(version for _, version, _ in modules),
        lambda: [
            document
            for name, version, folder in modules
            for pattern in CRD_FILES
            for path in sorted((module(name, version) / folder).glob(pattern))
            for document in _load(path)
        ],
    )


def kserve_documents() -> list[Document]:
    """KServe's own installation manifest, without LLMInferenceService, local models and cert-manager."""
    return _cached(f"kserve-{KSERVE.version}-restricted", _kserve_documents)


def install_resource_types(api: Api) -> None:
    """Apply the CRDs and wait until the API server serves them."""
    apply_types(api, resource_types())


def apply_types(api: Api, crds: Iterable[Document]) -> None:
    """Apply CRDs and wait until they are served."""
    wanted = list(crds)
    api.apply(*wanted)
    names = {crd["metadata"]["name"] for crd in wanted}

    def served() -> bool:
        return names <= {crd["metadata"]["name"] for crd in api.list(CRD) if _established(crd)}

    api.wait("the resource types are served", served, 60)


def run_kserve(plane: ControlPlane, daemons: Daemons) -> None:
    """KServe's controller as a process beside the API server, webhooks included; returns when it takes requests."""
    port, probes = free_port(), free_port()
    folder = plane.folder / "kserve"
    _serving_certificate(plane.authority, folder / "k8s-webhook-server" / "serving-certs", ("127.0.0.1",))
    install_kserve(plane.api, plane.ca, f"https://127.0.0.1:{port}")
    daemons.start(
        "kserve",
        [
            KSERVE.binary,
            "--metrics-addr=0",
            f"--webhook-port={port}",
            f"--health-probe-addr=127.0.0.1:{probes}",
        ],
        env={"KUBECONFIG": str(plane.api.kubeconfig), "POD_NAMESPACE": "kserve", "TMPDIR": str(folder)},
    )
    wait_for_webhooks(plane.api, daemons, "kserve")


def wait_for_webhooks(api: Api, daemons: Daemons, daemon: str = "", seconds: float = 90) -> None:
    """Until an InferenceService passes through KServe's webhooks (a dry run)."""
    probe = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "probe", "namespace": "default"},
        "spec": {"predictor": {"containers": [{"name": "kserve-container", "image": "localhost/none:1"}]}},
    }
    daemons.wait_for("KServe's webhooks", lambda: api.dry_run(probe), seconds, daemon)


def install_kserve(
    api: Api, ca: Path, webhooks: str = "", authority: Authority | None = None, initializer: str = ""
) -> None:
    """Apply KServe's manifest.

    `webhooks` is the address of a controller outside of the cluster. Without it the controller runs as a pod, whose
    certificate `authority` issues, and which puts the image `initializer` into the pods that it makes.
    """
    documents = kserve_documents()
    bundle = base64.b64encode(ca.read_bytes()).decode()
    install_kserve_types(api, bundle, webhooks)
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kserve"}})
    skipped = {CRD["kind"]} | ({"Deployment"} if webhooks else set())
    if authority:
        api.apply(_webhook_secret(authority))
        documents = [_on_node(document, initializer) for document in documents]
    api.apply(*(_trusting(d, bundle, webhooks) for d in documents if d["kind"] not in skipped))


def install_kserve_types(api: Api, bundle: str = "", webhooks: str = "") -> None:
    """KServe's resource types only; nobody acts on them yet."""
    apply_types(api, (_trusting(d, bundle, webhooks) for d in kserve_documents() if d["kind"] == CRD["kind"]))


def _webhook_secret(authority: Authority) -> Document:
    pair = authority.issue("kserve-service", "kserve", hosts=("kserve-webhook-server-service.kserve.svc",))
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": "kserve-webhook-server-cert", "namespace": "kserve"},
        "stringData": {"tls.crt": pair.certificate.read_text(), "tls.key": pair.key.read_text()},
    }


def _on_node(document: Document, initializer: str) -> Document:
    """The controller's Deployment and its settings with images that lie on the node."""
    changed = json.loads(json.dumps(document))
    if changed["kind"] == "Deployment":
        pod = changed["spec"]["template"]["spec"]
        pod["containers"] = [c for c in pod["containers"] if c["name"] == "manager"]
        manager = pod["containers"][0]
        manager |= {"image": MANAGER_IMAGE, "imagePullPolicy": "Never", "command": ["/kserve"], "resources": {}}
        manager["args"] = ["--metrics-addr=0"]
        manager["readinessProbe"] |= {"initialDelaySeconds": 1, "periodSeconds": 1}
        manager["securityContext"]["runAsUser"] = 1000
    elif changed["metadata"]["name"] == "inferenceservice-config":
        settings = json.loads(changed["data"]["storageInitializer"]) | {"image": initializer}
        changed["data"]["storageInitializer"] = json.dumps(settings)
    elif changed["kind"] == "ClusterStorageContainer":
        changed["spec"]["container"]["image"] = initializer
    return changed


def _serving_certificate(authority: Authority, folder: Path, hosts: tuple[str, ...]) -> None:
    pair = authority.issue("kserve-webhook", "kserve-webhook", hosts=hosts)
    folder.mkdir(parents=True)
    (folder / "tls.crt").write_bytes(pair.certificate.read_bytes())
    (folder / "tls.key").write_bytes(pair.key.read_bytes())


def _trusting(document: Document, bundle: str, webhooks: str) -> Document:
    """The document with our authority in its webhooks, which may live at an address instead of a Service."""
    changed = json.loads(json.dumps(document))
    conversion = changed.get("spec", {}).get("conversion", {}).get("webhook", {})
    configs = [hook["clientConfig"] for hook in changed.get("webhooks", [])]
    configs += [conversion["clientConfig"]] if conversion else []
    for where in configs:
        where["caBundle"] = bundle
        if webhooks:
            where["url"] = webhooks + where.pop("service")["path"]
    return changed


def _kserve_documents() -> list[Document]:
    folder = module(KSERVE.module, KSERVE.version) / "install" / KSERVE.version
    return [
        _adapted(document)
        for name in ("kserve.yaml",)
        for document in _load(folder / name)
        if document["kind"] not in ("Certificate", "Issuer", "DaemonSet")
        and not any(part in _identity(document) for part in ("llm", "localmodel", "inferencepools"))
    ]


def _identity(document: Document) -> str:
    return f"{document['metadata']['name']} {document['metadata'].get('annotations', {})}"


def _adapted(document: Document) -> Document:
    """What every cluster administrator sets: Standard mode, no ingress; and what a test cluster has not."""
    document["metadata"].pop("creationTimestamp", None)
    document.pop("status", None)
    if document["metadata"]["name"] == "inferenceservice-config":
        data = {key: value for key, value in document["data"].items() if key != "_example"}
        data["deploy"] = json.dumps({"defaultDeploymentMode": "Standard"})
        data["ingress"] = json.dumps(
            json.loads(data["ingress"])
            | {"disableIngressCreation": True, "disableIstioVirtualHost": True, "enableGatewayApi": False}
        )
        document["data"] = data
    if document["kind"] == "ClusterStorageContainer":
        # As shipped, the storage initializer is refused in namespaces with restricted pod security.
        document["spec"]["container"]["securityContext"] = RESTRICTED
    return document


def _established(crd: Document) -> bool:
    conditions = (crd.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


def _load(path: Path) -> list[Document]:
    with path.open(encoding="utf-8") as stream:
        return [document for document in yaml.load_all(stream, Loader=yaml.CSafeLoader) if document]


def _cached(name: str, make: Any) -> list[Document]:
    """Reading megabytes of YAML takes longer than starting the API server: kept as JSON, without descriptions."""
    path = CACHE / f"resources-{name}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps([_terse(document) for document in make()]))
    return json.loads(path.read_text(encoding="utf-8"))


def _terse(node: Any) -> Any:
    """The document without the descriptions of its schemas."""
    if isinstance(node, dict):
        return {k: _terse(v) for k, v in node.items() if not (k == "description" and isinstance(v, str))}
    return [_terse(item) for item in node] if isinstance(node, list) else node
