"""The Markdown model card: data, results by subgroup, limits, known failures, intended use; all from files of a run."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from clinical_r1.atomic import write_text
from clinical_r1.errors import Strict
from clinical_r1.evaluation.measure.compare import Comparison
from clinical_r1.evaluation.measure.metrics import Accuracy, Metrics
from clinical_r1.evaluation.pages.results import answer_sentence, second_opinion, undecided_sentence
from clinical_r1.page import INTENDED_USE, INTENDED_USE_ZH, axis_name, interval, percent

AXES = ("specialty", "language", "icd10_chapter", "sex", "age_band", "site")
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
    overall = inputs.metrics.overall
    lines = [f"# {inputs.name}", "", f"**Intended use.** {INTENDED_USE}", "", f"**用途。**{INTENDED_USE_ZH}", ""]
    if inputs.simulated:
        lines += ["**Simulated world.** Trained and tested on a simulator; it says nothing about patients.", ""]
    imported = inputs.summary.get("imported_traces", False)
    if inputs.simulated_teacher and imported:
        lines += ["**The judge was simulated.** A program, not a clinician or a model, judged its answers.", ""]
    elif inputs.simulated_teacher:
        lines += [
            "**The teacher was simulated.** A program, not a clinician or a model, wrote the reasoning that it learned "
            "from and judged its answers; the traces are no clinical reasoning.",
            "",
        ]
    lines += [
        "## Model",
        "",
        f"- Base model: {inputs.base_model or 'not stated'}",
        f"- Licence: {inputs.licence or 'not stated'}",
    ]
    algorithm = inputs.summary.get("algorithm", "PPO")
    traces = "reasoning traces of others" if imported else "verified reasoning traces"
    lines += [f"- Method: {traces}, SFT, {algorithm} (ClinicalGPT-R1, arXiv 2504.09421)"]
    lines += ["", "## Data", ""]
    lines += _data(inputs.summary)
    lines += [
        "", "## Results", "",
        f"{overall.kind.capitalize()} on {overall.n} cases of {inputs.metrics.benchmark or 'the test split'}: "
        f"**{percent(overall.share)}** (95% interval {interval(*overall.interval)}).",
    ]  # fmt: skip
    if inputs.metrics.decoding:
        lines.append(f"Decoding: {inputs.metrics.decoding.told()}. Served otherwise, these figures do not hold.")
    if overall.independent:
        other = overall.independent
        lines.append(f"Under an independent judge: {other.kind} {percent(other.share)}.")
    if said := undecided_sentence(inputs.metrics):
        lines.append(said)
    if overall.unscored:
        low, high = overall.bounds
        lines.append(f"{overall.unscored} judgements failed; bounds {percent(low)} to {percent(high)}.")
    lines.append(
        f"A whole thought and an answer: {percent(overall.reasoning_rate)} of outputs; thoughts, unfinished ones too, "
        f"have {overall.mean_reasoning_tokens:.0f} tokens on average."
    )
    if overall.partial:
        lines.append(
            f"ICD-10-aware partial credit: {percent(overall.partial.mean)} "
            f"({interval(overall.partial.low, overall.partial.high)})."
        )
    if f1 := inputs.metrics.list_f1:
        lines.append(
            f"Where the reference is a list (n = {f1.n}): F1 of the stated diagnoses {percent(f1.mean)} "
            f"({interval(f1.low, f1.high)})."
        )
    if inputs.comparison is not None:
        lines += ["", answer_sentence(inputs.comparison), second_opinion(inputs.comparison)]
    if said := inputs.summary.get("learning", {}).get("said"):
        lines += ["", said]
    lines += ["", "### Subgroups", ""]
    lines += _subgroups(inputs.metrics)
    lines += ["", "## Known failures and limits", ""]
    lines += _limits(inputs)
    if inputs.gate:
        lines += [
            "",
            "## Promotion gate",
            "",
            f"Decision: **{inputs.gate['decision']}** against {inputs.gate['against']}.",
            "",
        ]
        lines += [f"- {rule['rule']}: {rule['result']}; {rule['reason']}" for rule in inputs.gate["rules"]]
    return "\n".join(lines) + "\n"


def _data(summary: dict[str, Any]) -> list[str]:
    if not summary:
        return ["Not stated."]
    outcomes = ", ".join(f"{count} {name}" for name, count in summary.get("outcomes", {}).items())
    splits = ", ".join(f"{name} {count}" for name, count in summary.get("splits", {}).items())
    kind = "Traces of others" if summary.get("imported_traces") else "Verified traces"
    return [f"- Cases: {summary.get('cases')} ({splits})", f"- {kind}: {summary.get('traces')} ({outcomes})"]


def _subgroups(metrics: Metrics) -> list[str]:
    rows = [f"| group | n | {metrics.overall.kind} | 95% interval |", "|---|---|---|---|"]
    for axis in AXES:
        groups = metrics.by.get(axis, {})
        if len(groups) < 2:
            continue
        hidden = withheld({name: group.n for name, group in groups.items()})
        if hidden:
            rows.append(f"| {axis_name(axis)}: {len(hidden)} small groups together | not given | | |")
        for name, group in groups.items():
            if name in hidden:
                continue
            note = " (small: unknown)" if group.n < SMALL else ""
            cells = (f"{axis_name(axis)}: {name}", group.n, percent(group.share) + note)
            rows.append("| " + " | ".join(map(str, (*cells, interval(*group.interval)))) + " |")
    return rows


def withheld(sizes: dict[str, int]) -> set[str]:
    """The groups that a card leaves out: those below SMALLEST, and as many of the next ones as it takes that what the
    given ones leave of the whole is neither a single group nor smaller than SMALLEST."""
    hidden: set[str] = set()
    for name in sorted(sizes, key=lambda name: sizes[name]):
        enough = len(hidden) != 1 and (not hidden or sum(sizes[other] for other in hidden) >= SMALLEST)
        if sizes[name] >= SMALLEST and enough:
            break
        hidden.add(name)
    return hidden


def _limits(inputs: CardInputs) -> list[str]:
    lines = [
        "- A right answer is one that a judge accepts; the reference diagnosis is what the record says.",
        "- Tested on cases of the same origin as the training data; another hospital may differ.",
    ]
    for outcome, count in inputs.metrics.outcomes.items():
        if outcome != "ok" and count:
            lines.append(f"- {count} outputs are `{outcome}`.")
    if inputs.hallucinated is not None:
        flagged, n = inputs.hallucinated
        lines.append(f"- {flagged} of {n} thoughts state a finding, number or result that the case does not hold.")
    lines += [f"- {note}" for note in inputs.metrics.notes]
    worst = _worst(inputs.metrics)
    if worst:
        lines.append(f"- Weakest specialty: {worst}.")
    return lines


def _worst(metrics: Metrics) -> str:
    groups = {name: group for name, group in metrics.by.get("specialty", {}).items() if group.n >= SMALL // 2}
    if len(groups) < 2:
        return ""
    name = min(groups, key=lambda key: groups[key].share)
    return f"{name}, {percent(groups[name].share)} (n = {groups[name].n})"


def front_matter(inputs: CardInputs) -> str:
    """The metadata block of the Hugging Face Hub's model cards, with the results as a `model-index`."""
    metrics, overall = inputs.metrics, inputs.metrics.overall
    plain = re.fullmatch(r"[a-z0-9][a-z0-9.-]*", inputs.licence)
    licence = {"license": inputs.licence} if plain else {"license": "other"}
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
    kind = share.kind.replace(" ", "_")
    said = f"{share.kind}, {judge}, 95% interval {interval(*share.interval)}, n = {share.n - share.unscored}"
    return {"type": kind, "value": round(100 * share.share, 2), "name": said}


def write_model_card(inputs: CardInputs, folders: Sequence[Path]) -> None:
    """Write MODEL_CARD.md into each folder, and the same with front matter as README.md."""
    text = model_card(inputs)
    for folder in folders:
        write_text(Path(folder) / "MODEL_CARD.md", text)
        write_text(Path(folder) / "README.md", f"{front_matter(inputs)}\n{text}")
