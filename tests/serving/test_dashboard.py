"""Every query of the dashboard against a real Prometheus that scrapes our metrics under synthetic traffic.

Grafana itself is not run. With PANEL_SHEET=file.html the panels are drawn from the same data, to be looked at.
"""

import json
import os
import random
import re
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from panel_sheet import draw
from prometheus_client import generate_latest

from clinical_r1.baseline import EDGES, Baseline, LengthHistogram
from clinical_r1.reasoning import Outcome
from serving.metrics import Finished, GatewayMetrics
from serving.monitoring.dashboard import DASHBOARD_FILE, PANELS, build, render
from serving.monitoring.rules import rule_file
from tests.ports import free_port

PROMETHEUS = shutil.which("prometheus")
SECONDS = float(os.environ.get("PANEL_SECONDS", "0"))
"""How long the panels that are drawn have run; the tests wait for their data, however long it takes."""
PATIENCE = 120.0


def traffic(metrics: GatewayMetrics, dice: random.Random, count: int) -> None:
    """Answers as a model might give them, some of them bad."""
    v = metrics.model_version
    for number in range(count):
        language = dice.choice(["en", "en", "zh"])
        outcome = dice.choices(list(Outcome), [90, 3, 1, 2, 1, 1, 1, 1, 1, 2])[0]
        tokens = min(int(dice.lognormvariate(4.8, 0.5)), 9000)
        think, first = tokens / 40, dice.uniform(0.1, 0.6)
        metrics.started.labels(v, language).inc()
        metrics.requests.labels(v, dice.choice(["unary", "stream"])).inc()
        cut = outcome is Outcome.UNCLOSED
        done = Finished(language, outcome, tokens, dice.randint(5, 60), cut, first, first + think, think)
        metrics.answered(done, f"req-{number}")
        metrics.request_done(language, first + think + 1, 300, tokens + 30, f"req-{number}")
        metrics.checked(tokens, tokens + (0 if dice.random() < 0.97 else 9))
        metrics.inter_token_child.observe(dice.uniform(0.01, 0.04))
        if outcome is Outcome.ABORTED:
            metrics.aborts.labels(v, dice.choice(["client", "engine", "timeout"])).inc()
            metrics.upstream_errors.labels(v, dice.choice(["died", "timeout"])).inc()
    metrics.rejections.labels("overloaded").inc(dice.randint(0, 3))
    metrics.in_flight_child.set(dice.randint(1, 20))
    metrics.sampled.labels(v).inc()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that has scraped two versions of the model for a while; its base URL."""
    if not PROMETHEUS:
        pytest.skip("no prometheus on this machine")
    folder = tmp_path_factory.mktemp("prometheus")
    versions = [GatewayMetrics(name, "token_ids", "0.1.0") for name in ("r1-v1", "r1-v2")]
    counts = [0] * (len(EDGES) + 1)
    counts[5:11] = [40, 80, 150, 200, 150, 90]
    outcomes = {o.value: 0 for o in Outcome} | {"ok": 690, "no_think": 20}
    for metrics in versions:
        metrics.set_baseline(Baseline(n=710, lengths=LengthHistogram(counts=counts), outcomes=outcomes))
        metrics.ready_child.set(1)
    dice = random.Random(1)

    class Scraped(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            metrics = versions[int(self.path[-1])]
            traffic(metrics, dice, 200)
            body = generate_latest(metrics.registry)
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Scraped)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    rules = rule_file()
    for group in rules["groups"]:
        group["interval"] = "1s"
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    jobs = [
        {
            "job_name": f"gateway-{number}",
            "metrics_path": f"/metrics{number}",
            "static_configs": [{"targets": [f"127.0.0.1:{server.server_port}"]}],
        }
        for number in range(2)
    ]
    config = {"global": {"scrape_interval": "1s"}, "rule_files": ["rules.yaml"], "scrape_configs": jobs}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    process = subprocess.Popen(
        [
            PROMETHEUS,
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    base = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: silence(base))
        time.sleep(SECONDS)
        yield base
    finally:
        process.terminate()
        process.wait(PATIENCE)
        server.shutdown()


def eventually(missing: Callable[[], object]) -> None:
    """Wait until nothing is missing."""
    deadline = time.monotonic() + PATIENCE
    while found := missing():
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


def silence(base: str) -> str:
    """Why it does not answer; empty where it does."""
    try:
        ask(base, "query", query="1")
    except OSError as problem:
        return str(problem)
    return ""


def ask(base: str, what: str, **parameters: Any) -> list[dict[str, Any]]:
    """Prometheus' answer; an error of a query raises."""
    url = f"{base}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=PATIENCE) as response:
        return json.load(response)["data"]["result"]


def filled(expression: str) -> str:
    """As Grafana would send it."""
    for name, value in (("$model_version", ".*"), ("$language", ".*"), ("$__rate_interval", "1m")):
        expression = expression.replace(name, value)
    return expression


def test_every_query_returns_data(prometheus: str) -> None:
    def has_data(expression: str) -> bool:
        return any(row["value"][1] != "NaN" for row in ask(prometheus, "query", query=filled(expression)))

    empty = [(panel.title, expression) for panel in PANELS for expression, _ in panel.queries]

    def still_empty() -> list[tuple[str, str]]:
        empty[:] = [query for query in empty if not has_data(query[1])]
        return empty

    eventually(still_empty)
    target = os.environ.get("PANEL_SHEET")
    if target:
        now = time.time()
        data = [
            (
                panel,
                [
                    (legend, ask(prometheus, "query_range", query=filled(e), start=now - SECONDS, end=now, step=1))
                    for e, legend in panel.queries
                ],
            )
            for panel in PANELS
        ]
        Path(target).write_text(draw(data))


def test_every_rule_has_data_and_none_is_broken(prometheus: str) -> None:
    def rules() -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{prometheus}/api/v1/rules", timeout=PATIENCE) as response:
            return [rule for group in json.load(response)["data"]["groups"] for rule in group["rules"]]

    records = [rule["record"] for rule in rule_file()["groups"][0]["rules"]]
    eventually(lambda: [record for record in records if not ask(prometheus, "query", query=record)])
    eventually(lambda: [rule for rule in rules() if rule["health"] == "unknown"])  # until they have run once
    assert not [rule for rule in rules() if rule["health"] != "ok"]


def test_committed_dashboard_is_the_generated_one() -> None:
    pytest.importorskip("grafana_foundation_sdk")
    assert DASHBOARD_FILE.read_text() == render(), "run `python -m serving.monitoring.dashboard`"


def test_queries_of_the_json_are_those_of_the_panels_and_name_real_metrics() -> None:
    board = json.loads(DASHBOARD_FILE.read_text())
    panels = [panel for row in board["panels"] for panel in (row.get("panels") or [row]) if panel["type"] != "row"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    assert queries == [expression for panel in PANELS for expression, _ in panel.queries]
    registry = GatewayMetrics("v").registry
    known = {sample.name for family in registry.collect() for sample in family.samples}
    records = {rule["record"] for rule in rule_file()["groups"][0]["rules"]}
    rule_text = json.dumps(rule_file())
    for expression in (*queries, rule_text):
        for name in re.findall(r"\b(?:clinical_r1|gen_ai)_[a-z0-9_]+", expression):
            assert name in known or name == "gen_ai_token_type", name  # that one is a label
        for name in re.findall(r"\bclinical_r1:[a-z0-9_:]+", expression):
            assert name in records, name


def test_build_is_stable() -> None:
    pytest.importorskip("grafana_foundation_sdk")
    assert build() == build()
