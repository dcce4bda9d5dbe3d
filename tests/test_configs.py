"""One test parses every configuration file in the repository."""

import ast
import importlib
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from clinical_r1.errors import UserError
from clinical_r1.evaluation.config import EvaluationConfig
from clinical_r1.runs.config import CONFIGS, RunConfig, load_as, load_config
from clinical_r1.settings import Document
from clinical_r1.synthesis.config import SynthesisConfig
from clinical_r1.training.ppo.config import PPOConfig
from clinical_r1.verifier.config import VerifierConfig

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("clinical_r1", "components", "pipelines", "serving")

MODELS: dict[str, str | type[BaseModel]] = {
    "clinical_r1/runs/configs/*.yaml": "clinical_r1.runs.config:RunConfig",
    **{f"clinical_r1/runs/configs/experiments/{name}.yaml": model for name, model in CONFIGS.items()},
    "clinical_r1/training/configs/sft-*.yaml": "clinical_r1.training.sft.config:SFTConfig",
    "clinical_r1/training/configs/ppo-*.yaml": "clinical_r1.training.ppo.config:PPOConfig",
    "clinical_r1/training/configs/tiny*.yaml": "clinical_r1.training.base:TinyModelConfig",
    "clinical_r1/records/configs/*.yaml": "clinical_r1.records.config:RecordsConfig",
    "serving/configs/gateway*.yaml": "serving.gateway.config:GatewayConfig",
    "clinical_r1/evaluation/promotion/*.yaml": "clinical_r1.evaluation.promotion.policy:Policy",
    "clinical_r1/evaluation/configs/*.yaml": "clinical_r1.evaluation.config:EvaluationConfig",
    "clinical_r1/synthesis/configs/*.yaml": "clinical_r1.synthesis.config:SynthesisConfig",
}
"""Where a configuration lies says which model parses it."""

DATA = (
    "clinical_r1/records/icd10.yaml",
    "clinical_r1/records/specialty.yaml",
    "clinical_r1/records/readers/forms.yaml",
    "clinical_r1/records/readers/not_read.yaml",
    "clinical_r1/records/words.yaml",
    "clinical_r1/records/readers/fhir/terms.yaml",
    "clinical_r1/lexicon/stances.yaml",
    "clinical_r1/privacy/addresses.yaml",
    "clinical_r1/privacy/dates.yaml",
    "clinical_r1/privacy/known.yaml",
    "clinical_r1/privacy/lexicon/endings_en.yaml",
    "clinical_r1/privacy/lexicon/names_zh.yaml",
    "clinical_r1/privacy/names_en.yaml",
    "clinical_r1/privacy/names_zh.yaml",
    "clinical_r1/privacy/numbers.yaml",
    "clinical_r1/evaluation/baselines.yaml",
    "clinical_r1/evaluation/grounding.yaml",
    "clinical_r1/llm/providers.yaml",
    "clinical_r1/simulator/judge.yaml",
    "clinical_r1/evaluation/experiments/words.yaml",
    "clinical_r1/evaluation/pages/tables.yaml",
    "clinical_r1/simulator/phrases.yaml",
    "clinical_r1/simulator/world.yaml",
    "clinical_r1/synthesis/hindsight.yaml",
    "clinical_r1/synthesis/words.yaml",
    "clinical_r1/verifier/choice.yaml",
    "clinical_r1/verifier/detail.yaml",
    "clinical_r1/verifier/echo.yaml",
    "clinical_r1/verifier/replies.yaml",
    "clinical_r1/verifier/spelling.yaml",
    "clinical_r1/verifier/wordings.yaml",
    "clinical_r1/asking.yaml",
    "clinical_r1/dialects.yaml",
    "clinical_r1/reward_tables.yaml",
    "clinical_r1/runs/form.yaml",
)
"""YAML that is data and not configuration: its own room's tests load it; here it must at least be valid YAML."""


def yaml_files() -> list[Path]:
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.y*ml")]
    return sorted(path.relative_to(ROOT) for path in found)


def model_of(path: Path) -> type[BaseModel] | None:
    for pattern, target in MODELS.items():
        if path.match(pattern):
            if not isinstance(target, str):
                return target
            module, _, name = target.partition(":")
            return getattr(importlib.import_module(module), name)
    return None


@pytest.mark.parametrize("path", yaml_files(), ids=str)
def test_every_yaml_file_is_known_and_parses(path: Path) -> None:
    data = yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))
    model = model_of(path)
    if model is None:
        assert str(path) in DATA or path.parts[0] == "serving", f"{path}: say in tests/test_configs.py what parses it"
        assert data
    else:
        load_as(model, str(ROOT / path)) if issubclass(model, RunConfig) else Document.read(ROOT / path).validate(model)


def judges(path: Path) -> dict[str, VerifierConfig]:
    """The verifiers that a shipped configuration pays, keeps traces and gates by."""
    model = model_of(path)
    if model is None or not issubclass(model, RunConfig | SynthesisConfig | PPOConfig | EvaluationConfig):
        return {}
    if issubclass(model, RunConfig):
        config = load_as(model, str(ROOT / path))
        found = {"synthesis": config.synthesis.verifier, "ppo": config.ppo.judge.verifier}
        return found | {"evaluation": config.evaluation.reward_judge.verifier}
    settings = Document.read(ROOT / path).validate(model)
    if isinstance(settings, SynthesisConfig):
        return {"synthesis": settings.verifier}
    judge = settings.judge if isinstance(settings, PPOConfig) else settings.reward_judge
    return {model.__name__: judge.verifier}


@pytest.mark.parametrize("path", yaml_files(), ids=str)
def test_no_shipped_configuration_pays_keeps_or_gates_by_rules_alone(path: Path) -> None:
    assert [name for name, verifier in judges(path).items() if verifier.kind == "rule"] == []


def test_a_section_may_be_the_name_of_a_shipped_file(tmp_path: Path) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text("epochs: 7", encoding="utf-8")
    settings = [
        "sft=sft-paper-7b-1x40-lora",
        "sft.epochs=2",
        f"records={ROOT / 'clinical_r1/records/configs/clinical.yaml'}",
    ]
    config = load_config("demo", settings)
    assert config.sft.lora and config.sft.epochs == 2 and config.records.phi.policy == "scrub"
    assert load_config("demo", [f"sft={own}"]).sft.epochs == 7
    experiment = tmp_path / "experiment.yaml"
    experiment.write_text("extends: hospital-7b\nsft: {epochs: 2}", encoding="utf-8")
    extended = load_as(CONFIGS["ablate-rl"], str(experiment))
    assert extended.sft.epochs == 2 and extended.sft.processes == 8 and extended.ppo.deepspeed.stage == 3
    experiment.write_text("extends: demo\nsft: sft-paper-7b-1x80-lora", encoding="utf-8")
    for names in (["sft.epochs=2"], ["sft=sft-paper-7b-1x80-lora", "sft.epochs=2"]):
        replaced = load_as(CONFIGS["ablate-rl"], str(experiment), names)
        assert replaced.sft == load_config("demo", ["sft=sft-paper-7b-1x80-lora", "sft.epochs=2"]).sft
    own.write_text("[]", encoding="utf-8")
    experiment.write_text(f"extends: {own}", encoding="utf-8")
    with pytest.raises(UserError, match="expected a mapping"):
        load_as(CONFIGS["ablate-rl"], str(experiment))
    with pytest.raises(UserError, match=r"--set ppo: ppo 'nosuch': neither .* \(shipped: ppo-paper, ppo-paper-7b"):
        load_config("demo", ["ppo=nosuch"])
    with pytest.raises(UserError, match=r"evaluation 'nosuch': .* \(shipped: two-judges\)$"):
        load_config("demo", ["evaluation=nosuch"])
    own.write_text("epochz: 7", encoding="utf-8")
    with pytest.raises(UserError, match=r"mine.yaml:1: unknown key 'sft.epochz': did you mean 'epochs'"):
        load_config("demo", [f"sft={own}", "ppo.steps=9"])


def test_every_field_of_a_run_configuration_has_a_docstring() -> None:
    """Settings are documented where they are defined: a string under each field."""
    for path in sorted((ROOT / "clinical_r1").rglob("config.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                check_fields(path, node)


def check_fields(path: Path, node: ast.ClassDef) -> None:
    for this, following in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(this, ast.AnnAssign) and isinstance(this.target, ast.Name):
            documented = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            assert documented, f"{path.relative_to(ROOT)}: {node.name}.{this.target.id} has no docstring"


def test_run_configuration_survives_the_way_through_a_component_argument() -> None:
    from clinical_r1.runs.sources import as_argument

    config = load_config("demo")
    for name in ("records", "synthesis", "base_model", "sft", "ppo", "evaluation"):
        section = getattr(config, name)
        assert type(section).model_validate_json(as_argument(section)) == section
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config
