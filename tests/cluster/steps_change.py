"""`make test-cluster`, last part: rollout, upgrade, rollback, uninstall, and what is left."""

import json
import os
import subprocess
import sys
from typing import Any

from clinical_r1.objectstore.manifest import Gate, RuleResult
from clinical_r1.objectstore.models import promote, read_manifest
from clinical_r1.schema import write_jsonl
from tests.cluster import traffic
from tests.cluster.bench import BUCKET, CLAIM, ISVC, NAME, POD, RELEASE, TEAM, VALUES, Bench
from tests.cluster.chart import ROOT
from tests.cluster.daemons import PATIENCE, poll


def roll_out(bench: Bench) -> dict[str, Any]:
    """`clinical-r1 rollout`, with a step's rights: a model that does not think is held off in the dark, one that does
    takes over, `--back` returns; no client notices any of it.
    """
    good, better = bench.uris["good"], bench.uris["better"]
    for uri in bench.uris.values():
        _approve(bench, _version(uri))
    with traffic.clients(bench.call, 2) as clients:
        refused = _command(bench, "tiny", _version(bench.uris["thoughtless"]))
        assert refused["decision"] == "rolled back", refused
        assert _served(bench) == good
        promoted = _command(bench, "tiny", _version(better))
        assert promoted["decision"] == "promoted", promoted
        bench.wait_ready(better)
        _command(bench, "--back")
        assert _served(bench) == good
        bench.wait_ready(good)
    assert not clients.failed(), f"{len(clients.failed())} of {len(clients.calls)} calls failed in the rollout"
    decisions = {"thoughtless": refused["decision"], "better": promoted["decision"], "back": "served again"}
    return {"rollout": decisions | {"calls_meanwhile": len(clients.calls), "broken": 0}}


def _approve(bench: Bench, version: str) -> None:
    """A gate that says `promote` of these weights, and a person: without both, nothing is rolled out."""
    store = bench.store("models")
    weights = read_manifest(store, "tiny", version).weights
    gate = Gate(
        decision="promote", weights=weights, rules=[RuleResult(rule="suite", result="pass", reason="made for it")]
    )
    promote(store, "tiny", version, approved_by="the suite", reason="to be rolled out", gate=gate)
    key = f"tiny/{version}/manifest.json"
    bench.remember("models", {key: store.get(key)})


def _command(bench: Bench, *words: str) -> dict[str, Any]:
    """`clinical-r1 rollout` as a pipeline step would call it; its verdict, which `--back` does not print."""
    probes = bench.folder / "probes.jsonl"
    write_jsonl(probes, bench.probes)
    settings = bench.settings("pipelines")
    environment = {
        "KUBECONFIG": str(bench.steps_kubeconfig()),
        "CLINICAL_R1_NAMESPACE": TEAM,
        "CLINICAL_R1_MODELS": f"s3://{BUCKET}/models",
        "CLINICAL_R1_API_KEY": bench.key,
        "AWS_ENDPOINT_URL": settings.endpoint,
        "AWS_ACCESS_KEY_ID": settings.access_key,
        "AWS_SECRET_ACCESS_KEY": settings.secret_key,
        "AWS_CA_BUNDLE": str(settings.ca_bundle),
    }
    options = ["--probes", str(probes), "--min-requests", str(len(bench.probes)), "--mode", "dark"]
    command = [sys.executable, "-m", "pipelines.cli.main", "rollout", *words, *options]
    done = subprocess.run(
        command,
        env=os.environ | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600 * PATIENCE,
    )
    print("".join(f"  {line}\n" for line in done.stdout.splitlines()), end="", flush=True)
    assert done.returncode in (0, 1), f"clinical-r1 rollout ended with {done.returncode}: {done.stderr[-2000:]}"
    verdict = done.stdout[done.stdout.find("\n{") + 1 :]
    if "--back" in words:
        assert done.returncode == 0, done.stderr[-2000:]
        return {}
    assert verdict.startswith("{"), done.stdout + done.stderr[-2000:]
    found: dict[str, Any] = json.loads(verdict)
    return found


def _served(bench: Bench) -> str:
    found = bench.api.find(ISVC, NAME, TEAM)
    assert found
    return str(found["spec"]["predictor"]["model"]["storageUri"])


def _version(uri: str) -> str:
    return uri.rpartition("/")[2]


def upgrade_and_roll_back(bench: Bench) -> dict[str, Any]:
    """An upgrade to the better model, then `helm rollback` to what was: Secrets and objects stay what they are."""
    before = bench.secrets()
    revision = max(entry["revision"] for entry in json.loads(bench.helm("history", RELEASE, "--output", "json")))
    served = _served(bench)
    bench.helm.install(bench.serving("better", force=True), wait=True)
    bench.wait_ready(bench.uris["better"])
    assert bench.call().whole
    bench.helm("rollback", RELEASE, str(revision), "--wait", "--timeout", f"{300 * PATIENCE:.0f}s")
    bench.wait_ready(served)
    assert bench.secrets() == before, "Secrets changed"
    assert bench.call().whole
    return {"upgrade_ok": True, "rollback_ok": True}


def uninstall(bench: Bench) -> dict[str, Any]:
    """What is left is what NOTES.txt says, volume, Secrets, ended hooks; installed again, every object is there."""
    before = bench.secrets()
    bench.helm("uninstall", RELEASE, "--wait", "--timeout", f"{180 * PATIENCE:.0f}s")

    def running() -> list[str]:
        found = bench.api.list(POD, TEAM, "app.kubernetes.io/part-of=clinical-r1")
        return [pod["metadata"]["name"] for pod in found if pod["status"]["phase"] not in ("Succeeded", "Failed")]

    poll("no pod runs", lambda: not running(), 180, 1)
    assert bench.api.find(ISVC, NAME, TEAM) is None
    assert bench.api.find(CLAIM, f"data-{RELEASE}-minio-0", TEAM), "the volume is gone"
    assert bench.secrets() == before, "the Secrets are not what they were"
    bench.helm.install(VALUES, wait=True)
    lost = bench.lost()
    assert not lost, lost[:5]
    return {"uninstall_ok": True, "objects_checked": len(bench.written), "data_lost": len(lost)}
