"""What the records step can be told. Every policy that a reader of the results may question is a field with a default.

`RecordsConfig` is parsed from YAML or JSON; relative paths are taken from the working directory.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from clinical_r1.errors import UserError
from clinical_r1.privacy.config import PhiConfig
from clinical_r1.rewards import Signal
from clinical_r1.schema import SPLITS
from clinical_r1.settings import Names, Seed
from clinical_r1.strict import Strict
from clinical_r1.text import Language


class Source(Strict):
    """One file (or folder of FHIR bundles) of cases."""

    path: str
    """A file, a folder (a FHIR export, a folder of the `datasets` library), or a glob; gzip is unpacked."""
    format: str = "auto"
    """auto looks at the file; else a form of `clinical_r1.records.readers.registry.FORMATS`."""
    encoding: str = ""
    """Insist on one (utf-8, gb18030, ...); empty finds out."""
    map: dict[str, str] = Field(default_factory=dict)
    """Case field -> column or JSON key (dots descend); several are joined with `+`, odd names stand in quotes. `items`
    names the key under which a wrapped file has its list."""
    language: Literal["auto", "en", "zh"] = "auto"
    """auto decides for each row by its script."""
    source: str = ""
    """Name in the records and the card; the file's stem where empty."""
    site: str = ""
    """Site of rows that name none."""
    terms: str = ""
    """Licence or terms of use of this source, repeated in the card."""
    candidates: bool = False
    """DxBench: list the candidate diseases in the question (a closed choice); off asks an open question."""
    closed: bool = False
    """MedQA: keep the options (a closed choice). Off asks it open, as synthesis does."""


class SplitConfig(Strict):
    """Sizes of the four disjoint splits."""

    counts: dict[str, int] = Field(default_factory=dict)
    """Exact sizes; used when that many cases exist, the surplus stays out and is counted. Empty: fractions."""
    fractions: dict[str, float] = Field(default_factory=lambda: {"sft": 0.5, "rl": 0.2, "validation": 0.1, "test": 0.2})
    """Shares of all cases; used without counts, or when there are too few cases for them."""
    when_short: Literal["fractions", "fail"] = "fractions"
    """What to do with fewer cases than the counts ask for."""
    test_sites: list[str] = Field(default_factory=list)
    """Sites that go to `test` as a whole and nowhere else (the held-out-site experiment)."""

    @model_validator(mode="after")
    def _known_splits(self) -> Self:
        for name, sizes in (("counts", self.counts), ("fractions", self.fractions)):
            if sizes and set(sizes) != set(SPLITS):
                raise ValueError(f"splits.{name} must name exactly {', '.join(SPLITS)}")
            if any(size < 0 for size in sizes.values()):
                raise ValueError(f"splits.{name} must not be negative")
        total = sum(self.fractions.values())
        if not 0.999 < total < 1.001:
            raise ValueError(f"splits.fractions sum to {total:g}; they must sum to 1")
        return self


class DedupConfig(Strict):
    """Duplicates within the data."""

    exact: bool = True
    """Drop a case whose normalised question and reference were seen before."""
    near: Literal["drop", "group", "off"] = "drop"
    """Near-duplicates: drop the later one, keep all but in one split, or do not look."""
    threshold: float = Field(default=0.85, gt=0, le=1)
    """Containment (shared shingles over those of the shorter text) from which two texts are near-duplicates."""
    same_reference: bool = True
    """Only count texts with one reference; look-alikes with different diagnoses are not duplicates."""
    min_shingles: int = Field(default=12, ge=1)
    """Texts with fewer distinctive shingles are compared exactly only."""


class ContaminationConfig(Strict):
    """Training data against benchmarks, by containment: a shared 13-gram alone is not contamination."""

    benchmarks: Annotated[list[Source], Names.FILES] = Field(default_factory=list)
    """Sets that must stay unseen: a case that contains one of their items (or lies in one) is dropped from the data."""
    threshold: float = Field(default=0.5, gt=0, le=1)
    """Containment from which a case is contaminated (notes: at 0.5, 4 of 308 MedBullets items; any 13-gram: 137)."""
    ngram: int = Field(default=8, ge=3)
    """Words a shingle; in Chinese 1.6 times as many characters."""
    min_shingles: int = Field(default=8, ge=1)
    """Benchmark items with fewer shingles are compared exactly only."""


class WindowConfig(Strict):
    """Questions longer than what the model's window leaves for them, found before traces are paid for."""

    longer: Literal["refuse", "drop"] = "refuse"
    """refuse: the step fails and says what helps; drop: such cases are left out and counted (too_long)."""
    tokens: int = Field(default=0, ge=0)
    """Most tokens of a question as the model is asked; 0: a run works it out from its models and settings."""
    tokenizer: Annotated[str, Names.TOKENIZER] = ""
    """Folder with the tokenizer.json that counts; empty: the base model's, or an estimate that is never too high."""
    advice: str = ""
    """What widens the room, for the message; a run fills it in."""


class LaterConfig(Strict):
    """What later steps ask of the cases. A run fills this in from their settings: what they would refuse after hours of
    training is refused here, before anything is paid."""

    paid: list[Signal] = Field(default_factory=list)
    """What the reward table pays: each case of `rl` needs one of these. Empty: nothing is asked."""
    watched: int = Field(default=0, ge=0)
    """So many cases of `validation`, the first, are what RL is watched by: each needs a reference."""
    rubrics: bool = True
    """Whether a model judges the evaluation: rules cannot grade the rubrics of `test`."""
    probe: bool = False
    """Whether the gate makes its probe of forgetting from `test`, which takes two diagnoses of one language."""


def split_outside_quotes(text: str, mark: str) -> list[str]:
    """Parts of `text` between `mark`s that stand in no quotes and behind no backslash."""
    parts, quote, escaped = [""], "", False
    for char in text:
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif quote:
            quote = "" if char == quote else quote
        elif char == '"' or (char == "'" and not parts[-1].strip().rpartition("=")[2].rpartition("+")[2].strip()):
            quote = char
        elif char == mark:
            parts.append("")
            continue
        parts[-1] += char
    return parts


def parse_map(text: str) -> dict[str, str]:
    """`question=complaint+history,reference=diagnosis` as a map; a UserError where a part is no pair.

    Columns whose names hold a comma, `+` or `=` are quoted: `question="complaint, history"+"Na+"`.
    """
    pairs = [split_outside_quotes(part, "=") for part in split_outside_quotes(text, ",") if part.strip()]
    if not pairs or any(len(pair) < 2 or not pair[0].strip() or not "=".join(pair[1:]).strip() for pair in pairs):
        raise UserError(
            f"--map {text}: expected FIELD=COLUMN pairs joined by commas, such as question=note,reference=dx; "
            'quote a column whose name holds a comma: question="complaint, history"'
        )
    return {pair[0].strip(): "=".join(pair[1:]).strip() for pair in pairs}


class RecordsConfig(Strict):
    """The whole records step."""

    sources: list[Source] = Field(min_length=1)
    """Where the cases come from; all sources together make the four splits."""
    languages: list[Language] = Field(default_factory=list)
    """Take rows in these languages only; empty takes all."""
    limit: int | None = Field(default=None, ge=1)
    """Take this many well-formed rows of all sources together; None takes all."""
    limit_by: Literal["seeded", "first"] = "seeded"
    """Which ones: drawn by the seed, or the first in file order."""
    seed: Seed = 0
    """Seed of the splits and of `limit`."""
    splits: SplitConfig = Field(default_factory=SplitConfig)
    """Sizes, or shares, of the four splits."""
    group_by: list[Literal["patient", "site"]] = Field(default=["patient", "site"])
    """Cases that share one of these keys never part; the run fails where that leaves a split empty. A row without a
    patient, in a source whose other rows have one, is dropped; a row without a site is grouped by its patient alone.
    Data of one or two sites cannot be split by site: set [patient]."""
    stratify_by: list[Literal["specialty", "icd10_chapter", "language", "site"]] = Field(
        default=["specialty", "icd10_chapter"]
    )
    """What each split gets the same mix of."""
    max_reject_rate: float = Field(default=0.05, ge=0, le=1)
    """A larger share of malformed rows fails the step."""
    icd10_invalid: Literal["reject", "clear"] = "reject"
    """A code of no known form: reject the row, or keep it without a code (counted). Codes of ICD-10-CM that the WHO
    tree does not have, of ICD-9, ICD-11, ICD-O and SNOMED CT never reject a row."""
    code_map: str = ""
    """CSV or TSV of two columns, code and icd10: what codes of other systems (ICD-9, SNOMED CT) become. Codes that it
    lacks are dropped."""
    specialties: str = ""
    """YAML file that replaces the shipped specialty mapping (clinical_r1/records/specialty.yaml)."""
    dedup: DedupConfig = Field(default_factory=DedupConfig)
    """Duplicates within the data."""
    contamination: ContaminationConfig = Field(default_factory=ContaminationConfig)
    """Benchmarks that training must not have seen."""
    window: WindowConfig = Field(default_factory=WindowConfig)
    """Questions longer than the model's window."""
    leakage: Literal["drop", "mask", "keep"] = "drop"
    """The reference diagnosis stated in the question: drop the case, blank the words, or keep it (counted)."""
    phi: PhiConfig = Field(default_factory=PhiConfig)
    """The PHI gate."""
    later: LaterConfig = Field(default_factory=LaterConfig)
    """What later steps ask of the cases; a run fills it in."""
