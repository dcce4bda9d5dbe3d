"""The audit of served answers: samples that the gateway stored -> judged out of band -> a report with intervals.

One step, never taken from the cache: its input is what the store holds now. On a cluster it is a recurring run.
"""

from typing import NamedTuple

from kfp import dsl

from components.evaluation import audit_answers
from pipelines.placement import Placement, both_forms


class Outputs(NamedTuple):
    """What the pipeline hands out."""

    report: dsl.Dataset


def _audit(place: Placement, config: str, state_dir: str, code_version: str) -> Outputs:
    """`config` is the JSON of clinical_r1.evaluation.judging.online.OnlineAuditConfig."""
    task = audit_answers(config=config, state_dir=state_dir, code_version=code_version)
    place.calls(place.step(task, "Judge sampled answers")).set_caching_options(False)
    return Outputs(task.outputs["report"])


_OF_TRAINING = ("accelerator", "accelerators", "cpu", "memory", "node_selector", "tolerations")
FORMS = both_forms(
    _audit,
    "audit",
    "Judges sampled served answers: accuracy and ungrounded thinking.",
    unused=(*_OF_TRAINING, "patient_secret", "client_key_secret"),
)
"""What `clinical-r1 run` executes, and what `compile` and `submit` hand to Kubeflow."""
