"""The pipelines by name. A new pipeline is one file and one line here."""

from graphlib import TopologicalSorter
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
    """What is compiled and submitted: the same steps behind a form, with retries. UserError as above."""
    return _place(name)[0].on_cluster


def _place(name: str) -> tuple[Any, str]:
    if name not in PIPELINES:
        raise UserError(f"unknown pipeline '{name}': choose one of {', '.join(sorted(PIPELINES))}")
    module, _, attribute = PIPELINES[name].partition(":")
    return import_module(module), attribute


def titles_of(name: str) -> dict[str, str]:
    """Task -> what a person reads, from the pipeline that runs on one machine, in the order in which steps can run."""
    spec = load_pipeline(name).pipeline_spec
    titles: dict[str, str] = {}

    def walk(dag: Any) -> None:
        needs = {task: set(content.dependent_tasks) for task, content in sorted(dag.tasks.items())}
        for task in TopologicalSorter(needs).static_order():
            inner = spec.components[dag.tasks[task].component_ref.name]
            if inner.HasField("dag"):
                walk(inner.dag)
            else:
                titles[task] = dag.tasks[task].task_info.name

    walk(spec.root.dag)
    return titles
