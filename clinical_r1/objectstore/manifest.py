"""What is written down about a published model: where it comes from, how it was judged, who let it into production."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from clinical_r1.objectstore.transfer import FileEntry

MANIFEST, ALIASES = "manifest.json", "aliases.json"
Alias = Literal["candidate", "production", "previous"]


class Gate(BaseModel):
    """The promotion gate's result as `gate.json` holds it; only the decision is read here."""

    model_config = ConfigDict(extra="allow")

    decision: Literal["promote", "hold", "refuse"]
    """What the data say."""
    rules: list[dict[str, Any]] = Field(default_factory=list)
    """Each rule with its result and reason."""

    def reasons(self) -> list[str]:
        """Why it is not `promote`."""
        return [f"{rule.get('rule')}: {rule.get('reason')}" for rule in self.rules if rule.get("result") != "pass"]


class Facts(BaseModel):
    """What the publisher knows about a model besides its files."""

    model_config = ConfigDict(extra="forbid")

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
    approved_by: str = ""
    """Who took it into production."""
    approval_reason: str = ""
    """And why."""
    approved_at: str = ""
    """And when."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)


class Move(BaseModel):
    """One change of the aliases."""

    model_config = ConfigDict(extra="forbid")

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
    """A held model was promoted all the same."""


class Aliases(BaseModel):
    """`aliases.json` of one model: all aliases in one object, so that one conditional write moves them together."""

    model_config = ConfigDict(extra="forbid")

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
