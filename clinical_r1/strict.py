"""The base of configurations and records."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Unknown keys are refused: a typo is an error and not a silent loss."""

    model_config = ConfigDict(extra="forbid")
