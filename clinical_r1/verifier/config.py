"""Which verifier, how strict, and where it asks."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from clinical_r1.atomic import file_sha256
from clinical_r1.llm.config import BudgetConfig, EndpointConfig
from clinical_r1.privacy.crossing import CrossingPolicy, check_crossing, check_gate
from clinical_r1.settings import Names
from clinical_r1.strict import Strict
from clinical_r1.verifier.judgement import Grading
from clinical_r1.verifier.normalise import IcdLevel

RULES_ALONE = (
    "they say correct where an answer plainly names the reference, incorrect only where that cannot be wrong, and "
    "leave the rest undecided"
)


class VerifierConfig(Strict):
    """Choice of the verifier of synthesis, reward or evaluation."""

    kind: Literal["rule", "llm", "ensemble"] = "rule"
    """`rule` needs no endpoint; `llm` asks a judge; `ensemble` does both."""
    icd_level: IcdLevel = "code"
    """From where on two ICD-10 codes count as the same diagnosis: the reference's own code (or one below it), its
    three-character category, or its block. `off` compares names only."""
    synonyms: Annotated[Path | None, Names.FILES] = None
    """A file of further synonyms: one group a line, an ICD-10 code (or nothing) and names, separated by `|`."""
    terminology: Annotated[Path | None, Names.FILES] = None
    """A terminology of your country or house: lines `ICD-10 code<TAB>name` (the form of the Beijing ICD-10 list). Names
    of one code are one disease, and codes tell which names are surely another."""
    grading: Grading = "principal"
    """Where a reference is a list: right is the principal diagnosis first and no other beside that the list lacks, any
    of the list, or all of it."""
    ensemble: Literal["cascade", "all"] = "cascade"
    """`cascade`: the rules decide what they can read for sure, the judge decides the rest. `all`: correct only where
    rules and judge agree that it is."""
    max_tokens: int | None = Field(default=None, ge=16)
    """Room for the judge's reply, its thought included. None: by its kind, little for a judge that answers at once, and
    more from the first reply on that shows that it thinks."""
    max_invalid_share: float = Field(default=0.2, ge=0, le=1)
    """A judge that gives no verdict in more than this share of its last judgements ends the run."""
    invalid_window: int = Field(default=50, ge=1)
    """How many last judgements that is; fewer end nothing."""
    seed: int = 0
    """Seed of the judge's calls (at temperature 0)."""


def tell_of_rules_alone(verifier: VerifierConfig, consequence: str) -> None:
    """At the start of a step: what it means that no model judges. Nothing where one does."""
    if verifier.kind == "rule":
        print(f"judged by rules alone: {RULES_ALONE}; {consequence}", file=sys.stderr, flush=True)


class JudgeConfig(Strict):
    """A verifier and, where it asks a model, the endpoint that answers: the judge of rewards or of an evaluation."""

    verifier: VerifierConfig = Field(default_factory=VerifierConfig)
    """Which verifier; the rule verifier (names, synonyms, ICD-10) needs no endpoint."""
    endpoint: EndpointConfig | None = None
    """Where an `llm` or `ensemble` verifier asks."""
    crossing: CrossingPolicy = Field(default_factory=CrossingPolicy)
    """What may leave the security boundary: the judge is sent question, reference and answer."""

    budget: BudgetConfig = Field(default_factory=BudgetConfig)
    """Most money or tokens for this judge; what its journal holds counts. A spent budget stops the run, which goes on
    where it stopped once the limit is raised."""

    @model_validator(mode="after")
    def _has_endpoint(self) -> Self:
        if self.verifier.kind != "rule" and self.endpoint is None:
            raise ValueError(f"a verifier of kind {self.verifier.kind} needs an endpoint")
        return self

    def identity(self) -> dict[str, Any]:
        """What a verdict may depend on: not where the endpoint listens, nor its limits and prices."""
        asked = {"model", "extra_body", "json_mode", "send_seed", "send_temperature"}
        endpoint = self.endpoint.model_dump(mode="json", include=asked) if self.endpoint else None
        room_and_patience = {"max_tokens", "max_invalid_share", "invalid_window"}
        verifier = self.verifier.model_dump(mode="json", exclude=room_and_patience)
        for name in ("synonyms", "terminology"):
            path: Path | None = getattr(self.verifier, name)
            if path and path.is_file():  # what is not there its reader tells
                verifier[name] = file_sha256(path)
        return {"verifier": verifier, "endpoint": endpoint}

    def check_privacy(self, cases: Path) -> None:
        """Raise UserError where this judge would be sent cases that its endpoint may not have."""
        if self.verifier.kind != "rule" and self.endpoint is not None:
            check_crossing(self.endpoint, self.crossing)
            check_gate(self.endpoint, self.crossing, cases)
