"""What an experiment is told: a run configuration, and a section of its own. Shipped: configs/experiments."""

from typing import Literal, Self

from pydantic import Field, model_validator

from clinical_r1.errors import Strict
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.records.config import RecordsConfig
from clinical_r1.runs.config import RunConfig, SimulatedWorldConfig
from clinical_r1.settings import Seed
from clinical_r1.simulator.config import SimulatorConfig
from clinical_r1.training.sft.config import SFTConfig
from clinical_r1.verifier.config import JudgeConfig


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


class ExperimentConfig(RunConfig):
    """A run configuration with what experiments add; each experiment has its own `experiment` section."""

    endpoints: dict[str, SimulatorConfig] = Field(default_factory=dict)
    """Further simulated endpoints by name: http://${CLINICAL_R1_SIMULATOR_<NAME>}/v1. Not for production."""


class AblateRlConfig(ExperimentConfig):
    """ablate-rl."""

    experiment: AblateRl = Field(default_factory=AblateRl)
    """Its settings."""


class AblateRewardsConfig(ExperimentConfig):
    """ablate-rewards."""

    experiment: AblateRewards = Field(default_factory=AblateRewards)
    """Its settings."""


class CompareAlgorithmsConfig(ExperimentConfig):
    """compare-algorithms."""

    experiment: CompareAlgorithms = Field(default_factory=CompareAlgorithms)
    """Its settings."""


class CompareSynthesizersConfig(ExperimentConfig):
    """compare-synthesizers."""

    experiment: CompareSynthesizers
    """Its settings."""


class CrossLanguageConfig(ExperimentConfig):
    """cross-language."""

    experiment: CrossLanguage
    """Its settings."""


class HeldOutSiteConfig(ExperimentConfig):
    """held-out-site."""

    experiment: HeldOutSite
    """Its settings."""


class AuditVerifierConfig(ExperimentConfig):
    """audit-verifier."""

    experiment: AuditVerifier
    """Its settings."""


CONFIGS: dict[str, type[ExperimentConfig]] = {
    "ablate-rl": AblateRlConfig,
    "ablate-rewards": AblateRewardsConfig,
    "compare-algorithms": CompareAlgorithmsConfig,
    "compare-synthesizers": CompareSynthesizersConfig,
    "cross-language": CrossLanguageConfig,
    "held-out-site": HeldOutSiteConfig,
    "audit-verifier": AuditVerifierConfig,
}
"""Experiment -> the model of its configuration, in the order in which the demo runs them."""
