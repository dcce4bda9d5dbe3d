"""What is written down about a published model: where it comes from, how it was judged, who let it into production; and
of which weights it was said.

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
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from clinical_r1.atomic import file_sha256
from clinical_r1.baseline import FILE_NAME as BASELINE
from clinical_r1.errors import UserError
from clinical_r1.folders import COMPANIONS
from clinical_r1.objectstore.transfer import FileEntry
from clinical_r1.strict import Strict

MANIFEST, ALIASES, GATE = "manifest.json", "aliases.json", "gate.json"
Decision = Literal["promote", "hold", "refuse"]
Alias = Literal["candidate", "production", "previous"]


class RuleResult(Strict):
    """One rule of the promotion gate, what it saw, and what it could have seen."""

    rule: str
    result: Literal["pass", "hold", "refuse"]
    reason: str
    n: int = 0
    power: str = ""
    """Chances of this rule at this n: what it finds, and what it does to a model that did not change."""


class Override(Strict):
    """A person who took a held or refused model into production all the same."""

    decision: Literal["hold", "refuse"]
    """What the gate had said."""
    by: str
    reason: str
    at: str
    """ISO 8601, UTC."""


class Gate(Strict):
    """The promotion gate's decision: `gate.json`, and what a model's manifest carries."""

    decision: Decision
    """What the rules say: the sternest of their results."""
    candidate: str = ""
    """Name of the model that was judged."""
    weights: str = ""
    """SHA-256 of the files that decide its text (`weights_sha256`); empty for a model behind an
    endpoint, which cannot be published."""
    answers: str = ""
    """SHA-256 of the judged answers: a new evaluation of the same weights has another one."""
    against: str = ""
    """Name of the rival."""
    incumbent: bool = False
    """False: there was no model in use, the base model was the rival."""
    rules: list[RuleResult] = Field(min_length=1)
    policy: dict[str, Any] = Field(default_factory=dict)
    benchmark: str = ""
    unread: dict[str, float] = Field(default_factory=dict)
    """Share of answers to the forgetting benchmark whose choice could not be read, of candidate and base model."""
    approved_by: str = ""
    """Who took it into production."""
    approval_reason: str = ""
    approved_at: str = ""
    """ISO 8601, UTC."""
    overrides: list[Override] = Field(default_factory=list)
    """Nothing is ever taken out."""

    @model_validator(mode="after")
    def _follows(self) -> Self:
        if self.decision != (follows := decision_of(self.rules)):
            raise ValueError(f"decision says {self.decision}, but its rules say {follows}")
        return self

    @property
    def reasons(self) -> list[str]:
        """Why it is not `promote`, what refuses before what holds; empty where it is."""
        failed = [rule for wanted in ("refuse", "hold") for rule in self.rules if rule.result == wanted]
        return [f"{rule.rule}: {rule.reason}" for rule in failed]


def decision_of(rules: list[RuleResult]) -> Decision:
    """The sternest result decides."""
    results = {rule.result for rule in rules}
    return "refuse" if "refuse" in results else "hold" if "hold" in results else "promote"


def now() -> str:
    """ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Facts(Strict):
    """What the publisher knows about a model besides its files."""

    origin: Literal["trained", "imported"] = "trained"
    """Ours, or brought in from outside."""
    base_model: str = ""
    """What training started from, such as Qwen/Qwen2.5-7B-Instruct or a URI of this store."""
    base_revision: str = ""
    """Commit or version of the base model."""
    datasets: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of each dataset it learned from, by name."""
    benchmarks: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of each case set it was judged on, by name."""
    code_version: str = ""
    """Hash of the code of the steps (`clinical-r1 version`)."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Settings of the steps, one section a step."""
    run_id: str = ""
    """Of the pipeline run."""
    evaluation: list[dict[str, Any]] = Field(default_factory=list)
    """Metrics by case set."""
    gate: Gate | None = None
    """None where no gate looked at it: then it cannot be promoted."""
    baseline: dict[str, Any] = Field(default_factory=dict)
    """The reasoning baseline that serving compares live traffic with."""
    licence: str = ""
    """Of the weights; that of the base model binds what was trained from it."""


class ModelManifest(Facts):
    """`manifest.json` of one version; written last, so that a version without one is unfinished."""

    form: Literal[1] = 1
    """Of this file."""
    name: str
    """Name of the model in the store."""
    version: str
    """Folder below the name."""
    created: str
    """ISO 8601, UTC."""
    files: list[FileEntry]
    """Everything the version consists of, besides this manifest."""
    superseded: list[Gate] = Field(default_factory=list)
    """Earlier results of the gate on the same weights, oldest first."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)

    @property
    def label(self) -> str:
        """NAME/VERSION: where it lies in the store."""
        return f"{self.name}/{self.version}"

    @property
    def weights(self) -> str:
        """`weights_sha256` of the files that it lists."""
        return weights_sha256((entry.path, entry.sha256) for entry in self.files)


class Move(Strict):
    """One change of the aliases."""

    at: str
    """ISO 8601, UTC."""
    action: Literal["publish", "promote", "rollback"]
    """What moved it."""
    alias: Alias
    """What was moved."""
    version: str
    """To this version."""
    before: str = ""
    """From this one."""
    by: str = ""
    """Person, or run of a pipeline."""
    reason: str = ""
    """Their words."""
    gate: str = ""
    """Decision of the gate at that time."""
    override: bool = False
    """A held or refused model was promoted all the same."""


class Aliases(Strict):
    """`aliases.json` of one model: all aliases in one object, so that one conditional write moves them together."""

    candidate: str = ""
    """Newest version that was published."""
    production: str = ""
    """What is to be served."""
    previous: str = ""
    """What was served before; a rollback goes there."""
    history: list[Move] = Field(default_factory=list)
    """Oldest first; nothing is ever taken out."""

    def of(self, version: str) -> list[str]:
        """Aliases that point to a version."""
        return [name for name in ("candidate", "production", "previous") if getattr(self, name) == version]


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
    paths = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name not in COMPANIONS]
    with ThreadPoolExecutor(4) as pool:
        return weights_sha256(zip((path.name for path in paths), pool.map(file_sha256, paths), strict=True))


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
    held = ""
    for path in (folder / GATE, folder / BASELINE):
        try:
            found = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(found, dict) and found.get("weights"):
            held = held or folder_weights(folder)
            check_bound(str(path), str(found["weights"]), held, str(folder))


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
    at, overrides = now(), list(gate.overrides)
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
