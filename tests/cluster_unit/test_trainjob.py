"""TrainJobs on a real API server with Trainer's CRDs: submit, re-attach, fail, deadline, stop."""

from collections.abc import Callable

import pytest
from ground import Ground

from clinical_r1.cluster.api import TRAINJOB, Refused
from clinical_r1.cluster.trainjob import TrainJobSpec, job_name, run_train_job, state_of, train_job
from clinical_r1.errors import UserError


def spec(**changes: object) -> TrainJobSpec:
    given: dict[str, object] = {
        "name": job_name("sft", "run-1", "config", "code"),
        "image": "localhost/trainer:1",
        "command": ["python", "-m", "clinical_r1.training.launcher", "clinical_r1.training.sft.main"],
        "nodes": 2,
        "processes": 8,
        "accelerators": 8,
        "cpu": "16",
        "memory": "256Gi",
        "environment": {"A": "1"},
        "secret_environment": {"JUDGE_API_KEY": "endpoints/JUDGE_API_KEY"},
        "claim": "clinical-r1-state",
        "node_selector": {"gpu": "h100"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "queue": "team",
    }
    return TrainJobSpec.model_validate(given | changes)


def conditions(kind: str, message: str = "") -> dict[str, object]:
    return {
        "conditions": [
            {
                "type": kind,
                "status": "True",
                "reason": "Test",
                "message": message,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ]
    }


def at(word: str, said: list[str], work: Callable[[], object]) -> Callable[[str], None]:
    """A `say` that does the work once a line with this word is said."""

    def say(line: str) -> None:
        said.append(line)
        if word in line:
            work()

    return say


def test_names_depend_on_what_is_trained_only() -> None:
    assert job_name("sft", "run", 1) == job_name("sft", "run", 1) != job_name("sft", "run", 2)


def test_the_real_crd_takes_every_field(ground: Ground) -> None:
    made = ground.cluster.create(TRAINJOB, train_job(spec()))
    assert made["spec"]["trainer"]["numProcPerNode"] == 8 and made["spec"]["trainer"]["numNodes"] == 2
    patched = made["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]
    pod = patched["template"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"gpu": "h100"}
    assert pod["containers"][0]["volumeMounts"][0]["mountPath"] == "/state"
    with pytest.raises(Refused, match="already exists"):
        ground.cluster.create(TRAINJOB, train_job(spec()))


def test_a_bare_job_needs_no_patch() -> None:
    bare = TrainJobSpec(name="sft-1", image="i", command=["true"])
    assert "runtimePatches" not in train_job(bare)["spec"]


def test_a_retry_attaches_to_the_running_job_and_a_finished_one_is_done(ground: Ground) -> None:
    said: list[str] = []
    job = spec()
    ground.cluster.create(TRAINJOB, train_job(job))
    complete = at("attached to it", said, lambda: ground.set_status(TRAINJOB, job.name, conditions("Complete")))
    run_train_job(ground.cluster, job, complete, poll=0.2)
    assert any("attached to it" in line for line in said) and said[-1].endswith("complete")
    run_train_job(ground.cluster, job, said.append, poll=0.2)
    assert said[-1].endswith("taken as done")


def test_a_failed_job_is_named_and_replaced_by_the_next_attempt(ground: Ground) -> None:
    said: list[str] = []
    job = spec()
    failed = conditions("Failed", "out of GPU memory")
    fail = at("submitted", said, lambda: ground.set_status(TRAINJOB, job.name, failed))
    with pytest.raises(UserError, match="failed: Test: out of GPU memory"):
        run_train_job(ground.cluster, job, fail, poll=0.2)
    complete = at("submitted", said, lambda: ground.set_status(TRAINJOB, job.name, conditions("Complete")))
    run_train_job(ground.cluster, job, complete, poll=0.2)
    assert any("failed before, replaced" in line for line in said)


def test_another_job_of_the_same_name_is_replaced(ground: Ground) -> None:
    said: list[str] = []
    ground.cluster.create(TRAINJOB, train_job(spec(memory="64Gi")))
    job = spec()
    complete = at("submitted", said, lambda: ground.set_status(TRAINJOB, job.name, conditions("Complete")))
    run_train_job(ground.cluster, job, complete, poll=0.2)
    assert any("is another job, replaced" in line for line in said)


def test_stop_and_deadline_delete_the_job(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    job = spec()

    def interrupt(_: float) -> None:
        raise SystemExit(143)

    with monkeypatch.context() as patch:
        patch.setattr("clinical_r1.cluster.trainjob.time.sleep", interrupt)
        with pytest.raises(SystemExit):
            run_train_job(ground.cluster, job, lambda _: None, poll=0.2)
    assert ground.cluster.get(TRAINJOB, job.name) is None
    short = job.model_copy(update={"deadline_seconds": 1})
    with pytest.raises(UserError, match="not done after 1 s: stopped"):
        run_train_job(ground.cluster, short, lambda _: None, poll=0.2)
    assert ground.cluster.get(TRAINJOB, job.name) is None


def test_somebody_deletes_it(ground: Ground) -> None:
    job = spec()
    delete = at("submitted", [], lambda: ground.cluster.delete(TRAINJOB, job.name))
    with pytest.raises(UserError, match="somebody deleted it"):
        run_train_job(ground.cluster, job, delete, poll=0.2)


@pytest.mark.parametrize(
    ("kind", "state"), [("Complete", "complete"), ("Failed", "failed"), ("Suspended", "suspended")]
)
def test_states(kind: str, state: str) -> None:
    assert state_of({"status": conditions(kind)})[0] == state
    assert state_of({})[0] == "running"
