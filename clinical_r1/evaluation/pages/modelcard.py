"""The Markdown model card: data, results by subgroup, limits, known failures, intended use; all from files of a run."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from clinical_r1.atomic import write_text
from clinical_r1.evaluation.measure.compare import Comparison
from clinical_r1.evaluation.measure.metrics import Accuracy, Metrics
from clinical_r1.page import interval, render, sentence
from clinical_r1.strict import Strict

SMALLEST = 10
"""Groups of fewer patients than this are not given at all: so few could be told apart."""
SMALL = 100
"""Subgroups below this size are listed as unknown, not as good or bad."""


class CardInputs(Strict):
    """What the card is written from."""

    name: str
    base_model: str = ""
    licence: str = ""
    simulated: bool = False
    simulated_teacher: bool = False
    metrics: Metrics
    comparison: Comparison | None = None
    """Against the model before PPO."""
    summary: dict[str, Any] = Field(default_factory=dict)
    """summary.json of the training report."""
    gate: dict[str, Any] = Field(default_factory=dict)
    """gate.json."""
    hallucinated: tuple[int, int] | None = None
    """(flagged, all) thoughts of the detector."""


def model_card(inputs: CardInputs) -> str:
    """The card as Markdown."""
    specialties = inputs.metrics.by.get("specialty", {})
    known = {name: group for name, group in specialties.items() if group.n >= SMALL // 2}
    compared = {"comparison": inputs.comparison} if inputs.comparison else {}
    text = render(
        "modelcard.md.j2",
        card=inputs,
        answer=sentence("answer", **compared) if compared else "",
        second_opinion=sentence("second_opinion", **compared) if compared else "",
        undecided=sentence("undecided", models=[inputs.metrics]),
        withheld=lambda groups: withheld({name: group.n for name, group in groups.items()}),
        small=SMALL,
        weakest=min(known.items(), key=lambda item: item[1].share) if len(known) > 1 else None,
    )
    return text.rstrip() + "\n"


def withheld(sizes: Mapping[str, int]) -> set[str]:
    """The groups that a card leaves out: those below SMALLEST, and as many of the next ones as it takes that what the
    given ones leave of the whole is neither a single group nor smaller than SMALLEST."""
    hidden: set[str] = set()
    for name in sorted(sizes, key=lambda name: sizes[name]):
        enough = len(hidden) != 1 and (not hidden or sum(sizes[other] for other in hidden) >= SMALLEST)
        if sizes[name] >= SMALLEST and enough:
            break
        hidden.add(name)
    return hidden


def front_matter(inputs: CardInputs) -> str:
    """The metadata block of the Hugging Face Hub's model cards, with the results as a `model-index`."""
    metrics, overall = inputs.metrics, inputs.metrics.overall
    plain = re.fullmatch(r"[a-z0-9][a-z0-9.-]*", inputs.licence)
    licence = {"license": inputs.licence if plain else "other"}
    licence |= {"license_name": inputs.licence} if inputs.licence and not plain else {}
    base = {"base_model": inputs.base_model} if re.fullmatch(r"[\w.-]+/[\w.-]+", inputs.base_model) else {}
    named = metrics.benchmark or "test split"
    figures = [_figure(overall, "reward judge")] if not metrics.points_alone else []
    figures += [_figure(overall.independent, "independent judge")] if overall.independent else []
    if rubric := metrics.rubric:
        said = f"points of the rubrics, 95% interval {interval(rubric.low, rubric.high)}, n = {rubric.n}"
        figures.append({"type": "rubric_points", "value": round(100 * rubric.mean, 2), "name": said})
    result = {
        "task": {"type": "text-generation", "name": "diagnosis"},
        "dataset": {"type": re.sub(r"[^a-z0-9]+", "-", named.lower()).strip("-"), "name": named},
        "metrics": figures,
    }
    data = {
        **licence, **base, "language": sorted(metrics.by.get("language", {})) or ["en"], "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["medical", "reasoning", *(["simulated"] if inputs.simulated else [])],
        "model-index": [{"name": inputs.name, "results": [result]}],
    }  # fmt: skip
    return f"---\n{yaml.safe_dump(data, allow_unicode=True, sort_keys=False)}---\n"


def _figure(share: Accuracy, judge: str) -> dict[str, Any]:
    """A share in percent; one that the rules left partly undecided is no accuracy, and is not called one."""
    said = f"{share.kind}, {judge}, 95% interval {interval(*share.interval)}, n = {share.n - share.unscored}"
    return {"type": share.kind.replace(" ", "_"), "value": round(100 * share.share, 2), "name": said}


def write_model_card(inputs: CardInputs, folder: Path) -> None:
    """MODEL_CARD.md, and the same with front matter as README.md."""
    text = model_card(inputs)
    write_text(folder / "MODEL_CARD.md", text)
    write_text(folder / "README.md", f"{front_matter(inputs)}\n{text}")
