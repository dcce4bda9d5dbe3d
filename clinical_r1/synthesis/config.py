"""What a synthesis run is told: endpoints, verifier, search, filters, limits and what may leave the house."""

import hashlib
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from clinical_r1.errors import UserError
from clinical_r1.llm.config import BudgetConfig, EndpointConfig
from clinical_r1.privacy.crossing import CrossingPolicy, check_crossing, check_gate
from clinical_r1.schema import RETRY_STRATEGIES, Strategy
from clinical_r1.settings import Seed
from clinical_r1.strict import Strict
from clinical_r1.synthesis.filters import FilterConfig
from clinical_r1.verifier.config import VerifierConfig


def draw(*parts: object) -> int:
    """A 31-bit number that depends on the parts and on nothing else (31 bits: what every endpoint takes as a seed).

    Every choice of a run is one of who asks (seed, case id, sample, attempt): timing and order never matter.
    """
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


class SearchBudget(BudgetConfig):
    """The budget of a search, and what becomes of the cases that it leaves open."""

    when_spent: Literal["stop", "publish"] = "stop"
    """`stop` ends with an error and no dataset; `publish` writes what there is, open cases as rejects (`budget`)."""


class Shard(Strict):
    """Which part of the cases this run takes; cases are dealt out by the hash of their id."""

    index: int = Field(default=0, ge=0)
    """This shard, counted from 0."""
    count: int = Field(default=1, ge=1)
    """All shards; with more than one, `merge_shards` makes the dataset."""

    def takes(self, case_id: str) -> bool:
        """Whether a case is of this shard: by its id, so neither file order nor the other cases move it."""
        return draw("shard", case_id) % self.count == self.index

    @classmethod
    def parse(cls, text: str) -> Self:
        """From "index/count", as a pipeline hands it out; raises UserError for anything else."""
        index, _, count = text.partition("/")
        if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
            raise UserError(f"shard '{text}': write it as index/count with index below count, such as 0/4")
        return cls(index=int(index), count=int(count))

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        if self.index >= self.count:
            raise ValueError(f"index {self.index} is not below count {self.count}")
        return self


TraceField = Literal["id", "question", "thinking", "response", "reference", "language"]


class TraceSource(Strict):
    """Finished reasoning data of others, taken in place of the search."""

    path: str = Field(min_length=1)
    """JSON, JSONL or Parquet file, or the s3:// URI of one."""
    map: dict[TraceField, str] = Field(default_factory=dict)
    """Which column is what, where the names are not those of a known form."""
    sha256: str = ""
    """Of the contents; a run fills it in, so that other contents are another step."""
    unverified: Literal["keep", "reject"] = "keep"
    """Traces that name no reference, or that the verifier can say nothing of; wrong ones are rejects either way."""
    scrub: bool = True
    """Through the recognisers of the PHI gate; a text that leaves them in doubt is a reject."""
    most_containment: float = Field(default=0.5, gt=0, le=1)
    """A question that shares this much with one of `rl`, `validation` or `test` is a reject: it has been seen."""


class SynthesisConfig(Strict):
    """Search over strategies for verified traces (paper section 2.1.2)."""

    name: str = Field(default="traces", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the dataset; its address is `traces/<name>/<hash>`."""
    synthesizer: EndpointConfig | None = None
    """Who writes reasoning and answers; needed unless finished `traces` are taken."""
    traces: TraceSource | None = None
    """Take these instead of searching: the synthesizer is not asked; the verifier judges what names a reference."""
    judge: EndpointConfig | None = None
    """Who judges where the verifier needs a model; None takes the synthesizer's endpoint."""
    verifier: VerifierConfig = Field(default_factory=lambda: VerifierConfig(kind="ensemble"))
    """How an answer is compared with the reference; `rule` needs no model."""

    retries: int = Field(default=3, ge=0, le=10)
    """Further attempts after the first one fails (the paper: up to 3)."""
    strategies: list[Strategy] = Field(default=list(RETRY_STRATEGIES), min_length=1)
    """Strategies that a retry may take."""
    policy: Literal["random", "round_robin"] = "random"
    """How the next strategy is chosen: `random` (by hash of seed, case, attempt) or `round_robin`."""
    best_of: int = Field(default=1, ge=1, le=16)
    """First attempts drawn at once; a verified one is kept. 1 is the paper."""
    best_by: Literal["first", "shortest", "longest"] = "first"
    """Which of several verified first attempts is kept."""
    samples_per_case: int = Field(default=1, ge=1, le=64)
    """Traces asked of each case; identical ones are kept once."""
    guided: bool = True
    """When all attempts fail, one more that is shown the reference; verified too, and flagged."""
    max_rejected_share: float = Field(default=0.8, ge=0, le=1)
    """Largest share of rejects with which the run ends well; beyond it, and without any trace, it is an error."""
    max_guided_share: float = Field(default=0.3, ge=0, le=1)
    """Largest share of guided traces in the dataset; which ones stay is decided by hash, the others become rejects."""
    rewrites: int = Field(default=2, ge=1, le=5)
    """Drafts of the final response; a draft that does not state the right answer is discarded."""

    temperature: float = Field(default=0.7, ge=0, le=2)
    """Sampling temperature of attempts."""
    rewrite_temperature: float = Field(default=0.5, ge=0, le=2)
    """Sampling temperature of the natural rewrite and the response."""
    max_tokens: int = Field(default=2048, ge=16)
    """Longest reply to an attempt."""
    rewrite_max_tokens: int = Field(default=3072, ge=16)
    """Longest reply to a rewrite: it has to hold the whole chain."""
    seed: Seed = 0
    """Changes all choices at once."""

    concurrency: int = Field(default=256, ge=1)
    """Traces worked on at once; calls in flight are limited per endpoint (`max_concurrency`): twice that feeds it."""
    filters: FilterConfig = Field(default_factory=FilterConfig)
    """Quality filters over accepted traces."""
    shard: Shard = Field(default_factory=Shard)
    """Part of a fanned-out run."""
    budget: SearchBudget = Field(default_factory=SearchBudget)
    """Money or token limit of the whole run; each shard gets its share, as it does of the endpoints' limits."""

    crossing: CrossingPolicy = Field(default_factory=CrossingPolicy)
    """What may leave the security boundary, whose outputs may train models, and whether the PHI gate was passed."""
    licence: str = "not stated"
    """Licence of the records, for the dataset card."""

    @model_validator(mode="after")
    def _strategies_are_retries(self) -> Self:
        wrong = [strategy.value for strategy in self.strategies if strategy not in RETRY_STRATEGIES]
        if wrong:
            raise ValueError(f"strategies: {', '.join(wrong)} is not a retry strategy")
        if self.retries and self.strategies == [Strategy.BACKTRACKING]:
            raise ValueError("strategies: backtracking alone cannot make the first retry; add another one")
        return self

    @model_validator(mode="after")
    def _endpoints_named(self) -> Self:
        if self.synthesizer is None and self.traces is None:
            raise ValueError("synthesizer: missing; name the endpoint that writes, or finished `traces`")
        if self.synthesizer is None and self.judge is None and self.verifier.kind != "rule":
            raise ValueError("judge: missing; name the endpoint that judges, or set verifier: {kind: rule}")
        return self

    @property
    def writer(self) -> EndpointConfig:
        """The synthesizer of a search."""
        assert self.synthesizer is not None, "traces are taken"
        return self.synthesizer

    @property
    def judge_endpoint(self) -> EndpointConfig:
        """The endpoint behind a verifier that needs a model."""
        return self.judge or self.writer

    def check_privacy(self, cases: Path) -> None:
        """Raise UserError where this run would send the cases to an endpoint that may not have them."""
        endpoints = [self.writer]
        check_crossing(self.writer, self.crossing, trains=True)
        if self.verifier.kind != "rule":
            check_crossing(self.judge_endpoint, self.crossing)
            endpoints.append(self.judge_endpoint)
        for endpoint in endpoints:
            check_gate(endpoint, self.crossing, cases)
