"""The audit of served answers: samples that the gateway stored -> judged out of band -> a report with intervals.

One step, never taken from the cache: its input is what the store holds now. On a cluster it is a recurring run.
"""

from typing import NamedTuple

from kfp import dsl

from components.audit_served import audit_answers


class Outputs(NamedTuple):
    """What the pipeline hands out."""

    report: dsl.Dataset


@dsl.pipeline(name="audit", description="Judges sampled served answers: accuracy and ungrounded thinking.")
def audit(config: str, state_dir: str, code_version: str, image: str = "clinical-r1-trainer-python") -> Outputs:
    """`config` is the JSON of clinical_r1.evaluation.online.OnlineAuditConfig."""
    task = audit_answers(config=config, state_dir=state_dir, code_version=code_version)
    task.set_container_image(image).set_display_name("audit").set_caching_options(False)
    return Outputs(task.outputs["report"])
