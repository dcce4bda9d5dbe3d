"""A finished run of the train pipeline as a published model, its folders as facts of the manifest; and a published
version in a Kubeflow Model Registry or in MLflow's, for teams that look there. The manifest in the store stays the
truth: what is registered points to it, and is written again from it."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from clinical_r1.atomic import file_sha256
from clinical_r1.baseline import FILE_NAME as BASELINE
from clinical_r1.errors import UserError
from clinical_r1.objectstore.face import Store
from clinical_r1.objectstore.manifest import GATE, Facts, Gate, ModelManifest
from clinical_r1.objectstore.models import publish, read_aliases, read_manifest
from clinical_r1.objectstore.store import open_store

_BESIDE = {"report": ("MODEL_CARD.md", "README.md"), "gate": (BASELINE, GATE)}
_DATASETS = {"splits": ("sft.jsonl", "rl.jsonl", "validation.jsonl"), "traces": ("traces.jsonl",)}


def publish_run(
    models_uri: str, name: str, model: Path, folders: dict[str, Path], settings: str, facts: dict[str, str]
) -> ModelManifest:
    """Publish `model` with what the steps wrote in `folders` (splits, traces, predictions, gate, report).

    `settings` is a JSON object of the sections that the run was told; `facts` holds run_id, code_version and
    sources_sha256. Card, reasoning baseline and gate travel beside the weights: serving reads the baseline there. Where
    the training was tracked in MLflow, at MLFLOW_TRACKING_URI, the version is registered there too.
    """
    config: dict[str, Any] = json.loads(settings)
    beside = {file: folders[key] / file for key, files in _BESIDE.items() for file in files}
    learned = {file: folders[key] / file for key, files in _DATASETS.items() for file in files}
    base = config.get("base_model", {})
    known = Facts(
        base_model=base.get("folder") or "a tiny model from scratch",
        base_revision=base.get("revision", ""),
        datasets={"sources": facts["sources_sha256"]}
        | {file.removesuffix(".jsonl"): file_sha256(path) for file, path in learned.items()},
        benchmarks={"test": file_sha256(folders["splits"] / "test.jsonl")},
        code_version=facts["code_version"],
        config=config,
        run_id=facts["run_id"],
        evaluation=[json.loads((folders["predictions"] / "metrics.json").read_text(encoding="utf-8"))],
        gate=Gate.model_validate_json(beside[GATE].read_text(encoding="utf-8")),
        baseline=json.loads(beside[BASELINE].read_text(encoding="utf-8")),
        licence=base.get("licence", ""),
    )
    present = {file: path for file, path in beside.items() if path.is_file()}
    store = open_store(models_uri)
    published = publish(store, name, model, known, present, by=facts["run_id"])
    server = os.environ.get("MLFLOW_TRACKING_URI", "")
    tracked = ((config.get(step) or {}).get("tracking", {}).get("to", []) for step in ("sft", "ppo"))
    if server and any("mlflow" in trackers for trackers in tracked):
        try:
            print(f"registered in MLflow: {register_in_mlflow(store, name, published.version, server)}", flush=True)
        except UserError as error:  # the manifest is the truth, and it is written
            print(f"{error}; register it with `clinical-r1 models register {name} --mlflow URI`", file=sys.stderr)
    return published


def register(store: Store, name: str, version: str, server: str, author: str) -> str:
    """Register a version, or bring what is registered up to date; returns `NAME/VERSION`. Needs `model-registry`.

    Raises UserError where the registry cannot be reached, or knows this version at another place.
    """
    try:
        from model_registry import ModelRegistry
        from model_registry.exceptions import StoreError
        from mr_openapi.exceptions import ApiException
    except ImportError:
        raise UserError("--registry needs model-registry: pip install 'clinical-r1[registry]'") from None
    manifest, aliases = read_manifest(store, name, version), read_aliases(store, name)[0]
    version, uri = manifest.version, f"{store.uri}/{manifest.label}"
    facts = facts_of(manifest, aliases.of(version))
    try:
        client = ModelRegistry(server, author=author, is_secure=server.startswith("https://"))
        known = client.get_model_version(name, version) if client.get_registered_model(name) else None
        if known is None:
            client.register_model(
                name, uri, version=version, model_format_name="safetensors", model_format_version="1",
                author=author, metadata=facts,
            )  # fmt: skip
        else:
            artifact = client.get_model_artifact(name, version)
            if artifact is None or artifact.uri != uri:
                raise _elsewhere(server, manifest)
            known.custom_properties = {**(known.custom_properties or {}), **facts}
            client.update(known)
    except (StoreError, ApiException, OSError) as error:
        raise _not_taken(server, manifest, error) from None
    return manifest.label


def register_in_mlflow(store: Store, name: str, version: str, server: str) -> str:
    """As `register`, in MLflow's registry: the version's facts are its tags, the store's aliases its aliases; returns
    `NAME/NUMBER`, MLflow's own number. Needs `mlflow`."""
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise UserError("--mlflow needs mlflow: pip install 'clinical-r1[tracking]'") from None
    manifest = read_manifest(store, name, version)
    uri, aliases = f"{store.uri}/{manifest.label}", read_aliases(store, name)[0].of(manifest.version)
    try:
        client = MlflowClient(tracking_uri=server, registry_uri=server)
        if not client.search_registered_models(f"name='{name}'"):
            client.create_registered_model(name)
        found = client.search_model_versions(f"name='{name}'")
        known = next((row for row in found if row.tags.get("version") == manifest.version), None)
        if known is None:
            known = client.create_model_version(name, source=uri)
        elif known.source != uri:
            raise _elsewhere(server, manifest)
        for key, value in ({"version": manifest.version} | facts_of(manifest, aliases)).items():
            client.set_model_version_tag(name, str(known.version), key, str(value))
        for alias, number in client.get_registered_model(name).aliases.items():
            if str(number) == str(known.version) and alias not in aliases:
                client.delete_registered_model_alias(name, alias)
        for alias in aliases:
            client.set_registered_model_alias(name, alias, str(known.version))
    except (MlflowException, OSError) as error:
        raise _not_taken(server, manifest, error) from None
    return f"{name}/{known.version}"


def facts_of(manifest: ModelManifest, aliases: list[str]) -> dict[str, Any]:
    """What of a manifest is told beside the model, as flat texts and numbers; the rest stands in the manifest."""
    gate = manifest.gate
    facts: dict[str, Any] = {
        "weights_sha256": manifest.weights, "aliases": " ".join(aliases), "origin": manifest.origin,
        "base_model": manifest.base_model, "licence": manifest.licence, "run_id": manifest.run_id,
        "code_version": manifest.code_version, "bytes": manifest.size,
        "gate": gate.decision if gate else "", "approved_by": gate.approved_by if gate else "",
        "overrides": len(gate.overrides) if gate else 0,
    }  # fmt: skip
    for metrics in manifest.evaluation:
        overall = metrics.get("overall") or {}
        for kind in ("accuracy", "lower_bound"):
            if overall.get(kind) is not None:
                facts[f"{kind}_{metrics.get('benchmark') or 'test'}"] = float(overall[kind])
    return facts


def _elsewhere(server: str, manifest: ModelManifest) -> UserError:
    return UserError(f"{server}: {manifest.name} {manifest.version} is registered at another place; remove it there")


def _not_taken(server: str, manifest: ModelManifest, error: Exception) -> UserError:
    text = str(getattr(error, "reason", "") or error).strip() or type(error).__name__
    said = text.splitlines()[0][:200]
    return UserError(f"{server}: the registry does not take {manifest.name} {manifest.version}: {said}")
