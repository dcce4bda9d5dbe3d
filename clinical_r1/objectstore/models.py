"""Models in a store: published once under `NAME/VERSION/`, found by alias, promoted by a person, rolled back.

The store's URI is that of all models, such as s3://clinical-r1/models; a version's files lie at
s3://clinical-r1/models/NAME/VERSION, which is the `storageUri` that KServe takes.
"""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from clinical_r1.errors import UserError
from clinical_r1.folders import check_model_folder
from clinical_r1.objectstore import transfer
from clinical_r1.objectstore.face import Conflict, NotFound, Store, Unreadable
from clinical_r1.objectstore.manifest import (
    ALIASES,
    MANIFEST,
    Aliases,
    Facts,
    Gate,
    ModelManifest,
    Move,
    approve,
    check_bound,
    now,
    supersede,
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
    files = {entry: path for entry, path in transfer.describe_files(folder, extra).items() if entry.path != MANIFEST}
    listed = sorted(files, key=lambda entry: entry.path)
    version = _check_name(version or content_version(listed))
    manifest = ModelManifest(**facts.model_dump(), name=name, version=version, created=now(), files=listed)
    if facts.gate is not None:
        check_bound("the gate's decision", facts.gate.weights, manifest.weights, str(folder))
    if facts.baseline:
        stated = str(facts.baseline.get("weights", ""))
        check_bound("the reasoning baseline", stated, manifest.weights, str(folder))
    place = f"{store.uri}/{manifest.label}"
    say(f"{place}: {len(files)} files, {transfer.size_text(manifest.size)}")
    transfer.upload_files(store, manifest.label, files, say=say)
    manifest.created = now()
    try:
        store.put_if_absent(f"{manifest.label}/{MANIFEST}", _json(manifest))
    except Conflict:
        there = read_manifest(store, name, version)
        if there.files != listed:
            raise UserError(f"{place}: this version is another model already: give another --version") from None
        manifest = there
        say(f"{place}: was published on {there.created}; its manifest stays as it is")
    move = Move(at=now(), action="publish", alias="candidate", version=version, by=by)
    _change_aliases(store, name, lambda aliases: _moved(aliases, move))
    return manifest


def content_version(files: list[transfer.FileEntry]) -> str:
    """`v-` and 12 hex digits: the same files, sorted by path, give the same version."""
    lines = "".join(f"{entry.sha256}  {entry.path}\n" for entry in files)
    return "v-" + hashlib.sha256(lines.encode()).hexdigest()[:12]


def versions(store: Store, name: str) -> list[tuple[str, ModelManifest | UserError | None]]:
    """Each version with its manifest, oldest first; then what is no manifest, as the error that says so, and None for
    an upload that did not end."""
    found: list[tuple[str, ModelManifest]] = []
    rest: list[tuple[str, ModelManifest | UserError | None]] = []
    for version in store.list_folders(f"{_check_name(name)}/"):
        try:
            manifest = _read(store, f"{name}/{version}/{MANIFEST}", ModelManifest)
        except Unreadable as error:
            rest.append((version, error))
            continue
        if manifest is None:
            rest.append((version, None))
        else:
            found.append((version, manifest))
    return [*sorted(found, key=lambda pair: (pair[1].created, pair[0])), *rest]


def read_manifest(store: Store, name: str, version: str) -> ModelManifest:
    """The manifest of a version or of what an alias points to. Raises UserError where there is none."""
    place = f"{store.uri}/{_check_name(name)}"
    if version in ("candidate", "production", "previous"):
        alias, version = version, str(getattr(read_aliases(store, name)[0], version))
        if not version:
            raise UserError(f"{place}: no version is '{alias}' yet: see `clinical-r1 models list`")
    found = _read(store, f"{name}/{_check_name(version)}/{MANIFEST}", ModelManifest)
    if found is None:
        raise UserError(f"{place}/{version}: no such version, or its upload did not end: see `clinical-r1 models list`")
    return found


def read_aliases(store: Store, name: str) -> tuple[Aliases, str]:
    """Aliases of a model, and the etag of what was read ("" where there is none yet)."""
    key = f"{_check_name(name)}/{ALIASES}"
    # The etag first: a change in between makes the conditional write fail, never succeed on what was not seen.
    stat = store.stat(key)
    return (Aliases(), "") if stat is None else (_read(store, key, Aliases) or Aliases(), stat.etag)


def fetch(store: Store, name: str, version: str, folder: Path, say: Say = print) -> None:
    """Download a version (or what an alias points to), each file checked against the manifest."""
    manifest = read_manifest(store, name, version)
    transfer.download_files(store, manifest.label, manifest.files, folder, say=say)


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
    label, before, held = manifest.label, manifest.gate, manifest.weights
    gate = supersede(label, gate, held, before) if gate else before
    if gate is None:
        raise UserError(f"promote: {label} has no gate result: run the gate and give its file with --gate gate.json")
    check_bound("the gate's decision", gate.weights, held, label)
    approved = approve(label, gate, approved_by, reason, override_hold, override_refusal)
    older = [*manifest.superseded, before] if before and gate is not before else manifest.superseded
    key = f"{label}/{MANIFEST}"
    stat = store.stat(key)
    if stat is None:
        raise NotFound(f"{store.uri}/{key}: the manifest has gone")
    changed = manifest.model_copy(update={"gate": approved, "superseded": older})
    store.put_if_match(key, _json(changed), stat.etag)
    by, decision = approved_by, gate.decision
    move = Move(at=now(), action="promote", alias="production", version=manifest.version, by=by, reason=reason)
    move = move.model_copy(update={"gate": decision, "override": decision != "promote"})
    return _change_aliases(store, name, lambda aliases: _moved(aliases, move))


def check_served(store: Store, name: str, version: str) -> ModelManifest:
    """The manifest of a version that may be served. Raises UserError where nobody approved it, where its gate is about
    other weights, or where the store no longer holds the files that the manifest lists."""
    manifest = read_manifest(store, name, version)
    label = manifest.label
    if manifest.gate is None or not manifest.gate.approved_by:
        raise UserError(f"{label}: nobody took it into production: `clinical-r1 models promote {name} {version}` first")
    check_bound("the gate's decision", manifest.gate.weights, manifest.weights, label)
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
        to = aliases.previous
        return _moved(aliases, Move(at=now(), action="rollback", alias="production", version=to, by=by, reason=reason))

    read_manifest(store, name, "previous")
    return _change_aliases(store, name, back)


def _moved(aliases: Aliases, move: Move) -> Aliases:
    before = str(getattr(aliases, move.alias))
    if before == move.version:
        return aliases
    changes = {"previous": before} if move.alias == "production" else {}
    history = [*aliases.history, move.model_copy(update={"before": before})]
    return aliases.model_copy(update={move.alias: move.version, "history": history, **changes})


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
