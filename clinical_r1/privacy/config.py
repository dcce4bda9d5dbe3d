"""What the PHI gate can be told: a section of every configuration that reads records."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

DEFAULT_KEY_ENV = "CLINICAL_R1_PATIENT_KEY"


class PhiConfig(BaseModel):
    """The gate before any text leaves. Off is a stated choice."""

    model_config = ConfigDict(extra="forbid")

    policy: Literal["scrub", "off"] = "scrub"
    """scrub: identifiers are removed, doubtful records are kept back. off: text is left as it is, a stated choice."""
    off_because: Literal["", "synthetic", "public", "trusted_endpoints"] = ""
    """Required with policy off: the data are synthetic, public, or all endpoints are declared trusted."""
    key_env: str = DEFAULT_KEY_ENV
    """Environment variable with the secret behind patient hashes and date shifts."""
    key_file: str = ""
    """Or a file with that secret; wins over the variable."""
    shift_days: int = Field(default=365, ge=1, le=3650)
    """Dates of one patient move together by a keyed offset of 1..shift_days days back."""
    ner_models: dict[Literal["en", "zh"], str] = Field(default_factory=dict)
    """Language -> folder of a spaCy model for presidio-analyzer (extra `privacy`), supplied by the user: it finds names
    that no list and no cue tells; a model reads the notes of its language only. Empty: own recognisers alone."""
    ner_threshold: float = Field(default=0.6, ge=0, le=1)
    """Names found by the model with less confidence send the record to quarantine."""
    seconds_per_note: float = Field(default=60, ge=0)
    """A note that takes longer is rejected (0: no limit)."""
    names: list[str] = Field(default_factory=list)
    """Further names to scrub everywhere (staff, departments' nicknames)."""

    @model_validator(mode="after")
    def _stated(self) -> Self:
        if self.policy == "off" and not self.off_because:
            raise ValueError("phi.policy off needs phi.off_because: synthetic, public or trusted_endpoints")
        return self
