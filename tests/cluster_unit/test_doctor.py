"""Doctor on a real API server: what is missing is named with its fix, what is mended turns ok."""

import json

import pytest
from ground import Ground

from clinical_r1.cluster.api import INFERENCE_SERVICE, Refused
from clinical_r1.cluster.doctor import Finding, examine

PROVIDERS = json.dumps({"minio": {"default": {"endpoint": "127.0.0.1:9", "credentials": {"fromEnv": False}}}})


def config_map(name: str, data: dict[str, str]) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def findings(ground: Ground) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine(ground.cluster)}


def test_an_empty_namespace(ground: Ground) -> None:
    found = findings(ground)
    assert found["chart"].state == "fail" and found["chart"].fix.startswith("helm install")
    assert found["resource type trainjobs"].state == found["resource type inferenceservices"].state == "ok"
    assert found["accelerators"].state == "warn" and "device plugin" in found["accelerators"].fix
    assert found["quota"].state == found["image pull"].state == "ok"


def test_a_type_whose_schema_is_not_published_yet(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    real, new = ground.cluster.spec_fields, INFERENCE_SERVICE._replace(group="not-yet.example.org")
    with pytest.raises(Refused) as refusal:
        real(new)
    assert refusal.value.status in (404, 503)
    monkeypatch.setattr(ground.cluster, "spec_fields", lambda kind: real(new if kind is INFERENCE_SERVICE else kind))
    found = findings(ground)
    assert found["resource type inferenceservices"].state == "warn"
    assert "again in a minute" in found["resource type inferenceservices"].fix
    assert found["resource type trainjobs"].state == "ok"


def test_what_is_wrong_is_named_and_what_is_mended_turns_ok(ground: Ground) -> None:
    api, name = ground.plane.api, ground.cluster.namespace
    ground.install()
    api.apply(config_map("kfp-launcher", {"defaultPipelineRoot": "minio://mlpipeline/v2"}), namespace=name)
    hard = {"hard": {"count/configmaps": "1"}}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}, "spec": hard}
    api.apply(quota, namespace=name)
    found = findings(ground)
    assert found["chart"].state == "ok"
    assert "default-editor may not: create trainjobs" in found["rights"].detail
    assert "is not in bucket 'clinical-r1'" in found["launcher config"].detail
    assert found["training runtime"].state == "warn"
    assert found["claim"].state == "fail" and "no PersistentVolumeClaim r1-state" in found["claim"].detail
    assert "Secret r1-store-pipelines is not there" in found["what steps mount"].detail
    assert "ConfigMap r1-ca is not there" in found["what steps mount"].detail
    assert "create secret generic r1-endpoints" in found["endpoints' keys"].fix
    assert "kubeflow.register.mode=job" in found["pipelines in the dashboard"].fix
    assert "Secret r1-store-pipelines" in found["bucket write"].fix

    rules = [
        {"apiGroups": [group], "resources": ["*"], "verbs": ["*"]}
        for group in ("", "trainer.kubeflow.org", "serving.kserve.io")
    ]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "steps"}, "rules": rules}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "steps"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "steps"},
        "subjects": [{"kind": "ServiceAccount", "name": "default-editor", "namespace": name}],
    }
    root = {"defaultPipelineRoot": "minio://clinical-r1/pipelines", "providers": PROVIDERS}
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "r1-store-pipelines"}, "stringData": keys}
    api.apply(role, binding, config_map("kfp-launcher", root), secret, namespace=name)
    found = findings(ground)
    assert found["rights"].state == found["launcher config"].state == "ok"
    assert found["bucket write"].state == "fail" and "no usable answer" in found["bucket write"].detail


DEPLOYMENT = {"apiVersion": "apps/v1", "kind": "Deployment"}
ARCHIVE = {
    "archiveLogs": True,
    "s3": {
        "endpoint": "seaweedfs.kubeflow.svc:9000",
        "bucket": "mlpipeline",
        "keyFormat": "private-artifacts/{{workflow.namespace}}",
        "insecure": True,
        "accessKeySecret": {"name": "mlpipeline-minio-artifact", "key": "accesskey"},
    },
}


def deployment(name: str, variables: dict[str, str]) -> dict[str, object]:
    labels = {"app": name}
    env = [{"name": key, "value": value} for key, value in variables.items()]
    spec = {"containers": [{"name": name, "image": "localhost/none:1", "env": env}]}
    template = {"metadata": {"labels": labels}, "spec": spec}
    body = {"selector": {"matchLabels": labels}, "template": template}
    return DEPLOYMENT | {"metadata": {"name": name}, "spec": body}


def secret(name: str, data: dict[str, str]) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def test_settings_of_kubeflows_server(ground: Ground) -> None:
    """Kubeflow's server in a namespace of its own, as its manifests make it, and what a run would stumble over."""
    api, name = ground.plane.api, ground.cluster.namespace
    server = f"{name}-kubeflow"
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": server}})
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": restricted}})
    ground.install(
        AWS_ENDPOINT_URL="https://r1-minio.svc:9000",
        CLINICAL_R1_KUBEFLOW_NAMESPACE=server,
        CLINICAL_R1_KUBEFLOW_REGISTERED="job",
    )
    api.apply(config_map("r1-ca", {"ca.crt": "x"}), namespace=name)
    api.apply(
        deployment("ml-pipeline", {}),
        deployment("ml-pipeline-ui", {"MINIO_HOST": "seaweedfs.kubeflow"}),
        config_map("workflow-controller-configmap", {"artifactRepository": json.dumps(ARCHIVE)}),
        namespace=server,
    )
    ours = {"AWS_ACCESS_KEY_ID": "ours", "AWS_SECRET_ACCESS_KEY": "secret"}
    api.apply(secret("r1-store-pipelines", ours), namespace=name)
    found = findings(ground)
    assert found["steps as non-root"].state == "warn"
    assert "x509" in found["authority in steps"].detail and found["authority in steps"].state == "fail"
    assert found["authority in the dashboard"].state == found["artifacts in the dashboard"].state == "warn"
    assert "lacks: every step fails at its end" in found["log archive"].detail
    assert "job is gone" in found["pipelines in the dashboard"].detail

    overwritten = {"accesskey": "ours", "secretkey": "secret"}
    api.apply(secret("mlpipeline-minio-artifact", overwritten), namespace=name)
    assert "holds the keys of our store" in findings(ground)["log archive"].detail

    here = {**ARCHIVE, "s3": {**ARCHIVE["s3"], "endpoint": "r1-minio.svc:9000"}}  # type: ignore[dict-item]
    api.apply(config_map("workflow-controller-configmap", {"artifactRepository": json.dumps(here)}), namespace=server)
    assert "is not below pipelines/" in findings(ground)["log archive"].detail
    here["s3"] |= {"keyFormat": "pipelines/logs/{{pod.name}}"}  # type: ignore[operator]
    api.apply(config_map("workflow-controller-configmap", {"artifactRepository": json.dumps(here)}), namespace=server)
    assert "insecure: True does not fit" in findings(ground)["log archive"].detail
    here["s3"] |= {"insecure": False}  # type: ignore[operator]
    mended = {"DEFAULT_SECURITY_CONTEXT_RUN_AS_NON_ROOT": "true", "CABUNDLE_CONFIGMAP_NAME": "r1-ca"}
    shown = {"MINIO_HOST": "r1-minio.svc", "MINIO_PORT": "9000", "NODE_EXTRA_CA_CERTS": "/ca/ca.crt"}
    api.apply(
        config_map("workflow-controller-configmap", {"artifactRepository": json.dumps(here)}),
        deployment("ml-pipeline", mended),
        deployment("ml-pipeline-ui", shown),
        namespace=server,
    )
    found = findings(ground)
    for check in ("steps as non-root", "authority in steps", "log archive"):
        assert found[check].state == "ok", found[check]
    assert not {"authority in the dashboard", "artifacts in the dashboard"} & set(found)


def test_a_prometheus_that_takes_other_labels(ground: Ground) -> None:
    api, name = ground.plane.api, ground.cluster.namespace
    ground.install()
    group = "monitoring.coreos.com/v1"
    labels = {"app.kubernetes.io/instance": "r1"}
    monitor = {"selector": {}, "podMetricsEndpoints": []}
    server = {"apiVersion": group, "kind": "Prometheus", "metadata": {"name": "k8s"}}
    wants = {"podMonitorSelector": {"matchLabels": {"release": "kube-prometheus-stack"}}}
    made = {"apiVersion": group, "kind": "PodMonitor", "metadata": {"name": "r1", "labels": labels}, "spec": monitor}
    api.apply(server | {"spec": wants}, made, namespace=name)
    found = findings(ground)["scraping"]
    assert found.state == "warn" and "kube-prometheus-stack" in found.detail
    labels["release"] = "kube-prometheus-stack"
    api.apply(made, namespace=name)
    assert findings(ground)["scraping"].state == "ok"
    server_gone = ground.cluster._custom.delete_namespaced_custom_object
    server_gone("monitoring.coreos.com", "v1", name, "prometheuses", "k8s")


def test_steps_that_wait_for_an_image_or_a_volume_are_found(ground: Ground) -> None:
    ground.install()
    core, name = ground.cluster.core, ground.cluster.namespace
    container = {"name": "main", "image": "docker.io/library/clinical-r1-trainer-python:latest"}
    for pod in ("pulls", "mounts"):
        metadata = {"name": pod, "labels": {"pipeline/runid": "x"}}
        core.create_namespaced_pod(name, {"metadata": metadata, "spec": {"containers": [container]}})
    status = {"name": "main", "image": container["image"], "imageID": "", "ready": False, "restartCount": 0}
    held = {"containerStatuses": [status | {"state": {"waiting": {"reason": "ErrImagePull"}}}]}
    core.patch_namespaced_pod_status("pulls", name, {"status": held})
    event = {
        "metadata": {"name": "mounts.1"},
        "involvedObject": {"kind": "Pod", "name": "mounts", "namespace": name},
        "type": "Warning",
        "reason": "FailedMount",
        "message": 'secret "r1-store-pipelines" not found',
    }
    core.create_namespaced_event(name, event)
    found = findings(ground)
    assert "clinical-r1-trainer-python:latest (ErrImagePull)" in found["image pull"].detail
    assert 'mounts: secret "r1-store-pipelines" not found' in found["pods that wait"].detail
