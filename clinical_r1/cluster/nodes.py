"""From a training step of a pipeline to its TrainJob: what the run's parameters and the step's pod say about it."""

import os
from typing import Any

from pydantic import Field

from clinical_r1.cluster.api import Cluster
from clinical_r1.cluster.trainjob import TrainJobSpec, job_name, run_train_job
from clinical_r1.strict import Strict

ENDPOINT_KEYS = (
    "OPENAI_API_KEY",
    "DEEPSEEK_API_KEY",
    "SYNTHESIZER_API_KEY",
    "JUDGE_API_KEY",
)
"""What the Secret of the endpoints may hold; each is a variable of the steps that call endpoints."""
PATIENT_KEY = "CLINICAL_R1_PATIENT_KEY"
"""The key that hashes patients: its variable, and its key in the Secret."""


class Nodes(Strict):
    """The run parameters that matter to a job on many nodes, as JSON in one argument of the training steps."""

    nodes: int = Field(ge=2)
    """Pods."""
    image: str
    """Trainer image."""
    accelerator: str
    """Resource name of the accelerator."""
    accelerators: int = Field(ge=0)
    """Of each node."""
    cpu: str
    """Request of each node."""
    memory: str
    """Request and limit of each node."""
    claim: str
    """ReadWriteMany: checkpoints."""
    endpoint_secret: str
    """Keys of the judges' endpoints."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of the nodes to run on."""
    tolerations: list[dict[str, Any]] = Field(default_factory=list)
    """Taints to accept."""
    deadline_hours: float = Field(gt=0)
    """The job is stopped after so long."""


def run_on_nodes(step: str, given: str, command: list[str], processes: int, uri: str) -> None:
    """Run `command` in the pods of a TrainJob and wait for its end.

    `given` is the JSON of `Nodes`. The job's name depends on `uri`, that of the step's output, which a retry of the
    step shares and another run does not. The job belongs to the step's pod, whose name and uid KFP puts into
    KFP_POD_NAME and KFP_POD_UID. Raises UserError as `run_train_job` does.
    """
    nodes = Nodes.model_validate_json(given)
    pod = {"name": os.environ.get("KFP_POD_NAME", ""), "uid": os.environ.get("KFP_POD_UID", "")}
    spec = TrainJobSpec(
        name=job_name(step, uri),
        runtime=os.environ.get("CLINICAL_R1_TRAINING_RUNTIME") or "clinical-r1",
        queue=os.environ.get("CLINICAL_R1_TRAINING_QUEUE", ""),
        command=command,
        processes=processes,
        secret_environment={key: f"{nodes.endpoint_secret}/{key}" for key in ENDPOINT_KEYS},
        deadline_seconds=max(60, round(nodes.deadline_hours * 3600)),
        owner=pod if all(pod.values()) else {},
        **nodes.model_dump(exclude={"endpoint_secret", "deadline_hours"}),
    )
    run_train_job(Cluster(), spec, print)
