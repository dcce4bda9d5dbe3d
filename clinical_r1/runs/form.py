"""What a person may fill in without knowing the configuration: form parameters, and the settings that each one means.

`run`, `submit` and the dashboard's form meet here: preset, then parameters, then overrides, then `--set`; later wins.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clinical_r1.errors import UserError, near_miss
from clinical_r1.records.config import parse_map
from clinical_r1.rewards import reward_table
from clinical_r1.runs.config import RUNS, RunConfig
from clinical_r1.runs.experiments import CONFIGS
from clinical_r1.runs.sources import with_cases
from clinical_r1.settings import Document

WHOLE = "none"
"""The preset of a run whose overrides are its whole configuration."""
UNSET: tuple[Any, ...] = ("", -1, -1.0, None)
"""What a parameter holds that nobody filled in (KFP has no empty number)."""
KEYS: dict[str, tuple[str, ...]] = {
    "base_model": ("base_model.folder",),
    "traces": ("synthesis.traces.path",),
    "languages": ("records.languages",),
    "limit": ("records.limit",),
    "sft_epochs": ("sft.epochs",),
    "sft_learning_rate": ("sft.learning_rate",),
    "algorithm": ("ppo.algorithm",),
    "ppo_steps": ("ppo.steps",),
    "ppo_learning_rate": ("ppo.learning_rate",),
    "batch_size": ("sft.batch_size", "ppo.batch_size"),
    "kl_beta": ("ppo.kl_beta",),
    "clip": ("ppo.clip",),
    "reward_table": ("ppo.reward_table",),
    "max_new_tokens": ("ppo.rollout.max_new_tokens", "evaluation.max_new_tokens"),
    "shards": ("shards",),
    "seed": (
        "simulator.seed",
        "simulator.endpoint.seed",
        "records.seed",
        "synthesis.seed",
        "base_model.tiny.seed",
        "sft.seed",
        "ppo.seed",
        "evaluation.seed",
    ),
}
"""Form parameter -> the settings that it is."""
OTHERS = (
    "records",
    "record_map",
    "synthesizer_url",
    "synthesizer_model",
    "synthesizer_key",
    "judge_url",
    "judge_model",
    "judge_key",
    "endpoints_trusted",
    "overrides",
)
"""Parameters that mean more than a value."""
_JUDGES = ("synthesis.judge", "ppo.judge.endpoint", "evaluation.reward_judge.endpoint")


def model_of(pipeline: str) -> type[RunConfig]:
    """The model of the configuration of `train` or of an experiment. Raises UserError for another name."""
    if pipeline == "train":
        return RunConfig
    if pipeline not in CONFIGS:
        hint = near_miss(pipeline, CONFIGS) or f"choose one of {', '.join(CONFIGS)}"
        raise UserError(f"unknown experiment '{pipeline}': {hint}")
    return CONFIGS[pipeline]


def default_preset(pipeline: str) -> str:
    """The shipped configuration that a pipeline runs where nothing is said."""
    return f"experiments/{pipeline}" if pipeline in CONFIGS else "demo"


def filled_in(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that somebody filled in."""
    empty = ({}, [], *UNSET)
    given = {name: value.strip() if isinstance(value, str) else value for name, value in parameters.items()}
    return {name: value for name, value in given.items() if value not in empty and value is not False}


def assembled(
    pipeline: str,
    preset: str = "",
    parameters: Mapping[str, Any] | None = None,
    options: Sequence[str] = (),
    option: str = "preset",
) -> Document:
    """All settings but `records`; nothing is looked for on disk but the preset. Raises UserError.

    `parameters` are form parameters by name (KEYS, OTHERS); `option` is what an error calls the preset.
    """
    given = filled_in(parameters or {})
    whole = preset == WHOLE
    name = preset.strip() or default_preset(pipeline)
    document = Document(catalogue=RUNS, source=f"{option} {WHOLE}") if whole else Document.read(name, RUNS, option)
    for name, keys in KEYS.items():
        if name in given:
            value = words(name, given[name]) if name == "languages" else given[name]
            for key in keys:
                if not key.startswith("simulator.") or document.data.get("simulator"):
                    document.put(key, value, f"parameter {name}")
    _put_endpoints(document, given)
    document.join(overrides_of(given.get("overrides", {})), "overrides")
    for one in options:
        document.set(one)
    return document


def settle(
    pipeline: str,
    preset: str = "",
    parameters: Mapping[str, Any] | None = None,
    options: Sequence[str] = (),
    option: str = "preset",
) -> RunConfig:
    """The configuration of a run; UserError names place, key and near miss. Arguments as of `assembled`."""
    given, model = filled_in(parameters or {}), model_of(pipeline)
    config = assembled(pipeline, preset, given, options, option).validate(model)
    reward_table(config.ppo.reward_table)
    if "records" in given:
        columns = parse_map(str(given["record_map"])) if given.get("record_map") else {}
        places = [place.strip() for place in given["records"].split(",") if place.strip()]
        if not places:
            raise UserError("parameter records: only commas: write URIs with commas between them")
        return with_cases(config, places, columns)
    if given.get("record_map"):
        raise UserError(f"parameter record_map {given['record_map']}: it names columns of `records`: fill that in too")
    return config


def _put_endpoints(document: Document, given: Mapping[str, Any]) -> None:
    """Real endpoints in place of the simulated ones; without a judge of its own the synthesizer judges."""
    for role in ("synthesizer", "judge"):
        check_key(role, given)
        if (f"{role}_url" in given) != (f"{role}_model" in given):
            missing = f"{role}_model" if f"{role}_url" in given else f"{role}_url"
            raise UserError(
                f"parameter {missing}: empty: an endpoint needs its URL and the model to ask for: give both"
            )
    if "synthesizer_url" not in given:
        if "judge_url" in given and document.data.get("simulator"):
            raise UserError("parameter judge_url: the synthesizer is simulated: give synthesizer_url too")
        if "judge_url" not in given:
            return
    else:
        _endpoint(document, "synthesis.synthesizer", "synthesizer", given)
        if "records" in given:  # else the world that the cases are sampled from stays
            document.put("simulator", None, "parameter synthesizer_url")
    role = "judge" if "judge_url" in given else "synthesizer"
    for key in _JUDGES:
        _endpoint(document, key, role, given)
    for key in ("ppo.judge.verifier.kind", "evaluation.reward_judge.verifier.kind"):
        document.put(key, "llm", f"parameter {role}_url")


def check_key(role: str, given: Mapping[str, Any]) -> None:
    """A key is named, never written: what is filled in stands in the run for all to read."""
    name = str(given.get(f"{role}_key", ""))
    if name and not re.fullmatch(r"[A-Z][A-Z0-9_]{0,62}", name):
        raise UserError(
            f"parameter {role}_key: no name of a key: if it is one itself, take it back where it was issued, put a new "
            f"one into the Secret of `endpoint_secret`, and write {role.upper()}_API_KEY here"
        )


def _endpoint(document: Document, key: str, role: str, given: Mapping[str, Any]) -> None:
    made: dict[str, Any] = {
        "name": role,
        "base_url": given[f"{role}_url"],
        "model": given[f"{role}_model"],
        "api_key_env": given.get(f"{role}_key", ""),
    }
    if given.get("endpoints_trusted"):
        made |= {"trusted": True, "data_region": "cluster", "terms": "train"}
    document.put(key, made, f"parameter {role}_url")


def overrides_of(given: Any) -> dict[tuple[str, ...], Any]:
    """Key -> value of a JSON object (or its text); a key may have dots. UserError where it is none."""
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError as error:
            raise UserError(f'overrides: not JSON ({error}): write {{"sft": {{"epochs": 2}}}}') from None
    if not isinstance(given, dict):
        raise UserError('overrides: not a JSON object: write {"sft": {"epochs": 2}}')
    return dict(_leaves(given, ()))


def _leaves(values: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in values.items():
        key = (*above, *name.split(".")) if not above else (*above, name)
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, key)
        else:
            yield key, value


def words(name: str, value: Any) -> list[str]:
    """A list, or words joined by commas or spaces. Raises UserError for a word that is there twice."""
    found = [str(one) for one in value] if isinstance(value, list) else str(value).replace(",", " ").split()
    if twice := [one for one in found if found.count(one) > 1]:
        raise UserError(f"parameter {name}: {twice[0]} is there twice: write each once")
    return found
