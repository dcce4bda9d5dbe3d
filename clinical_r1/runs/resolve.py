"""From a configuration to what the steps of a pipeline are told: sections as JSON, hashes, places, arms."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from clinical_r1.errors import UserError
from clinical_r1.evaluation.promotion import check_gate_files
from clinical_r1.objectstore.models import read_manifest
from clinical_r1.objectstore.store import open_store
from clinical_r1.runs.arms import ARGUMENTS, Local
from clinical_r1.runs.config import RunConfig, as_argument
from clinical_r1.runs.experiments import CONFIGS, AuditVerifierConfig, CrossLanguageConfig
from clinical_r1.runs.form import filled_in, settle
from clinical_r1.runs.sources import fingerprint, own_cases, simulated, with_world
from clinical_r1.runs.window import with_window
from clinical_r1.schema import Case, read_jsonl
from clinical_r1.settings import shown
from clinical_r1.simulator.beside import ADDRESS_VARIABLE
from clinical_r1.training.base import check_base_model
from clinical_r1.version import code_version

STATE_MOUNT = "/state"
"""Where the steps of a cluster see the claim with journals, checkpoints and data."""
_PUBLISHED = ("base_model", "synthesis", "sft", "ppo", "evaluation", "gate")
_TRAIN = ("records", "synthesis", "base_model", "sft", "ppo", "evaluation", "gate", "report")


OUTPUTS: dict[str, Any] = {
    **dict.fromkeys((*_TRAIN, "settings", "simulator", "sources_sha256", "state_dir", "code_version"), ""),
    "datasets_dir": "",
    **{name: [] for name in ("shards", "arms", "arms_scratch", "arms_bilingual")},
    **dict.fromkeys(("leak", "rival_synthesis", "rival_state_dir", "twin_records", "twin_synthesis"), ""),
    **dict.fromkeys(("twins_sha256", "twin_state_dir", "endpoint", "labelled", "labelled_sha256"), ""),
}
"""What the configure step hands out, with what it is where a pipeline has no use for it."""


class Resolved(NamedTuple):
    """What a run is told, and what a person may want to read of it."""

    config: RunConfig
    arguments: dict[str, Any]
    """Arguments of the pipeline's steps; which ones, its definition says."""


def check_simulated(config: RunConfig) -> None:
    """Raise UserError for an endpoint that is to be simulated in a run that simulates none."""
    asked = set(re.findall(rf"\$\{{({ADDRESS_VARIABLE}\w*)\}}", config.model_dump_json()))
    if missing := sorted(asked - set(simulated(config))):
        raise UserError(
            f"endpoint http://${{{missing[0]}}}: this run simulates none of that name: name a real endpoint in its "
            "place, or keep the simulator section and what stands in `endpoints`"
        )


def check_files(config: RunConfig) -> None:
    """Raise UserError for a file, model or endpoint that a late step would miss after hours of work."""
    check_simulated(config)
    check_base_model(config.base_model, config.sft, config.ppo)
    if "://" in config.base_model.folder:
        root, _, place = config.base_model.folder.rstrip("/").partition("/models/")
        if place.count("/") != 1:
            what = f"base_model.folder: {config.base_model.folder}"
            raise UserError(f"{what}: write s3://BUCKET/models/NAME/VERSION, as `import-model` printed it")
        read_manifest(open_store(f"{root}/models"), *place.split("/"))
    check_gate_files(config.gate)
    probe = config.ppo.probe.forgetting_cases
    if probe and not (Path(probe).is_file() and read_jsonl(Path(probe), Case)):
        raise UserError(
            f"ppo.probe.forgetting_cases: {probe}: no such file, or no cases in it; give a JSONL of our cases"
        )


def state_dir_of(pipeline: str, config: RunConfig) -> str:
    """The folder on a cluster's claim: the same records and teacher meet their journals and checkpoints again.

    Steps tell themselves whether what they find there is theirs (a journal's keys hold the prompts, a checkpoint its
    settings), so that neither other settings nor other contents of the same files need another folder.
    """
    told = json.dumps([as_argument(config.records), simulated_argument(config)])
    return f"{STATE_MOUNT}/{pipeline}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


def simulated_argument(config: RunConfig) -> str:
    """What the steps of a cluster are to simulate, as JSON; empty for nothing."""
    found = {name: one.model_dump(mode="json") for name, one in simulated(config).items()}
    return json.dumps(found, sort_keys=True) if found else ""


def resolve(pipeline: str, config: RunConfig, sources: str, state_dir: Path, samples: Path, datasets: str) -> Resolved:
    """Say what each step is told. `sources` is the hash of the records (`with_world` has put them in), `samples` a
    folder for what is sampled from the simulated world, `datasets` one for traces at an immutable address."""
    config = with_window(config)
    if pipeline not in CONFIGS:
        arguments: dict[str, Any] = {name: as_argument(getattr(config, name)) for name in _TRAIN}
        arguments |= {"sources_sha256": sources, "state_dir": str(state_dir), "code_version": code_version()}
        arguments |= {"datasets_dir": datasets, "simulator": ""}
        arguments["shards"] = [f"{index}/{config.shards}" for index in range(config.shards)]
        told = {name: getattr(config, name).model_dump(mode="json") for name in _PUBLISHED}
        arguments["settings"] = json.dumps(told, sort_keys=True, ensure_ascii=False)
        return Resolved(config, arguments)
    twins = ""
    if isinstance(config, CrossLanguageConfig):
        settings = config.experiment
        aside = config.model_copy(update={"records": settings.records, "simulator": settings.twins})
        aside = with_world(aside, samples)
        config = config.model_copy(update={"experiment": settings.model_copy(update={"records": aside.records})})
        twins = fingerprint(aside.records.sources, "experiment.records.sources")
    local = Local(samples, state_dir, sources, code_version(), twins)
    return Resolved(config, ARGUMENTS[pipeline](config, local) | {"simulator": ""})


def configure_run(pipeline: str, filled: dict[str, Any]) -> tuple[tuple[Any, ...], str]:
    """What the steps of a cluster's run are told (in the order of OUTPUTS), and a page about it. Raises UserError.

    `filled` are the parameters of the form, the preset and the state folder with them.
    """
    parameters = {name: value for name, value in filled.items() if name not in ("preset", "state_dir")}
    config = settle(pipeline, filled["preset"], parameters)
    check_teacher(config)
    check_files(config)
    state = Path(filled["state_dir"] or state_dir_of(pipeline, config))
    samples, datasets = Path(STATE_MOUNT, "simulated-records"), f"{STATE_MOUNT}/datasets"
    config = with_world(config, samples)
    resolved = resolve(pipeline, config, fingerprint(config.records.sources), state, samples, datasets)
    told = {**OUTPUTS, **resolved.arguments, "simulator": simulated_argument(resolved.config)}
    return tuple(told[name] for name in OUTPUTS), page(pipeline, resolved, filled_in(filled))


def check_teacher(config: RunConfig) -> None:
    """Refuse what a cluster cannot do: its simulated teacher knows no cases but those of its own world."""
    teacher = config.synthesis.synthesizer.base_url
    if own_cases(config) and any(f"${{{variable}}}" in teacher for variable in simulated(config)):
        raise UserError(
            "records: the simulated teacher knows the diagnoses of its own world only: fill in synthesizer_url and "
            "synthesizer_model, or leave records empty"
        )
    if isinstance(config, AuditVerifierConfig) and config.simulator is None and not config.experiment.labelled:
        raise UserError(f"experiment.labelled: empty: give JSONL of graded answers on the claim ({STATE_MOUNT}/...)")
    check_simulated(config)


def page(pipeline: str, resolved: Resolved, parameters: Mapping[str, Any]) -> str:
    """The resolved configuration as a Markdown page for the dashboard; it holds no text of any record."""
    told = resolved.arguments
    given = "\n".join(f"| `{name}` | `{value}` |" for name, value in parameters.items()) or "| nothing | the defaults |"
    sources = "\n".join(f"- `{source.path}`" for source in resolved.config.records.sources)
    return f"""# What this run was told

Pipeline **{pipeline}**, code {told["code_version"]}, journals and checkpoints in `{told["state_dir"]}`.

Records (SHA-256 over all: `{told["sources_sha256"][:16]}`):

{sources}

| Filled in | Value |
|---|---|
{given}

## Every setting, after preset, parameters and overrides

```yaml
{shown(resolved.config)}```
"""
