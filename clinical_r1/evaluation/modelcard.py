"""The Markdown model card: data, results by subgroup, limits, known failures, intended use; all from files of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from clinical_r1.atomic import write_text
from clinical_r1.evaluation.compare import Comparison
from clinical_r1.evaluation.metrics import Metrics
from clinical_r1.evaluation.page import INTENDED_USE, INTENDED_USE_ZH, axis_name, interval, percent
from clinical_r1.evaluation.sentences import answer_sentence, second_opinion, undecided_sentence

AXES = ("specialty", "language", "icd10_chapter", "sex", "age_band", "site")
SMALLEST = 10
"""Groups of fewer patients than this are not given at all: so few could be told apart."""
SMALL = 100
"""Subgroups below this size are listed as unknown, not as good or bad."""


class CardInputs(BaseModel):
    """What the card is written from."""

    model_config = ConfigDict(extra="forbid")

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
    if inputs.simulated_teacher:
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
    lines += ["- Method: verified reasoning traces, SFT, PPO (ClinicalGPT-R1, arXiv 2504.09421)", "", "## Data", ""]
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
    if inputs.comparison is not None:
        lines += ["", answer_sentence(inputs.comparison), second_opinion(inputs.comparison)]
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
    return [f"- Cases: {summary.get('cases')} ({splits})", f"- Verified traces: {summary.get('traces')} ({outcomes})"]


def _subgroups(metrics: Metrics) -> list[str]:
    rows = [f"| group | n | {metrics.overall.kind} | 95% interval |", "|---|---|---|---|"]
    for axis in AXES:
        groups = metrics.by.get(axis, {})
        if len(groups) < 2:
            continue
        hidden = sum(group.n < SMALLEST for group in groups.values())
        if hidden:
            rows.append(f"| {axis_name(axis)}: {hidden} groups of fewer than {SMALLEST} | not given | | |")
        for name, group in groups.items():
            if group.n < SMALLEST:
                continue
            note = " (small: unknown)" if group.n < SMALL else ""
            cells = (f"{axis_name(axis)}: {name}", group.n, percent(group.share) + note)
            rows.append("| " + " | ".join(map(str, (*cells, interval(*group.interval)))) + " |")
    return rows


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


def write_model_card(inputs: CardInputs, folders: Sequence[Path]) -> None:
    """Write MODEL_CARD.md into each folder (the model's, the report's)."""
    text = model_card(inputs)
    for folder in folders:
        write_text(Path(folder) / "MODEL_CARD.md", text)
