"""`make test-cluster`: every step of the compiled `train` as a container, called as Kubeflow Pipelines calls them.

The arguments are those that `clinical-r1 submit` would send, with tiny sizes; teacher and judge are the simulated
endpoint in a pod. Artifacts travel through the chart's MinIO, journals and checkpoints lie on the claim.
"""

import json
from pathlib import Path
from typing import Any

from kubernetes import client

from clinical_r1.schema import write_jsonl
from clinical_r1.simulator.world import sample_records
from pipelines.form import TrainForm
from tests.cluster.addons import RESTRICTED
from tests.cluster.api import Document
from tests.cluster.bench import CLAIM, POD, SECRET, STEPS_ACCOUNT, TEAM, Bench, has
from tests.cluster.bringup import TRAINER
from tests.cluster.daemons import poll
from tests.cluster.step_pods import CONFIG_MAP, LAUNCHER, RUN_PARAMETERS, Step, key_of, pod_of, uri_of

CASES = 120
_JUDGED = (("prepare-records", "splits"), ("gate-model", "decision"))
TEACHER = "teacher"
KEYS = {"CLINICAL_R1_PATIENT_KEY": "a secret of this test alone"}
"""The simulated hospital's records name patients, so the records step must be able to hash them."""
SERVICE = {"apiVersion": "v1", "kind": "Service"}
TINY = {
    **{
        f"{place}.base_url": f"http://{TEACHER}.{TEAM}.svc:8080/v1"
        for place in ("synthesis.synthesizer", "ppo.judge.endpoint", "evaluation.reward_judge.endpoint")
    },
    "records.sources": [{"path": "/state/cases.jsonl"}],
    "records.splits.counts": {"sft": 48, "rl": 24, "validation": 16, "test": 16},
    "base_model.tiny": {"hidden_size": 32, "layers": 1, "heads": 2, "kv_heads": 1, "vocab_size": 600},
    "sft.epochs": 1,
    "ppo.steps": 2,
    "ppo.batch_size": 8,
    "ppo.micro_batch_size": 4,
    "ppo.warmup_steps": 1,
    "ppo.rollout.max_new_tokens": 24,
    "ppo.probe": {"every": 2, "cases": 8},
    "ppo.save_every": 2,
    "evaluation.max_new_tokens": 24,
}
"""The form's overrides of the shipped `small`, so small that each step takes seconds."""


def pipeline_steps(bench: Bench) -> dict[str, Any]:
    """All steps in their order, each with what the ones before it made. Pods, entry points, environment, volumes,
    artifacts and rights are those of the compiled pipeline."""
    _prepare(bench)
    done: dict[str, dict[str, Any]] = {}
    for step in first_steps():
        done[step.task] = _run(bench, step)
    given = done["configure"]["parameters"]
    for step in data_steps(given):
        done[step.task] = _run(bench, step)
    folder = done["base-model"]["parameters"]["folder"]
    assert folder.startswith(given["state_dir"]), f"the base model is not on the claim: {folder}"
    for step in model_steps(given, folder):
        done[step.task] = _run(bench, step)
    fetched = done["merge-traces"]["fetched"]
    assert fetched["splits"] == done["prepare-records"]["uploaded"]["splits"] >= 4, fetched
    for task in ("prepare-records", "fine-tune", "reinforce", "evaluate-model-2", "gate-model", "write-train-report"):
        metrics = done[task]["executor_output"]["artifacts"]["metrics"]["artifacts"][0]["metadata"]
        assert metrics, f"{task} logged no metric"
    published = done["publish-model"]["parameters"]["uri"]
    _run(bench, last_step(given, published))
    name, version = published.rstrip("/").split("/")[-2:]
    assert bench.store("pipelines", "models").get(f"{name}/{version}/manifest.json"), published
    claim = bench.api.find(CLAIM, "made-by-a-step", TEAM)
    assert claim, "provide-claim made no claim"
    assert bench.store("pipelines").get(key_of(uri_of("prepare-records", "splits")) + "/sft.jsonl")
    stored = sum(sum(result["uploaded"].values()) for result in done.values())
    return {"pipeline_steps": {"run": list(done), "files_stored": stored, "published": published}}


def _picked(given: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: given[name] for name in names}


def first_steps() -> list[Step]:
    """The claim, and the form: preset and overrides filled in, the rest as it comes."""
    claim = {"claim": "made-by-a-step", "storage_class": "disk", "storage_size": "1Mi"}
    form = dict(TrainForm._field_defaults) | {"preset": "small", "overrides": TINY}
    return [Step("provide-claim", claim, {}), Step("configure", {"pipeline": "train", **form}, {})]


def data_steps(given: dict[str, Any]) -> list[Step]:
    """From the plan of the nodes to the base model."""
    splits, traces = uri_of("prepare-records", "splits"), uri_of("merge-traces", "traces")
    shard = uri_of("synthesize-shard", "traces")
    common, state = _picked(given, "code_version"), _picked(given, "code_version", "state_dir")
    place = {name: _default(name) for name in ("accelerator", "claim", "endpoint_secret", "node_selector")}
    nodes = {"nodes": 1, "deadline_hours": 1.0, "deploy": "none", "tolerations": [], "accelerators": "0", **place}
    nodes |= {name: RUN_PARAMETERS[name] for name in ("image", "cpu", "memory")}
    records = {"config": given["records"], **_picked(given, "sources_sha256", "simulator"), **common}
    synthesis = {"config": given["synthesis"], **state}
    return [
        Step("plan-nodes", nodes, {}),
        Step("prepare-records", records, {}),
        Step("synthesize-shard", synthesis | {"shard": "0/1", **_picked(given, "simulator")}, {"splits": splits}),
        Step("merge-traces", synthesis | _picked(given, "datasets_dir"), {"splits": splits, "shards": shard}),
        Step("base-model", {"config": given["base_model"], **state}, {"splits": splits, "traces": traces}),
    ]


def model_steps(given: dict[str, Any], folder: str) -> list[Step]:
    """From the base model in `folder` to the published one."""
    splits, traces = uri_of("prepare-records", "splits"), uri_of("merge-traces", "traces")
    sft, ppo = uri_of("fine-tune", "model"), uri_of("reinforce", "model")
    judged = {"sft": uri_of("evaluate-model", "predictions"), "ppo": uri_of("evaluate-model-2", "predictions")}
    decision, report = uri_of("gate-model", "decision"), uri_of("write-train-report", "report")
    state = _picked(given, "code_version", "state_dir")
    called = state | _picked(given, "simulator")
    evaluation = {"config": given["evaluation"], **called}
    gate = {"config": given["gate"], "evaluation": given["evaluation"], "base_model_folder": folder, **called}
    publish = {"name": "tiny", "models_uri": "", **_picked(given, "settings")}
    publish |= _picked(given, "code_version", "sources_sha256")
    seen = {"splits": splits, "traces": traces}
    return [
        Step(
            "fine-tune", {"config": given["sft"], "base_model_folder": folder, "job": "", **state}, {"traces": traces}
        ),
        Step("reinforce", {"config": given["ppo"], "job": "", **called}, {"splits": splits, "sft_model": sft}),
        Step("evaluate-model", evaluation | {"name": "sft"}, {"splits": splits, "model": sft}),
        Step("evaluate-model-2", evaluation | {"name": "ppo"}, {"splits": splits, "model": ppo}),
        Step("gate-model", gate, {"splits": splits, "model": ppo, "predictions": judged["ppo"]}),
        Step(
            "write-train-report",
            {"config": given["report"], **_picked(given, "code_version")},
            seen
            | {"sft_model": sft, "ppo_model": ppo, "decision": decision}
            | {f"{name}_predictions": uri for name, uri in judged.items()},
        ),
        Step(
            "publish-model",
            publish,
            seen | {"model": ppo, "predictions": judged["ppo"], "decision": decision, "report": report},
        ),
    ]


def last_step(given: dict[str, Any], uri: str) -> Step:
    """The published model stays where it is: a rollout has stages of its own."""
    told = {"uri": uri, "mode": "none", **_picked(given, "code_version")}
    return Step("deploy-published", told, {name: uri_of(task, name) for task, name in _JUDGED})


def _default(name: str) -> Any:
    from pipelines.placement import Placement

    return Placement._field_defaults[name]


def _prepare(bench: Bench) -> None:
    """The launcher's program, a claim with records on it, and a teacher."""
    state = bench.folder / "state" / "cases.jsonl"
    write_jsonl(state, sample_records(CASES, seed=1))
    state.chmod(0o644)
    program = Path(__file__).with_name("launcher.py").read_text(encoding="utf-8")
    claim = {
        "metadata": {"name": "clinical-r1-state", "namespace": TEAM},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    labels = {"app": TEACHER}
    keys = {"metadata": {"name": _default("endpoint_secret"), "namespace": TEAM}, "stringData": KEYS}
    bench.api.apply(
        SECRET | keys,
        CONFIG_MAP | {"metadata": {"name": LAUNCHER, "namespace": TEAM}, "data": {"launcher.py": program}},
        CLAIM | claim,
        _teacher(labels),
        SERVICE
        | {"metadata": {"name": TEACHER, "namespace": TEAM}, "spec": {"selector": labels, "ports": [{"port": 8080}]}},
    )
    poll("the teacher answers", lambda: has(bench.api.find(POD, TEACHER, TEAM) or {}, "Ready"), 120, 0.5)


def _teacher(labels: dict[str, str]) -> Document:
    container = {
        "name": TEACHER,
        "image": TRAINER,
        "command": ["python3", "-m", "clinical_r1.simulator.server", "--host", "0.0.0.0", "--port", "8080"],
        "readinessProbe": {"httpGet": {"path": "/v1/models", "port": 8080}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": RESTRICTED,
    }
    return POD | {
        "metadata": {"name": TEACHER, "namespace": TEAM, "labels": labels},
        "spec": {
            "serviceAccountName": STEPS_ACCOUNT,
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
        },
    }


def _run(bench: Bench, step: Step) -> dict[str, Any]:
    """Run one step to its end; what its launcher printed last."""
    pod = pod_of(bench, step)
    name = pod["metadata"]["name"]
    bench.api.apply(pod)

    def phase() -> str:
        return str((bench.api.find(POD, name, TEAM) or {}).get("status", {}).get("phase"))

    poll(f"{step.task} ends", lambda: phase() in ("Succeeded", "Failed"), 300, 0.5)
    log = client.CoreV1Api(bench.api.http).read_namespaced_pod_log(name, TEAM, container="main")
    assert phase() == "Succeeded", f"{step.task} failed:\n{log[-3000:]}"
    found: dict[str, Any] = json.loads(log.strip().splitlines()[-1])
    return found
