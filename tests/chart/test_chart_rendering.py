"""What the rendered chart says, resource by resource."""

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from rendering import APIS, CHART, EXAMPLES, MODEL, ChartError, Render

from serving.gateway.config import GatewayConfig

REPOSITORY = CHART.parents[1]


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_pod_is_restricted(render: Render, example: str) -> None:
    found = list(render(example, MODEL, "kubeflow.register.mode=job", "serving.gateway.sampling.rate=0.5").pods())
    assert len(found) >= 4
    for where, pod, _ in found:
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True, where
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, where
        assert not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")), where
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False, where
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, where
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, where
            assert not any(port.get("hostPort") for port in container.get("ports", [])), where
        kinds = {key for volume in pod.get("volumes", []) for key in volume if key != "name"}
        assert kinds <= {"configMap", "secret", "emptyDir", "projected", "persistentVolumeClaim"}, where


@pytest.mark.parametrize("example", EXAMPLES)
def test_no_pod_gets_a_token_of_the_kubernetes_api_or_a_sidecar(render: Render, example: str) -> None:
    for where, pod, labels in render(example, MODEL).pods():
        assert pod["automountServiceAccountToken"] is False, where
        assert labels["sidecar.istio.io/inject"] == "false", where


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_image_goes_through_the_registry(render: Render, example: str) -> None:
    registry = "mirror.example:5000/team"
    for where, pod, _ in render(example, MODEL, f"global.imageRegistry={registry}").pods():
        for container in pod["containers"]:
            assert container["image"].startswith(registry + "/"), where
            assert not container["image"].endswith(":latest"), where


def test_a_digest_wins_over_a_tag(render: Render) -> None:
    digest = "sha256:" + "0" * 64
    chart = render("laptop", MODEL, f"images.gateway.digest={digest}")
    gateway = chart.get("ServingRuntime", "cpu")["spec"]["containers"][1]
    assert gateway["image"] == f"localhost/clinical-r1/gateway@{digest}"


def test_secrets_are_random_and_kept(render: Render) -> None:
    one, other = render("one-gpu", MODEL), render("one-gpu", MODEL, "tests.timeoutSeconds=301")
    secrets = one.kind("Secret")
    assert len(secrets) >= 10
    for secret in secrets:
        assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
        again = other.get("Secret", secret["metadata"]["name"])
        differing = [key for key in secret["data"] if secret["data"][key] != again["data"][key]]
        assert differing, f"{secret['metadata']['name']} is the same in two installations"


def test_an_external_store_makes_no_secret_and_no_minio(render: Render) -> None:
    chart = render("production", MODEL)
    assert not chart.kind("Secret") and not chart.kind("StatefulSet")


def test_no_password_anywhere_in_the_values() -> None:
    words = re.findall(r"(?i)minioadmin|password:\s*\S+|secretkey:\s*\S+", (CHART / "values.yaml").read_text())
    assert not words


def policy(chart: Any, user: str) -> dict[str, Any]:
    """The policy of a store user."""
    found: dict[str, Any] = json.loads(chart.get("ConfigMap", "store")["data"][f"policy-{user}.json"])
    return found


def test_each_store_user_has_its_prefix_and_serving_only_reads(render: Render) -> None:
    chart = render("one-gpu", MODEL)
    for user in ("records", "traces", "journal", "models", "reports"):
        rules = policy(chart, user)["Statement"]
        assert rules[2]["Resource"] == [f"arn:aws:s3:::clinical-r1/{user}/*"]
        assert rules[1]["Condition"]["StringLike"]["s3:prefix"] == [user, f"{user}/", f"{user}/*"]
    serving = policy(chart, "serving")["Statement"]
    assert serving[2] == {
        "Effect": "Allow",
        "Action": ["s3:GetObject"],
        "Resource": ["arn:aws:s3:::clinical-r1/models/*"],
    }
    audit = policy(chart, "audit")["Statement"]
    assert "s3:GetObject" not in audit[2]["Action"] and audit[2]["Resource"] == ["arn:aws:s3:::clinical-r1/audit/*"]
    plan = json.loads(chart.get("ConfigMap", "store")["data"]["plan.json"])
    assert {f"policy-{user}.json" for user in plan["users"]} <= set(chart.get("ConfigMap", "store")["data"])


def test_models_never_expire() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert "models" not in values["objectStore"]["retentionDays"]


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_gateway_reads_its_configuration(render: Render, example: str) -> None:
    chart = render(example, MODEL, 'serving.gateway.config={"limits":{"in_flight":7}}')
    text = chart.get("ConfigMap", "gateway")["data"]["gateway.yaml"]
    config = GatewayConfig.model_validate(yaml.safe_load(text))
    assert config.limits.in_flight == 7 and config.host == "0.0.0.0" and config.upstream == "http://127.0.0.1:8000"
    assert config.auth == ("none" if example == "laptop" else "keys")


def test_spans_reach_their_collector_and_nothing_else(render: Render) -> None:
    chart = render("one-gpu", MODEL, "serving.gateway.traceCollector=http://otel.monitoring.svc:4318")
    gateway = chart.get("ServingRuntime", "vllm")["spec"]["containers"][1]
    told = {entry["name"]: entry.get("value") for entry in gateway["env"]}
    assert told["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://otel.monitoring.svc:4318"
    settings = yaml.safe_load(chart.get("ConfigMap", "gateway")["data"]["gateway.yaml"])
    assert GatewayConfig.model_validate(settings).tracing
    (rule,) = [r for r in chart.get("NetworkPolicy", "serving")["spec"]["egress"] if r["ports"][0]["port"] == 4318]
    assert rule["to"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]


def test_a_thought_has_the_budget_that_its_evaluation_measured_unless_told_otherwise(render: Render) -> None:
    for option, budget in (("serving.gateway.auth=keys", "auto"), ("serving.gateway.thinkingBudget=700", 700)):
        text = render("one-gpu", MODEL, option).get("ConfigMap", "gateway")["data"]["gateway.yaml"]
        assert GatewayConfig.model_validate(yaml.safe_load(text)).thinking.budget == budget


def test_only_the_gateway_has_a_port_and_the_engine_listens_on_loopback(render: Render) -> None:
    engine, gateway = render("one-gpu", MODEL).get("ServingRuntime", "vllm")["spec"]["containers"]
    assert "ports" not in engine and "--host=127.0.0.1" in engine["args"]
    assert not any("reasoning-parser" in arg for arg in engine["args"])
    assert [port["containerPort"] for port in gateway["ports"]] == [8080]
    # A probe of kubelet cannot reach loopback.
    assert engine["readinessProbe"]["httpGet"]["port"] == 8080


def test_a_pod_has_time_to_drain(render: Render) -> None:
    chart = render("one-gpu", MODEL, 'serving.gateway.config={"timeouts":{"settle":7,"drain":300}}')
    engine = chart.get("ServingRuntime", "vllm")["spec"]["containers"][0]
    assert engine["lifecycle"]["preStop"]["exec"]["command"][-2:] == ["7", "300"]
    predictor = chart.kind("InferenceService")[0]["spec"]["predictor"]
    assert predictor["terminationGracePeriodSeconds"] > 307


def test_the_inferenceservice_serves_the_uri_with_its_version(render: Render) -> None:
    isvc = render("one-gpu", "serving.model.uri=s3://clinical-r1/models/r1-7b/2026-11-22").kind("InferenceService")[0]
    predictor = isvc["spec"]["predictor"]
    assert predictor["annotations"]["clinical-r1/model-version"] == "r1-7b/2026-11-22"
    assert predictor["model"]["storageUri"] == "s3://clinical-r1/models/r1-7b/2026-11-22"
    assert isvc["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Standard"
    assert predictor["deploymentStrategy"] == {"type": "Recreate"}  # one GPU: replace


def test_without_a_model_nothing_is_served_but_the_runtime_is_there(render: Render) -> None:
    chart = render("one-gpu")
    assert not chart.kind("InferenceService") and chart.get("ServingRuntime", "vllm")


def test_keda_scales_on_requests_in_flight(render: Render) -> None:
    isvc = render("production", MODEL).kind("InferenceService")[0]
    assert isvc["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "keda"
    predictor = isvc["spec"]["predictor"]
    external = predictor["autoScaling"]["metrics"][0]["external"]
    assert "clinical_r1_in_flight" in external["metric"]["query"] and external["target"]["value"] == "24"
    assert (predictor["minReplicas"], predictor["maxReplicas"]) == (2, 6)


def test_kserve_finds_the_store_and_its_authority(render: Render) -> None:
    chart = render("one-gpu", MODEL)
    marks = chart.get("Secret", "store-serving")["metadata"]["annotations"]
    assert marks["serving.kserve.io/s3-endpoint"] == "r1-minio.clinic.svc:9000"
    assert marks["serving.kserve.io/s3-usehttps"] == "1"
    assert marks["serving.kserve.io/s3-cabundle-configmap"] == "r1-ca"
    assert chart.get("ServiceAccount", "serving")["secrets"] == [{"name": "r1-store-serving"}]


def test_the_launcher_points_at_our_store(render: Render) -> None:
    data = render("one-gpu", MODEL).get("ConfigMap", "kfp-launcher")["data"]
    assert data["defaultPipelineRoot"] == "minio://clinical-r1/pipelines"
    provider = yaml.safe_load(data["providers"])["minio"]["default"]
    assert provider["endpoint"] == "r1-minio.clinic.svc:9000" and provider["disableSSL"] is False
    assert provider["credentials"]["secretRef"]["secretName"] == "r1-store-pipelines"


@pytest.mark.parametrize(("mode", "account"), [("multiuser", "default-editor"), ("standalone", "pipeline-runner")])
def test_rights_go_to_kubeflows_account_and_are_no_more_than_needed(render: Render, mode: str, account: str) -> None:
    chart = render("one-gpu", MODEL, f"kubeflow.mode={mode}")
    assert chart.get("RoleBinding", "pipelines")["subjects"][0]["name"] == account
    rules = chart.get("Role", "pipelines")["rules"]
    assert not any("*" in rule["verbs"] + rule["resources"] + rule["apiGroups"] for rule in rules)
    assert not any("secrets" in rule["resources"] for rule in rules)
    rights = {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
    assert ("trainjobs", "delete") in rights and ("inferenceservices", "delete") not in rights
    assert not chart.kind("ClusterRole") and not chart.kind("ClusterRoleBinding")


def test_pipelines_are_registered_by_job_or_by_resources(render: Render) -> None:
    compiled = sorted((REPOSITORY / "manifests" / "pipelines").glob("*.yaml"))
    by_job = render("one-gpu", MODEL, "kubeflow.register.mode=job")
    for path in compiled:
        [text] = [d["data"][path.name] for d in by_job.kind("ConfigMap") if path.name in (d.get("data") or {})]
        ours = [line for line in text.splitlines() if not line.startswith("        defaultValue: ")]
        theirs = [line for line in path.read_text().splitlines() if not line.startswith("        defaultValue: ")]
        assert ours == theirs, path.name
    by_crd = render("one-gpu", MODEL, "kubeflow.register.mode=crd")
    versions = by_crd.kind("PipelineVersion")
    assert len(versions) == len(by_crd.kind("Pipeline")) == len(compiled)
    first = yaml.safe_load(compiled[0].read_text().split("\n---\n")[0])
    assert versions[0]["spec"]["pipelineSpec"]["root"]["dag"] == first["root"]["dag"]
    assert all(version["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for version in versions)


def test_rules_and_dashboard_are_those_of_serving(render: Render) -> None:
    chart = render("production", MODEL)
    rules = yaml.safe_load((REPOSITORY / "serving" / "monitoring" / "rules.yaml").read_text())
    assert chart.kind("PrometheusRule")[0]["spec"] == rules
    own = render("one-gpu", MODEL).kind("PrometheusRule")[0]["spec"]["groups"]
    assert [group["name"] for group in own[:-1]] == [group["name"] for group in rules["groups"]]
    board = next(iter(chart.get("ConfigMap", "dashboard")["data"].values()))
    assert json.loads(board) == json.loads((REPOSITORY / "serving" / "monitoring" / "dashboard.json").read_text())


def test_every_alert_has_a_section_in_the_guides(render: Render) -> None:
    for group in render("one-gpu", MODEL).kind("PrometheusRule")[0]["spec"]["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                page, _, anchor = rule["annotations"]["runbook"].partition("#")
                headings = re.findall(r"(?m)^#+ (.+)$", (REPOSITORY / page).read_text())
                assert anchor in {heading.lower().replace(" ", "-") for heading in headings}, rule["alert"]


@pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool on this machine")
def test_the_stores_alerts_fire_and_stay_silent(render: Render, tmp_path: Path) -> None:
    group = render("one-gpu", MODEL).kind("PrometheusRule")[0]["spec"]["groups"][-1]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [group]}))
    free, total = (f"minio_cluster_capacity_usable_{name}_bytes" for name in ("free", "total"))
    full, down = "ClinicalR1ObjectStoreAlmostFull", "ClinicalR1ObjectStoreDown"
    tests = []
    for left, there, fires in ((10, True, {full}), (50, True, set()), (50, False, {down})):
        where = '{namespace="clinic",pod="r1-minio-0"}' if there else '{namespace="other",pod="x"}'
        series = [{"series": free + where, "values": f"{left}x60"}, {"series": total + where, "values": "100x60"}]
        states = [
            {"alertname": name, "eval_time": "40m", "exp_alerts": [alert(group, name, left, there)] * (name in fires)}
            for name in (full, down)
        ]
        tests.append({"interval": "1m", "input_series": series, "alert_rule_test": states})
    body = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(body))
    done = subprocess.run(
        ["promtool", "test", "rules", "test.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def alert(group: dict[str, Any], name: str, left: int, there: bool) -> dict[str, Any]:
    """The alert as promtool expects it."""
    rule = next(rule for rule in group["rules"] if rule["alert"] == name)
    labels = {"severity": rule["labels"]["severity"], "namespace": "clinic"} | ({"pod": "r1-minio-0"} if there else {})
    texts = {key: re.sub(r"{{.*?}}", f"{left}%", text) for key, text in rule["annotations"].items()}
    return {"exp_labels": labels, "exp_annotations": texts}


def test_data_outlive_the_release(render: Render) -> None:
    spec = render("one-gpu", MODEL).kind("StatefulSet")[0]["spec"]
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}


def test_training_runs_under_torchrun_without_a_sidecar(render: Render) -> None:
    runtime = render("production", MODEL).kind("TrainingRuntime")[0]["spec"]
    assert runtime["mlPolicy"] == {"numNodes": 1, "torch": {}}
    job = runtime["template"]["spec"]["replicatedJobs"][0]["template"]
    assert job["metadata"]["labels"]["trainer.kubeflow.org/trainjob-ancestor-step"] == "trainer"
    names = [env["name"] for env in job["spec"]["template"]["spec"]["containers"][0]["env"]]
    assert not any(name.startswith("PET_") for name in names)


def test_what_the_cluster_lacks_is_left_out_or_named(render: Render) -> None:
    bare = render("laptop", apis=())
    absent = {"InferenceService", "ServingRuntime", "TrainingRuntime", "PodMonitor", "PrometheusRule"}
    assert not absent & {doc["kind"] for doc in bare.all}
    for api, key in (
        (APIS[0], "serving.enabled=true"),
        (APIS[1], "training.runtime.enabled=true"),
        (APIS[2], "monitoring.podMonitor.enabled=true"),
        (APIS[3], "monitoring.rules.enabled=true"),
        (APIS[6], "kubeflow.register.mode=crd"),
    ):
        with pytest.raises(ChartError, match=f"needs {api}, which this cluster does not have: "):
            render("laptop", key, apis=())
    with pytest.raises(ChartError, match="install KEDA"):
        render("production", "training.clusterQueue=", apis=APIS[:4])


def test_schema_and_readme_are_those_of_values() -> None:
    spec = importlib.util.spec_from_file_location("generate", CHART.parent / "generate.py")
    assert spec and spec.loader
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for path, text in generate.generated().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is out of date: run make manifests"


def test_an_llm_inference_service_is_a_choice(render: Render) -> None:
    from kserve.models import V1alpha2LLMInferenceService

    from clinical_r1.cluster.inference_service import typed

    chart = render("one-gpu", MODEL, "serving.kind=LLMInferenceService", 'serving.llm={"parallelism":{"tensor":2}}')
    assert not chart.kind("InferenceService") and not chart.kind("ServingRuntime")
    service = chart.kind("LLMInferenceService")[0]
    assert isinstance(typed(service, "V1alpha2LLMInferenceService"), V1alpha2LLMInferenceService)
    engine, gateway = service["spec"]["template"]["containers"]
    assert (engine["name"], gateway["name"]) == ("main", "gateway") and "--host=127.0.0.1" in engine["args"]
    mounted = {mount["mountPath"]: mount["name"] for mount in gateway["volumeMounts"]}
    assert mounted["/mnt/models"] == "kserve-provision-location"
    selector = chart.get("Service", "gateway")["spec"]["selector"]
    assert selector.items() <= service["spec"]["labels"].items()
    assert service["spec"]["parallelism"] == {"tensor": 2}
    with pytest.raises(ChartError, match=r"serving\.engine\.kind=vllm"):
        render("laptop", MODEL, "serving.kind=LLMInferenceService")
    with pytest.raises(ChartError, match="LLMInferenceService part"):
        render("one-gpu", MODEL, "serving.kind=LLMInferenceService", apis=APIS[:-1])
