"""What was said of which weights, and who may take them into production.

An evaluation, a reasoning baseline and a gate's decision name the SHA-256 of the files that decide a model's text
(weights, tokenizer, template, sampling). Publishing, promoting, rolling out and serving compare it with the files that
they are about: what is served is what was judged.
"""

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from clinical_r1.atomic import file_sha256
from clinical_r1.baseline import FILE_NAME as BASELINE
from clinical_r1.errors import UserError
from clinical_r1.folders import COMPANIONS
from clinical_r1.objectstore.manifest import GATE, Gate, ModelManifest, Override


def weights_sha256(files: Iterable[tuple[str, str]]) -> str:
    """One hash of (path, SHA-256) pairs, of those that decide what a model says: top-level files but for cards,
    manifests and the like that are laid beside weights later."""
    lines = sorted(
        f"{digest}  {path}\n"
        for path, digest in files
        if "/" not in path and not path.startswith(".") and path not in COMPANIONS
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def folder_weights(folder: Path) -> str:
    """`weights_sha256` of a folder's files; reads them all."""
    paths = [path for path in sorted(Path(folder).iterdir()) if path.is_file() and path.name not in COMPANIONS]
    with ThreadPoolExecutor(4) as pool:
        return weights_sha256(zip((path.name for path in paths), pool.map(file_sha256, paths), strict=True))


def manifest_weights(manifest: ModelManifest) -> str:
    """`weights_sha256` of a published version, by what its manifest lists."""
    return weights_sha256((entry.path, entry.sha256) for entry in manifest.files)


def check_bound(what: str, stated: str, held: str, where: str) -> None:
    """Raise UserError unless `what` (a gate, a baseline, an evaluation) is about the weights that `where` holds."""
    if not stated:
        raise UserError(f"{what} names no weights, so it may be about any model: evaluate and decide again")
    if stated != held:
        raise UserError(
            f"{what} is about the weights {stated[:12]}, but {where} holds {held[:12]}: evaluate that model and decide "
            "again"
        )


def check_beside(folder: Path) -> None:
    """Raise UserError where the gate or the baseline that lies beside a model is about other weights."""
    stated = {}
    for name in (GATE, BASELINE):
        try:
            found = json.loads((Path(folder) / name).read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(found, dict) and found.get("weights"):
            stated[name] = str(found["weights"])
    held = folder_weights(folder) if stated else ""
    for name, weights in stated.items():
        check_bound(f"{Path(folder) / name}", weights, held, str(folder))


def approve(
    label: str, gate: Gate, by: str, reason: str, override_hold: bool = False, override_refusal: bool = False
) -> Gate:
    """The gate's result with a person's approval in it; an override stands in it for ever.

    Raises UserError without a person and a reason, and for a held or refused model unless that is overridden.
    """
    if not by.strip() or not reason.strip():
        raise UserError(f"{label}: production needs a person and a reason: give both (approved_by, reason)")
    why = [*gate.reasons, "no reason given"][0]
    if gate.decision == "refuse" and not override_refusal:
        raise UserError(
            f"{label} was refused by the gate ({why}): train a better candidate; a person who answers for it all the "
            "same gives --override-refusal and a reason, and both stand in manifest and card"
        )
    if gate.decision == "hold" and not override_hold:
        raise UserError(
            f"{label} is held by the gate ({why}): evaluate more cases, or take responsibility with --override-hold "
            "and a reason"
        )
    at = datetime.now(UTC).isoformat(timespec="seconds")
    overrides = list(gate.overrides)
    if gate.decision != "promote":
        overrides.append(Override(decision=gate.decision, by=by, reason=reason, at=at))
    changes = {"approved_by": by, "approval_reason": reason, "approved_at": at, "overrides": overrides}
    return gate.model_copy(update=changes)


def supersede(label: str, gate: Gate, held: str, before: Gate | None) -> Gate:
    """A newer result in place of the one that a version carries; `held` are the version's weights.

    Raises UserError where it is about other weights, or where it judges the very answers that were refused.
    """
    check_bound("--gate", gate.weights, held, label)
    if before and before.decision == "refuse" and gate.answers == before.answers and gate.decision != "refuse":
        raise UserError(
            f"--gate judges the same answers for which {label} was refused: evaluate the model again; a refusal is "
            "superseded by new answers only"
        )
    kept = list(before.overrides) if before else []
    return gate.model_copy(update={"overrides": [*kept, *(o for o in gate.overrides if o not in kept)]})
