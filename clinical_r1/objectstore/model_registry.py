"""A published version in a Kubeflow Model Registry or in MLflow's, for teams that look there. The manifest in the store
stays the truth: what is registered points to it, and is written again from it."""

from typing import Any

from clinical_r1.errors import UserError
from clinical_r1.objectstore.binding import manifest_weights
from clinical_r1.objectstore.face import Store
from clinical_r1.objectstore.manifest import ModelManifest
from clinical_r1.objectstore.models import read_aliases, read_manifest


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
    manifest = read_manifest(store, name, version)
    uri = f"{store.uri}/{name}/{manifest.version}"
    facts = facts_of(manifest, read_aliases(store, name)[0].of(manifest.version))
    try:
        client = ModelRegistry(server, author=author, is_secure=server.startswith("https://"))
        known = client.get_model_version(name, manifest.version) if client.get_registered_model(name) else None
        if known is None:
            client.register_model(
                name, uri, version=manifest.version, model_format_name="safetensors", model_format_version="1",
                author=author, metadata=facts,
            )  # fmt: skip
        else:
            artifact = client.get_model_artifact(name, manifest.version)
            if artifact is None or artifact.uri != uri:
                raise UserError(f"{server}: {name} {manifest.version} is registered at another place; remove it there")
            known.custom_properties = {**(known.custom_properties or {}), **facts}
            client.update(known)
    except (StoreError, ApiException, OSError) as error:
        raise UserError(f"{server}: the registry does not take {name} {manifest.version}: {_said(error)}") from None
    return f"{name}/{manifest.version}"


def register_in_mlflow(store: Store, name: str, version: str, server: str) -> str:
    """As `register`, in MLflow's registry: the version's facts are its tags, the store's aliases its aliases; returns
    `NAME/NUMBER`, MLflow's own number. Needs `mlflow`."""
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise UserError("--mlflow needs mlflow: pip install 'clinical-r1[tracking]'") from None
    manifest = read_manifest(store, name, version)
    uri = f"{store.uri}/{name}/{manifest.version}"
    aliases = read_aliases(store, name)[0].of(manifest.version)
    tags = {"version": manifest.version, **{key: str(value) for key, value in facts_of(manifest, aliases).items()}}
    try:
        client = MlflowClient(tracking_uri=server, registry_uri=server)
        if not client.search_registered_models(f"name='{name}'"):
            client.create_registered_model(name)
        found = client.search_model_versions(f"name='{name}'")
        known = next((row for row in found if row.tags.get("version") == manifest.version), None)
        if known is None:
            known = client.create_model_version(name, source=uri)
        elif known.source != uri:
            raise UserError(f"{server}: {name} {manifest.version} is registered at another place; remove it there")
        for key, value in tags.items():
            client.set_model_version_tag(name, str(known.version), key, value)
        for alias, number in client.get_registered_model(name).aliases.items():
            if str(number) == str(known.version) and alias not in aliases:
                client.delete_registered_model_alias(name, alias)
        for alias in aliases:
            client.set_registered_model_alias(name, alias, str(known.version))
    except (MlflowException, OSError) as error:
        raise UserError(f"{server}: the registry does not take {name} {manifest.version}: {_said(error)}") from None
    return f"{name}/{known.version}"


def facts_of(manifest: ModelManifest, aliases: list[str]) -> dict[str, Any]:
    """What of a manifest is told beside the model, as flat texts and numbers; the rest stands in the manifest."""
    gate = manifest.gate
    facts: dict[str, Any] = {
        "weights_sha256": manifest_weights(manifest), "aliases": " ".join(aliases), "origin": manifest.origin,
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


def _said(error: Exception) -> str:
    text = str(getattr(error, "reason", "") or error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
