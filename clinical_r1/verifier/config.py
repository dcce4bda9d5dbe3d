"""Which verifier, and how strict."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

IcdLevel = Literal["off", "code", "category", "block"]


class VerifierConfig(BaseModel):
    """Choice of the verifier of synthesis, reward or evaluation."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["rule", "llm", "ensemble"] = "rule"
    """`rule` needs no endpoint; `llm` asks a judge; `ensemble` does both."""
    icd_level: IcdLevel = "code"
    """From where on two ICD-10 codes count as the same diagnosis: the reference's own code (or one below it), its
    three-character category, or its block. `off` compares names only."""
    synonyms: Path | None = None
    """A file of further synonyms: one group a line, an ICD-10 code (or nothing) and names, separated by `|`."""
    ensemble: Literal["cascade", "all"] = "cascade"
    """`cascade`: the rule decides where it is sure (equal name, or a denied, hedged, empty or list-everything
    answer), the judge decides the rest. `all`: correct only where rule and judge agree that it is."""
    max_tokens: int = Field(default=200, ge=16)
    """Room for the judge's reply."""
    seed: int = 0
    """Seed of the judge's calls (at temperature 0)."""
