"""What an evaluation is told: how to sample, who judges, and in whose words cases are asked.

Published models by name are in `baselines.yaml`: how they are asked and how their answers are drawn, as their
publishers state it, each value with its source; the weights, or an endpoint that serves them, are the user's. The same
words may be put to any model (`prompt`), so that a table compares models and not prompts.
"""

from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from clinical_r1.atomic import read_table
from clinical_r1.dialects import AUTO, checked_name
from clinical_r1.privacy.crossing import CrossingPolicy
from clinical_r1.sampling import Sampling
from clinical_r1.settings import Seed
from clinical_r1.strict import Strict
from clinical_r1.verifier.config import JudgeConfig

OURS = "ours"
"""The prompt that training teaches: `Case.prompt`."""


class Words(Strict):
    """What a model is asked; an empty text is ours."""

    system: str = ""
    """The system message."""
    open: str = ""
    """An open question, with {question}."""
    closed: str = ""
    """A question with choices, with {question}, {options} and perhaps {letters}."""
    option: str = "{letter}. {text}"
    """One of the choices."""


class Baseline(Strict):
    """One published model."""

    about: str
    """What it is, in a line."""
    model: str
    """Its id where its weights are published, or at its maker's endpoint."""
    prompt: Words = Field(default_factory=Words)
    """How it is asked."""
    decoding: dict[str, int | float]
    """How answers are drawn: settings of an evaluation by their names there."""
    thinking: str = AUTO
    """Its dialect (clinical_r1/dialects.py)."""
    source: list[str] = Field(min_length=1)
    """Where the values above stand."""
    unstated: str = ""
    """What its publisher does not say."""


@cache
def baselines() -> dict[str, Baseline]:
    """Every baseline by name."""
    rows = read_table(Path(__file__).with_name("baselines.yaml"))
    return {name: Baseline.model_validate(row) for name, row in rows.items()}


def baseline(name: str) -> Baseline:
    """A baseline; ValueError for an unknown name."""
    if name not in baselines():
        raise ValueError(f"{name!r} is no baseline; use one of {', '.join(baselines())}")
    return baselines()[name]


def words(prompt: str) -> Words:
    """The words of a `prompt` setting; ValueError for an unknown one."""
    return Words() if prompt == OURS else baseline(prompt).prompt


def _known_words(prompt: str) -> str:
    words(prompt)
    return prompt


class EvaluationConfig(Strict):
    """One evaluation of one model."""

    model_name: str = ""
    """What reports call the model; the folder's or the endpoint's name where empty."""
    identity: str = ""
    """What the model is, under whatever name: written by the evaluation (hash of a folder's files, or of an endpoint's
    address and model), so that a benchmark that it filtered knows it again."""
    weights: str = ""
    """SHA-256 of the model's files that decide its text: written by the evaluation; empty for an endpoint."""
    benchmark: str = ""
    """What reports call the cases; the file's stem where empty."""
    ancestors: list[str] = Field(default_factory=list)
    """Names of the models that this one was trained from: what one of them filtered is biased for this one too."""
    baseline: str = ""
    """A published model (clinical_r1/evaluation/baselines.yaml): sets prompt, decoding and dialect as its publisher
    states them, where they are not set beside it."""
    prompt: Annotated[str, AfterValidator(_known_words)] = OURS
    """In whose words cases are asked: ours (what training teaches), or those of a baseline."""
    ranked: int = Field(0, ge=0)
    """Diagnoses that an open question is asked for, the most likely one first; each is judged, and counted is whether
    the first, and whether any of them is right. Set by a benchmark that is asked so (NAME:top5); 0: one conclusion."""
    samples: int = Field(1, ge=1)
    """Answers to each case; more than one gives pass@k, majority vote and calibration."""
    temperature: float = Field(0.0, ge=0)
    """0 is greedy; several samples need more."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus sampling."""
    top_k: int = Field(-1, ge=-1)
    """Tokens to choose among; -1 is off."""
    repetition_penalty: float = Field(1.0, gt=0)
    """Of tokens that the prompt or the answer so far holds; 1 is off."""
    max_new_tokens: int = Field(1024, ge=1)
    """Room for thought and answer; what is cut off inside of a thought counts as `unclosed`, a wrong answer.
    A local model whose whole window is no larger answers in half of its window."""
    seed: Seed = 0
    """Each (case, sample) draws from its own stream of this seed, so the order of work changes nothing."""
    batch_rows: int = Field(256, ge=1)
    """Prompts handed to the decoder at once, and journalled together; the decoder splits them to fit its memory."""
    device: str = "cpu"
    """Where a local checkpoint runs: cpu, cuda, cuda:1."""
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    """Of a local checkpoint's weights; auto is what the folder says."""
    thinking: Annotated[str, AfterValidator(checked_name)] = AUTO
    """How a local model marks its thoughts (a name of clinical_r1/dialects.py); auto asks its chat template, and where
    that does not say, each answer. Of an endpoint its own entry says it."""
    system_prompt: str = ""
    """A system message in place of the prompt's own; a model of ours thinks without being told."""
    reward_judge: JudgeConfig = Field(default_factory=JudgeConfig)
    """The judge that training's reward came from."""
    independent_judge: JudgeConfig | None = Field(default_factory=JudgeConfig)
    """A judge that training never saw; a gain under the reward judge alone is not shown. None: leave it out."""
    budget_cases: int = Field(200, ge=0)
    """Cases, drawn by the seed, whose thoughts are also cut at several budgets, so that accuracy against the thinking
    budget can be drawn (a local model's only): about 3.6 more short answers a case, and their judgements by the reward
    judge. 0: no curve."""
    judge_concurrency: int = Field(128, ge=1)
    """Judgements in flight."""
    crossing: CrossingPolicy = Field(default_factory=CrossingPolicy)
    """What may leave the security boundary where the evaluated model is an endpoint (each judge has its own)."""

    @property
    def decoding(self) -> Sampling:
        """How answers are drawn."""
        return Sampling(temperature=self.temperature, top_p=self.top_p, top_k=self.top_k,
                        repetition_penalty=self.repetition_penalty, max_tokens=self.max_new_tokens)  # fmt: skip

    @model_validator(mode="before")
    @classmethod
    def _as_published(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not data.get("baseline"):
            return data
        name = str(data["baseline"])
        return {"prompt": name, "thinking": baseline(name).thinking, **baseline(name).decoding, **data}

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("samples above 1 need a temperature above 0: greedy samples are all the same")
        return self
