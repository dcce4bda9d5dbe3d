"""`make test-cluster`, first part: the chart installed, a model published, served, called and scraped."""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from kubernetes import client

from clinical_r1.cluster.api import Cluster
from clinical_r1.cluster.deploy import deploy_model
from clinical_r1.objectstore import models
from clinical_r1.objectstore.manifest import Facts
from tests.cluster import traffic
from tests.cluster.bench import BUCKET, GATEWAY, ISVC, NAME, RELEASE, TEAM, VALUES, Bench, has
from tests.cluster.chart import HelmError
from tests.cluster.daemons import PATIENCE, poll
from tests.cluster.prometheus import Prometheus


def install(bench: Bench) -> dict[str, Any]:
    """The chart by helm, waiting for MinIO and for the job that makes bucket, users and policies. Kubeflow has been in
    this namespace before: the installation stops and says how its `kfp-launcher` is handed over."""
    try:
        bench.helm.install(VALUES, wait=True)
    except HelmError as error:
        assert "kubectl -n team-a label configmap kfp-launcher" in str(error), error
    else:
        raise AssertionError("somebody else's kfp-launcher was overwritten")
    notes = {"meta.helm.sh/release-name": RELEASE, "meta.helm.sh/release-namespace": TEAM}
    metadata = {"labels": {"app.kubernetes.io/managed-by": "Helm"}, "annotations": notes}
    client.CoreV1Api(bench.api.http).patch_namespaced_config_map("kfp-launcher", TEAM, {"metadata": metadata})
    seconds = bench.helm.install(VALUES, wait=True)
    return {"helm_install_s": round(seconds, 1)}


def publish(bench: Bench) -> dict[str, Any]:
    """Three models: one that thinks, the same published again, and one that does not think."""
    store = bench.store("models")
    with tempfile.TemporaryDirectory() as scratch:
        again = Path(scratch, "better")
        shutil.copytree(bench.model, again)
        (again / "README.md").write_text("The same model, published again.\n", encoding="utf-8")
        folders = {"good": bench.model, "better": again, "thoughtless": bench.thoughtless}
        for kind, folder in folders.items():
            manifest = models.publish(store, "tiny", folder, Facts(), say=lambda line: None)
            bench.uris[kind] = f"s3://{BUCKET}/models/tiny/{manifest.version}"
            prefix = f"tiny/{manifest.version}"
            files = {f"{prefix}/{entry.path}": (folder / entry.path).read_bytes() for entry in manifest.files}
            bench.remember("models", files | {f"{prefix}/manifest.json": store.get(f"{prefix}/manifest.json")})
    return {"published": len(bench.uris)}


def deploy(bench: Bench) -> dict[str, Any]:
    """The end of a pipeline, with a step's rights: the first model's InferenceService through KServe's SDK. KServe
    makes the pods, its storage initializer loads the model from MinIO; clients reach it once it has answered."""
    began = time.monotonic()
    cluster = Cluster(TEAM, kubeconfig=str(bench.steps_kubeconfig()))
    questions = [case.prompt for case in bench.probes]
    verdict = deploy_model(bench.uris["good"], "dark", questions, bench.key, cluster, say=lambda line: print(" ", line))
    assert verdict.decision == "promoted", verdict
    bench.wait_ready(bench.uris["good"])
    return {"deployed": verdict.reason, "deploy_s": round(time.monotonic() - began, 1)}


def serve(bench: Bench) -> dict[str, Any]:
    """An upgrade that names the model takes over what the pipeline made, and no pod is replaced."""
    began = time.monotonic()
    made = {pod["metadata"]["name"] for pod in bench.pods()}
    bench.helm.install(bench.serving("good"), wait=True)
    assert not made or made == {pod["metadata"]["name"] for pod in bench.pods()}, (
        "the upgrade replaced the model's pods"
    )
    poll("the InferenceService is Ready", lambda: has(bench.api.find(ISVC, NAME, TEAM) or {}, "Ready"), 300, 0.5)
    seconds = time.monotonic() - began
    bench.wait_ready(bench.uris["good"])
    poll("the Service answers", lambda: bench.call().whole, 60, 0.5)
    return {"isvc_ready_s": round(seconds, 1)}


def stream(bench: Bench) -> dict[str, Any]:
    """Ten streamed calls through the Service, with thoughts in them; and one without a key, which is refused."""
    calls = [bench.call() for _ in range(10)]
    assert all(call.whole and call.text and call.thought for call in calls), calls
    assert traffic.stream(GATEWAY, "no such key").status == 401
    return {"stream_ok": True}


def scrape(bench: Bench) -> dict[str, Any]:
    """Prometheus finds the pods by the chart's PodMonitor; its rules load without an error; nothing is amiss."""
    bench.prometheus = prometheus = Prometheus(bench.folder, bench.machine.daemons)
    prometheus.start(bench.api, TEAM)
    poll("both pods are scraped", lambda: len(prometheus.query('up{job=~".*serving/metrics"} == 1')) == 2, 60)
    poll("answers are counted", lambda: prometheus.query("sum(clinical_r1_answers_total) >= 10"), 60)
    poll("all rules were evaluated", lambda: all(r["health"] == "ok" for r in prometheus.rules()), 60)
    return {"prometheus_up": True, "rules_loaded": len(prometheus.rules())}


def helm_test(bench: Bench) -> dict[str, Any]:
    """`helm test`: a pod makes one streamed call and sees the metric move."""
    bench.helm("test", RELEASE, "--timeout", f"{180 * PATIENCE:.0f}s")
    return {"helm_test_ok": True}
