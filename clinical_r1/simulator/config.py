"""What the simulated endpoint is told to be."""

from typing import Annotated, Literal

from pydantic import Field

from clinical_r1.errors import Strict
from clinical_r1.settings import Seed

Share = Annotated[float, Field(ge=0, le=1)]


class Failures(Strict):
    """Shares of attempts that go wrong on purpose; which ones is a function of (seed, request, attempt number)."""

    rate_limited: Share = 0.0
    """HTTP 429 with Retry-After."""
    server_error: Share = 0.0
    """HTTP 500."""
    hang: Share = 0.0
    """The request is taken and never answered."""
    malformed: Share = 0.0
    """A reply whose JSON is broken."""
    truncated: Share = 0.0
    """A reply cut off, with finish_reason `length`."""
    retry_after: float = Field(default=1.0, ge=0)
    """Seconds that a 429 asks to wait."""


class SimulatorConfig(Strict):
    """Knobs of the simulated teacher and judge."""

    seed: Seed = 0
    """All randomness derives from it and from the request."""
    model: str = "simulated-clinician"
    """The model id that it lists and returns."""
    competence: Share | None = None
    """Chance that a try is careful: for the world's cases None keeps the teacher's own mix of care (see teacher.py);
    for cases from outside it is the chance of a right answer, 0.6 if None."""
    careful: Share | None = None
    """For the world's cases alone, in place of competence."""
    latency_ms: float = Field(default=0.0, ge=0)
    """Added to every reply."""
    failures: Failures = Field(default_factory=Failures)
    """What goes wrong."""
    json_mode: Literal["schema", "object", "refused"] = "schema"
    """The strongest response_format that it takes; others are answered with HTTP 400."""
    judge_error: Share = 0.0
    """Chance that a judgement is turned around."""
    judge_leniency: Share = 0.0
    """Chance that a wrong answer is accepted (a bias, beside judge_error)."""

    @property
    def world_care(self) -> float | None:
        """Chance that a try at one of the world's cases is careful; None: the teacher's own."""
        return self.competence if self.careful is None else self.careful
