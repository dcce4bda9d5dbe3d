"""The chart and its resources against a real API server: what is accepted and, above all, what is refused."""

from typing import Any

import pytest
import yaml

from clinical_r1.cluster.api import INFERENCE_SERVICE, Cluster
from tests.cluster.api import Api, RefusedError
from tests.cluster.conftest import OTHER, TEAM, VALUES, Platform

POD = {"apiVersion": "v1", "kind": "Pod"}
SECRET = {"apiVersion": "v1", "kind": "Secret"}
DEPLOYMENT = {"apiVersion": "apps/v1", "kind": "Deployment"}
SERVICE_ACCOUNT = {"apiVersion": "v1", "kind": "ServiceAccount"}
ISVC = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService"}
TRAIN_JOB = {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob"}


def refusal(call: Any, *arguments: Any, **named: Any) -> RefusedError:
    """What the API server says to a call that it must refuse."""
    with pytest.raises(RefusedError) as caught:
        call(*arguments, **named)
    return caught.value


def pod_templates(text: str) -> dict[str, dict[str, Any]]:
    """Every pod that a rendered chart describes, hooks and runtimes of training and serving included."""
    found = {}
    for document in yaml.safe_load_all(text):
        if not document:
            continue
        spec, name = document.get("spec", {}), f"{document['kind'].lower()}-{document['metadata']['name']}"
        if document["kind"] == "Pod":
            found[name] = spec
        elif document["kind"] == "TrainingRuntime":
            for job in spec["template"]["spec"]["replicatedJobs"]:
                found[name] = job["template"]["spec"]["template"]["spec"]
        elif "template" in spec:
            found[name] = spec["template"]["spec"] | {"claims": spec.get("volumeClaimTemplates", [])}
    return found


def train_job(name: str, namespace: str = TEAM, **spec: Any) -> dict[str, Any]:
    """A TrainJob on the chart's runtime."""
    runtime = {"apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": "r1"}
    return TRAIN_JOB | {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"runtimeRef": runtime, "trainer": {"numNodes": 2, "numProcPerNode": 1}} | spec,
    }


def test_every_pod_of_the_chart_is_restricted(platform: Platform) -> None:
    rendered = platform.helm("get", "manifest", "r1") + "\n---\n" + platform.helm("get", "hooks", "r1")
    templates = pod_templates(rendered)
    assert len(templates) >= 4
    for name, spec in templates.items():
        claims = [{"name": claim["metadata"]["name"], "emptyDir": {}} for claim in spec.pop("claims", [])]
        bare = {k: v for k, v in spec.items() if k != "serviceAccountName"}
        bare["volumes"] = [*bare.get("volumes", []), *claims]
        platform.api.dry_run(POD | {"metadata": {"name": name[:60], "namespace": TEAM}, "spec": bare})


def test_a_pod_that_is_not_restricted_is_refused(platform: Platform) -> None:
    spec = {"containers": [{"name": "c", "image": "localhost/x:1"}]}
    refused = refusal(platform.api.dry_run, POD | {"metadata": {"name": "root", "namespace": TEAM}, "spec": spec})
    assert refused.status == 403
    assert 'violates PodSecurity "restricted' in str(refused)


def test_kserve_makes_the_two_containers_and_their_pod_is_admitted(kserve: Platform) -> None:
    api = kserve.api

    def pods() -> list[dict[str, Any]]:
        return api.list(POD, TEAM, "serving.kserve.io/inferenceservice=clinical-r1")

    api.wait("KServe's deployment has a pod", pods, 60)
    pod = pods()[0]
    assert [c["name"] for c in pod["spec"]["containers"]] == ["kserve-container", "transformer-container"]
    assert [c["name"] for c in pod["spec"]["initContainers"]] == ["storage-initializer"]
    source = pod["spec"]["initContainers"][0]["args"][0]
    assert source == "s3://clinical-r1/models/tiny/1"
    assert pod["spec"]["containers"][0]["image"].startswith("localhost/clinical-r1/trainer")
    assert not pod["spec"].get("automountServiceAccountToken")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"minReplicas": 3, "maxReplicas": 1}, "MinReplicas"),
        ({"minReplicas": -1}, "MinReplicas"),
        ({"containerConcurrency": -1}, "parallelism"),
        ({"maxReplicas": "many"}, "maxReplicas"),
    ],
)
def test_bad_inference_services_are_rejected(kserve: Platform, change: dict[str, Any], reason: str) -> None:
    model = {"modelFormat": {"name": "clinical-r1"}, "runtime": "r1-cpu", "storageUri": "s3://b/models/x/1"}
    service = ISVC | {"metadata": {"name": "bad", "namespace": TEAM}, "spec": {"predictor": {"model": model} | change}}
    assert reason in str(refusal(kserve.api.dry_run, service))


def test_the_name_of_an_inference_service_is_checked_by_the_webhook(kserve: Platform) -> None:
    model = {"modelFormat": {"name": "clinical-r1"}, "runtime": "r1-cpu", "storageUri": "s3://b/models/x/1"}
    bad = ISVC | {"metadata": {"name": "9lives", "namespace": TEAM}, "spec": {"predictor": {"model": model}}}
    assert "denied the request" in str(refusal(kserve.api.dry_run, bad))


def test_train_jobs_of_version_2_3_are_accepted_and_older_ones_not(platform: Platform) -> None:
    assert platform.api.dry_run(train_job("good", activeDeadlineSeconds=600))
    assert "runtimeRef" in str(refusal(platform.api.dry_run, train_job("bad", runtimeRef={})))
    automatic = {"numNodes": 1, "numProcPerNode": "auto"}
    assert "numProcPerNode" in str(refusal(platform.api.dry_run, train_job("bad", trainer=automatic)))


def test_pipeline_steps_may_train_and_roll_out(platform: Platform) -> None:
    steps = platform.api.as_account(TEAM, "default-editor")
    assert steps.dry_run(train_job("by-a-step"))
    assert steps.find(ISVC, "clinical-r1", TEAM)
    assert steps.list(POD, TEAM) is not None


def test_pipeline_steps_are_refused_everything_else(platform: Platform) -> None:
    steps = platform.api.as_account(TEAM, "default-editor")
    calls = [
        lambda: steps.list(SECRET, TEAM),
        lambda: steps.find(SECRET, "r1-minio-root", TEAM),
        lambda: steps.delete(ISVC, "clinical-r1", TEAM),
        lambda: steps.dry_run(train_job("elsewhere", OTHER)),
        lambda: steps.list(POD, OTHER),
        lambda: steps.dry_run({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "mine"}}),
        lambda: steps.find({"apiVersion": "v1", "kind": "ConfigMap"}, "r1-store", TEAM),
    ]
    for call in calls:
        assert refusal(call).status == 403


@pytest.mark.parametrize("account", ["r1-serving", "r1-setup", "r1-minio"])
def test_the_other_accounts_have_no_rights_at_all(platform: Platform, account: str) -> None:
    assert platform.api.find(SERVICE_ACCOUNT, account, TEAM)
    other: Api = platform.api.as_account(TEAM, account)
    assert refusal(other.list, POD, TEAM).status == 403
    assert refusal(other.list, SECRET, TEAM).status == 403
    assert refusal(other.find, ISVC, "clinical-r1", TEAM).status == 403


def test_an_upgrade_opens_no_model_that_is_kept_in_the_dark(platform: Platform) -> None:
    cluster = Cluster(TEAM, kubeconfig=str(platform.api.kubeconfig))

    def traffic() -> str:
        live = cluster.get(INFERENCE_SERVICE, "clinical-r1")
        assert live is not None
        return str(live["spec"]["predictor"]["labels"]["clinical-r1/traffic"])

    def switch(value: str) -> None:
        body = {"spec": {"predictor": {"labels": {"clinical-r1/traffic": value}}}}
        cluster.patch(INFERENCE_SERVICE, "clinical-r1", body)

    switch("off")
    platform.helm.install(VALUES)
    assert traffic() == "off"
    switch("on")
    platform.helm.install(VALUES)
    assert traffic() == "on"


def test_secrets_are_made_once_and_survive_upgrade_rollback_and_uninstall(platform: Platform) -> None:
    def secrets() -> dict[str, Any]:
        found = platform.api.list(SECRET, TEAM)
        return {s["metadata"]["name"]: s["data"] for s in found if not s["metadata"]["name"].startswith("sh.helm.")}

    before = secrets()
    assert {"r1-minio-root", "r1-store-serving", "r1-store-pipelines"} <= set(before)
    changed = VALUES | {"serving": VALUES["serving"] | {"podDisruptionBudget": False}}
    platform.helm.install(changed)
    assert secrets() == before
    platform.helm("rollback", "r1", "1", "--no-hooks")
    assert secrets() == before
    platform.helm("uninstall", "r1", "--no-hooks")
    assert secrets() == before
    platform.helm.install(VALUES)
    assert secrets() == before
