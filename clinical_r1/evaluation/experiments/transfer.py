"""What a model loses where it was not trained: in the other language, at another hospital."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from clinical_r1.errors import UserError
from clinical_r1.evaluation.benchmarks import overlaps, read_training
from clinical_r1.evaluation.experiments import finding
from clinical_r1.evaluation.experiments.finding import Arm, ArmsReport, Estimate, Evidence, Finding, Row, Table
from clinical_r1.evaluation.measure.compare import PairedResult, paired
from clinical_r1.evaluation.measure.metrics import accuracy, is_right
from clinical_r1.page import percent
from clinical_r1.schema import Case, Prediction
from clinical_r1.stats import Pairs

SCRATCH, BILINGUAL = "scratch", "bilingual"
WITHOUT, WITH, LEAKING = "without", "with", "leaking"
Twins = Sequence[tuple[Case, Mapping[str, str]]]
"""One case of each patient, and language -> id of the twin."""
Right = Mapping[str, bool]
"""Case -> right or wrong, judged ones only."""


def cross_language(settings: ArmsReport, evidence: Evidence, out_dir: Path) -> Finding:
    """Train language x test language x base model; the reference is the bilingual base.

    Cases come in twins whose ids differ in the language alone (w-17-en, w-17-zh), so the test sets of both languages
    hold the same patients, and so do the training sets: what differs is the language. A model trained in one language
    may fail in the other because the *data* were in one language, or because the *base model* never knew the other.
    With a base model that knows both, the second cause is gone: the difference between the two costs is the base
    model's part.
    """
    twins = twins_of(evidence.cases())
    right = [_right(rows) for rows in evidence.after(settings.arms).values()]
    before, arms = _right(evidence.before()), list(zip(settings.arms, right, strict=True))
    scratch, bilingual = ([of for of in arms if of[0].factors["base"] == base] for base in (SCRATCH, BILINGUAL))
    costs = [_changes(twins, of) for of in (scratch, bilingual)]
    own, own_bilingual = (_estimate(twins, cost) for cost in costs)
    part = [None if a is None or b is None else a - b for a, b in zip(*costs, strict=True)]
    share, lost = _estimate(twins, part), _estimate(twins, _changes(twins, bilingual, before))
    forgot = []
    for arm, known in bilingual:
        trained = arm.factors["train"]
        other = next(language for language in twins[0][1] if language != trained)
        estimate = _estimate(twins, _changes(twins, [(arm, known)], before))
        forgot.append(finding.difference_row(f"trained in {trained}, asked in {other}", estimate))
    cost_rows = [
        finding.difference_row("base without either language", own),
        finding.difference_row("bilingual base", own_bilingual),
        finding.difference_row("the base model's part (difference of the two)", share),
    ]
    note = (
        "Accuracy in the training language minus accuracy in the other, on the same patients, mean of both directions."
    )
    forgot.append(finding.difference_row("both directions", lost))
    cells = _every_cell(twins, [("bilingual base, untrained", before), *((arm.name, known) for arm, known in arms)])
    tables = [
        Table("Every cell", cells, head=finding.ACCURACY_HEAD),
        Table("What a foreign language costs", cost_rows, note),
        Table(
            "What the bilingual base forgot", forgot, "The language that was not trained, after training minus before."
        ),
    ]
    values = {"scratch": 100 * own.value, "bilingual": 100 * own_bilingual.value}
    size = None if settings.planted_points is None else -abs(settings.planted_points)
    return finding.conclude(out_dir, "cross-language", settings, share, tables, values, [("planted", size, lost)])


def twins_of(cases: Sequence[Case]) -> Twins:
    """Cases whose ids differ in the language alone; UserError where there are none."""
    found: dict[str, dict[str, Case]] = {}
    for case in cases:
        stem, _, language = case.id.rpartition("-")
        if language == case.language:
            found.setdefault(stem, {})[language] = case
    pairs = [
        (next(iter(of.values())), {name: one.id for name, one in of.items()}) for of in found.values() if len(of) == 2
    ]
    if not pairs:
        raise UserError("cross-language: no id-aligned cases in the test split; ids must end in -en and -zh")
    return pairs


def _right(predictions: Sequence[Prediction]) -> Right:
    return {row.case_id: right for row in predictions if (right := is_right(row)) is not None}


def _changes(twins: Twins, arms: Sequence[tuple[Arm, Right]], before: Right | None = None) -> list[float | None]:
    """One value a patient, mean over the arms: the language that an arm was trained in minus the other; with the base
    model's answers `before`, the other after training minus before. None where a judgement failed."""
    values = []
    for _, ids in twins:
        pairs = []
        for arm, right in arms:
            own = ids[arm.factors["train"]]
            other = next(one for one in ids.values() if one != own)
            pairs.append((right, own, right, other) if before is None else (right, other, before, other))
        known = [float(first[a]) - float(second[b]) for first, a, second, b in pairs if a in first and b in second]
        values.append(sum(known) / len(known) if len(known) == len(pairs) else None)
    return values


def _estimate(twins: Twins, values: Sequence[float | None]) -> Estimate:
    known = [(value, case) for value, (case, _) in zip(values, twins, strict=True) if value is not None]
    return finding.over_cases([value for value, _ in known], [case for _, case in known])


def _every_cell(twins: Twins, models: Sequence[tuple[str, Right]]) -> list[Row]:
    rows = []
    for name, right in models:
        for language in sorted(twins[0][1]):
            asked = [(right[ids[language]], case) for case, ids in twins if ids[language] in right]
            rate = accuracy([hit for hit, _ in asked], [case for _, case in asked])
            cells = finding.share_cells(rate.share, *rate.interval)
            rows.append([f"{name}, asked in {language}", f"{len(asked)}", *cells])
    return rows


class HeldOutReport(ArmsReport):
    """What the report of held-out-site is told."""

    site: str
    """The hospital that is held out."""
    leak_points: float | None = None
    """Share of the site's test cases that were leaked on purpose, in points; None: no leak was planted."""


def held_out_site(settings: HeldOutReport, evidence: Evidence, out_dir: Path) -> Finding:
    """How much worse is a model at a hospital that it was not trained on? And is the test really unseen?

    Arms of equal size, same recipe: `without` the site's traces (the reference), `with` them. A third arm, `leaking`,
    is `without` plus a part of the site's *test* cases: what a contaminated benchmark looks like, and whether the
    containment check finds it.
    """
    cases = evidence.cases()
    answers = {WITHOUT: evidence.before(), **evidence.after(settings.arms)}
    own = [case for case in cases if case.site == settings.site]
    others = [case for case in cases if case.site != settings.site]
    if not own or not others:
        raise UserError(
            f"held-out-site: site '{settings.site}' has {len(own)} of {len(cases)} test cases; name a site "
            f"of {', '.join(sorted({case.site for case in cases}))}"
        )
    here, there = (_compare(part, answers, WITH) for part in (own, others))
    answer = finding.estimate_of(here)
    found = {
        name: {overlap.case_id for overlap in overlaps(own, read_training(folder / "traces.jsonl"))}
        for name, folder in zip(answers, evidence.trained_on, strict=True)
    }
    rows = [
        finding.paired_row(f"cases of {settings.site}", here),
        finding.paired_row("cases of the other sites", there),
    ]
    accuracies = []
    for name, predictions in answers.items():
        for label, part in ((settings.site, own), ("other sites", others)):
            ids = {case.id for case in part}
            of_part = [row for row in predictions if row.case_id in ids]
            accuracies.append(finding.accuracy_row(f"{name}, {label}", of_part, part))
    leaks: list[Row] = [
        [f"training data of '{name}'", f"{len(own)}", f"{len(ids)}", percent(len(ids) / len(own))]
        for name, ids in found.items()
    ]
    note = "Test cases of the site of which one training case contains at least half of the word n-grams."
    tables = [
        Table("With the site minus without it", rows, "The same cases, answered by both models."),
        Table("Accuracy", accuracies, head=finding.ACCURACY_HEAD),
        Table("Is the test unseen?", leaks, note, ["", "test cases", "found in training", "share"]),
    ]
    effects = [("planted", settings.planted_points, answer)]
    if LEAKING in found:
        # Found in the leaking training data beyond what the check flags in clean ones.
        both, clean = len(found[WITHOUT] & found[LEAKING]), len(found[WITHOUT] - found[LEAKING])
        leaking = len(found[LEAKING]) - both
        leak = Estimate.of_pairs(Pairs(both, clean, leaking, len(own) - both - clean - leaking))
        effects.append(("leak", settings.leak_points, leak))
    if leaked := found.get(LEAKING):
        tables.append(_inflation(own, leaked, answers))
    values = {"site": settings.site, "cases": len(own), "here": here}
    return finding.conclude(out_dir, "held-out-site", settings, answer, tables, values, effects)


def _compare(cases: Sequence[Case], answers: Mapping[str, list[Prediction]], other: str) -> PairedResult:
    """The other model minus the one without the site, on some of the cases."""
    left, right = ({row.case_id: row for row in answers[name]} for name in (WITHOUT, other))
    clustered = len({case.unit for case in cases}) < len(cases)
    return paired(cases, [left[case.id] for case in cases], [right[case.id] for case in cases], clustered=clustered)


def _inflation(benchmark: Sequence[Case], leaked: set[str], answers: Mapping[str, list[Prediction]]) -> Table:
    parts = {
        "leaked cases": [case for case in benchmark if case.id in leaked],
        "clean cases": [case for case in benchmark if case.id not in leaked],
    }
    estimates = {label: finding.estimate_of(_compare(part, answers, LEAKING)) for label, part in parts.items() if part}
    rows = [finding.difference_row(label, estimate) for label, estimate in estimates.items()]
    note = "What the leak does to the benchmark: the leaking model minus the clean one, on leaked and on clean cases."
    return Table("How a leak inflates the score", rows, note)
