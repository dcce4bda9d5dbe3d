"""Settings that name files: other contents are another step, locally and on a cluster, and none is forgotten."""

from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from clinical_r1.errors import UserError
from clinical_r1.runs.config import CONFIGS, RunConfig, load_config
from clinical_r1.runs.form import settle
from clinical_r1.runs.resolve import resolve
from clinical_r1.runs.sources import as_argument
from clinical_r1.settings import Names
from clinical_r1.step import load_settings
from clinical_r1.training.sft.config import SFTConfig

SETTINGS = {
    "sft.dpo.completions": ["sft"],
    "sft.dpo.cases": ["sft"],
    "ppo.probe.forgetting_cases": ["ppo"],
    "ppo.judge.verifier.synonyms": ["ppo"],
    "evaluation.reward_judge.verifier.terminology": ["evaluation"],
    "evaluation.independent_judge.verifier.terminology": ["evaluation"],
    "synthesis.verifier.terminology": ["synthesis"],
    "synthesis.traces.path": ["synthesis", "settings"],
    "records.contamination.benchmarks": ["records"],
    "records.phi.ner_models.en": ["records"],
    "records.window.tokenizer": ["records"],
    "gate.policy": ["gate"],
    "gate.forgetting": ["gate"],
    "gate.incumbent": ["gate"],
    "base_model.folder": ["base_model", "sft", "gate"],
}
"""Setting -> the arguments that the content of its file is in."""
FOLDERS = {"records.phi.ner_models.en", "records.window.tokenizer", "gate.incumbent", "base_model.folder"}


def _arguments(setting: str, place: Path) -> dict[str, Any]:
    value = f"[{place}]" if setting.endswith("completions") else str(place)
    if setting.endswith("benchmarks"):
        value = f"[{{path: {place}}}]"
    options = [f"{setting}={value}"]
    if setting == "sft.dpo.completions":
        options.append(f"sft.dpo.cases={__file__}")
    config = load_config("demo", options)
    return resolve("train", config, "hash", place.parent, place.parent, str(place.parent))[1]


@pytest.mark.parametrize("setting", SETTINGS)
def test_other_contents_under_the_same_name_are_another_step_and_nothing_else(setting: str, tmp_path: Path) -> None:
    place = tmp_path / "named"
    file = place
    if setting in FOLDERS:
        file = place / ("tokenizer.json" if setting.endswith("tokenizer") else "model.safetensors")
        place.mkdir()
    file.write_text('{"one": 1}', encoding="utf-8")
    before, again = _arguments(setting, place), _arguments(setting, place)
    file.write_text('{"two": 2}', encoding="utf-8")
    after = _arguments(setting, place)
    assert before == again
    assert sorted(name for name in before if before[name] != after[name]) == sorted(SETTINGS[setting])


def test_other_graded_answers_are_another_audit(tmp_path: Path) -> None:
    labelled = tmp_path / "labelled.jsonl"

    def arms() -> list[dict[str, str]]:
        config = settle("audit-verifier", options=[f"experiment.labelled={labelled}"])
        return resolve("audit-verifier", config, "hash", tmp_path, tmp_path, "")[1]["arms"]

    labelled.write_text("{}\n", encoding="utf-8")
    before = arms()
    labelled.write_text("{}\n{}\n", encoding="utf-8")
    assert all(old["evaluation"] != new["evaluation"] for old, new in zip(before, arms(), strict=True))


def test_a_step_reads_its_settings_without_the_digests(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    file.touch()
    config = SFTConfig.model_validate({"dpo": {"completions": [str(file)], "cases": str(file)}})
    assert load_settings(SFTConfig, as_argument(config)) == config


def test_a_file_that_is_not_there_is_one_sentence_with_its_setting(tmp_path: Path) -> None:
    for name in ("none.tsv", "n" * 300):
        with pytest.raises(
            UserError, match=rf"^ppo\.judge\.verifier\.terminology: .*{name}: no such file: mend the path$"
        ):
            _ = _arguments("ppo.judge.verifier.terminology", tmp_path / name)


def test_a_path_may_hold_a_variable_of_the_steps_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/configuration.md says so of any value; one that is known to the step alone has no digest here."""
    setting, file = "ppo.judge.verifier.terminology", tmp_path / "terms.tsv"
    written = Path("${HOUSE_TERMS}/terms.tsv")
    untold = _arguments(setting, written)["ppo"]
    monkeypatch.setenv("HOUSE_TERMS", str(tmp_path))
    file.write_text("J18.9\tpneumonia\n", encoding="utf-8")
    before = _arguments(setting, written)["ppo"]
    file.write_text("J18.9\tlung fever\n", encoding="utf-8")
    assert len({untold, before, _arguments(setting, written)["ppo"]}) == 3
    assert str(tmp_path) not in before
    with pytest.raises(UserError, match=r"^ppo\.judge\.verifier\.terminology: : no such file: mend the path$"):
        monkeypatch.setenv("HOUSE_TERMS", "")
        _ = _arguments(setting, Path("${HOUSE_TERMS}"))


WORDS = ("path", "file", "folder", "tokenizer", "labelled", "policy", "completions", "python", "cases")
ELSEWHERE = {
    "Source.path": "records are keyed by `sources_sha256`",
    "TraceSource.path": "keyed by its `sha256`",
    "AuditVerifier.labelled": "Trial.labelled is what a step is told",
    "PhiConfig.key_file": "a secret: its digest would stand in the run for all to read",
    "PhiConfig.policy": "no file",
    "SynthesisConfig.policy": "no file",
    "RolloutConfig.vllm_python": "a program",
}
"""Settings that name a file, or seem to, and whose content is in no argument beside them, with the reason."""


def _models(kind: Any) -> Iterator[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
        for field in kind.model_fields.values():
            yield from _models(field.annotation)
    for inner in get_args(kind):
        yield from _models(inner)


def _is_path(kind: Any) -> bool:
    return kind is Path or (get_origin(kind) in (Union, UnionType) and Path in get_args(kind))


def test_every_setting_that_names_a_file_says_so() -> None:
    fields = {
        f"{model.__name__}.{name}": field
        for config in (RunConfig, *CONFIGS.values())
        for model in set(_models(config))
        for name, field in model.model_fields.items()
    }
    suspect = {
        name
        for name, field in fields.items()
        if _is_path(field.annotation) or (field.annotation is not int and name.endswith(WORDS))
    }
    marked = {name for name, field in fields.items() if any(isinstance(one, Names) for one in field.metadata)}
    assert suspect - marked == set(ELSEWHERE)
