"""The promotion policy: what a candidate must show before it may take the place of the model in use, rule by rule; and
what a pipeline tells the gate."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from clinical_r1.errors import UserError
from clinical_r1.settings import Catalogue, Names, Shelf, load
from clinical_r1.strict import Strict

DEFAULT_POLICY = Path(__file__).with_name("promotion.yaml")
Points = Annotated[float, Field(ge=0, le=100)]
Share = Annotated[float, Field(ge=0, le=1)]


class PrimaryRule(Strict):
    """Accuracy against the incumbent (or the base model): the lower end of the paired difference's 95% interval."""

    margin_points: Points = 2.0
    """How much worse a candidate may be in `non_inferior` mode; not used in `superior` mode."""
    design_points: Points = 4.0
    """The true gain for which the rule's power is printed."""
    require_independent: bool = True
    """The same bound must hold under the independent judge."""


class ForgettingRule(Strict):
    """General medical knowledge (MedQA form) against the *base* model."""

    margin_points: Points = 3.5
    """The one-sided lower bound must reach minus this. At n = 1,273 a bound of 2 would stop most unchanged models."""
    required: bool = True
    """Hold where no forgetting benchmark was given."""
    max_unread_rate: Share = 0.02
    """Hold where more of one side's answers commit to no choice that can be read: a change of form is no change of
    knowledge. Not of a probe that was made of the test cases, whose choices a model may never have seen."""


class SpecialtyRule(Strict):
    """No specialty may get worse. Its own cases speak first; what all specialties show together keeps small ones, which
    swing by chance, from deciding alone (`clinical_r1.stats.shrink`)."""

    alpha: float = Field(default=0.08, gt=0, lt=0.5)
    """Refuse where a specialty's own cases are worse at this one-sided level, uncorrected (missing harm is the worse
    error), and ..."""
    refuse_probability: float = Field(default=0.6, ge=0.5, lt=1)
    """... it is, all specialties considered, worse with at least this probability."""
    hold_below_points: Points = 8.0
    """A drop by more than this is harm that nobody may overlook: ..."""
    hold_probability: float = Field(default=0.1, gt=0, lt=0.5)
    """... hold where it has more than this probability, all specialties considered."""
    spread_points: float = Field(default=5.0, gt=0, le=50)
    """How far apart the true differences of specialties are thought to be (standard deviation of the prior)."""
    min_cases: int = Field(default=30, ge=1)
    """Specialties with fewer pairs are judged together, as one group."""
    design_drop_points: Points = 5.0
    """The true drop for which the rule's power is printed."""


class ReasoningRule(Strict):
    """The model still reasons before it answers."""

    min_rate: Share = 0.9
    """Least share of outputs with one closed thought and an answer."""


class HallucinationRule(Strict):
    """Findings and numbers in the thought that are not in the case."""

    max_rate: Share = 0.2
    """Largest share of predictions with at least one."""


class NoIncumbentRule(Strict):
    """What is asked of the first model, besides beating the base model."""

    min_accuracy: Share = 0.5
    """The one-sided lower bound of its accuracy must reach this."""


class Policy(Strict):
    """A whole policy file."""

    mode: Literal["superior", "non_inferior"] = "superior"
    """Must the candidate be better, or only not worse by more than the margin?"""
    primary: PrimaryRule = Field(default_factory=PrimaryRule)
    forgetting: ForgettingRule = Field(default_factory=ForgettingRule)
    specialty: SpecialtyRule = Field(default_factory=lambda: SpecialtyRule())
    reasoning: ReasoningRule = Field(default_factory=ReasoningRule)
    hallucination: HallucinationRule = Field(default_factory=HallucinationRule)
    no_incumbent: NoIncumbentRule = Field(default_factory=NoIncumbentRule)
    max_unscored_rate: Share = 0.02
    """Hold where more judgements than this failed."""


class GateConfig(Strict):
    """The promotion gate at the end of a training pipeline."""

    policy: Annotated[Path | None, Names.FILES] = None
    """Policy file; None: the shipped one (clinical_r1/evaluation/promotion/promotion.yaml)."""
    incumbent: Annotated[Path | None, Names.MODEL] = None
    """Folder of the model in use; None: there is none, and the rival is the base model plus an absolute minimum."""
    cases: int = Field(default=0, ge=0)
    """Test cases that the rival answers too, drawn by the seed; 0: all."""
    forgetting: Annotated[Path | None, Names.FILES] = None
    """Forgetting benchmark in MedQA form; None: the test cases themselves, made into choices (a weak substitute)."""
    forgetting_cases: int = Field(default=0, ge=0)
    """Items of it, drawn by the seed; 0: all."""

    @field_validator("policy", "incumbent", "forgetting", mode="before")
    @classmethod
    def _on_disk(cls, value: Any) -> Any:
        if isinstance(value, str) and "://" in value:  # as a path it would lose a slash
            raise ValueError(f"{value} is an address; copy it to this machine and give the path of the copy")
        return value


def read_policy(path: Path = DEFAULT_POLICY, options: Sequence[str] = ()) -> Policy:
    """A policy file and `--set` options; UserError names place and key."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such policy file; give one or leave it out for the shipped policy")
    return load(Policy, path, options, Catalogue(Shelf(DEFAULT_POLICY.parent, "policy")), "--policy")
