"""Doctor on a real API server: what is missing is named with its fix, what is mended turns ok."""

import json

import pytest
from ground import Ground

from clinical_r1.cluster.api import INFERENCE_SERVICE, Refused
from clinical_r1.cluster.doctor import Finding, examine

FACTS = {
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "CLINICAL_R1_BUCKET": "clinical-r1",
    "CLINICAL_R1_KUBEFLOW_ACCOUNT": "default-editor",
    "CLINICAL_R1_TRAINING_RUNTIME": "clinical-r1",
    "CLINICAL_R1_STORE_SECRET_PIPELINES": "store",
}
PROVIDERS = json.dumps({"minio": {"default": {"endpoint": "127.0.0.1:9", "credentials": {"fromEnv": False}}}})


def config_map(name: str, data: dict[str, str]) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def findings(ground: Ground) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine(ground.cluster)}


def test_an_empty_namespace(ground: Ground) -> None:
    found = findings(ground)
    assert found["chart"].state == "fail" and found["chart"].fix.startswith("helm install")
    assert found["launcher config"].state == "fail"
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
    api.apply(config_map("clinical-r1-platform", FACTS), namespace=name)
    api.apply(config_map("kfp-launcher", {"defaultPipelineRoot": "minio://mlpipeline/v2"}), namespace=name)
    hard = {"hard": {"count/configmaps": "1"}}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}, "spec": hard}
    api.apply(quota, namespace=name)
    found = findings(ground)
    assert found["chart"].state == "ok"
    assert "default-editor may not: create trainjobs" in found["rights"].detail
    assert "is not in bucket 'clinical-r1'" in found["launcher config"].detail
    assert found["training runtime"].state == "warn"
    assert "Secret store" in found["bucket write"].fix

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
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "store"}, "stringData": keys}
    api.apply(role, binding, config_map("kfp-launcher", root), secret, namespace=name)
    found = findings(ground)
    assert found["rights"].state == found["launcher config"].state == "ok"
    assert found["bucket write"].state == "fail" and "no usable answer" in found["bucket write"].detail
