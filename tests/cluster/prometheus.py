"""A real Prometheus beside the cluster: it scrapes what the chart's PodMonitors say and loads the chart's rules."""

import json
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.api import Api, Document
from tests.cluster.daemons import Daemons

POD_MONITOR = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PodMonitor"}
RULE = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule"}
ADDRESS = "127.0.0.1:9090"


class Prometheus:
    """One server; rules fire without their waiting time, so that a test need not wait for ten minutes."""

    def __init__(self, folder: Path, daemons: Daemons) -> None:
        self.folder = folder / "prometheus"
        self.folder.mkdir()
        self.daemons = daemons

    def start(self, api: Api, namespace: str) -> None:
        """Read monitors and rules from the namespace; returns when the server is ready."""
        rules = [group for found in api.list(RULE, namespace) for group in found["spec"]["groups"]]
        for group in rules:
            group["interval"] = "2s"
            for rule in group["rules"]:
                rule.pop("for", None)
        (self.folder / "rules.yaml").write_text(yaml.safe_dump({"groups": rules}), encoding="utf-8")
        jobs = [
            _job(api.kubeconfig, monitor, endpoint)
            for monitor in api.list(POD_MONITOR, namespace)
            for endpoint in monitor["spec"]["podMetricsEndpoints"]
            if endpoint.get("scheme") != "https"
        ]
        config = {
            "global": {"scrape_interval": "2s", "evaluation_interval": "2s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": jobs,
        }
        path = self.folder / "prometheus.yaml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        flags = [f"--config.file={path}", f"--storage.tsdb.path={self.folder / 'data'}"]
        self.daemons.start("prometheus", ["prometheus", *flags, f"--web.listen-address={ADDRESS}"])
        self.daemons.wait_for("Prometheus", lambda: self.get("/-/ready"), 60, "prometheus")

    def get(self, path: str) -> str:
        """The text behind a path."""
        with urllib.request.urlopen(f"http://{ADDRESS}{path}", timeout=5) as response:
            return response.read().decode()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """An instant query: metric and value of each series."""
        answer = json.loads(self.get("/api/v1/query?" + urllib.parse.urlencode({"query": expression})))
        return answer["data"]["result"]

    def rules(self) -> list[dict[str, Any]]:
        """Every loaded rule with its health."""
        groups = json.loads(self.get("/api/v1/rules"))["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def firing(self) -> set[str]:
        """Names of the alerts that fire."""
        alerts = json.loads(self.get("/api/v1/alerts"))["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


def _job(kubeconfig: Path, monitor: Document, endpoint: Document) -> Document:
    """What the Prometheus operator makes of a PodMonitor's endpoint: its selector and its port."""
    selector = monitor["spec"]["selector"]["matchLabels"]
    keep = [
        {
            "action": "keep",
            "source_labels": [f"__meta_kubernetes_pod_label_{_label(name)}"],
            "regex": value,
        }
        for name, value in selector.items()
    ]
    port = {"action": "keep", "source_labels": ["__meta_kubernetes_pod_container_port_name"]}
    names = {"namespace": "namespace", "pod": "pod_name", "container": "pod_container_name"}
    labels = [
        {"source_labels": [f"__meta_kubernetes_{source}"], "target_label": target} for target, source in names.items()
    ]
    discovery = {"role": "pod", "kubeconfig_file": str(kubeconfig)}
    return {
        "job_name": f"{monitor['metadata']['name']}{endpoint['path']}",
        "metrics_path": endpoint["path"],
        "kubernetes_sd_configs": [discovery | {"namespaces": {"names": [monitor["metadata"]["namespace"]]}}],
        "relabel_configs": [*keep, port | {"regex": endpoint["port"]}, *labels],
    }


def _label(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)
