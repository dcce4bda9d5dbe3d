"""Install, upgrade, rollback and uninstall by the real helm on a real API server: what survives, what is refused."""

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client.exceptions import ApiException
from rendering import APIS, CHART

NAMESPACE = "clinic"
SECRET = {"apiVersion": "v1", "kind": "Secret"}
CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap"}
ISVC = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService"}
VALUES: dict[str, Any] = {
    "global": {"imageRegistry": "localhost"},
    # There is no node here that could run the set-up job.
    "objectStore": {"mode": "minio", "minio": {"size": "1Gi"}, "setup": {"enabled": False}},
    "serving": {"engine": {"kind": "cpu"}, "model": {"uri": "s3://clinical-r1/models/tiny/1"}},
}


class Release:
    """helm on one cluster, one release in one namespace."""

    def __init__(self, helm: Path, api: Any, folder: Path) -> None:
        self.helm, self.api, self.folder = helm, api, folder

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run helm."""
        environment = os.environ | {"KUBECONFIG": str(self.api.kubeconfig), "HELM_CACHE_HOME": str(self.folder)}
        command = [str(self.helm), "--namespace", NAMESPACE, *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)

    def apply(self, **changes: Any) -> subprocess.CompletedProcess[str]:
        """Install or upgrade."""
        path = self.folder / "values.json"
        path.write_text(json.dumps(merged(VALUES, changes)))
        return self("upgrade", "--install", "r1", str(CHART), "--values", str(path))

    def secrets(self) -> dict[str, Any]:
        """What is in all Secrets but helm's own."""
        found = self.api.list(SECRET, NAMESPACE)
        return {s["metadata"]["name"]: s["data"] for s in found if not s["metadata"]["name"].startswith("sh.helm.")}

    def model(self) -> dict[str, Any]:
        """The predictor of the InferenceService."""
        found: dict[str, Any] = self.api.find(ISVC, "clinical-r1", NAMESPACE)["spec"]["predictor"]
        return found


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A deep merge."""
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def served(api: Any) -> bool:
    """Whether the API server has taken up all types that the chart looks for."""
    for name in APIS:
        group_version, _, kind = name.rpartition("/")
        if group_version.startswith("pipelines.") or kind == "LLMInferenceService":
            continue  # not to be had as a Go module; not installed here
        try:
            if f'"kind":"{kind}"' not in api.raw(f"/apis/{group_version}"):
                return False
        except ApiException:
            return False
    return True


@pytest.fixture(scope="module")
def release(helm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    plane_module = pytest.importorskip("tests.cluster.control_plane")
    from tests.chart.gomodules import module
    from tests.chart.schemas import CRDS
    from tests.cluster.daemons import Daemons, stopping

    plane_module.skip_without_programs()
    folder = tmp_path_factory.mktemp("plane")
    with stopping(Daemons(folder)) as daemons:
        plane = plane_module.ControlPlane(folder, daemons).start()
        from tests.cluster.addons import resource_types

        name, version, path = next(crd for crd in CRDS if "kserve" in crd[0])
        kserve = []
        for pattern in ("serving.kserve.io_inferenceservices.yaml", "serving.kserve.io_servingruntimes.yaml"):
            for file in (module(name, version) / path).glob(pattern):
                document = yaml.load(file.read_text(), Loader=yaml.CSafeLoader)
                document.pop("status", None)  # the generator leaves an empty one in
                kserve.append(document)
        plane.api.apply(*kserve, *resource_types())
        plane.api.wait("the resource types are served", lambda: served(plane.api), 60)
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        plane.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})
        found = Release(helm, plane.api, folder)
        done = found.apply()
        assert done.returncode == 0, done.stderr
        assert "What to do next" in done.stdout and "LEFT OUT" not in done.stdout
        yield found


def test_secrets_survive_upgrades(release: Release) -> None:
    before = release.secrets()
    assert len(before) >= 12
    assert release.apply(serving={"replicas": {"min": 2, "max": 2}}).returncode == 0
    assert release.secrets() == before and release.model()["minReplicas"] == 2


def test_a_deleted_secret_is_made_anew_and_the_others_stay(release: Release) -> None:
    before = release.secrets()
    release.api.delete(SECRET, "r1-store-traces", NAMESPACE)
    assert release.apply().returncode == 0
    after = release.secrets()
    assert after.keys() == before.keys()
    assert [name for name in after if after[name] != before[name]] == ["r1-store-traces"]


def test_what_a_rollout_brought_survives_an_upgrade_unless_forced(release: Release) -> None:
    live = release.api.find(ISVC, "clinical-r1", NAMESPACE)
    predictor = live["spec"]["predictor"]
    predictor["model"]["storageUri"] = "s3://clinical-r1/models/tiny/2"
    predictor["annotations"]["clinical-r1/model-version"] = "tiny/2"
    predictor["name"] = "v2"
    live["metadata"].setdefault("annotations", {})["clinical-r1/previous-uri"] = "s3://clinical-r1/models/tiny/1"
    live["metadata"].pop("managedFields", None)
    release.api.apply(live)
    assert release.apply(monitoring={"dashboard": {"enabled": False}}).returncode == 0
    kept = release.api.find(ISVC, "clinical-r1", NAMESPACE)
    assert kept["spec"]["predictor"]["model"]["storageUri"] == "s3://clinical-r1/models/tiny/2"
    assert kept["spec"]["predictor"]["annotations"]["clinical-r1/model-version"] == "tiny/2"
    assert kept["spec"]["predictor"]["name"] == "v2"
    assert kept["metadata"]["annotations"]["clinical-r1/previous-uri"] == "s3://clinical-r1/models/tiny/1"
    assert release.apply(serving={"model": {"force": True}}).returncode == 0
    assert release.model()["model"]["storageUri"] == "s3://clinical-r1/models/tiny/1"


def test_the_kubernetes_api_is_found_for_the_network_policy(release: Release) -> None:
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
    spec = release.api.find(policy, "r1-pipelines", NAMESPACE)["spec"]
    assert "10.96.0.1/32" in json.dumps(spec)


def test_a_foreign_launcher_config_is_not_taken_over(release: Release) -> None:
    live = release.api.find(CONFIG_MAP, "kfp-launcher", NAMESPACE)
    live["metadata"]["annotations"]["meta.helm.sh/release-name"] = "somebody-else"
    live["metadata"].pop("managedFields", None)
    release.api.apply(live)
    done = release.apply()
    assert done.returncode and "ConfigMap kfp-launcher in namespace clinic belongs to somebody else" in done.stderr
    assert release.apply(kubeflow={"launcher": {"create": False}}).returncode == 0
    live["metadata"]["annotations"]["meta.helm.sh/release-name"] = "r1"
    live["metadata"] = {k: v for k, v in live["metadata"].items() if k not in ("resourceVersion", "uid")}
    release.api.apply(live)
    assert release.apply().returncode == 0


def test_a_secret_of_your_own_without_kserves_annotations_is_named(release: Release) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    release.api.apply(SECRET | {"metadata": {"name": "mine", "namespace": NAMESPACE}, "stringData": keys})
    done = release.apply(objectStore={"existingSecrets": {"serving": "mine"}})
    assert done.returncode and "annotate --overwrite secret mine serving.kserve.io/s3-" in done.stderr


def test_rollback_brings_no_revoked_key_back(release: Release) -> None:
    left = {"keys": base64.b64encode(b"team-b sha256:" + b"1" * 64).decode()}
    release.api.patch(SECRET, "r1-gateway-keys", {"data": left}, NAMESPACE)
    assert release.apply(serving={"replicas": {"min": 2, "max": 2}}).returncode == 0
    assert release("rollback", "r1", "1").returncode == 0
    assert release.secrets()["r1-gateway-keys"] == left


def test_rollback_and_uninstall_keep_secrets(release: Release) -> None:
    assert release.apply().returncode == 0
    before = release.secrets()
    assert release.apply(serving={"podDisruptionBudget": False}).returncode == 0
    assert release("rollback", "r1").returncode == 0
    assert release.secrets() == before
    done = release("uninstall", "r1")
    assert done.returncode == 0 and "kept due to the resource policy" in done.stdout
    assert release.secrets() == before
    assert release.apply().returncode == 0
    assert release.secrets() == before
