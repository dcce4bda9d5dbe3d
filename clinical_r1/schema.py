"""The records that every room speaks, and their JSONL form: one record a line, UTF-8, validated by pydantic.

Case -> (synthesis) -> Trace -> (training) -> model -> (evaluation) -> Prediction. A `Verdict` judges an answer against
the references; `undecided` (the rules could not tell) and `invalid` (the judgement failed) are neither right nor wrong.
"""

import codecs
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from clinical_r1 import asking
from clinical_r1.atomic import atomic_writer
from clinical_r1.errors import UserError
from clinical_r1.reasoning import ConclusionKind, Outcome
from clinical_r1.references import references_of
from clinical_r1.strict import Strict
from clinical_r1.text import Language

SPLITS = ("sft", "rl", "validation", "test")


class Referenced(Strict):
    """What carries reference diagnoses. On input a `reference` text is taken as well, and taken apart where it is a
    list (`1.肺炎 2.高血压`; see `clinical_r1.references`); an option of a multiple-choice item never is."""

    references: list[str] = Field(min_length=1)
    """The reference diagnoses, principal first (or the one reference answer of an open question)."""

    @model_validator(mode="before")
    @classmethod
    def _take_one_text(cls, data: Any) -> Any:
        if not isinstance(data, dict) or ("reference" not in data and ("references" in data or data.get("rubric"))):
            return data
        if "reference" not in data:
            raise ValueError("reference: missing")
        given = {key: value for key, value in data.items() if key != "reference"}
        text, listed = data["reference"], data.get("references")
        if listed:
            if not isinstance(listed, list) or text != listed[0]:
                raise ValueError("reference: not the first of references; give one of the two keys")
            return given
        if not isinstance(text, str):
            raise ValueError(f"reference: {'null' if text is None else type(text).__name__}; write a text")
        if not text.strip():
            raise ValueError("reference: empty")
        return given | {"references": references_of(data)}

    @field_validator("references")
    @classmethod
    def _hold_text(cls, references: list[str]) -> list[str]:
        if not all(reference.strip() for reference in references):
            raise ValueError("an empty reference")
        return references

    @property
    def reference(self) -> str:
        """The principal reference; empty where a rubric alone says what a good answer holds."""
        return self.references[0] if self.references else ""


class Turn(Strict):
    """What was said in a conversation before its last question."""

    role: Literal["system", "user", "assistant"]
    content: str


class Criterion(Strict):
    """One item of a rubric: what an answer holds or does, and what that earns."""

    text: str = Field(min_length=1)
    points: float
    """Below 0 for what an answer should not hold."""
    tags: list[str] = Field(default_factory=list)
    """Kinds of criteria that are reported apart, such as `axis:accuracy`."""


class Case(Referenced):
    """One clinical problem with its reference diagnoses, a rubric, or both."""

    references: list[str] = Field(default_factory=list)
    """The reference diagnoses, principal first (or the one reference answer of an open question; all right options of a
    multiple-choice item that has several)."""

    id: str = ""
    """Stable identity; the hash of (language, question, references) where the source has none."""
    language: Language
    question: str = Field(min_length=1)
    """The case as it was recorded: presentation, findings, and what is asked. What a model is asked is `prompt`."""
    specialty: str = "unknown"
    icd10: str = ""
    """WHO ICD-10 code of the principal reference, empty where unknown."""
    options: list[str] = Field(default_factory=list)
    """Choices of a multiple-choice item; empty for open problems."""
    turns: list[Turn] = Field(default_factory=list)
    """The conversation before the question; empty for most."""
    rubric: list[Criterion] = Field(default_factory=list)
    """What an answer earns points for, graded by a model; empty for most."""
    source: str = ""
    """The dataset or system it came from."""
    site: str = ""
    """Hospital or laboratory; splits never cut through a site where `group_by` names it."""
    patient: str = ""
    """Keyed hash of the patient; never an identifier of the source system."""
    sex: Literal["female", "male", ""] = ""
    age_band: str = ""
    """Ten-year band such as 40-49; 90+ is one band."""
    recorded: str = ""
    """ISO date of the record, shifted by the PHI gate."""
    origin: str = ""
    """Where it came from, as `file:line` under a name that may be told."""

    @model_validator(mode="after")
    def _fill_id(self) -> Self:
        if not self.references and not self.rubric:
            raise ValueError("references: empty")
        if not self.id:
            content = "\x1f".join((self.language, self.question, *self.references))
            self.id = "c-" + hashlib.sha256(content.encode()).hexdigest()[:16]
        return self

    @property
    def unit(self) -> str:
        """What is drawn whole: the patient, or the case where the patient is not known."""
        return self.patient or self.id

    @property
    def problem(self) -> str:
        """The question with its choices: what a judge and the prompts of synthesis are shown."""
        return asking.problem(self.question, self.options)

    @property
    def asks_for(self) -> ConclusionKind:
        """What the conclusion line of a reply names."""
        return asking.asks_for(self.question, self.options)

    @property
    def prompt(self) -> str:
        """What a model is asked, the one place: the problem, and the request to end with a conclusion line. The same
        words in training, in evaluation and for every rival. A case that has a rubric alone names no conclusion."""
        if not self.references:
            return self.problem
        several = bool(self.options) and len(self.references) > 1
        return f"{self.problem}\n\n{asking.request(self.language, self.asks_for, bool(self.options), several)}"


class VerdictLabel(StrEnum):
    """What a judge said of an answer."""

    CORRECT = "correct"
    INCORRECT = "incorrect"
    UNDECIDED = "undecided"
    """The rules could not read the answer: neither right nor wrong, never a reward; a judge decides where there is
    one."""
    INVALID = "invalid"
    """The judgement failed (no parse, no answer from the judge): masked out, counted, never a reward."""

    @property
    def right(self) -> bool | None:
        """Right, wrong, or None where there is no verdict: the one place that says which labels are verdicts."""
        return {VerdictLabel.CORRECT: True, VerdictLabel.INCORRECT: False}.get(self)


class Verdict(Strict):
    """One judgement of one answer."""

    label: VerdictLabel
    judge: str
    """Which judge: `rule`, `llm:<model>`, `ensemble`."""
    reason: str = ""
    """A short machine-made reason such as `icd10_category` or `unparseable`; never text of the record."""


class Strategy(StrEnum):
    """How an attempt was made (paper section 2.1.2)."""

    INITIAL = "initial"
    NEW_PATHS = "exploring_new_paths"
    BACKTRACKING = "backtracking"
    VERIFICATION = "verification"
    CORRECTIONS = "corrections"
    GUIDED = "guided"


RETRY_STRATEGIES = (Strategy.NEW_PATHS, Strategy.BACKTRACKING, Strategy.VERIFICATION, Strategy.CORRECTIONS)


class Attempt(Strict):
    """One chain of thought with its answer and what the verifier said of it."""

    strategy: Strategy
    reasoning: str
    answer: str
    verdict: Verdict


class TraceOutcome(StrEnum):
    """How a case left synthesis."""

    DIRECT = "direct"
    RECOVERED = "recovered"
    GUIDED = "guided"
    UNVERIFIED = "unverified"
    """Written by others, and no verifier has found its answer right: it names no reference, or none could tell."""
    REJECTED = "rejected"


MOST_TOKENS = 10_000_000
"""A count of tokens above it is none: no context is as long."""


class Usage(Strict):
    """What the calls behind a record consumed."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    """In the currency of the endpoint's price list."""

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(**{name: value + getattr(other, name) for name, value in self})


class Trace(Referenced):
    """The paper's triplet (question, thinking, response) and how it came about."""

    references: list[str] = Field(default_factory=list)
    """As a case has them; none where a trace of others names none, which is then unverified or rejected."""
    case_id: str
    sample: int = 0
    """Index among the traces asked of one case."""
    language: Language
    specialty: str = "unknown"
    question: str
    thinking: str = ""
    response: str = ""
    attempts: list[Attempt] = Field(default_factory=list)
    outcome: TraceOutcome
    reason: str = ""
    """Why it was rejected; empty for accepted traces."""
    synthesizer: str = ""
    """endpoint name / model id that the endpoint returned."""
    usage: Usage = Field(default_factory=Usage)

    @model_validator(mode="after")
    def _verified_by_a_reference(self) -> Self:
        if not self.references and self.outcome not in (TraceOutcome.UNVERIFIED, TraceOutcome.REJECTED):
            raise ValueError(f"references: empty, so the outcome cannot be {self.outcome.value}")
        return self

    @property
    def accepted(self) -> bool:
        """Rejected ones are never trained on; unverified ones are there only where an import keeps them."""
        return self.outcome is not TraceOutcome.REJECTED


class RubricScore(Strict):
    """An answer held against a rubric."""

    met: list[bool | None]
    """Of each criterion in order; None where the judgement failed."""
    judge: str

    def share(self, rubric: list[Criterion]) -> float | None:
        """Points earned over points to be had: at most 1, below 0 where penalties prevail. None where a judgement
        failed, or where nothing can be earned."""
        possible = sum(item.points for item in rubric if item.points > 0)
        if None in self.met or not possible:
            return None
        return sum(item.points for item, met in zip(rubric, self.met, strict=True) if met) / possible


class Prediction(Strict):
    """What a model said to one case."""

    case_id: str
    sample: int = 0
    output: str
    """The raw completion, tags included."""
    thinking: str
    response: str
    outcome: Outcome
    reasoning_tokens: int = 0
    answer_tokens: int = 0
    verdict: Verdict | None = None
    """By the reward judge; None until judged."""
    independent: Verdict | None = None
    """By the independent judge (rules and ICD-10, or another model)."""
    rubric: RubricScore | None = None
    """Of a case with a rubric, by the reward judge's model."""
    ranked: list[Verdict] = Field(default_factory=list)
    """By the reward judge, of each diagnosis where several were asked for, the most likely one first."""


RecordT = TypeVar("RecordT", bound=BaseModel)


def read_json(path: Path, model: type[RecordT], absent: str, fix: str, what: str = "") -> RecordT:
    """One model out of a JSON file that *we* wrote; UserError says `absent` where there is none, and else the place of
    the first problem, of what it is not, and the fix."""
    if not path.is_file():
        raise UserError(f"{path}: {absent}")
    try:
        return model.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UserError(f"{path}: {f'not {what}: ' if what else ''}{first_problem(error)}; {fix}") from None


def iter_jsonl(path: str | os.PathLike[str], model: type[RecordT]) -> Iterator[RecordT]:
    """Yield validated records of a file that *we* wrote; a bad line is an error that names file, line and key.

    Files from outside go through `clinical_r1.records`, which puts bad lines into rejects.jsonl and goes on.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; expected {model.__name__} records, one JSON object a line")
    # As bytes: a line that is not UTF-8 is a bad line like any other.
    with open(path, "rb") as handle:
        for number, line in enumerate(handle, 1):
            try:
                # Editors on Windows begin a file with a mark.
                if text := (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).strip():
                    yield model.model_validate_json(text)
            except ValidationError as error:
                raise UserError(f"{path}:{number}: not a {model.__name__}: {first_problem(error)}") from None


def read_jsonl(path: str | os.PathLike[str], model: type[RecordT]) -> list[RecordT]:
    """All records of a file; see `iter_jsonl`."""
    return list(iter_jsonl(path, model))


def write_jsonl(path: str | os.PathLike[str], rows: Iterable[BaseModel | dict]) -> int:
    """Write records atomically, one a line, for the owner alone to read; returns how many."""
    count = 0
    with atomic_writer(path, private=True) as handle:
        for row in rows:
            text = row.model_dump_json() if isinstance(row, BaseModel) else json.dumps(row, ensure_ascii=False)
            handle.write(text + "\n")
            count += 1
    return count


def first_problem(error: ValidationError) -> str:
    """The first problem of a pydantic error as `key: message` (the message alone where it is about several keys),
    without the offending value (it may be record text)."""
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, problem["loc"]))
    return f"{place}: {problem['msg'].removeprefix('Value error, ')}".removeprefix(": ")
