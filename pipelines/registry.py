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
    if name not in PIPELINES:
        raise UserError(f"unknown pipeline '{name}': choose one of {', '.join(sorted(PIPELINES))}")
    module, _, attribute = PIPELINES[name].partition(":")
    return getattr(import_module(module), attribute)


def cluster_form(name: str) -> Any:
    """What is compiled and submitted: the module's `on_cluster` where it has one, else the pipeline itself."""
    function = load_pipeline(name)
    return getattr(import_module(PIPELINES[name].partition(":")[0]), "on_cluster", function)
