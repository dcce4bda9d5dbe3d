"""What is written down about a published model: where it comes from, how it was judged, who let it into production."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from clinical_r1.errors import Strict
from clinical_r1.objectstore.transfer import FileEntry

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
    """SHA-256 of the files that decide its text (clinical_r1.objectstore.binding); empty for a model behind an
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
        if self.decision != decision_of(self.rules):
            raise ValueError(f"decision says {self.decision}, but its rules say {decision_of(self.rules)}")
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
