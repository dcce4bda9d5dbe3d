"""The configuration of a whole run: one section per step, YAML in, JSON strings out to the components."""

import difflib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

import clinical_r1
from clinical_r1.errors import UserError
from clinical_r1.evaluation.config import EvaluationConfig, GateConfig
from clinical_r1.records.config import RecordsConfig
from clinical_r1.schema import first_problem
from clinical_r1.simulator.config import SimulatorConfig
from clinical_r1.synthesis.config import SynthesisConfig
from clinical_r1.training.base import BaseModelConfig
from clinical_r1.training.ppo.config import PPOConfig
from clinical_r1.training.sft.config import SFTConfig

CONFIG_FOLDER = Path(__file__).parent / "configs"
_METHOD = Path(clinical_r1.__file__).parent
SECTION_FOLDERS = {
    "records": _METHOD / "records" / "configs",
    "synthesis": _METHOD / "synthesis" / "configs",
    "sft": _METHOD / "training" / "configs",
    "ppo": _METHOD / "training" / "configs",
    "evaluation": _METHOD / "evaluation" / "configs",
}
"""Sections that may be the name of a shipped file (`sft: sft-paper-7b-1x80-lora`), and where these lie."""


class NamedSection(dict[str, Any]):
    """A section that came whole from a file: it replaces that of an extended configuration instead of joining it."""

    def __init__(self, content: dict[str, Any], file: Path) -> None:
        super().__init__(content)
        self.file = file


class SimulatedWorldConfig(BaseModel):
    """The simulated teacher and judge, and the records sampled from their world. Not for production: leave it out."""

    model_config = ConfigDict(extra="forbid")

    cases: int = Field(default=5000, ge=1)
    """Records to sample from the simulated world where no `--cases` are given."""
    zh_share: float = Field(default=0.5, ge=0, le=1)
    """Share of Chinese records."""
    seed: int = 0
    """Seed of the records."""
    twins: bool = False
    """Write every patient in both languages, with ids that differ in the language alone; `cases` counts both."""
    dialect_site: str = ""
    """A site effect: this site (north, harbor, hillside) writes many findings in words of its own."""
    endpoint: SimulatorConfig = Field(default_factory=SimulatorConfig)
    """What the endpoint is told to be: competence, latency, failures."""


class ReportConfig(BaseModel):
    """What the report shows."""

    model_config = ConfigDict(extra="forbid")

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


class RunConfig(BaseModel):
    """Everything that the `train` pipeline is told."""

    model_config = ConfigDict(extra="forbid")

    simulator: SimulatedWorldConfig | None = None
    """Start the simulated endpoint beside the run; None = the endpoints below are real."""
    records: RecordsConfig
    """Sources, PHI policy, splits."""
    shards: int = Field(default=1, ge=1)
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


def config_path(name: str) -> Path:
    """A shipped configuration by name (`demo`), or a path to a YAML file."""
    return shipped_or_own(name, CONFIG_FOLDER, f"--config {name}", "configuration")


def shipped_or_own(name: str, folder: Path, place: str, what: str, prefix: str = "") -> Path:
    """A file of `folder` by its name without .yaml, or any file by its path; UserError lists those of the prefix."""
    for file in (folder / f"{name}.yaml", Path(name)):
        if os.path.isfile(file):  # no error where the name is too long for one
            return file
    known = ", ".join(sorted(file.stem for file in folder.glob(f"{prefix}*.yaml")))
    raise UserError(f"{place}: neither a file nor a shipped {what} (shipped: {known})")


ConfigT = TypeVar("ConfigT", bound=RunConfig)


def load_config(name: str, overrides: list[str] | None = None) -> RunConfig:
    """Read the configuration of `train`; see `load_as`."""
    return load_as(RunConfig, name, overrides)


def load_as(model: type[ConfigT], name: str, overrides: list[str] | None = None) -> ConfigT:
    """Read a run configuration and apply `section.key=value` overrides; UserError names file and key."""
    path = config_path(name)
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected a mapping with the sections {', '.join(model.model_fields)}")
    name_sections(data, str(path))
    for override in overrides or []:
        apply_override(data, override)
        name_sections(data, f"--set {override}")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = str([*error.errors(include_url=False, include_context=False)[0]["loc"], ""][0])
        section, given = data.get(first), overrides or []
        if isinstance(section, NamedSection):
            named = max((at for at, one in enumerate(given) if one.startswith(f"{first}=")), default=-1)
            path, given = section.file, given[named + 1 :]
        raise UserError(f"{blamed(path, error, given)}: {_explain(error, model)}") from None


def name_sections(data: dict[str, Any], place: str) -> None:
    """Put the content of shipped or own files in place of sections that are names."""
    for section, folder in SECTION_FOLDERS.items():
        name = data.get(section)
        if not isinstance(name, str):
            continue
        prefix = f"{section}-" if folder.parent.name == "training" else ""
        file = shipped_or_own(name, folder, f"{place}: {section} '{name}'", "section", prefix)
        found = read_yaml(file)
        if not isinstance(found, dict):
            raise UserError(f"{file}: expected a mapping with settings of {section}")
        data[section] = NamedSection(found, file)


def read_yaml(path: Path) -> Any:
    """What a YAML file holds; UserError names the line where it is none."""
    try:
        return yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: 2020-13-45 looks like a date
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise UserError(f"{path}:{line}: not valid YAML: mend the indentation or quoting") from None


def blamed(path: Path | None, error: ValidationError, overrides: Sequence[str]) -> str:
    """Where a wrong setting came from: `--set KEY` where the first problem is at, above or below such a key, else the
    file (with the options beside it where the problem is one of a whole section)."""
    place = ".".join(str(part) for part in error.errors(include_url=False, include_context=False)[0]["loc"])
    keys = [override.partition("=")[0] for override in overrides]
    given = [key for key in keys if f"{place}.".startswith(f"{key}.")]
    if given or path is None:
        return f"--set {(given or keys or [''])[0]}".rstrip()
    beside = [key for key in keys if f"{key}.".startswith(f"{place}." if place else "")]
    return " with ".join([str(path), *([", ".join(f"--set {key}" for key in beside)] if beside else [])])


def apply_override(data: dict[str, Any], override: str) -> None:
    """Set one dotted key in place; the value is read as YAML (numbers, booleans, lists)."""
    key, separator, text = override.partition("=")
    if not separator:
        raise UserError(f"--set {override}: write it as section.key=value, such as --set sft.epochs=2")
    *parents, leaf = key.split(".")
    place = data
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise UserError(f"--set {override}: '{parent}' is a value, not a section")
    try:
        place[leaf] = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise UserError(f"--set {override}: the value is not valid YAML: quote it or close its brackets") from None


def _explain(error: ValidationError, model: Any) -> str:
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if problem["type"] != "extra_forbidden":
        return first_problem(error)
    *parents, leaf = [str(part) for part in problem["loc"]]
    for part in parents:
        model = _model_of(model, part)
    known = list(getattr(model, "model_fields", {}))
    close = difflib.get_close_matches(leaf, known, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
    place = ".".join([*parents, leaf])
    return f"unknown key '{place}': {hint}"


def _model_of(model: Any, name: str) -> Any:
    field = getattr(model, "model_fields", {}).get(name)
    if field is None:
        return None
    candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def as_argument(section: BaseModel) -> str:
    """A section as the JSON string that a component takes; sorted, so that equal settings give equal cache keys."""
    return json.dumps(section.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
