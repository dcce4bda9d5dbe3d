"""Models in a store: published once under `NAME/VERSION/`, found by alias, promoted by a person, rolled back.

The store's URI is that of all models, such as s3://clinical-r1/models; a version's files lie at
s3://clinical-r1/models/NAME/VERSION, which is the `storageUri` that KServe takes.
"""

import hashlib
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from clinical_r1.errors import UserError
from clinical_r1.folders import check_model_folder
from clinical_r1.objectstore.binding import approve, check_bound, manifest_weights, supersede, weights_sha256
from clinical_r1.objectstore.face import Conflict, NotFound, Store, Unreadable
from clinical_r1.objectstore.manifest import ALIASES, MANIFEST, Aliases, Facts, Gate, ModelManifest, Move
from clinical_r1.objectstore.transfer import (
    FileEntry,
    Transferred,
    describe_files,
    download_files,
    size_text,
    upload_files,
)
from clinical_r1.schema import first_problem

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_MOVES = 20
ModelT = TypeVar("ModelT", bound=BaseModel)
Say = Callable[[str], None]


def publish(
    store: Store,
    name: str,
    folder: Path,
    facts: Facts,
    extra: dict[str, Path] | None = None,
    version: str = "",
    by: str = "",
    say: Say = print,
) -> ModelManifest:
    """Upload a model folder, write its manifest last, and point `candidate` to it; returns the manifest.

    The version is the hash of the files unless one is given: the same model published twice is one version, and an
    upload that was stopped goes on with the files that are not finished. `extra` files (name -> path) go beside the
    weights. Raises UserError for a folder that is no model, for a version that holds another model, and where the gate
    or the baseline in `facts` is about other weights than the folder's.
    """
    _check_name(name)
    check_model_folder(folder)
    # A local gate's approval writes a manifest.json into the folder; here that name is the store's own record.
    files = {entry: path for entry, path in describe_files(folder, extra).items() if entry.path != MANIFEST}
    held = weights_sha256((entry.path, entry.sha256) for entry in files)
    if facts.gate is not None:
        check_bound("the gate's decision", facts.gate.weights, held, str(folder))
    if facts.baseline:
        check_bound("the reasoning baseline", str(facts.baseline.get("weights", "")), held, str(folder))
    version = version or content_version(list(files))
    _check_name(version)
    prefix = f"{name}/{version}"
    say(f"{store.uri}/{prefix}: {len(files)} files, {size_text(sum(entry.size for entry in files))}")
    upload_files(store, prefix, files, say=say)
    manifest = ModelManifest(
        **facts.model_dump(), name=name, version=version, created=_now(), files=sorted(files, key=lambda e: e.path)
    )
    try:
        store.put_if_absent(f"{prefix}/{MANIFEST}", _json(manifest))
    except Conflict:
        there = read_manifest(store, name, version)
        if there.files != manifest.files:
            raise UserError(
                f"{store.uri}/{prefix}: this version is another model already: give another --version"
            ) from None
        manifest = there
        say(f"{store.uri}/{prefix}: was published on {there.created}; its manifest stays as it is")
    move = Move(at=_now(), action="publish", alias="candidate", version=version, by=by)
    _change_aliases(store, name, lambda aliases: _moved(aliases, move))
    return manifest


def content_version(files: list[FileEntry]) -> str:
    """`v-` and 12 hex digits: the same files give the same version."""
    lines = "".join(f"{entry.sha256}  {entry.path}\n" for entry in sorted(files, key=lambda e: e.path))
    return "v-" + hashlib.sha256(lines.encode()).hexdigest()[:12]


def names(store: Store) -> tuple[str, ...]:
    """Names of all models."""
    return store.list_folders()


def versions(store: Store, name: str) -> list[tuple[str, ModelManifest | UserError | None]]:
    """Each version with its manifest, oldest first; then what is no manifest, as the error that says so, and None for
    an upload that did not end."""
    found: list[tuple[str, ModelManifest | UserError | None]] = []
    for version in store.list_folders(f"{_check_name(name)}/"):
        try:
            found.append((version, _read(store, f"{name}/{version}/{MANIFEST}", ModelManifest)))
        except Unreadable as error:
            found.append((version, error))
    read = [pair for pair in found if isinstance(pair[1], ModelManifest)]
    rest = [pair for pair in found if not isinstance(pair[1], ModelManifest)]
    return sorted(read, key=lambda pair: (pair[1].created, pair[0])) + rest  # type: ignore[union-attr]


def resolve(store: Store, name: str, version: str) -> str:
    """The version behind an alias, or the version itself. Raises UserError where the alias points nowhere."""
    if version not in ("candidate", "production", "previous"):
        return version
    found = str(getattr(read_aliases(store, name)[0], version))
    if not found:
        raise UserError(f"{store.uri}/{name}: no version is '{version}' yet: see `clinical-r1 models list`")
    return found


def read_manifest(store: Store, name: str, version: str) -> ModelManifest:
    """The manifest of a version or an alias. Raises UserError where there is none."""
    version = resolve(store, _check_name(name), version)
    found = _read(store, f"{name}/{_check_name(version)}/{MANIFEST}", ModelManifest)
    if found is None:
        raise UserError(
            f"{store.uri}/{name}/{version}: no such version, or its upload did not end: see `clinical-r1 models list`"
        )
    return found


def read_aliases(store: Store, name: str) -> tuple[Aliases, str]:
    """Aliases of a model, and the etag of what was read ("" where there is none yet)."""
    key = f"{_check_name(name)}/{ALIASES}"
    # The etag first: a change in between makes the conditional write fail, never succeed on what was not seen.
    stat = store.stat(key)
    if stat is None:
        return Aliases(), ""
    return _read(store, key, Aliases) or Aliases(), stat.etag


def fetch(store: Store, name: str, version: str, folder: Path, say: Say = print) -> Transferred:
    """Download a version (or what an alias points to), each file checked against the manifest."""
    manifest = read_manifest(store, name, version)
    return download_files(store, f"{name}/{manifest.version}", manifest.files, folder, say=say)


def promote(
    store: Store,
    name: str,
    version: str,
    approved_by: str,
    reason: str,
    gate: Gate | None = None,
    override_hold: bool = False,
    override_refusal: bool = False,
) -> Aliases:
    """Point `production` to a version and `previous` to what it was; a person answers for it.

    `gate` is a newer result than the manifest's, which is kept as superseded. Raises UserError without a person and a
    reason, without a gate, where the gate is about other weights, and for a held or refused model unless that is
    overridden.
    """
    manifest = read_manifest(store, name, version)
    label = f"{manifest.name}/{manifest.version}"
    before, held = manifest.gate, manifest_weights(manifest)
    gate = supersede(label, gate, held, before) if gate else before
    if gate is None:
        raise UserError(f"promote: {label} has no gate result: run the gate and give its file with --gate gate.json")
    check_bound("the gate's decision", gate.weights, held, label)
    approved = approve(label, gate, approved_by, reason, override_hold, override_refusal)
    older = [*manifest.superseded, before] if before and gate is not before else manifest.superseded
    _rewrite_manifest(store, manifest, {"gate": approved, "superseded": older})
    move = Move(
        at=_now(),
        action="promote",
        alias="production",
        version=manifest.version,
        by=approved_by,
        reason=reason,
        gate=gate.decision,
        override=gate.decision != "promote",
    )
    return _change_aliases(store, name, lambda aliases: _into_production(aliases, move))


def check_served(store: Store, name: str, version: str) -> ModelManifest:
    """The manifest of a version that may be served. Raises UserError where nobody approved it, where its gate is about
    other weights, or where the store no longer holds the files that the manifest lists."""
    manifest = read_manifest(store, name, version)
    label = f"{manifest.name}/{manifest.version}"
    if manifest.gate is None or not manifest.gate.approved_by:
        raise UserError(f"{label}: nobody took it into production: `clinical-r1 models promote {name} {version}` first")
    check_bound("the gate's decision", manifest.gate.weights, manifest_weights(manifest), label)
    for entry in manifest.files:
        stat = store.stat(f"{label}/{entry.path}")
        if stat is None or stat.size != entry.size or (stat.sha256 and stat.sha256 != entry.sha256):
            raise UserError(
                f"{store.uri}/{label}/{entry.path}: is not the file of the manifest; publish the model again"
            )
    return manifest


def rollback(store: Store, name: str, by: str, reason: str) -> Aliases:
    """Swap `production` and `previous`. Raises UserError where there is no previous version or no reason is given."""
    if not by.strip() or not reason.strip():
        raise UserError("rollback: the history wants a person and a reason: give --by and --reason")

    def back(aliases: Aliases) -> Aliases:
        if not aliases.previous:
            raise UserError(f"{store.uri}/{name}: nothing to roll back to: no version was in production before")
        move = Move(at=_now(), action="rollback", alias="production", version=aliases.previous, by=by, reason=reason)
        return _into_production(aliases, move)

    read_manifest(store, name, "previous")
    return _change_aliases(store, name, back)


def _into_production(aliases: Aliases, move: Move) -> Aliases:
    if aliases.production == move.version:
        return aliases
    previous = aliases.production
    return _moved(aliases, move).model_copy(update={"previous": previous})


def _moved(aliases: Aliases, move: Move) -> Aliases:
    before = str(getattr(aliases, move.alias))
    if before == move.version:
        return aliases
    history = [*aliases.history, move.model_copy(update={"before": before})]
    return aliases.model_copy(update={move.alias: move.version, "history": history})


def _change_aliases(store: Store, name: str, change: Callable[[Aliases], Aliases]) -> Aliases:
    """Read, change, write on condition that nobody else wrote; begin again where somebody did."""
    key = f"{name}/{ALIASES}"
    for _ in range(_MOVES):
        aliases, etag = read_aliases(store, name)
        changed = change(aliases)
        if changed == aliases:
            return aliases
        try:
            if etag:
                store.put_if_match(key, _json(changed), etag)
            else:
                store.put_if_absent(key, _json(changed))
        except Conflict:
            continue
        return changed
    raise Conflict(f"{store.uri}/{key}: other writers came first {_MOVES} times: try again later")


def _rewrite_manifest(store: Store, manifest: ModelManifest, changes: dict[str, object]) -> None:
    key = f"{manifest.name}/{manifest.version}/{MANIFEST}"
    stat = store.stat(key)
    if stat is None:
        raise NotFound(f"{store.uri}/{key}: the manifest has gone")
    store.put_if_match(key, _json(manifest.model_copy(update=changes)), stat.etag)


def _read(store: Store, key: str, model: type[ModelT]) -> ModelT | None:
    try:
        return model.model_validate_json(store.get(key))
    except NotFound:
        return None
    except ValidationError as error:
        raise Unreadable(
            f"{store.uri}/{key}: {first_problem(error)}: written by another version of clinical-r1?"
        ) from None


def _json(record: BaseModel) -> bytes:
    return (record.model_dump_json(indent=1) + "\n").encode()


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UserError(
            f"model '{name}': use lower-case letters, digits and dashes, at most 63, for names and versions"
        )
    return name


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
