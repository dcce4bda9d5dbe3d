"""InferenceServices as KServe's SDK reads them, and the deployment at the end of a pipeline."""

import json
import threading
import time
from typing import Any

import pytest
from ground import Ground, facts_data

from clinical_r1.cluster.api import INFERENCE_SERVICE
from clinical_r1.cluster.deploy import deploy_model
from clinical_r1.cluster.facts import Facts
from clinical_r1.cluster.inference_service import TRAFFIC, VERSION, manifest, model_version, typed
from clinical_r1.cluster.rollout import Observed
from clinical_r1.errors import UserError

URI = "s3://clinical-r1/models/tiny/1-ab"
PREDICTOR: dict[str, Any] = {
    "minReplicas": 1,
    "labels": {TRAFFIC: "on"},
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "deploymentStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
    "model": {"modelFormat": {"name": "clinical-r1", "version": "1"}, "runtime": "r1-cpu"},
}
SERVICE: dict[str, Any] = {
    "apiVersion": "serving.kserve.io/v1beta1",
    "kind": "InferenceService",
    "metadata": {"name": "clinical-r1", "annotations": {"meta.helm.sh/release-name": "r1"}},
    "spec": {"predictor": PREDICTOR},
}


def facts(**changes: str) -> Facts:
    return Facts.of(facts_data(CLINICAL_R1_INFERENCE_SERVICE=json.dumps(SERVICE), **changes), "test")


def test_the_sdk_reads_the_service_as_its_own_kind() -> None:
    from kserve import V1beta1InferenceService
    from kubernetes import client

    service = typed(manifest(facts(), URI, traffic="off"))
    assert isinstance(service, V1beta1InferenceService)
    predictor = service.spec.predictor
    assert predictor.model.storage_uri == URI and predictor.labels[TRAFFIC] == "off"
    assert isinstance(predictor.security_context, client.V1PodSecurityContext)
    sent = client.ApiClient().sanitize_for_serialization(service)
    assert sent == manifest(facts(), URI, traffic="off")


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        ("minReplica", 1, r"spec\.predictor\.minReplica: KServe knows no such field"),
        ("minReplicas", "1", r"spec\.predictor\.minReplicas: must be int, not str"),
        ("minReplicas", True, r"spec\.predictor\.minReplicas: must be int, not bool"),
        ("tolerations", [{"keys": "gpu"}], r"tolerations\[0\]\.keys: KServe knows no such field"),
        ("tolerations", {"key": "gpu"}, r"tolerations: must be a list"),
        ("labels", {"a": 1}, r"labels\.a: must be str"),
        ("model", {"runtime": "x"}, r"predictor\.model: .*model_format"),
    ],
)
def test_what_kserve_does_not_know_is_named(place: str, value: Any, told: str) -> None:
    wrong = SERVICE | {"spec": {"predictor": PREDICTOR | {place: value}}}
    with pytest.raises(UserError, match=told):
        typed(wrong)


def test_nothing_to_serve_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"serving\.enabled=true"):
        manifest(Facts.of(facts_data(), "test"), URI)


@pytest.mark.parametrize(
    ("uri", "version"), [(URI, "tiny/1-ab"), (URI + "/", "tiny/1-ab"), ("s3://b-2/models/a/b/c", "a/b/c")]
)
def test_a_version_is_named_by_its_place(uri: str, version: str) -> None:
    assert model_version(uri) == version


@pytest.fixture
def installed(ground: Ground) -> Ground:
    """A namespace with the chart's facts."""
    ground.install(CLINICAL_R1_INFERENCE_SERVICE=json.dumps(SERVICE))
    return ground


def controller(ground: Ground) -> threading.Thread:
    """Reports the service as ready and makes its pods, as KServe's controller would."""

    def run() -> None:
        made: set[str] = set()
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and "on" not in made:
            live = ground.cluster.get(INFERENCE_SERVICE, "clinical-r1")
            if live is not None:
                predictor = live["spec"]["predictor"]
                traffic = predictor["labels"][TRAFFIC]
                if traffic not in made:
                    labels = {"serving.kserve.io/inferenceservice": "clinical-r1", TRAFFIC: traffic}
                    ground.make_pod(f"p-{traffic}", labels, {VERSION: predictor["annotations"][VERSION]})
                    made.add(traffic)
                status = {"conditions": [{"type": "Ready", "status": "True"}]}
                ground.set_status(INFERENCE_SERVICE, "clinical-r1", status)
            time.sleep(0.1)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def seen(requests: int, reasoned: int) -> Any:
    return lambda _: Observed(requests=requests, reasoned=reasoned)


def test_the_first_model_is_made_through_the_sdk_and_opened_after_its_answers(installed: Ground) -> None:
    said: list[str] = []
    thread = controller(installed)
    verdict = deploy_model(URI, "dark", [], cluster=installed.cluster, say=said.append, watch=seen(5, 5))
    thread.join(5)
    live = installed.cluster.get(INFERENCE_SERVICE, "clinical-r1")
    assert verdict.decision == "promoted" and live is not None
    assert live["spec"]["predictor"]["labels"][TRAFFIC] == "on"
    assert live["metadata"]["annotations"]["meta.helm.sh/release-name"] == "r1"
    dark = next(number for number, line in enumerate(said) if "kept from clients" in line)
    assert any("open to clients" in line for line in said[dark + 1 :])


@pytest.mark.parametrize(("requests", "reasoned"), [(2, 2), (10, 1)])
def test_a_first_model_that_is_silent_or_does_not_reason_stays_in_the_dark(
    installed: Ground, requests: int, reasoned: int
) -> None:
    controller(installed)
    watch = seen(requests, reasoned)
    verdict = deploy_model(URI, "dark", [], cluster=installed.cluster, say=print, watch=watch)
    live = installed.cluster.get(INFERENCE_SERVICE, "clinical-r1")
    assert verdict.decision == "held" and live is not None
    assert live["spec"]["predictor"]["labels"][TRAFFIC] == "off"
    # The step's retry finds what its first attempt made.
    again = deploy_model(URI, "dark", [], cluster=installed.cluster, say=print, watch=seen(5, 5))
    assert again.decision == "promoted"


def test_a_service_that_does_not_become_ready_is_said(installed: Ground) -> None:
    with pytest.raises(UserError, match="clinical-r1: not ready after 4 s"):
        deploy_model(URI, "dark", [], cluster=installed.cluster, watch=seen(5, 5), ready_seconds=4)


def test_a_model_of_another_bucket_is_refused(installed: Ground) -> None:
    with pytest.raises(UserError, match="s3://elsewhere/models/a/1 is not below s3://clinical-r1/models/"):
        deploy_model("s3://elsewhere/models/a/1", "dark", [], cluster=installed.cluster)
