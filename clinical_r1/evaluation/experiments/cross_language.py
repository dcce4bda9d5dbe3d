"""cross-language: train language x test language x base model, on the same patients written in both languages.

Cases come in twins whose ids differ in the language alone (w-17-en, w-17-zh), so the test sets of both languages hold
the same patients, and so do the training sets: what differs is the language. A model trained in one language may fail
in the other because the *data* were in one language, or because the *base model* never knew the other. With a base
model that knows both, the second cause is gone: the difference between the two costs is the base model's part.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from clinical_r1.errors import UserError
from clinical_r1.evaluation.experiments import arms
from clinical_r1.evaluation.experiments.arms import Arm, ArmsReport, Evidence
from clinical_r1.evaluation.experiments.finding import Cell, Estimate, Finding, Table, conclude, planted, write_finding
from clinical_r1.evaluation.measure.metrics import accuracy
from clinical_r1.page import percent
from clinical_r1.schema import Case

QUESTION = "Does a model fail in the language it was not trained in because of its data, or because of its base model?"
SCRATCH, BILINGUAL = "scratch", "bilingual"
Twins = list[tuple[Case, dict[str, str]]]
"""One case of each patient, and language -> id of the twin."""


def report(settings: ArmsReport, evidence: Evidence, out_dir: Path) -> Finding:
    """All arms, and the reference (the bilingual base) before them, on the twins' test split."""
    cases = arms.cases_of(evidence.splits)
    pairs = twins_of(cases)
    right = {name: arms.right_by_case(rows) for name, rows in arms.read_arms(settings.arms, evidence.runs).items()}
    before = arms.right_by_case(arms.read_reference(evidence))
    cost = {kind: _cost(pairs, _of(settings.arms, kind), right) for kind in (SCRATCH, BILINGUAL)}
    share = _contrast(pairs, settings.arms, right)
    lost = _forgotten(pairs, _of(settings.arms, BILINGUAL), right, before)
    finding = conclude(
        "cross-language",
        QUESTION,
        share,
        settings.design_points,
        f"Tested in the language it was not trained in, a model from a base without either language loses "
        f"{100 * cost[SCRATCH].value:.1f} points, one from a bilingual base {100 * cost[BILINGUAL].value:.1f}: "
        f"the base model's part of the loss is {share.words()}.",
        f"在未训练过的语言上，无语言基础的模型下降 {100 * cost[SCRATCH].value:.1f} 个百分点，双语基础模型下降 "
        f"{100 * cost[BILINGUAL].value:.1f} 个；其中归因于基础模型的部分为 {share.words_zh()}。",
        simulated=settings.simulated,
        limits=(
            "Twins are the same patients in native phrasing of both languages; in real records the languages also "
            "differ in hospitals and patients, which this design takes out on purpose."
        ),
    )
    if settings.planted_points is not None:
        name = "a forgetting model (the base's other language after training in one)"
        finding.planted = [planted(name, -abs(settings.planted_points), lost)]
    tables = [
        _cells(settings.arms, pairs, right, before),
        arms.difference_table("What a foreign language costs", [
            arms.difference_row("base without either language", cost[SCRATCH]),
            arms.difference_row("bilingual base", cost[BILINGUAL]),
            arms.difference_row("the base model's part (difference of the two)", share),
        ], "Accuracy in the training language minus accuracy in the other, on the same patients, mean of both "
           "directions."),
        arms.difference_table("What the bilingual base forgot", [
            *(arms.difference_row(f"trained in {arm.factors['train']}, asked in {_other(pairs, arm)}",
                             _forgotten(pairs, [arm], right, before)) for arm in _of(settings.arms, BILINGUAL)),
            arms.difference_row("both directions", lost),
        ], "The language that was not trained, after training minus before."),
    ]  # fmt: skip
    return write_finding(finding, tables, out_dir, "Train language x test language x base model")


def twins_of(cases: Sequence[Case]) -> Twins:
    """Cases whose ids differ in the language alone; UserError where there are none."""
    found: dict[str, dict[str, Case]] = {}
    for case in cases:
        stem, _, language = case.id.rpartition("-")
        if language == case.language:
            found.setdefault(stem, {})[language] = case
    pairs = [(next(iter(of.values())), {name: one.id for name, one in of.items()}) for of in found.values()]
    pairs = [pair for pair in pairs if len(pair[1]) == 2]
    if not pairs:
        raise UserError("cross-language: no id-aligned cases in the test split; ids must end in -en and -zh")
    return pairs


def _of(chosen: Sequence[Arm], base: str) -> list[Arm]:
    return [arm for arm in chosen if arm.factors["base"] == base]


def _other(pairs: Twins, arm: Arm) -> str:
    return next(name for name in pairs[0][1] if name != arm.factors["train"])


Right = Mapping[str, Mapping[str, bool]]


def _loss(ids: Mapping[str, str], chosen: Sequence[Arm], right: Right) -> float | None:
    """Own language minus the other on one patient, mean over the arms; None where a judgement failed."""
    losses = []
    for arm in chosen:
        own = right[arm.name].get(ids[arm.factors["train"]])
        other = right[arm.name].get(next(case for name, case in ids.items() if name != arm.factors["train"]))
        if own is None or other is None:
            return None
        losses.append(float(own) - float(other))
    return sum(losses) / len(losses)


def _cost(pairs: Twins, chosen: Sequence[Arm], right: Right) -> Estimate:
    known = [(loss, case) for case, ids in pairs if (loss := _loss(ids, chosen, right)) is not None]
    return arms.over_cases([loss for loss, _ in known], [case for _, case in known])


def _contrast(pairs: Twins, chosen: Sequence[Arm], right: Right) -> Estimate:
    """Cost without the base's languages minus cost with them, patient by patient."""
    known = [
        (without - with_both, case)
        for case, ids in pairs
        if (without := _loss(ids, _of(chosen, SCRATCH), right)) is not None
        and (with_both := _loss(ids, _of(chosen, BILINGUAL), right)) is not None
    ]
    return arms.over_cases([value for value, _ in known], [case for _, case in known])


def _forgotten(pairs: Twins, chosen: Sequence[Arm], right: Right, before: Mapping[str, bool]) -> Estimate:
    """Accuracy in the untrained language after training minus the base model's own, mean over the arms."""
    values, cases = [], []
    for case, ids in pairs:
        changes = []
        for arm in chosen:
            other = next(one for name, one in ids.items() if name != arm.factors["train"])
            if other in before and other in right[arm.name]:
                changes.append(float(right[arm.name][other]) - float(before[other]))
        if len(changes) == len(chosen):
            values.append(sum(changes) / len(changes))
            cases.append(case)
    return arms.over_cases(values, cases)


def _cells(chosen: Sequence[Arm], pairs: Twins, right: Right, before: Mapping[str, bool]) -> Table:
    rows = []
    models = [("bilingual base, untrained", before), *((arm.name, right[arm.name]) for arm in chosen)]
    for name, known in models:
        for language in sorted(pairs[0][1]):
            asked = [(known[ids[language]], case) for case, ids in pairs if ids[language] in known]
            found = accuracy([hit for hit, _ in asked], [case for _, case in asked])
            share, (low, high) = found.share, found.interval
            rows.append([
                Cell(text=f"{name}, asked in {language}"), Cell(text=str(len(asked))),
                Cell(kind="share", value=share, low=low, high=high),
                Cell(text=f"{percent(share)} ({percent(low)} to {percent(high)})"),
            ])  # fmt: skip
    return Table(title="Every cell", head=["", "n", "accuracy", "95% interval"], rows=rows)
