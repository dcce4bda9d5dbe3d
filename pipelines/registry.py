"""The pipelines by name. A new pipeline is one file and one word here."""

from graphlib import TopologicalSorter
from importlib import import_module
from typing import Any

from clinical_r1.errors import UserError, near_miss
from clinical_r1.runs.config import CONFIGS

PIPELINES = ("train", "audit", "experiments")
EXPERIMENTS = "experiments"


def pipeline_of(name: str) -> str:
    """The pipeline that runs what a command names: an experiment is named in the pipeline's place."""
    return EXPERIMENTS if name in CONFIGS else name


def load_pipeline(name: str) -> Any:
    """The KFP pipeline function of that name; UserError lists the known ones."""
    return _forms(name)[0]


def cluster_form(name: str) -> Any:
    """What is compiled and submitted: the same steps behind a form, with retries. UserError as above."""
    return _forms(name)[1]


def _forms(name: str) -> tuple[Any, Any]:
    if name not in PIPELINES:
        known = [*PIPELINES, *CONFIGS]
        raise UserError(f"unknown pipeline '{name}': {near_miss(name, known) or 'choose one of ' + ', '.join(known)}")
    return import_module(f"pipelines.{name}").FORMS


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
