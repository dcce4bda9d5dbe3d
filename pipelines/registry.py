"""The pipelines by name. A new pipeline is one file and one line here."""

from importlib import import_module
from typing import Any

from clinical_r1.errors import UserError

PIPELINES = {
    "train": "pipelines.train:train",
    "audit": "pipelines.audit:audit",
    "ablate-rl": "pipelines.experiments.ablate_rl:ablate_rl",
    "ablate-rewards": "pipelines.experiments.ablate_rewards:ablate_rewards",
    "compare-synthesizers": "pipelines.experiments.compare_synthesizers:compare_synthesizers",
    "cross-language": "pipelines.experiments.cross_language:cross_language",
    "held-out-site": "pipelines.experiments.held_out_site:held_out_site",
    "audit-verifier": "pipelines.experiments.audit_verifier:audit_verifier",
}


def load_pipeline(name: str) -> Any:
    """The KFP pipeline function of that name; UserError lists the known ones."""
    return getattr(*_place(name))


def cluster_form(name: str) -> Any:
    """What is compiled and submitted: the same steps with retries and a failure report. UserError as above."""
    return _place(name)[0].on_cluster


def _place(name: str) -> tuple[Any, str]:
    if name not in PIPELINES:
        raise UserError(f"unknown pipeline '{name}': choose one of {', '.join(sorted(PIPELINES))}")
    module, _, attribute = PIPELINES[name].partition(":")
    return import_module(module), attribute
