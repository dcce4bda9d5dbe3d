"""Build a benchmark in MedBench-Hard's form (7 specialties x 500, ICD-10 stratified) from the user's own records.

Reproducible: which cases are drawn depends on the seed and their ids, not on their order. At most one case a patient.
Contaminated cases are left out and counted. A difficulty filter by a model's failures is off by default: it flatters
every rival of that model (regression to the mean), so it is recorded and disables the promotion gate for that model.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple, Self

from pydantic import Field, model_validator

from clinical_r1.atomic import write_text
from clinical_r1.containment import ContainmentIndex
from clinical_r1.errors import Strict, UserError
from clinical_r1.evaluation.benchmarks.registry import load_benchmark, recognise
from clinical_r1.evaluation.inputs import CONFIG, rank
from clinical_r1.evaluation.measure.credit import chapter
from clinical_r1.evaluation.measure.metrics import is_right
from clinical_r1.schema import Case, Prediction, Trace, read_jsonl, write_jsonl
from clinical_r1.stats import minimum_detectable_effect

SPECIALTIES = (
    "respiratory", "gastroenterology", "urology", "cardiology", "immunology", "neurology", "endocrinology",
)  # fmt: skip
MIN_UNFILTERED = 0.2


WORDS = 8
"""Words of a shingle."""
MIN_SHINGLES = 8
"""Shorter questions are compared as a whole only."""


class Overlap(NamedTuple):
    """A benchmark case and the training case that holds most of it."""

    case_id: str
    training_id: str
    containment: float


def overlaps(benchmark: Sequence[Case], training: Iterable[Case], threshold: float = 0.5) -> list[Overlap]:
    """Benchmark cases whose containment with one training case is at least `threshold`, with that case."""
    index = ContainmentIndex([case.question for case in benchmark], WORDS, MIN_SHINGLES)
    best: dict[int, tuple[float, str]] = {}
    for case in training:
        for number, share in index.shares(case.question).items():
            best[number] = max(best.get(number, (0.0, "")), (share, case.id))
    return [
        Overlap(benchmark[number].id, training_id, share)
        for number, (share, training_id) in sorted(best.items())
        if share >= threshold
    ]


class DifficultyFilter(Strict):
    """Prefer cases that a model got wrong."""

    model: str = Field(min_length=1)
    """The model, and the ancestor of those whose comparison on this benchmark is biased."""
    predictions: Path
    """Its judged predictions of the candidate cases."""
    unfiltered: float = Field(MIN_UNFILTERED, ge=MIN_UNFILTERED, le=1)
    """Share of every stratum that is drawn without looking at the model."""


class BuilderConfig(Strict):
    """What to build."""

    name: str = "medbench-hard-form"
    specialties: list[str] = Field(default_factory=lambda: list(SPECIALTIES), min_length=1)
    """Strata; a specialty that has too few cases gets what there is, and the card says so."""
    per_specialty: int = Field(500, ge=1)
    """Cases of each specialty."""
    seed: int = 0
    contamination: float = Field(0.5, gt=0, le=1)
    """Leave out cases of which a training case contains this share."""
    difficulty: DifficultyFilter | None = None
    """Off by default."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.specialties)) < len(self.specialties):
            raise ValueError("specialties: one is named twice")
        return self


def build_benchmark(
    config: BuilderConfig,
    cases: Path,
    training: Path | Sequence[Path] | None,
    out_dir: Path,
    columns: Mapping[str, str] | None = None,
) -> dict[str, object]:
    """Write cases.jsonl, benchmark.json, contamination.json and card.md; returns benchmark.json.

    `training` are files of cases or of traces. Raises UserError where nothing fits.
    """
    pool = load_benchmark(recognise(cases, columns), cases, columns)
    files = [training] if isinstance(training, str | Path) else list(training or ())
    found = overlaps(pool, [case for file in files for case in read_training(Path(file))], 0.0)
    leaked = {row.case_id for row in found if row.containment >= config.contamination}
    usable = _one_per_patient([case for case in pool if case.id not in leaked], config.seed)
    hard = _failures(config.difficulty, pool)
    known = _evaluation_of(config.difficulty)
    chosen = [case for name in config.specialties for case in _draw(config, name, usable, hard)]
    if not usable:
        raise UserError(f"{cases}: a training case contains every one of its {len(pool)} cases; give unseen ones")
    if not chosen:
        raise UserError(
            f"{cases}: no case of the specialties {', '.join(config.specialties)}; map your specialties first"
        )
    counts = Counter(case.specialty for case in chosen)
    report: dict[str, object] = {
        "name": config.name,
        "cases": len(chosen),
        "pool": len(pool),
        "contaminated": len(leaked),
        "contamination_checked": bool(files),
        "by_specialty": {name: counts[name] for name in config.specialties},
        "short": [name for name in config.specialties if counts[name] < config.per_specialty],
        "by_language": dict(Counter(case.language for case in chosen)),
        "by_chapter": dict(Counter(chapter(case.icd10) for case in chosen).most_common()),
        "filtered_by": config.difficulty.model if config.difficulty else "",
        "filtered_identity": known.get("identity", ""),
        "unfiltered_share": config.difficulty.unfiltered if config.difficulty else 1.0,
        "detectable_points": 100 * minimum_detectable_effect(len(chosen), 0.2),
        "seed": config.seed,
    }
    out_dir = Path(out_dir)
    write_jsonl(out_dir / "cases.jsonl", chosen)
    report["sha256"] = hashlib.sha256((out_dir / "cases.jsonl").read_bytes()).hexdigest()
    write_text(out_dir / "card.md", _card(report))
    if files:
        contamination = _contamination(config, files, found, {case.id for case in chosen})
        write_text(out_dir / "contamination.json", json.dumps(contamination, indent=1) + "\n")
    write_text(out_dir / "benchmark.json", json.dumps(report, ensure_ascii=False, indent=1) + "\n")
    return report


def read_training(path: Path) -> list[Case]:
    """What a model was trained on, as cases: a file of cases, or of traces."""
    with open(path, "rb") if path.is_file() else nullcontext([b""]) as lines:
        first = next(iter(lines), b"")
    if b'"case_id"' not in first or b'"attempts"' not in first:
        return load_benchmark(recognise(path), path)
    return [
        Case(id=row.case_id, language=row.language, question=row.question, references=row.references)
        for row in read_jsonl(path, Trace)
    ]


def _contamination(
    config: BuilderConfig, files: Sequence[Path], found: Sequence[Overlap], kept: set[str]
) -> dict[str, object]:
    """The report: which records were left out and why, and how near the kept ones come. Ids only, no text."""
    steps = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    return {
        "training": [str(file) for file in files],
        "threshold": config.contamination,
        "left_out": [row._asdict() for row in found if row.containment >= config.contamination],
        "records_at_least": {f"{step:.1f}": sum(row.containment >= step for row in found) for step in steps},
        "highest_kept": max((row.containment for row in found if row.case_id in kept), default=0.0),
    }


def bias_of(benchmark: dict[str, object], models: Sequence[str], ancestors: Sequence[str] = ()) -> str:
    """Why a comparison of these models (names and identities) on this benchmark is biased; "" where it is not. Goes to
    `GateInputs.biased`."""
    filtered_by = str(benchmark.get("filtered_by", ""))
    marks = {filtered_by, str(benchmark.get("filtered_identity", ""))} - {""}
    if marks & {*models, *ancestors}:
        return f"cases were chosen by the failures of {filtered_by}, which is compared or an ancestor"
    return ""


def _one_per_patient(cases: Sequence[Case], seed: int) -> list[Case]:
    first: dict[str, Case] = {}
    for case in sorted(cases, key=lambda case: rank(seed, case.id)):
        first.setdefault(case.unit, case)
    return list(first.values())


def _evaluation_of(difficulty: DifficultyFilter | None) -> dict[str, str]:
    """What the evaluation that made the predictions says of its model; empty where it is not beside them."""
    path = difficulty.predictions.parent / CONFIG if difficulty else None
    return json.loads(path.read_text(encoding="utf-8")) if path and path.is_file() else {}


def _failures(difficulty: DifficultyFilter | None, pool: Sequence[Case]) -> set[str] | None:
    if difficulty is None:
        return None
    rows = read_jsonl(difficulty.predictions, Prediction)
    if not {row.case_id for row in rows} & {case.id for case in pool}:
        raise UserError(
            f"{difficulty.predictions}: no prediction of the records; evaluate {difficulty.model} on them first"
        )
    name = _evaluation_of(difficulty).get("model_name")
    if name and name != difficulty.model:
        raise UserError(f"difficulty.model: these predictions are of {name}, not of {difficulty.model}; write {name}")
    return {row.case_id for row in rows if is_right(row) is False}


def _draw(config: BuilderConfig, specialty: str, cases: Sequence[Case], hard: set[str] | None) -> list[Case]:
    """Cases of one specialty, spread over its ICD-10 categories in turn; after the unfiltered share, failed ones."""
    own = (case for case in cases if case.specialty == specialty)
    members = sorted(own, key=lambda case: rank(config.seed, case.id))
    free = _in_turn(members, config.per_specialty)
    if hard is None or config.difficulty is None:
        return free
    kept = free[: round(len(free) * config.difficulty.unfiltered + 0.499)]
    taken = {case.id for case in kept}
    failed = _in_turn([case for case in members if case.id in hard - taken], config.per_specialty - len(kept))
    taken |= {case.id for case in failed}
    return (kept + failed + [case for case in free if case.id not in taken])[: config.per_specialty]


def _in_turn(cases: Sequence[Case], count: int) -> list[Case]:
    queues: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        queues[case.icd10[:3]].append(case)
    chosen: list[Case] = []
    while len(chosen) < count and any(queues.values()):
        for name in sorted(queues):
            if queues[name] and len(chosen) < count:
                chosen.append(queues[name].pop(0))
    return chosen


def _card(report: dict[str, object]) -> str:
    specialties = report["by_specialty"]
    assert isinstance(specialties, dict)
    lines = [
        f"# Benchmark {report['name']}",
        "",
        f"{report['cases']} cases from {report['pool']} records, seed {report['seed']}.",
    ]
    lines += ["", "| specialty | cases |", "|---|---|", *(f"| {name} | {n} |" for name, n in specialties.items()), ""]
    short = report["short"]
    if isinstance(short, list) and short:
        lines.append(f"Fewer than asked for: {', '.join(short)}.")
    if report["contamination_checked"]:
        lines.append(f"Contamination: {report['contaminated']} records left out, contained in a training case.")
    else:
        lines.append("Contamination: not checked, no training set was given.")
    if report["filtered_by"]:
        lines.append(
            f"**Biased comparison**: cases were chosen by failures of {report['filtered_by']}; do not compare it or "
            "its descendants here. The promotion gate is disabled for them."
        )
    lines.append(
        f"Paired differences of {report['detectable_points']:.1f} points are found with 80% power (20% discordance)."
    )
    lines += ["", "Intended use: research; not a test of a medical device."]
    return "\n".join(lines) + "\n"
