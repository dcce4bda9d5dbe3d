"""Training on many nodes: a TrainJob of Kubeflow Trainer 2.3 that a retried step finds again instead of starting anew.

The name is derived from what is trained (`job_name`), so that the step's retry meets the job of its first attempt; the
job belongs to the step's pod (ownerReference), is deleted when the step is told to stop, and has one deadline over all.
Checkpoints lie on the shared volume, so that a job that is made again goes on from them.
"""

import hashlib
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import Field

from clinical_r1.cluster.api import TRAINJOB, Cluster, Object, Refused
from clinical_r1.errors import UserError
from clinical_r1.strict import Strict

SPEC_HASH = "clinical-r1/spec-sha256"
_POLL_SECONDS = 5.0
_GONE_SECONDS = 120.0


class TrainJobSpec(Strict):
    """One training job; every field is a run parameter of the pipeline or derived from one."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,50}$")
    """See `job_name`."""
    runtime: str = "clinical-r1"
    """TrainingRuntime of the chart."""
    image: str
    """Trainer image."""
    command: list[str]
    """What each node runs; the training's launcher reads Trainer's PET_* variables."""
    nodes: int = Field(default=1, ge=1)
    """Pods."""
    processes: int = Field(default=1, ge=1)
    """Processes on each node, one for each accelerator."""
    accelerator: str = "nvidia.com/gpu"
    """Resource name of the accelerator."""
    accelerators: int = Field(default=0, ge=0)
    """Accelerators of each node."""
    cpu: str = ""
    """CPU request of each node, such as "8"."""
    memory: str = ""
    """Memory request and limit of each node, such as 64Gi."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Variables of the training processes."""
    secret_environment: dict[str, str] = Field(default_factory=dict)
    """Variables from Secrets, as VARIABLE: SECRET/KEY (endpoint keys of judges); one that is not there is not set."""
    claim: str = ""
    """PersistentVolumeClaim with data, checkpoints and the result; ReadWriteMany for more than one node."""
    mount_path: str = "/state"
    """Where the claim is mounted."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of the nodes to run on."""
    tolerations: list[dict[str, Any]] = Field(default_factory=list)
    """Taints to accept."""
    queue: str = ""
    """Kueue LocalQueue."""
    deadline_seconds: int = Field(default=7 * 86_400, ge=60)
    """The job is stopped after so long, its waiting in a queue not counted by Kubernetes, but by us."""
    owner: dict[str, str] = Field(default_factory=dict)
    """{"name", "uid"} of the step's pod: when that is deleted, so is the job."""


def job_name(step: str, *parts: object) -> str:
    """`step` and 10 hex digits that depend on `parts` (run, configuration, code version) and on nothing else."""
    digest = hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()
    return f"{step}-{digest[:10]}"


def train_job(spec: TrainJobSpec) -> Object:
    """The TrainJob resource."""
    resources: Object = {"requests": {}, "limits": {}}
    if spec.cpu:
        resources["requests"]["cpu"] = spec.cpu
    if spec.memory:
        resources["requests"]["memory"] = resources["limits"]["memory"] = spec.memory
    if spec.accelerators:
        resources["limits"][spec.accelerator] = resources["requests"][spec.accelerator] = str(spec.accelerators)
    trainer: Object = {
        "image": spec.image,
        "command": spec.command,
        "numNodes": spec.nodes,
        "numProcPerNode": spec.processes,
        "resourcesPerNode": {name: values for name, values in resources.items() if values},
        "env": [{"name": name, "value": value} for name, value in sorted(spec.environment.items())]
        + [_from_secret(name, place) for name, place in sorted(spec.secret_environment.items())],
    }
    body: Object = {
        "runtimeRef": {"apiGroup": TRAINJOB.group, "kind": "TrainingRuntime", "name": spec.runtime},
        "trainer": {name: value for name, value in trainer.items() if value},
        "activeDeadlineSeconds": spec.deadline_seconds,
    }
    if patch := _patch(spec):
        body["runtimePatches"] = [patch]
    labels = {"app.kubernetes.io/part-of": "clinical-r1"}
    if spec.queue:
        labels["kueue.x-k8s.io/queue-name"] = spec.queue
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    metadata: Object = {"name": spec.name, "labels": labels, "annotations": {SPEC_HASH: digest}}
    if spec.owner:
        metadata["ownerReferences"] = [{"apiVersion": "v1", "kind": "Pod", **spec.owner}]
    return {
        "apiVersion": f"{TRAINJOB.group}/{TRAINJOB.version}",
        "kind": "TrainJob",
        "metadata": metadata,
        "spec": body,
    }


def _from_secret(name: str, place: str) -> Object:
    secret, _, key = place.partition("/")
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key, "optional": True}}}


def _patch(spec: TrainJobSpec) -> Object | None:
    """What the runtime does not know: the volume, and where to run; None where there is nothing to say."""
    pod: Object = {}
    container: Object = {"name": "node"}
    if spec.claim:
        pod["volumes"] = [{"name": "state", "persistentVolumeClaim": {"claimName": spec.claim}}]
        container["volumeMounts"] = [{"name": "state", "mountPath": spec.mount_path}]
    if spec.node_selector:
        pod["nodeSelector"] = spec.node_selector
    if spec.tolerations:
        pod["tolerations"] = spec.tolerations
    if len(container) > 1:
        pod["containers"] = [container]
    if not pod:
        return None
    job = {"name": "node", "template": {"spec": {"template": {"spec": pod}}}}
    return {"manager": "clinical-r1/step", "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [job]}}}}


def run_train_job(
    cluster: Cluster, spec: TrainJobSpec, say: Callable[[str], None] = print, poll: float = _POLL_SECONDS
) -> None:
    """Run to the end: submit or re-attach, stream the first node's log, delete when told to stop.

    A finished job of the same name and content is taken as done; a failed one, or one of other content, is replaced.
    Raises UserError when the job fails, with its reason, or when the deadline passes.
    """
    body = train_job(spec)
    if _submit(cluster, body, say) == "done":
        return
    deadline = time.monotonic() + spec.deadline_seconds
    try:
        with _stopping():
            _follow(cluster, spec, deadline, say, poll)
    except (KeyboardInterrupt, SystemExit):
        say(f"trainjob {spec.name}: told to stop: deleting it; checkpoints stay")
        cluster.delete(TRAINJOB, spec.name)
        raise


def _submit(cluster: Cluster, body: Object, say: Callable[[str], None]) -> str:
    """Returns "done" where a job of this name and content has finished well, else "running"."""
    name, digest = body["metadata"]["name"], body["metadata"]["annotations"][SPEC_HASH]
    there = cluster.get(TRAINJOB, name)
    if there is not None:
        same = there["metadata"].get("annotations", {}).get(SPEC_HASH) == digest
        state, _ = state_of(there)
        if same and state == "complete":
            say(f"trainjob {name}: finished before, taken as done")
            return "done"
        if same and state != "failed" and "deletionTimestamp" not in there["metadata"]:
            say(f"trainjob {name}: found from an earlier attempt, attached to it")
            return "running"
        say(f"trainjob {name}: {'failed before' if same else 'is another job'}, replaced")
        cluster.delete(TRAINJOB, name)
        _wait_until_gone(cluster, name)
    try:
        cluster.create(TRAINJOB, body)
        say(f"trainjob {name}: submitted")
    except Refused as error:
        if error.status != 409:
            raise
        say(f"trainjob {name}: another attempt was faster, attached to it")
    return "running"


def _wait_until_gone(cluster: Cluster, name: str) -> None:
    deadline = time.monotonic() + _GONE_SECONDS
    while cluster.get(TRAINJOB, name) is not None:
        if time.monotonic() > deadline:
            raise UserError(
                f"trainjob {name}: is being deleted and does not go: see `kubectl describe trainjob {name}`"
            )
        time.sleep(1)


def state_of(job: Object) -> tuple[str, str]:
    """("complete" | "failed" | "suspended" | "running", reason) from its conditions."""
    for condition in job.get("status", {}).get("conditions", []):
        if condition.get("status") != "True":
            continue
        words = f"{condition.get('reason', '')}: {condition.get('message', '')}".strip(": ")
        if condition["type"] in ("Complete", "Failed", "Suspended"):
            return condition["type"].lower(), words
    return "running", ""


def _follow(cluster: Cluster, spec: TrainJobSpec, deadline: float, say: Callable[[str], None], poll: float) -> None:
    shown, told = "", ""
    while True:
        job = cluster.get(TRAINJOB, spec.name)
        if job is None:
            raise UserError(f"trainjob {spec.name}: somebody deleted it; the same step goes on from its checkpoint")
        state, reason = state_of(job)
        if state == "complete":
            say(f"trainjob {spec.name}: complete")
            return
        if state == "failed":
            raise UserError(f"trainjob {spec.name} failed: {reason or _pod_reason(cluster, spec.name)}")
        if time.monotonic() > deadline:
            cluster.delete(TRAINJOB, spec.name)
            raise UserError(
                f"trainjob {spec.name}: not done after {spec.deadline_seconds} s: stopped; raise the deadline"
            )
        pod = _first_pod(cluster, spec.name)
        phase = pod.status.phase if pod is not None else f"waiting for a pod ({state})"
        if phase != told:
            say(f"trainjob {spec.name}: {phase.lower()}")
            told = phase
        if pod is not None and phase != "Pending" and pod.metadata.name != shown:
            shown = pod.metadata.name
            for line in cluster.log_lines(shown, "node"):
                say(line)
                if time.monotonic() > deadline:
                    break
        time.sleep(poll)


def _first_pod(cluster: Cluster, name: str) -> Any:
    """The newest pod of node 0: the one whose log tells of the progress."""
    selector = f"jobset.sigs.k8s.io/jobset-name={name},batch.kubernetes.io/job-completion-index=0"
    pods = cluster.pods(selector)
    return pods[-1] if pods else None


def _pod_reason(cluster: Cluster, name: str) -> str:
    """The termination message of the first node's container, which our launcher writes."""
    pod = _first_pod(cluster, name)
    for status in (pod.status.container_statuses or []) if pod is not None else []:
        ended = status.state.terminated or (status.last_state.terminated if status.last_state else None)
        if ended is not None:
            return ended.message or f"{ended.reason} (exit code {ended.exit_code})"
    return f"no reason given: see `kubectl describe trainjob {name}`"


@contextmanager
def _stopping() -> Iterator[None]:
    """SIGTERM (the pod of the step is deleted, or its run terminated) ends the block with SystemExit."""

    def stop(*_: object) -> None:
        raise SystemExit(143)

    try:
        previous = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: whoever has it decides
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
