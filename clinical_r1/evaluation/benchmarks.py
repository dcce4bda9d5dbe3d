"""Benchmarks: by name or by file, read as a run reads its records, and built from the user's own.

Multiple-choice sets are asked with their options. Every row counts: a malformed one ends the evaluation with its place,
one that can have no answer (several right options, a part of the set without answers) is counted and left out.

`build_benchmark` makes one in MedBench-Hard's form (7 specialties x 500, ICD-10 stratified). Reproducible: which cases
are drawn depends on the seed and their ids, not on their order. At most one case a patient. Contaminated cases are left
out and counted. A difficulty filter by a model's failures is off by default: it flatters every rival of that model
(regression to the mean), so it is recorded and disables the promotion gate for that model.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic import Field, model_validator

from clinical_r1.atomic import write_text
from clinical_r1.containment import ContainmentIndex
from clinical_r1.errors import UserError
from clinical_r1.evaluation.inputs import CONFIG, rank
from clinical_r1.evaluation.measure.credit import chapter
from clinical_r1.evaluation.measure.metrics import is_right
from clinical_r1.page import environment
from clinical_r1.privacy.config import SYNTHETIC_KEY, PhiConfig, load_key, patient_hash
from clinical_r1.records.config import RecordsConfig, Source
from clinical_r1.records.intake import Intake
from clinical_r1.records.readers.registry import FORMS, resolved_format
from clinical_r1.records.row import Row
from clinical_r1.references import references_of
from clinical_r1.schema import Case, Prediction, Trace, read_jsonl, write_jsonl
from clinical_r1.stats import minimum_detectable_effect
from clinical_r1.strict import Strict

OPEN = (
    "the conclusion names the reference diagnosis, by a name or code that means it; a judge decides what rules cannot"
)
CLOSED = "the right option is chosen, or all right ones and no other where there are several"
RUBRIC = "no right or wrong: points of the rubric that a model says are met, over the points to be had"
RANKED = "the first of the listed diagnoses is the reference (top 1), or any of the {n} (top {n}); each is judged alone"
TOP = 5
"""Diagnoses of a list, as DiagnosisArena's publishers ask for them."""
CASES = "cases"
"""What a file of our own cases is called here; the reader's name for it is `jsonl`."""


def names() -> list[str]:
    """All known benchmarks."""
    return sorted(CASES if name == "jsonl" else name for name in FORMS)


class CaseSet(NamedTuple):
    """A benchmark's file under the name that reports use."""

    name: str
    form: str
    """A name of `names()`, with `:open`, `:closed` or `:top5` behind it where that is asked for, or `auto` where a map
    says what is what."""
    path: Path
    columns: Mapping[str, str] = {}
    """Case field -> column, for tables and JSON of any form."""

    @property
    def ranked(self) -> int:
        """Diagnoses that each open question is asked for; 0 where it is one conclusion."""
        return TOP if self.form.endswith(f":top{TOP}") else 0

    def load(self) -> tuple[list[Case], list[str]]:
        """The cases, and what the figures have to say of them; UserError where there are none."""
        cases, left_out = _read(self.form, self.path, self.columns)
        said = ", ".join(f"{n} x {reason}" for reason, n in left_out.most_common())
        left = [f"{left_out.total()} items of the file left out: {said}"] if said else []
        return cases, [f"right here: {self.rule_of(cases)}", *left]

    def rule_of(self, cases: Sequence[Case]) -> str:
        """What counts as right in a benchmark of this form, asked as these cases are."""
        if any(case.rubric and not case.references for case in cases):
            return RUBRIC
        if self.ranked:
            return RANKED.format(n=TOP)
        name = self.form.partition(":")[0]
        found = FORMS.get("jsonl" if name == CASES else name)
        rule = CLOSED if all(case.options for case in cases) else OPEN
        return f"{rule}; {found.rule}" if found is not None and found.rule else rule


def load_benchmark(form: str, path: Path, columns: Mapping[str, str] | None = None) -> list[Case]:
    """The cases of a file (a folder, a glob) by form; UserError for a malformed row, a doubled id, or no cases."""
    return _read(form, path, columns)[0]


def _how(form: str) -> tuple[str, str]:
    """The form's name as readers know it and how it is to be asked; UserError for an unknown one."""
    name, _, how = form.partition(":")
    if name not in names():
        raise UserError(f"benchmark {name}: unknown; known ones are {', '.join(names())}")
    if how not in ("", "open", "closed", f"top{TOP}"):
        raise UserError(f"benchmark {form}: ask it {name}:open or {name}:closed, or for a list, {name}:top{TOP}")
    return "jsonl" if name == CASES else name, how


def _read(form: str, path: Path, columns: Mapping[str, str] | None = None) -> tuple[list[Case], Counter[str]]:
    name, how = ("auto", "") if form == "auto" else _how(form)
    source = Source(
        path=str(path), format=name, map=dict(columns or {}), closed=how in ("", "closed"), candidates=how == "closed"
    )
    intake = Intake(RecordsConfig(sources=[source], icd10_invalid="clear"))
    key = load_key(PhiConfig()) or SYNTHETIC_KEY
    cases = [_case(row, key) for row in intake.rows()]
    bad = next((reject for reject in intake.rejects if reject.kind == "malformed"), None)
    if bad is not None:
        raise UserError(f"{path}:{bad.line}: {bad.reason}; correct the row, or give the benchmark's original file")
    if not cases:
        raise UserError(f"{path}: no cases in it; give a file with one case a line, or a benchmark's original file")
    if len({case.id for case in cases}) < len(cases):
        raise UserError(f"{path}: some case ids occur twice; give each case its own id")
    if how == "closed" and not any(case.options for case in cases):
        raise UserError(f"{path}: no choices in it; ask it open: {form.partition(':')[0]}=FILE")
    return cases, Counter(reject.reason for reject in intake.rejects)


def _case(row: Row, key: bytes) -> Case:
    fields = {name: value for name, value in row.fields.items() if name != "reference"}
    if fields.get("origin") == f"{row.file}:{row.line}":
        del fields["origin"]  # a benchmark does not depend on the order of its file
    patient = patient_hash(key, row.patient_id) if row.patient_id else ""
    references = references_of(row.fields) if fields.get("references") or not fields.get("rubric") else []
    return Case.model_validate({**fields, "references": references, "patient": patient})


def find(wanted: str, folder: Path, columns: Mapping[str, str] | None = None) -> list[CaseSet]:
    """The files that NAME (in `folder` under its usual names), NAME=FILE, or FILE (recognised) stands for."""
    if Path(wanted).exists():
        return [CaseSet(Path(wanted).stem, recognise(Path(wanted), columns), Path(wanted), columns or {})]
    form, separator, file = wanted.partition("=")
    if not separator and form.partition(":")[0] not in names():
        known = ", ".join(names())
        raise UserError(f"--benchmark {wanted}: neither a file nor a known benchmark; known ones are {known}")
    name, how = _how(form)
    found = [Path(file)] if separator else [path for one in FORMS[name].files if (path := folder / one).is_file()]
    if not found:
        said = ", ".join(FORMS[name].files) or "no usual file name"
        raise UserError(f"--benchmark {wanted}: not in {folder} ({said}); give --data FOLDER or {wanted}=FILE")
    return [CaseSet(f"{path.stem}-{how}".rstrip("-"), form, path) for path in found]


def recognise(path: Path, columns: Mapping[str, str] | None = None) -> str:
    """The form that a file is of, by its first row; UserError where none knows it."""
    found = resolved_format(Source(path=str(path), map=dict(columns or {})))
    return CASES if found == "jsonl" else found if found in FORMS else "auto"


class Overlap(NamedTuple):
    """A benchmark case and the training case that holds most of it."""

    case_id: str
    training_id: str
    containment: float


WORDS = 8
"""Words of a shingle."""
MIN_SHINGLES = 8
"""Shorter questions are compared as a whole only."""


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


MIN_UNFILTERED = 0.2


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
    specialties: list[str] = Field(
        ["respiratory", "gastroenterology", "urology", "cardiology", "immunology", "neurology", "endocrinology"],
        min_length=1,
    )
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
) -> dict[str, Any]:
    """Write cases.jsonl, benchmark.json, contamination.json and card.md; returns benchmark.json.

    `training` are files of cases or of traces. Raises UserError where nothing fits.
    """
    pool = load_benchmark(recognise(cases, columns), cases, columns)
    files = [training] if isinstance(training, str | Path) else list(training or ())
    found = overlaps(pool, [case for file in files for case in read_training(Path(file))], 0.0)
    leaked = {row.case_id for row in found if row.containment >= config.contamination}
    first: dict[str, Case] = {}  # of each patient
    for case in sorted(pool, key=lambda case: rank(config.seed, case.id)):
        if case.id not in leaked:
            first.setdefault(case.unit, case)
    known, hard = _failures(config.difficulty, pool) if config.difficulty else ({}, None)
    of_specialty: dict[str, list[Case]] = defaultdict(list)
    for case in first.values():
        of_specialty[case.specialty].append(case)
    chosen = [case for name in config.specialties for case in _draw(config, of_specialty[name], hard)]
    if not first:
        raise UserError(f"{cases}: a training case contains every one of its {len(pool)} cases; give unseen ones")
    if not chosen:
        raise UserError(
            f"{cases}: no case of the specialties {', '.join(config.specialties)}; map your specialties first"
        )
    counts = Counter(case.specialty for case in chosen)
    report: dict[str, Any] = {
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
    write_text(out_dir / "card.md", environment().get_template("benchmark.md.j2").render(report) + "\n")
    if files:
        # Which records were left out and why, and how near the kept ones come. Ids only, no text.
        steps, kept = [step / 10 for step in range(1, 11)], {case.id for case in chosen}
        contamination = {
            "training": [str(file) for file in files],
            "threshold": config.contamination,
            "left_out": [row._asdict() for row in found if row.case_id in leaked],
            "records_at_least": {f"{step:.1f}": sum(row.containment >= step for row in found) for step in steps},
            "highest_kept": max((row.containment for row in found if row.case_id in kept), default=0.0),
        }
        write_text(out_dir / "contamination.json", json.dumps(contamination, indent=1) + "\n")
    write_text(out_dir / "benchmark.json", json.dumps(report, ensure_ascii=False, indent=1) + "\n")
    return report


def read_training(path: Path) -> list[Case]:
    """What a model was trained on, as cases: a file of cases, or of traces."""
    first = b""
    if path.is_file():
        with open(path, "rb") as lines:
            first = lines.readline()
    if b'"case_id"' not in first or b'"attempts"' not in first:
        return load_benchmark(recognise(path), path)
    return [
        Case(id=row.case_id, language=row.language, question=row.question, references=row.references)
        for row in read_jsonl(path, Trace)
    ]


def bias_of(benchmark: dict[str, Any], models: Sequence[str], ancestors: Sequence[str] = ()) -> str:
    """Why a comparison of these models (names and identities) on this benchmark is biased; "" where it is not. Goes to
    `GateInputs.biased`."""
    filtered_by = str(benchmark.get("filtered_by", ""))
    marks = {filtered_by, str(benchmark.get("filtered_identity", ""))} - {""}
    if marks & {*models, *ancestors}:
        return f"cases were chosen by the failures of {filtered_by}, which is compared or an ancestor"
    return ""


def _failures(difficulty: DifficultyFilter, pool: Sequence[Case]) -> tuple[dict[str, Any], set[str]]:
    """What the evaluation beside the predictions says of its model (nothing where there is none), and the cases that
    the model got wrong."""
    rows = read_jsonl(difficulty.predictions, Prediction)
    if not {row.case_id for row in rows} & {case.id for case in pool}:
        raise UserError(
            f"{difficulty.predictions}: no prediction of the records; evaluate {difficulty.model} on them first"
        )
    path = difficulty.predictions.parent / CONFIG
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    name = known.get("model_name")
    if name and name != difficulty.model:
        raise UserError(f"difficulty.model: these predictions are of {name}, not of {difficulty.model}; write {name}")
    return known, {row.case_id for row in rows if is_right(row) is False}


def _draw(config: BuilderConfig, members: Sequence[Case], hard: set[str] | None) -> list[Case]:
    """Cases of one specialty, spread over its ICD-10 categories in turn; after the unfiltered share, failed ones."""
    free = _in_turn(members, config.per_specialty)
    if hard is None or config.difficulty is None:
        return free
    kept = free[: round(len(free) * config.difficulty.unfiltered + 0.499)]
    taken = {case.id for case in kept}
    failed = _in_turn([case for case in members if case.id in hard - taken], config.per_specialty - len(kept))
    taken |= {case.id for case in failed}
    return (kept + failed + [case for case in free if case.id not in taken])[: config.per_specialty]


def _in_turn(cases: Sequence[Case], count: int) -> list[Case]:
    """Every category's first case, every category's second, ..."""
    seen: Counter[str] = Counter()
    turns = []
    for place, case in enumerate(cases):
        turns.append((seen[case.icd10[:3]], case.icd10[:3], place))
        seen[case.icd10[:3]] += 1
    return [cases[place] for *_, place in sorted(turns)[: max(0, count)]]
