"""A real Prometheus beside the cluster: it scrapes what the chart's PodMonitors say and loads the chart's rules."""

import contextlib
import json
import re
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from clinical_r1.atomic import write_text
from tests.cluster.api import Api, Document
from tests.cluster.daemons import Daemons

POD_MONITOR = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PodMonitor"}
RULE = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule"}
ADDRESS = "127.0.0.1:9090"


class Prometheus:
    """One server; rules wait a second where the chart's wait a minute, so that a test need not wait for ten of them."""

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
                if "for" in rule:
                    assert re.fullmatch(r"\d+m", rule["for"]), rule
                    rule["for"] = rule["for"].replace("m", "s")
        (self.folder / "rules.yaml").write_text(yaml.safe_dump({"groups": rules}), encoding="utf-8")
        wanted = [
            (monitor, endpoint, self.folder / f"targets-{monitor['metadata']['name']}-{number}.json")
            for monitor in api.list(POD_MONITOR, namespace)
            for number, endpoint in enumerate(monitor["spec"]["podMetricsEndpoints"])
            if endpoint.get("scheme") != "https"
        ]
        config = {
            "global": {"scrape_interval": "2s", "evaluation_interval": "2s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [_job(monitor, endpoint, path) for monitor, endpoint, path in wanted],
        }

        def discover() -> None:
            while True:
                for monitor, endpoint, path in wanted:
                    with contextlib.suppress(Exception):  # the API server may be slow to answer: then once more
                        write_text(path, json.dumps(_targets(api, monitor, endpoint)))
                time.sleep(2)

        threading.Thread(target=discover, daemon=True).start()
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


def _job(monitor: Document, endpoint: Document, path: Path) -> Document:
    """What the Prometheus operator makes of a PodMonitor's endpoint; Debian's build finds no pods by itself."""
    return {
        "job_name": f"{monitor['metadata']['name']}{endpoint['path']}",
        "metrics_path": endpoint["path"],
        "file_sd_configs": [{"files": [str(path)], "refresh_interval": "2s"}],
    }


def _targets(api: Api, monitor: Document, endpoint: Document) -> list[Document]:
    """The pods that the monitor selects, at the port that it names."""
    labels = ",".join(f"{name}={value}" for name, value in monitor["spec"]["selector"]["matchLabels"].items())
    namespace = monitor["metadata"]["namespace"]
    return [
        {
            "targets": [f"{pod['status']['podIP']}:{port['containerPort']}"],
            "labels": {"namespace": namespace, "pod": pod["metadata"]["name"], "container": container["name"]},
        }
        for pod in api.list({"apiVersion": "v1", "kind": "Pod"}, namespace, labels)
        if pod["status"].get("podIP") and pod["status"].get("phase") == "Running"
        for container in pod["spec"]["containers"]
        for port in container.get("ports", [])
        if port.get("name") == endpoint["port"]
    ]
