"""The configuration of a whole run, one section per step, and of an experiment: a run, and a section of its own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeVar

from pydantic import Field, model_validator

import clinical_r1
from clinical_r1.evaluation.config import EvaluationConfig
from clinical_r1.evaluation.promotion.policy import GateConfig
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.records.config import RecordsConfig
from clinical_r1.settings import Catalogue, Document, Seed, Shelf
from clinical_r1.simulator.beside import SimulatorConfig
from clinical_r1.strict import Strict
from clinical_r1.synthesis.config import SynthesisConfig
from clinical_r1.training.base import BaseModelConfig
from clinical_r1.training.ppo.config import PPOConfig
from clinical_r1.training.sft.config import SFTConfig
from clinical_r1.verifier.config import JudgeConfig

_METHOD = Path(clinical_r1.__file__).parent
CONFIG_FOLDER = Path(__file__).parent / "configs"
RUNS = Catalogue(
    files=Shelf(CONFIG_FOLDER),
    sections={
        "records": Shelf(_METHOD / "records" / "configs", "section"),
        "synthesis": Shelf(_METHOD / "synthesis" / "configs", "section"),
        "sft": Shelf(_METHOD / "training" / "configs", "section", "sft-"),
        "ppo": Shelf(_METHOD / "training" / "configs", "section", "ppo-"),
        "evaluation": Shelf(_METHOD / "evaluation" / "configs", "section"),
    },
)
"""Shipped run configurations, and sections that may be the name of a shipped file (`sft: sft-paper-7b-1x80-lora`)."""


class SimulatedWorldConfig(Strict):
    """The simulated teacher and judge, and the records sampled from their world. Not for production: leave it out."""

    cases: int = Field(default=5000, ge=1)
    """Records to sample from the simulated world where no `--cases` are given."""
    zh_share: float = Field(default=0.5, ge=0, le=1)
    """Share of Chinese records."""
    seed: Seed = 0
    """Seed of the records."""
    twins: bool = False
    """Write every patient in both languages, with ids that differ in the language alone; `cases` counts both."""
    dialect_site: str = ""
    """A site effect: this site (north, harbor, hillside) writes many findings in words of its own."""
    endpoint: SimulatorConfig = Field(default_factory=SimulatorConfig)
    """What the endpoint is told to be: competence, latency, failures."""


class ReportConfig(Strict):
    """What the report shows."""

    title: str = "ClinicalGPT-R1: training report"
    """Heading of the page."""
    samples: int = Field(default=6, ge=0)
    """Sample traces and predictions to print; 0 for a report without any record text."""
    simulated: bool = False
    """Say at the top that the cases come from a simulated world."""
    simulated_teacher: bool = False
    """Say at the top that teacher and judge are the simulated endpoint."""
    base_model: str = ""
    """What the model card calls the model that SFT started from."""
    licence: str = ""
    """Of the weights, for the model card; that of the base model binds what was trained from it."""
    ceiling: float | None = Field(default=None, ge=0, le=1)
    """Best accuracy that anyone could reach on these cases, where it is known (a simulated world)."""


class RunConfig(Strict):
    """Everything that the `train` pipeline is told."""

    simulator: SimulatedWorldConfig | None = None
    """Start the simulated endpoint beside the run; None = the endpoints below are real."""
    records: RecordsConfig
    """Sources, PHI policy, splits."""
    shards: int = Field(default=1, ge=1, le=1000)
    """Parts that synthesis is cut into (ParallelFor); the dataset does not depend on it."""
    synthesis: SynthesisConfig
    """Endpoints, strategies, filters."""
    base_model: BaseModelConfig
    """What SFT starts from."""
    sft: SFTConfig
    """Supervised fine-tuning."""
    ppo: PPOConfig
    """Reinforcement learning."""
    evaluation: EvaluationConfig
    """Sampling and judges of the test."""
    gate: GateConfig = Field(default_factory=GateConfig)
    """The promotion gate: policy, model in use, forgetting benchmark."""
    report: ReportConfig = Field(default_factory=ReportConfig)
    """The page at the end."""


class Settings(Strict):
    """Common to all experiments."""

    design_points: float = Field(default=5.0, gt=0)
    """The effect, in points, for which the power is computed: name the one that would matter to you."""
    planted_points: float | None = None
    """Size of the effect that the simulated world is known to have; leave it out for real data."""


class AblateRl(Settings):
    """SFT against SFT + RL."""

    seeds: list[Seed] = Field(default=[0, 1, 2], min_length=1)
    """Seeds of RL; all start from one SFT model."""


class AblateRewards(Settings):
    """Reward tables against each other."""

    tables: list[str] = Field(default=["paper", "huatuo", "icd10_graded"], min_length=2)
    """Names from reward_tables.yaml; the first is the reference, the last one the question."""
    seeds: list[Seed] = Field(default=[0, 1], min_length=1)
    """Seeds of RL for each table."""


class CompareAlgorithms(Settings):
    """Algorithms of RL against each other, on as many rollouts each: `ppo.steps` batches of `ppo.batch_size`."""

    algorithms: list[Literal["ppo", "grpo", "rloo"]] = Field(default=["ppo", "rloo", "grpo"], min_length=2)
    """The first is the reference, the last one the question."""
    seeds: list[Seed] = Field(default=[0, 1], min_length=1)
    """Seeds of RL for each algorithm."""


class CompareSynthesizers(Settings):
    """The configured synthesizer against a rival."""

    rival: EndpointConfig
    """The other endpoint; everything else of `synthesis` is the same."""
    seeds: list[Seed] = Field(default=[0], min_length=1)
    """Seeds of the models that the rival's traces teach."""


class CrossLanguage(Settings):
    """Train language x test language x base model."""

    records: RecordsConfig
    """Id-aligned cases (ids end in -en and -zh) and their splits; patients keep both languages in one split."""
    twins: SimulatedWorldConfig | None = None
    """Sample them from the simulated world; None = `records` names real ones."""
    sft: SFTConfig
    """Training of all four arms."""


class HeldOutSite(Settings):
    """Trained without a site and with it."""

    site: str
    """The hospital that is held out."""
    traces: int = Field(ge=1)
    """Traces of each arm, so that both are trained on as much."""
    leak_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the site's test cases that a third arm is trained on: a leak planted on purpose; 0 leaves it out."""


class AuditVerifier(Settings):
    """Judges against labelled answers."""

    judges: dict[str, JudgeConfig] = Field(min_length=1)
    """The judges by name."""
    suspect: str
    """The judge that the question is about."""
    endpoint: EndpointConfig
    """The model whose reported accuracy is corrected."""
    labelled: str = ""
    """JSONL of graded answers (question, reference, answer, language, correct); empty = simulated ones."""
    rows: int = Field(default=400, ge=10)
    """Simulated labelled answers."""

    @model_validator(mode="after")
    def _suspect_is_a_judge(self) -> Self:
        if self.suspect not in self.judges:
            raise ValueError(f"suspect '{self.suspect}' is none of the judges: {', '.join(self.judges)}")
        return self


SettingsT = TypeVar("SettingsT", bound=Settings)


class ExperimentConfig(RunConfig, Generic[SettingsT]):
    """A run configuration with what experiments add."""

    endpoints: dict[str, SimulatorConfig] = Field(default_factory=dict)
    """Further simulated endpoints by name: http://${CLINICAL_R1_SIMULATOR_<NAME>}/v1. Not for production."""
    experiment: SettingsT
    """Settings of the experiment; left out where all of them have a default."""

    @model_validator(mode="before")
    @classmethod
    def _by_default(cls, data: Any) -> Any:
        fields = cls.model_fields["experiment"].annotation.model_fields.values()  # type: ignore[union-attr]
        needed = any(field.is_required() for field in fields)
        return data if needed or not isinstance(data, dict) else {"experiment": {}} | data


CONFIGS: dict[str, type[ExperimentConfig[Any]]] = {
    "ablate-rl": ExperimentConfig[AblateRl],
    "ablate-rewards": ExperimentConfig[AblateRewards],
    "compare-algorithms": ExperimentConfig[CompareAlgorithms],
    "compare-synthesizers": ExperimentConfig[CompareSynthesizers],
    "cross-language": ExperimentConfig[CrossLanguage],
    "held-out-site": ExperimentConfig[HeldOutSite],
    "audit-verifier": ExperimentConfig[AuditVerifier],
}
"""Experiment -> the model of its configuration, in the order in which the demo runs them."""
ARMS_AT_ONCE = 2
"""Arms of an experiment that are trained and evaluated at a time."""
ConfigT = TypeVar("ConfigT", bound=RunConfig)


def load_config(name: str, options: Sequence[str] = ()) -> RunConfig:
    """The configuration of `train`; see `load_as`."""
    return load_as(RunConfig, name, options)


def load_as(model: type[ConfigT], name: str, options: Sequence[str] = ()) -> ConfigT:
    """A run configuration (shipped, or a YAML file) with `--set` options; UserError names place and key.

    `${NAME}` stays as it is: the steps fill it in, so that an address is no part of a step's cache key.
    """
    return Document.read(name, RUNS).set(*options).validate(model)
