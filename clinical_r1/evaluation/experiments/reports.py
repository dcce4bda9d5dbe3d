"""The report of each experiment: predictions and traces in, one answer with its interval out."""

from collections.abc import Callable

from clinical_r1.evaluation.experiments import (
    audit_verifier,
    compare_synthesizers,
    cross_language,
    held_out_site,
    reinforcement,
)
from clinical_r1.evaluation.experiments.arms import ArmsReport
from clinical_r1.evaluation.experiments.finding import Finding

REPORTS: dict[str, tuple[type[ArmsReport], Callable[..., Finding]]] = {
    "ablate-rl": (ArmsReport, reinforcement.ablate_rl),
    "ablate-rewards": (ArmsReport, reinforcement.ablate_rewards),
    "compare-algorithms": (ArmsReport, reinforcement.compare_algorithms),
    "compare-synthesizers": (ArmsReport, compare_synthesizers.report),
    "cross-language": (ArmsReport, cross_language.report),
    "held-out-site": (held_out_site.Settings, held_out_site.report),
    "audit-verifier": (audit_verifier.Settings, audit_verifier.report),
}
"""Experiment -> what its report is told, and the report: a function of settings, evidence and the output folder."""
