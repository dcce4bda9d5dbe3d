"""What a person may fill in without knowing the configuration: form parameters (form.yaml), the settings that each one
means, and what those may be that say where and how a run's steps run.

`run`, `submit` and the dashboard's form meet here: preset, then parameters, then overrides, then `--set`; later wins.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clinical_r1.atomic import read_table
from clinical_r1.errors import UserError, near_miss
from clinical_r1.records.config import parse_map
from clinical_r1.rewards import reward_table
from clinical_r1.runs.config import CONFIGS, RUNS, RunConfig
from clinical_r1.runs.sources import with_cases
from clinical_r1.settings import Document

WHOLE = "none"
"""The preset of a run whose overrides are its whole configuration."""
FORMS: dict[str, dict[str, list[Any]]] = read_table(Path(__file__).with_name("form.yaml"))
"""Pipeline -> parameter -> [type, default, what it is, the settings that it is ...]."""
RULES = FORMS.pop("placed")
"""Parameter -> [what the whole of its text has to match, the fix]."""
FORMS["experiments"] |= {name: row for name, row in FORMS["train"].items() if name not in FORMS["experiments"]}
_LABEL = r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_TAINT = {"key", "operator", "value", "effect", "tolerationSeconds"}


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
    """The parameters that somebody filled in (KFP has no empty number: -1 stands for it)."""
    given = {name: value.strip() if isinstance(value, str) else value for name, value in parameters.items()}
    return {name: value for name, value in given.items() if value not in ("", -1, None, {}, []) and value is not False}


def put_parameters(document: Document, form: str, given: Mapping[str, Any]) -> None:
    """The settings that filled-in parameters of a form are; those of a simulator where there is one."""
    for name in (one for one in FORMS[form] if one in given):
        value = _words(name, given[name]) if name == "languages" else given[name]
        for key in FORMS[form][name][3:]:
            if not key.startswith("simulator.") or document.data.get("simulator"):
                document.put(key, value, f"parameter {name}")


def assembled(
    pipeline: str,
    preset: str = "",
    parameters: Mapping[str, Any] | None = None,
    options: Sequence[str] = (),
    option: str = "preset",
) -> Document:
    """All settings but `records`; nothing is looked for on disk but the preset. Raises UserError.

    `parameters` are form parameters by name; `option` is what an error calls the preset.
    """
    given = filled_in(parameters or {})
    if preset == WHOLE:
        document = Document(catalogue=RUNS, source=f"{option} {WHOLE}")
    else:
        document = Document.read(preset.strip() or default_preset(pipeline), RUNS, option)
    put_parameters(document, "train", given)
    _put_endpoints(document, given)
    return document.join(overrides_of(given.get("overrides", {})), "overrides").set(*options)


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
    if "synthesizer_url" in given:
        _put_endpoint(document, "synthesis.synthesizer", "synthesizer", given)
        if "records" in given:  # else the world that the cases are sampled from stays
            document.put("simulator", None, "parameter synthesizer_url")
    elif "judge_url" not in given:
        return
    elif document.data.get("simulator"):
        raise UserError("parameter judge_url: the synthesizer is simulated: give synthesizer_url too")
    role = "judge" if "judge_url" in given else "synthesizer"
    for key in ("synthesis.judge", "ppo.judge.endpoint", "evaluation.reward_judge.endpoint"):
        _put_endpoint(document, key, role, given)
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


def endpoint_of(role: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The endpoint that the form's fields of a role name."""
    told = {"base_url": given[f"{role}_url"], "model": given[f"{role}_model"]}
    return {"name": role, **told, "api_key_env": given.get(f"{role}_key", "")}


def _put_endpoint(document: Document, key: str, role: str, given: Mapping[str, Any]) -> None:
    made = endpoint_of(role, given)
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
        key = (*above, name) if above else tuple(name.split("."))
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, key)
        else:
            yield key, value


def _words(name: str, value: Any) -> list[str]:
    """A list, or words joined by commas or spaces. Raises UserError for a word that is there twice."""
    found = [str(one) for one in value] if isinstance(value, list) else str(value).replace(",", " ").split()
    if twice := [one for one in found if found.count(one) > 1]:
        raise UserError(f"parameter {name}: {twice[0]} is there twice: write each once")
    return found


def check_placed(given: Mapping[str, Any]) -> None:
    """Raise UserError for a parameter that no cluster could do anything with; other parameters are left alone.

    They are no part of a configuration; a wrong one would meet its end in a pod that nobody can make, or after
    training.
    """
    for name, value in given.items():
        good, fix = _placed(name, value)
        if not good:
            raise UserError(f"parameter {name}: {value}: {fix}")


def _placed(name: str, value: Any) -> tuple[bool, str]:
    """Whether a parameter's value is good, and the fix."""
    if name in RULES:
        pattern, fix = RULES[name]
        return isinstance(value, str) and len(value) <= 253 and bool(re.fullmatch(pattern, value, re.ASCII)), fix
    if name == "nodes":
        return float(value).is_integer() and 1 <= value <= 1024, "write a whole number from 1 to 1024"
    if name == "deadline_hours":
        return math.isfinite(value) and value > 0, "write a number of hours above 0"
    if name == "node_selector":
        good = all(
            re.fullmatch(_LABEL, key) and isinstance(one, str) and re.fullmatch(f"({_LABEL})?", one)
            for key, one in value.items()
        )
        return good, 'write labels of nodes as JSON, such as {"gpu": "h100"}'
    if name == "tolerations":
        good = all(isinstance(one, Mapping) and _tolerates(one) for one in value)
        return good, 'write taints as a JSON list, such as [{"key": "gpu", "operator": "Exists"}]'
    return True, ""


def _tolerates(one: Mapping[str, Any]) -> bool:
    known = one.keys() <= _TAINT and one.get("effect", "") in ("NoSchedule", "PreferNoSchedule", "NoExecute", "")
    known &= all(isinstance(told, (int, float) if key == "tolerationSeconds" else str) for key, told in one.items())
    operator = one.get("operator", "Equal")
    return known and (operator == "Exists" or (operator == "Equal" and bool(one.get("key"))))
