"""What the evaluation commands do: find model, benchmarks and settings, run the library, say what came out."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from rich.console import Console

from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError
from clinical_r1.evaluation.benchmarks import CASES, CLOSED, OPEN, RUBRIC, find
from clinical_r1.evaluation.config import EvaluationConfig, baselines
from clinical_r1.evaluation.inputs import BENCHMARK, PREDICTIONS, read_evaluated, sample_of
from clinical_r1.evaluation.measure.compare import PairedResult, compare, rubric_difference
from clinical_r1.evaluation.measure.metrics import Metrics, measure
from clinical_r1.evaluation.measure.resampling import MeanDifference
from clinical_r1.evaluation.pages.report import COMPARISON, EVALUATION_PAGE, write_comparison
from clinical_r1.evaluation.promotion.policy import DEFAULT_POLICY
from clinical_r1.evaluation.promotion.run import bias_between
from clinical_r1.evaluation.run import evaluate_cases
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.page import p_value, percent, points, render, sentence
from clinical_r1.records.readers.registry import FORMS
from clinical_r1.schema import first_problem, read_json
from clinical_r1.settings import Catalogue, Shelf, load

ModelT = TypeVar("ModelT", bound=BaseModel)
SHIPPED = Catalogue(files=Shelf(DEFAULT_POLICY.parent.parent / "configs"))
"""Configurations that `--config NAME` finds."""


def read_settings(kind: type[ModelT], path: Path | None, overrides: Sequence[str] = ()) -> ModelT:
    """Settings from a YAML file (or the defaults) and KEY=VALUE overrides; UserError names place and key."""
    return load(kind, path, overrides, SHIPPED)


def model_of(model: str, endpoint: dict[str, object]) -> Path | EndpointConfig:
    """A model folder, an endpoint's URL (with its `model` id and more in `endpoint`), or a YAML file of an endpoint."""
    if model.startswith(("http://", "https://")):
        if not endpoint.get("model"):
            raise UserError(f"{model}: which model of this endpoint? give --model ID, such as --model gpt-4o")
        try:
            return EndpointConfig(name=str(endpoint["model"]), base_url=model, **endpoint)  # type: ignore[arg-type]
        except ValidationError as error:
            raise UserError(f"{model}: {first_problem(error)}") from None
    path = Path(model)
    if path.suffix in (".yaml", ".yml"):
        return read_settings(EndpointConfig, path)
    if not path.exists():
        raise UserError(f"{model}: no such model folder; give a folder, an endpoint's URL, or a YAML file of one")
    return path


def listing() -> str:
    """The baselines and the benchmarks that `evaluate` knows by name, for people."""
    decoding = {name: EvaluationConfig.model_validate({"baseline": name}).decoding.told() for name in baselines()}
    return render(
        "listing.txt.j2",
        baselines=[(name, one, decoding[name]) for name, one in baselines().items()],
        forms=[(name.replace("jsonl", CASES), form) for name, form in sorted(FORMS.items())],
        right={"open": OPEN, "closed": CLOSED, "rubric": RUBRIC},
    ).rstrip()


def run_evaluation(
    model: Path | EndpointConfig,
    benchmarks: Sequence[str],
    data: Path,
    config: EvaluationConfig,
    out: Path,
    limit: int = 0,
    columns: dict[str, str] | None = None,
) -> list[Path]:
    """Evaluate one model on every benchmark, one folder each; returns the folders. Goes on where it was stopped."""
    sets = [case_set for wanted in benchmarks for case_set in find(wanted, data, columns)]
    name = config.model_name or config.baseline or _name_of(model)
    safe = re.sub(r"[^\w.-]", "-", name)
    folders = []
    for number, case_set in enumerate(sets, 1):
        cases, notes = case_set.load()
        cases = sample_of(cases, limit, config.seed)
        folder = out / safe / case_set.name
        _print(f"[{number}/{len(sets)}] {name} on {case_set.name}: {len(cases)} cases")
        own = config.model_copy(update={"model_name": name, "benchmark": case_set.name, "ranked": case_set.ranked})
        told = evaluate_cases(own, model, cases, case_set.path, folder, out / ".state" / safe, notes)
        card = case_set.path.parent / BENCHMARK
        if case_set.form == CASES and card.is_file():
            write_text(folder / BENCHMARK, card.read_text(encoding="utf-8"))
        metrics = Metrics.model_validate(told)
        page = f"page: {folder / EVALUATION_PAGE}"
        for text in [sentence("figures", metrics=metrics), *metrics.notes, page]:
            _print(f"  {text}")
        folders.append(folder)
    return folders


def _print(text: str, style: str = "") -> None:
    Console(soft_wrap=True, highlight=False).print(text, style=style or None, markup=False)


def _name_of(model: Path | EndpointConfig) -> str:
    """A folder that is called `model` says little: put its parent's name before it."""
    if isinstance(model, EndpointConfig):
        return model.name
    plain = model.absolute()
    return f"{plain.parent.name}-{plain.name}" if plain.name in ("model", "sft-model") else plain.name


def compare_folders(first: Path, second: Path, out: Path, ancestors: Sequence[str] = ()) -> None:
    """Compare two evaluations, or all benchmarks that two folders of evaluations share; says what came out."""
    pairs = [(first, second, out)]
    if not (first / PREDICTIONS).is_file():
        found = sorted(path.parent.name for path in first.glob(f"*/{PREDICTIONS}"))
        pairs = [(first / name, second / name, out / name) for name in found if (second / name).is_dir()]
    if not pairs:
        raise UserError(
            f"{first} and {second}: no evaluation that both hold; evaluate both on the same benchmark first"
        )
    for left, right, target in pairs:
        a, b = read_evaluated(left), read_evaluated(right)
        biased, benchmark = bias_between(a, b, ancestors), a.config.benchmark
        if not any(case.references for case in a.cases):
            rubric = rubric_difference(a.cases, a.predictions, b.predictions)
            write_text(target / COMPARISON, rubric.model_dump_json(indent=1) + "\n")
            shares = f"{b.name} {percent(rubric.second)} of the points, {a.name} {percent(rubric.first)}"
            _print(f"{benchmark}: {shares}; {_difference(rubric)}, n = {rubric.n}")
            continue
        comparison = compare(a.cases, a.predictions, b.predictions, (a.name, b.name))
        metrics = [measure(one.cases, one.predictions, one.name, one.config.benchmark) for one in (a, b)]
        page = write_comparison(comparison, (metrics[0], metrics[1]), target, benchmark, biased)
        overall = comparison.overall
        if biased:
            _print(f"biased comparison: {biased}; the promotion gate is disabled", style="yellow")
        shares = f"{b.name} {percent(overall.second_accuracy)}, {a.name} {percent(overall.first_accuracy)}"
        tested = f"McNemar p {p_value(overall.p_exact)}; verdict: {comparison.verdict}"
        _print(f"{benchmark}: {shares}; {_difference(overall)}, {tested}")
        _print(f"  page: {page}")


def _difference(of: PairedResult | MeanDifference) -> str:
    return f"{points(of.difference)} points ({points(of.low)} to {points(of.high)})"


def reported_of(folders: Sequence[Path]) -> dict[str, tuple[float, float]]:
    """(right, scored) of finished evaluations by name, for an audit's correction; effective numbers, so that repeated
    patients do not count as independent."""
    found = {}
    for folder in folders:
        path = folder / "metrics.json"
        if not path.is_file():
            raise UserError(f"{folder}: no metrics.json in it; give the folder that `clinical-r1 evaluate` wrote")
        metrics = read_json(path, Metrics, "no such file", "run the evaluation again")
        overall = metrics.overall
        if not overall.effective:
            raise UserError(f"{folder}: no answer in it was scored, so there is no accuracy to correct; evaluate again")
        found[f"{metrics.model}, {metrics.benchmark}"] = (overall.share * overall.effective, overall.effective)
    return found
