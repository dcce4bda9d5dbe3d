"""What one step of an experiment is told, and the step that no other pipeline has: the data of the arms."""

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

from pydantic import Field

from clinical_r1.errors import Strict
from clinical_r1.evaluation.config import EvaluationConfig
from clinical_r1.evaluation.experiments.selection import Leak, Selection, leak_cases
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.records.config import RecordsConfig
from clinical_r1.records.run import prepare
from clinical_r1.runs.sources import fetched
from clinical_r1.settings import Names
from clinical_r1.simulator.beside import PATIENT_KEY
from clinical_r1.synthesis.analysis import analyse
from clinical_r1.synthesis.config import SynthesisConfig
from clinical_r1.synthesis.run import synthesize
from clinical_r1.training.ppo.config import PPOConfig
from clinical_r1.training.sft.config import SFTConfig
from clinical_r1.verifier.config import JudgeConfig

NAMES = ("first synthesizer", "second synthesizer")


class Training(Strict):
    """How an arm (or the reference) is trained; without `sft` and `ppo` not at all."""

    start: Literal["base", "reference"] = "base"
    """What it starts from; the reference itself starts from the base model."""
    select: Selection = Field(default_factory=Selection)
    """Which of the traces it is fine-tuned on."""
    sft: SFTConfig | None = None
    """Fine-tuning."""
    ppo: PPOConfig | None = None
    """Reinforcement learning."""


class Trial(Strict):
    """How an arm is evaluated on the test split; without `evaluation` not at all."""

    evaluation: EvaluationConfig | None = None
    """Sampling and judges."""
    endpoint: EndpointConfig | None = None
    """Who answers in place of the trained model."""
    judge: JudgeConfig | None = None
    """A judge to audit."""
    labelled: Annotated[str, Names.FILES] = ""
    """JSONL of graded answers to audit it on."""


class ArmsData(Strict):
    """How the arms' splits and traces differ from the reference's; with nothing set they are the same."""

    leak: Leak | None = None
    """Test cases in the training data."""
    records: RecordsConfig | None = None
    """Other records."""
    sources_sha256: str = ""
    """Keys the cache to their content."""
    synthesis: SynthesisConfig | None = None
    """Who writes traces of these cases; None: the reference's traces."""


def prepare_data(
    told: ArmsData, made: tuple[Path, Path], out: tuple[Path, Path], state_dir: Path, simulated: bool
) -> dict[str, object]:
    """Splits and traces of the arms from those of the reference (`made`) into two folders (`out`); returns counts.

    Where another synthesizer writes traces of the same cases, chains.json and chains.html say how they differ.
    """
    counts: dict[str, object] = {}
    splits, traces = out
    if told.records:
        if simulated:
            os.environ.setdefault(told.records.phi.key_env, PATIENT_KEY)
        with TemporaryDirectory() as folder:
            counts["records"] = prepare(fetched(told.records, Path(folder)), splits).model_dump(mode="json")
    elif told.leak:
        counts["leak"] = leak_cases(told.leak, made[0], splits)
    else:
        shutil.copytree(made[0], splits, dirs_exist_ok=True)
    if told.synthesis:
        report = synthesize(told.synthesis, splits / "sft.jsonl", traces, state_dir / "synthesize-0-of-1")
        counts["synthesis"] = report.model_dump(mode="json")
        if not (told.records or told.leak):
            analyse(made[1] / "traces.jsonl", traces / "traces.jsonl", traces, NAMES)
    else:
        shutil.copytree(made[1], traces, dirs_exist_ok=True)
    return counts
