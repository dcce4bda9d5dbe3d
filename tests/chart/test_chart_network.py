"""What the chart's network policies let through: what is needed, and nothing by default."""

import json
from typing import Any

import pytest
from rendering import EXAMPLES, MODEL, ChartError, Render

EXTERNAL = (
    "objectStore.mode=external",
    "objectStore.endpoint=https://s3.hospital.example",
    "objectStore.existingSecret=s",
)
IMAGES = "global.imageRegistry=registry.example"


def ways_out(chart: Any) -> list[tuple[str, dict[str, Any]]]:
    """(policy, egress rule) of everything that may leave a pod."""
    policies = chart.kind("NetworkPolicy")
    return [(p["metadata"]["name"], rule) for p in policies for rule in p["spec"].get("egress", [])]


def test_egress_is_closed_or_said_to_be_open(render: Render) -> None:
    with pytest.raises(ChartError, match=r"networkPolicy.objectStoreCIDRs is empty.*networkPolicy.egress=open"):
        render(None, IMAGES, *EXTERNAL)
    closed = render(None, IMAGES, *EXTERNAL, "networkPolicy.objectStoreCIDRs[0]=10.0.0.0/28")
    for chart in (closed, *(render(example, MODEL) for example in EXAMPLES)):
        assert not [rule for _, rule in ways_out(chart) if not rule.get("to")], "a rule without addresses"
        assert "0.0.0.0/0" not in chart.text
    opened = render(None, IMAGES, *EXTERNAL, "networkPolicy.egress=open")
    assert {json.dumps(rule["ports"]) for _, rule in ways_out(opened) if not rule.get("to")} == {
        '[{"port": 443, "protocol": "TCP"}]'
    }


@pytest.mark.parametrize("host", ["http://seaweedfs.kubeflow.svc:9000", "https://minio.store.svc.cluster.local"])
def test_a_store_inside_of_the_cluster_is_opened_by_its_namespace(render: Render, host: str) -> None:
    chart = render(None, IMAGES, *EXTERNAL, f"objectStore.endpoint={host}")
    namespace = host.split(".")[1]
    wanted = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    assert any(wanted in rule.get("to", []) for name, rule in ways_out(chart) if name == "r1-pipelines")


def test_network_is_closed_but_for_what_is_needed(render: Render) -> None:
    chart = render("production", MODEL)
    rules = {doc["metadata"]["name"].removeprefix("r1-"): doc["spec"] for doc in chart.kind("NetworkPolicy")}
    assert rules["deny"]["policyTypes"] == ["Ingress", "Egress"] and "ingress" not in rules["deny"]
    assert [port["port"] for port in rules["deny"]["egress"][0]["ports"]] == [53, 53]
    for name, spec in rules.items():
        for rule in spec.get("egress", []):
            assert rule.get("to"), f"{name} lets everything out: {rule}"
        for rule in spec.get("ingress", []):
            assert rule.get("from"), f"{name} lets everybody in: {rule}"
    callers = json.dumps(rules["serving"]["ingress"])
    assert "istio-system" in callers and "clinical-apps" in callers
    assert rules["serving"]["ingress"][0]["ports"] == [{"protocol": "TCP", "port": 8080}]
    assert "judges" in json.dumps(rules["pipelines"])
    assert "judges" not in json.dumps(rules["serving"])


def test_every_pod_of_ours_is_under_the_deny_policy(render: Render) -> None:
    for where, _, labels in render("one-gpu", MODEL).pods():
        assert labels.get("app.kubernetes.io/part-of") == "clinical-r1", where


def test_the_deny_policy_can_cover_the_namespace(render: Render) -> None:
    chart = render("one-gpu", MODEL, "networkPolicy.wholeNamespace=true")
    assert chart.get("NetworkPolicy", "deny")["spec"]["podSelector"] == {}


def test_the_simulated_endpoint_is_reached_by_steps_only(render: Render) -> None:
    chart = render("laptop")
    policy = chart.get("NetworkPolicy", "simulator")["spec"]
    assert policy["ingress"][0]["from"] == [
        {"podSelector": {"matchExpressions": [{"key": "pipeline/runid", "operator": "Exists"}]}}
    ]
    service = chart.get("Service", "simulator")
    address = chart.get("ConfigMap", "clinical-r1-platform")["data"]["CLINICAL_R1_SIMULATOR"]
    assert address == f"{service['metadata']['name']}.clinic.svc:{service['spec']['ports'][0]['port']}"
    assert "r1-simulator" not in render("one-gpu", MODEL).text


@pytest.mark.parametrize("everything", ["0.0.0.0/0", "::/0"])
def test_no_range_of_everything_opens_what_is_closed(render: Render, everything: str) -> None:
    for key in ("objectStoreCIDRs[0]", "apiServerCIDRs[0]"):
        with pytest.raises(ChartError, match=r"is every address.*networkPolicy\.egress=open"):
            render("production", f"networkPolicy.{key}={everything}")
    endpoint = (f"networkPolicy.llmEndpoints[0].cidr={everything}", "networkPolicy.llmEndpoints[0].port=443")
    with pytest.raises(ChartError, match="llmEndpoints: the range"):
        render("production", *endpoint)
    render("production", f"networkPolicy.objectStoreCIDRs[0]={everything}", "networkPolicy.egress=open")


@pytest.mark.parametrize("wrong", ["10.0.0.0/40", "300.1.1.1/8", "10.0.0.0", "2001:db8::/129", "s3.example/24"])
def test_what_is_no_range_is_refused(render: Render, wrong: str) -> None:
    with pytest.raises(ChartError, match="/networkPolicy/objectStoreCIDRs/0"):
        render("production", f"networkPolicy.objectStoreCIDRs[0]={wrong}")


@pytest.mark.parametrize("right", ["10.20.0.0/16", "192.168.1.255/32", "fd00::/8", "2001:db8::1/128"])
def test_ranges_of_both_kinds_are_taken(render: Render, right: str) -> None:
    render("production", f"networkPolicy.objectStoreCIDRs[0]={right}")
