"""What an audit of served answers is told: a YAML file and options, or the parameters of the form."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clinical_r1.errors import UserError
from clinical_r1.evaluation.judging.online import OnlineAuditConfig
from clinical_r1.runs.contents import as_argument
from clinical_r1.runs.form import check_key, filled_in, overrides_of
from clinical_r1.runs.resolve import STATE_MOUNT, check_keys
from clinical_r1.settings import Document, shown
from clinical_r1.step import code_version


def audit_document(name: str, parameters: Mapping[str, Any], options: Sequence[str] = ()) -> Document:
    """From a file, the form's parameters, or both; later wins. Raises UserError."""
    given = filled_in(parameters)
    document = Document.read(name) if name else Document()
    for key in ("store", "model_version", "days", "labelled"):
        if key in given:
            document.put(key, given[key], f"parameter {key}")
    if ("judge_url" in given) != ("judge_model" in given):
        raise UserError(
            "parameters judge_url and judge_model: an endpoint needs both: its URL and the model to ask for"
        )
    check_key("judge", given)
    if "judge_url" in given:
        endpoint = {"name": "judge", "base_url": given["judge_url"], "model": given["judge_model"]}
        endpoint |= {"api_key_env": given.get("judge_key", ""), "trusted": bool(given.get("endpoints_trusted"))}
        document.put("judge", {"verifier": {"kind": "llm"}, "endpoint": endpoint}, "parameter judge_url")
    document.join(overrides_of(given.get("overrides", {})), "overrides")
    for option in options:
        document.set(option)
    return document


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
