"""The training steps with a TrainJob: the real API server, a real MinIO, two pods as processes. Trainer's part (making
the pods, telling how they ended) is played here: it starts the command of the TrainJob on two "nodes"."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ground import Ground
from kfp import dsl

from clinical_r1.cluster.api import TRAINJOB
from clinical_r1.errors import UserError
from clinical_r1.folders import check_model_folder
from clinical_r1.objectstore.store import open_store
from clinical_r1.objectstore.transfer import describe_files, upload_files
from clinical_r1.schema import Case, Trace, TraceOutcome, write_jsonl
from clinical_r1.training.base import TinyModelConfig, make_base_model
from clinical_r1.training.nodes import fetch_input
from clinical_r1.training.ppo.config import PPOConfig
from clinical_r1.training.sft.config import SFTConfig
from components.configure import plan_nodes
from components.training import fine_tune, reinforce
from tests.objectstore.minio_server import MinioServer, minio_or_skip
from tests.ports import free_port

CONFIG = SFTConfig(max_steps=2, batch_size=4, eval_examples=0, checkpoint_steps=1, tensorboard=False)


@pytest.fixture(scope="module")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    with minio_or_skip(tmp_path_factory.mktemp("minio")) as server:
        server.make_bucket("clinical-r1")
        yield server


@pytest.fixture
def step(
    ground: Ground, minio: MinioServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, float]]:
    """Runs the SFT step (the PPO step with its settings) on two nodes, as KFP's launcher does; returns its metrics."""
    for name, value in minio.environment().items():
        monkeypatch.setenv(name, value)
    # The garbage collector of the real control plane deletes at once what belongs to a pod that is not there.
    container = {"name": "main", "image": "localhost/trainer:1"}
    body = {"metadata": {"name": "train-sft-1"}, "spec": {"containers": [container], "serviceAccountName": "steps"}}
    ground.cluster.core.create_namespaced_service_account(ground.cluster.namespace, {"metadata": {"name": "steps"}})
    pod = ground.cluster.core.create_namespaced_pod(ground.cluster.namespace, body)
    monkeypatch.setenv("KFP_POD_NAME", "train-sft-1")
    monkeypatch.setenv("KFP_POD_UID", pod.metadata.uid)
    monkeypatch.setattr("kfp.dsl.types.artifact_types._MINIO_LOCAL_MOUNT_PREFIX", f"{tmp_path}/minio/")
    monkeypatch.setattr("clinical_r1.cluster.nodes.Cluster", lambda: ground.cluster)
    rows = [
        Trace(
            case_id=f"case-{index}",
            language="en",
            question=f"Case {index}: fever. What is the diagnosis?",
            reference="Flu",
            thinking="Fever suggests flu.",
            response="The most likely diagnosis is Flu.",
            outcome=TraceOutcome.DIRECT,
        )
        for index in range(16)
    ]
    write_jsonl(tmp_path / "in" / "traces.jsonl", rows)
    make_base_model(
        TinyModelConfig(hidden_size=32, layers=2, vocab_size=300, window=160),
        [tmp_path / "in" / "traces.jsonl"],
        tmp_path / "base",
    )
    cases = [
        Case(id=str(index), language="en", question="A patient has fever. What is the diagnosis?", reference="Flu")
        for index in range(8)
    ]
    for split in ("rl", "validation"):
        write_jsonl(tmp_path / "in" / f"{split}.jsonl", cases)
    store = open_store("s3://clinical-r1", minio.settings())
    upload_files(store, "data", describe_files(tmp_path / "in"))
    upload_files(store, "sft/model", describe_files(tmp_path / "base"))
    job = plan_nodes.python_func(
        nodes=2, image="localhost/trainer:1", accelerator="nvidia.com/gpu", accelerators="0", cpu="1", memory="2Gi",
        claim="clinical-r1-state", endpoint_secret="endpoints", node_selector={}, tolerations=[], deadline_hours=1.0,
    )[0]  # fmt: skip

    def run(name: str, ppo: PPOConfig | None = None) -> dict[str, float]:
        metrics = dsl.Metrics(uri=str(tmp_path / f"{name}.metrics"))
        data = dsl.Dataset(uri="minio://clinical-r1/data")
        given = {"state_dir": str(tmp_path / "state"), "code_version": "1", "metrics": metrics, "job": job}
        given["model"] = dsl.Model(uri=f"minio://clinical-r1/pipelines/{name}/model")
        if ppo is None:
            config, base = CONFIG.model_dump_json(), str(tmp_path / "base")
            fine_tune.python_func(config=config, traces=data, base_model_folder=base, **given)
        else:
            start = dsl.Model(uri="minio://clinical-r1/sft")
            reinforce.python_func(config=ppo.model_dump_json(), splits=data, sft_model=start, **given)
        return dict(metrics.metadata)

    return run


class Trainer(threading.Thread):
    """Kubeflow Trainer for one job: its command on every node, then the condition that its end deserves."""

    def __init__(self, ground: Ground, folder: Path) -> None:
        super().__init__(daemon=True)
        self._ground, self._folder = ground, folder
        self.job: dict[str, Any] = {}
        self.start()

    def run(self) -> None:
        job = self._wait_for_job()
        name, trainer = job["metadata"]["name"], job["spec"]["trainer"]
        port, pods = free_port(), []
        for rank in range(trainer["numNodes"]):
            home = self._folder / f"{name}-{rank}"
            home.mkdir(parents=True, exist_ok=True)
            given = {
                "PET_NNODES": str(trainer["numNodes"]),
                "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
                "PET_NODE_RANK": str(rank),
                "PET_MASTER_ADDR": "127.0.0.1",
                "PET_MASTER_PORT": str(port),
                "HOME": str(home),
                "OMP_NUM_THREADS": "1",
            }
            command = [sys.executable, *trainer["command"][1:]]
            with open(home / "log", "wb") as log:
                pods.append(subprocess.Popen(command, env={**os.environ, **given}, stdout=log, stderr=log))
        codes = [pod.wait(300) for pod in pods]
        condition = {"type": "Failed" if any(codes) else "Complete", "status": "True", "reason": "Test"}
        condition |= {"message": f"exit codes {codes}", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        self._ground.set_status(TRAINJOB, name, {"conditions": [condition]})

    def _wait_for_job(self) -> dict[str, Any]:
        custom, place = self._ground.cluster._custom, self._ground.cluster.namespace
        while True:
            found = custom.list_namespaced_custom_object(TRAINJOB.group, TRAINJOB.version, place, TRAINJOB.plural)
            fresh = [job for job in found["items"] if not job.get("status", {}).get("conditions")]
            if fresh:
                self.job = fresh[0]
                return self.job
            time.sleep(0.3)


def test_one_node_asks_for_its_accelerators_and_many_for_none() -> None:
    given = {"image": "i", "accelerator": "nvidia.com/gpu", "accelerators": "8", "cpu": "16", "memory": "64Gi"}
    given |= {
        "claim": "c",
        "endpoint_secret": "e",
        "node_selector": {"gpu": "h100"},
        "tolerations": [],
    }
    assert plan_nodes.python_func(nodes=1, deadline_hours=1.0, **given) == ("", "8", "16", "64Gi")
    job, *asked = plan_nodes.python_func(nodes=4, deadline_hours=1.0, **given)
    assert asked == ["0", "1", "4Gi"]
    assert json.loads(job)["accelerators"] == 8 and json.loads(job)["node_selector"] == {"gpu": "h100"}


def test_two_nodes_train_and_the_first_sends_the_model(
    ground: Ground, minio: MinioServer, step: Callable[..., dict[str, float]], tmp_path: Path
) -> None:
    trainer = Trainer(ground, tmp_path / "nodes")
    metrics = step("run-1")
    trainer.join(60)
    assert metrics["processes"] == 2 and metrics["steps"] == 2
    owner = trainer.job["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"]) == ("Pod", "train-sft-1")
    store = open_store("s3://clinical-r1/pipelines/run-1", minio.settings())
    keys = {entry.key for entry in store.list("model/")}
    assert {"model/config.json", "model/metrics.jsonl", "model/model/config.json", "model/curves.svg"} <= keys
    check_model_folder(fetch_input("minio://clinical-r1/pipelines/run-1/model/model", tmp_path / "back"))
    assert (tmp_path / "minio/clinical-r1/pipelines/run-1/model/step.json").is_file()
    assert step("run-1") == metrics  # a retry of the step: the job is taken as done
    ground.cluster.core.delete_namespaced_pod("train-sft-1", ground.cluster.namespace, grace_period_seconds=0)
    deadline = time.monotonic() + 300
    while ground.cluster.get(TRAINJOB, trainer.job["metadata"]["name"]) is not None:
        assert time.monotonic() < deadline, "the job outlives the pod of its step"
        time.sleep(0.5)


def test_ppo_on_two_nodes(
    ground: Ground, minio: MinioServer, step: Callable[..., dict[str, float]], tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "steps": 1, "batch_size": 4, "micro_batch_size": 1, "minibatches": 1, "epochs": 1, "warmup_steps": 0,
        "rollout": {"max_new_tokens": 24}, "critic": {"warmup_batches": 0}, "probe": {"every": 1, "cases": 4},
        "keep": "last", "deepspeed": {"stage": 1},
    }  # fmt: skip
    trainer = Trainer(ground, tmp_path / "nodes")
    metrics = step("run-3", PPOConfig.model_validate(settings))
    trainer.join(60)
    assert metrics["steps"] == 1
    check_model_folder(fetch_input("minio://clinical-r1/pipelines/run-3/model/model", tmp_path / "back"))


def test_a_job_that_fails_says_so(ground: Ground, step: Callable[..., dict[str, float]], tmp_path: Path) -> None:
    (tmp_path / "base" / "config.json").unlink()
    trainer = Trainer(ground, tmp_path / "nodes")
    with pytest.raises(UserError, match=r"trainjob sft-\w+ failed: Test: exit codes \[2, 2\]"):
        step("run-2")
    trainer.join(60)
    log = next((tmp_path / "nodes").glob("*-0/log")).read_text()
    assert "Error: " in log and "config.json" in log and "Traceback" not in log
