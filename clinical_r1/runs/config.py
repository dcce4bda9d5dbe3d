"""The configuration of a whole run: one section per step, YAML in, JSON strings out to the components."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import Field

import clinical_r1
from clinical_r1.errors import Strict
from clinical_r1.evaluation.config import EvaluationConfig
from clinical_r1.evaluation.promotion.policy import GateConfig
from clinical_r1.records.config import RecordsConfig
from clinical_r1.settings import Catalogue, Document, Seed, Shelf
from clinical_r1.simulator.config import SimulatorConfig
from clinical_r1.synthesis.config import SynthesisConfig
from clinical_r1.training.base import BaseModelConfig
from clinical_r1.training.ppo.config import PPOConfig
from clinical_r1.training.sft.config import SFTConfig

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


ConfigT = TypeVar("ConfigT", bound=RunConfig)


def load_config(name: str, options: Sequence[str] = ()) -> RunConfig:
    """The configuration of `train`; see `load_as`."""
    return load_as(RunConfig, name, options)


def load_as(model: type[ConfigT], name: str, options: Sequence[str] = ()) -> ConfigT:
    """A run configuration (shipped, or a YAML file) with `--set` options; UserError names place and key.

    `${NAME}` stays as it is: the steps fill it in, so that an address is no part of a step's cache key.
    """
    document = Document.read(name, RUNS)
    for option in options:
        document.set(option)
    return document.validate(model)
