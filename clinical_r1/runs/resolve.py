"""From a configuration to what the steps of a pipeline are told: sections as JSON, hashes, places, arms; and the same
for an audit of served answers."""

import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from clinical_r1.cluster.nodes import ENDPOINT_KEYS
from clinical_r1.errors import UserError, near_miss
from clinical_r1.evaluation.answer import answer_room
from clinical_r1.evaluation.judging.online import OnlineAuditConfig
from clinical_r1.evaluation.promotion.run import check_gate_files
from clinical_r1.folders import ModelFolder
from clinical_r1.objectstore.models import read_manifest
from clinical_r1.objectstore.store import open_store
from clinical_r1.page import render
from clinical_r1.records.config import LaterConfig
from clinical_r1.rewards import reward_table
from clinical_r1.runs.arms import Local
from clinical_r1.runs.arms import arguments as arguments_of_arms
from clinical_r1.runs.config import AuditVerifier, CrossLanguage, ExperimentConfig, RunConfig
from clinical_r1.runs.form import check_key, endpoint_of, filled_in, overrides_of, put_parameters, settle
from clinical_r1.runs.sources import as_argument, fingerprint, own_cases, simulated, with_traces, with_world
from clinical_r1.schema import Case, read_jsonl
from clinical_r1.settings import Document, Key, each, shown
from clinical_r1.simulator.beside import ADDRESS_VARIABLE
from clinical_r1.step import code_version
from clinical_r1.training.base import check_base_model, published
from clinical_r1.training.vllm_server import check_program

STATE_MOUNT = "/state"
"""Where the steps of a cluster see the claim with journals, checkpoints and data."""
_PUBLISHED = ("base_model", "synthesis", "sft", "ppo", "evaluation", "gate")
_TRAIN = ("records", "synthesis", "base_model", "sft", "ppo", "evaluation", "gate", "report")
OUTPUTS: dict[str, Any] = {
    **dict.fromkeys((*_TRAIN, "settings", "simulator", "sources_sha256", "state_dir", "code_version"), ""),
    "datasets_dir": "",
    "shards": [],
    **dict.fromkeys(("experiment", "reference_training", "reference_evaluation", "arms_data", "arms_state_dir"), ""),
    "arms": [],
}
"""What the configure step hands out, with what it is where a pipeline has no use for it."""


def check_files(config: RunConfig) -> None:
    """Raise UserError for a file, model or endpoint that a late step would miss after hours of work."""
    _check_simulated(config)
    check_base_model(config.base_model, config.sft, config.ppo)
    if published(config.base_model.folder):
        root, name, version = config.base_model.folder.rstrip("/").rsplit("/", 2)
        read_manifest(open_store(root), name, version)
    check_gate_files(config.gate)
    with_traces(config)
    if dpo := config.sft.dpo:
        pairs = [("completions", path) for path in dpo.completions] + ([("cases", dpo.cases)] if dpo.cases else [])
        for name, file in pairs:
            if not Path(file).is_file():
                raise UserError(f"sft.dpo.{name}: {file}: no such file; give that of an RL run on this machine")
    if config.ppo.rollout.vllm_python:
        check_program(config.ppo.rollout.vllm_python)
    probe = config.ppo.probe.forgetting_cases
    if probe and not (Path(probe).is_file() and read_jsonl(Path(probe), Case)):
        raise UserError(
            f"ppo.probe.forgetting_cases: {probe}: no such file, or no cases in it; give a JSONL of our cases"
        )


def check_teacher(config: RunConfig) -> None:
    """Refuse what a cluster cannot do: its simulated teacher knows no cases but those of its own world."""
    teacher = config.synthesis.writer.base_url if not config.synthesis.traces else ""
    if own_cases(config) and any(f"${{{variable}}}" in teacher for variable in simulated(config)):
        raise UserError(
            "records: the simulated teacher knows the diagnoses of its own world only: fill in synthesizer_url and "
            "synthesizer_model, or leave records empty"
        )
    told = config.experiment if isinstance(config, ExperimentConfig) else None
    if isinstance(told, AuditVerifier) and config.simulator is None and not told.labelled:
        raise UserError(f"experiment.labelled: empty: give JSONL of graded answers on the claim ({STATE_MOUNT}/...)")
    _check_simulated(config)


def _check_simulated(config: RunConfig) -> None:
    """Raise UserError for an endpoint that is to be simulated in a run that simulates none."""
    asked = set(re.findall(rf"\$\{{({ADDRESS_VARIABLE}\w*)\}}", config.model_dump_json()))
    if missing := sorted(asked - set(simulated(config))):
        raise UserError(
            f"endpoint http://${{{missing[0]}}}: this run simulates none of that name: name a real endpoint in its "
            "place, or keep the simulator section and what stands in `endpoints`"
        )


def check_keys(config: BaseModel, there: Collection[str]) -> None:
    """Raise UserError for a key of an endpoint that is not among those `there`: a cluster's steps see no others."""

    def check(name: Any, key: Key) -> None:
        if key[-1] == "api_key_env" and name and name not in there:
            hint = near_miss(name, ENDPOINT_KEYS) if name not in ENDPOINT_KEYS else "put it there"
            known = f"in the Secret of `endpoint_secret`: {hint or 'name one of ' + ', '.join(ENDPOINT_KEYS)}"
            raise UserError(f"{'.'.join(key)}: {name}: steps see no key of that name {known}")

    each(config.model_dump(mode="json"), check)


def state_dir_of(pipeline: str, config: RunConfig) -> str:
    """The folder on a cluster's claim: the same records and teacher meet their journals and checkpoints again.

    Steps tell themselves whether what they find there is theirs (a journal's keys hold the prompts, a checkpoint its
    settings), so that neither other settings nor other contents of the same files need another folder.
    """
    records = json.dumps(config.records.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
    told = json.dumps([records, simulated_argument(config)])
    return f"{STATE_MOUNT}/{pipeline}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


def check_state_dir(folder: str) -> None:
    """Raise UserError for a folder that is not on the volume: a step's own disk is gone with its pod."""
    path = Path(folder)
    if folder and (not path.is_relative_to(STATE_MOUNT) or ".." in path.parts or path == Path(STATE_MOUNT)):
        raise UserError(f"parameter state_dir: {folder}: write a folder on the volume, such as {STATE_MOUNT}/ward-7")


def simulated_argument(config: RunConfig) -> str:
    """What the steps of a cluster are to simulate, as JSON; empty for nothing."""
    found = {name: one.model_dump(mode="json") for name, one in simulated(config).items()}
    return json.dumps(found, sort_keys=True) if found else ""


def resolve(
    pipeline: str, config: RunConfig, sources: str, state_dir: Path, samples: Path, datasets: str
) -> tuple[RunConfig, dict[str, Any]]:
    """The whole configuration, and what it tells the steps. `sources` is the hash of the records (`with_world` has put
    them in), `samples` a folder for what is sampled from the simulated world, `datasets` one for traces at an immutable
    address."""
    config = with_traces(with_window(config))
    shared = {"sources_sha256": sources, "state_dir": str(state_dir), "code_version": code_version(), "simulator": ""}
    if isinstance(config, ExperimentConfig):
        settings, twins = config.experiment, ""
        if isinstance(settings, CrossLanguage):
            aside = config.model_copy(update={"records": settings.records, "simulator": settings.twins})
            records = with_world(aside, samples).records
            config = config.model_copy(update={"experiment": settings.model_copy(update={"records": records})})
            twins = fingerprint(records.sources, "experiment.records.sources")
        return config, arguments_of_arms(pipeline, config, Local(samples, state_dir, twins)) | shared
    config = with_later(config)
    arguments: dict[str, Any] = {name: as_argument(getattr(config, name), name=name) for name in _TRAIN}
    for name in ("sft", "gate"):  # they take the base model by its place, which says nothing of its content
        arguments[name] = as_argument(getattr(config, name), config.base_model, name)
    arguments["datasets_dir"] = datasets
    arguments["shards"] = [f"{index}/{config.shards}" for index in range(config.shards)]
    told = {name: getattr(config, name).model_dump(mode="json") for name in _PUBLISHED}
    arguments["settings"] = json.dumps(told, sort_keys=True, ensure_ascii=False)
    return config, arguments | shared


def configure_run(pipeline: str, filled: dict[str, Any]) -> tuple[tuple[Any, ...], str]:
    """What the steps of a cluster's run are told (in the order of OUTPUTS), and a page about it. Raises UserError.

    `filled` are the parameters of the form, the preset and the state folder with them.
    """
    check_state_dir(filled["state_dir"])
    config = settle(pipeline, filled["preset"], filled)
    check_teacher(config)
    check_keys(config, os.environ)
    check_files(config)
    state = Path(filled["state_dir"] or state_dir_of(pipeline, config))
    samples, datasets = Path(STATE_MOUNT, "simulated-records"), f"{STATE_MOUNT}/datasets"
    config = with_world(config, samples)
    config, told = resolve(pipeline, config, fingerprint(config.records.sources), state, samples, datasets)
    told = {**OUTPUTS, **told, "simulator": simulated_argument(config)}
    sources, settings = config.records.sources, shown(config)
    # A page for the dashboard, without the text of any record.
    known = {"told": told, "sources": sources, "parameters": filled_in(filled), "settings": settings}
    return tuple(told[name] for name in OUTPUTS), render("run.md.j2", pipeline=pipeline, **known)


def with_window(config: RunConfig) -> RunConfig:
    """The configuration with `records.window.tokens` filled in, unless the user has set it: the records step is told
    how long a question may be before traces are paid."""
    window, folder = config.records.window, config.base_model.folder
    if window.tokens:
        return config
    tokens, advice = question_room(config)
    tokenizer = folder if folder and (Path(folder) / "tokenizer.json").is_file() else ""
    update = {"tokens": tokens, "advice": advice, "tokenizer": window.tokenizer or tokenizer}
    records = config.records.model_copy(update={"window": window.model_copy(update=update)})
    return config.model_copy(update={"records": records})


def with_later(config: RunConfig) -> RunConfig:
    """The configuration with `records.later` filled in: the records step is told what RL, evaluation and the gate would
    refuse, before traces are paid."""
    later = LaterConfig(
        paid=list(reward_table(config.ppo.reward_table).mix),
        watched=config.ppo.probe.cases,
        rubrics=config.evaluation.reward_judge.verifier.kind != "rule",
        probe=config.gate.forgetting is None,
    )
    return config.model_copy(update={"records": config.records.model_copy(update={"later": later})})


def question_room(config: RunConfig) -> tuple[int, str]:
    """The narrowest room that a step leaves for a question, in tokens, and what widens it; 0 where the base model's
    window is not known here (a model in a store).

    A question goes through the base model's window four times: with a trace in SFT, with a completion in PPO, with an
    answer in evaluation and in the gate. The narrowest decides, and its setting is what the advice names.
    """
    folder, window = config.base_model.folder, config.base_model.tiny.window
    if folder:
        file = Path(folder) / "config.json"
        known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        window = ModelFolder(file.parent, known, 0).window
    if not window:
        return 0, ""
    rollout = config.ppo.rollout.max_new_tokens
    answer = answer_room(config.evaluation.max_new_tokens, window)
    trace = min(rollout, answer)  # a trace is about as long as the answers that are learned from it
    tokens, advice = min(
        (window - rollout, f"lower ppo.rollout.max_new_tokens ({rollout})"),
        (window - answer, f"lower evaluation.max_new_tokens ({config.evaluation.max_new_tokens})"),
        ((config.sft.max_length or window) - trace, f"raise sft.max_length ({config.sft.max_length})"),
        key=lambda room: room[0],
    )
    base = "base_model.folder" if folder else f"base_model.tiny.window ({window})"
    return max(1, tokens), f"{advice}, take a wider base model ({base})"


def audit_document(name: str, parameters: Mapping[str, Any], options: Sequence[str] = ()) -> Document:
    """An audit's settings from a file, the form's parameters, or both; later wins. Raises UserError."""
    given = filled_in(parameters)
    document = Document.read(name) if name else Document()
    put_parameters(document, "audit", given)
    if ("judge_url" in given) != ("judge_model" in given):
        raise UserError(
            "parameters judge_url and judge_model: an endpoint needs both: its URL and the model to ask for"
        )
    check_key("judge", given)
    if "judge_url" in given:
        endpoint = endpoint_of("judge", given) | {"trusted": bool(given.get("endpoints_trusted"))}
        document.put("judge", {"verifier": {"kind": "llm"}, "endpoint": endpoint}, "parameter judge_url")
    return document.join(overrides_of(given.get("overrides", {})), "overrides").set(*options)


def settle_audit(name: str, parameters: Mapping[str, Any], options: Sequence[str] = ()) -> OnlineAuditConfig:
    """The configuration of an audit; UserError names place, key and near miss."""
    document = audit_document(name, parameters, options)
    if "store" not in document.data:
        raise UserError("audit: no store; give the gateway's sampling.store: --set store=s3://BUCKET/PREFIX")
    return document.validate(OnlineAuditConfig)


def configure_audit(filled: dict[str, Any]) -> tuple[tuple[str, str, str], str]:
    """(config, state_dir, code_version) for the step, and a page about it. Raises UserError."""
    bucket = os.environ.get("CLINICAL_R1_BUCKET", "")
    if not filled["store"] and bucket:
        filled = filled | {"store": f"s3://{bucket}/audit"}
    config = settle_audit("", filled)
    check_keys(config, os.environ)
    text = f"# What this audit was told\n\n```yaml\n{shown(config)}```\n"
    return (as_argument(config), str(Path(STATE_MOUNT, "audit")), code_version()), text


def audit_arguments(config: OnlineAuditConfig, state_dir: Path) -> dict[str, Any]:
    """What the audit's step is told on this machine."""
    if "://" not in config.store and "${" not in config.store:
        config = config.model_copy(update={"store": str(Path(config.store).resolve())})  # steps run in another folder
    return {"config": as_argument(config), "state_dir": str(state_dir), "code_version": code_version()}
