"""The reasoning baseline that travels with a model: what its thinking looked like when it was evaluated. No torch.

Evaluation writes `reasoning_baseline.json` beside the weights; the serving gateway reads it and reports drift of live
traffic against it (PSI over reasoning lengths, shift of outcome shares). Bucket edges are fixed for all models, so that
two baselines, and a Prometheus histogram with the same edges, can be compared bucket by bucket.
"""

import bisect
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from clinical_r1.atomic import write_text
from clinical_r1.reasoning import Outcome
from clinical_r1.sampling import Sampling
from clinical_r1.schema import Case, Prediction, read_json
from clinical_r1.strict import Strict

FILE_NAME = "reasoning_baseline.json"
EDGES: tuple[int, ...] = (0, 8, 16, 32, 48, 64, 80, 96, 128, 160, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096, 8192)
"""Upper edges (`le`, inclusive) of the reasoning-length buckets, in tokens; one more bucket takes what is longer."""


class LengthHistogram(Strict):
    """Counts of reasoning lengths over `EDGES`."""

    edges: list[int] = Field(default_factory=lambda: list(EDGES))
    """Inclusive upper edges in tokens, ascending."""
    counts: list[int] = Field(default_factory=lambda: [0] * (len(EDGES) + 1))
    """One more than edges: the last bucket has no upper edge."""
    total_tokens: int = Field(default=0, ge=0)
    """Sum of all lengths, so that the mean is exact."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.counts) != len(self.edges) + 1 or sorted(set(self.edges)) != self.edges or min(self.counts) < 0:
            raise ValueError("counts must be non-negative and one longer than the ascending edges")
        return self

    @classmethod
    def of(cls, lengths: Iterable[int]) -> Self:
        """Histogram of reasoning lengths in tokens."""
        histogram = cls()
        for length in lengths:
            histogram.counts[bisect.bisect_left(histogram.edges, length)] += 1
            histogram.total_tokens += length
        return histogram

    @property
    def n(self) -> int:
        return sum(self.counts)


class Baseline(Strict):
    """Reasoning of one model on its evaluation cases."""

    version: int = 1
    """Of this file's form."""
    model: str = ""
    """Name of the model that was evaluated."""
    weights: str = ""
    """SHA-256 of the files that decide its text; empty for a model behind an endpoint."""
    benchmark: str = ""
    """The case set it was evaluated on."""
    n: int = Field(ge=0)
    """Predictions behind the file."""
    lengths: LengthHistogram
    """Reasoning tokens of all outputs."""
    lengths_by_language: dict[str, LengthHistogram] = Field(default_factory=dict)
    """The same for each language of the cases."""
    outcomes: dict[str, int]
    """Count of each reasoning outcome; every outcome is present, zeros included."""
    decoding: Sampling | None = None
    """How the answers were drawn; what is served is compared with it. None in files of earlier versions."""
    thinking_budget: int | None = Field(default=None, ge=0)
    """Tokens of thought that the evaluation found to be enough (its curve of accuracy over the budget); None: not
    asked, or not shown."""
    languages: dict[str, int] = Field(default_factory=dict)
    """Count of predictions for each language of the cases."""

    def shares(self) -> dict[str, float]:
        """Share of each outcome; empty where nothing was predicted."""
        return {name: count / self.n for name, count in self.outcomes.items()} if self.n else {}


def make_baseline(
    predictions: Sequence[Prediction],
    cases: Iterable[Case],
    model: str = "",
    benchmark: str = "",
    weights: str = "",
    decoding: Sampling | None = None,
) -> Baseline:
    """Baseline of one model's predictions, drawn as `decoding` says; `cases` tells the language of each, `weights`
    is the model's hash."""
    language = {case.id: case.language for case in cases}
    counts = Counter(prediction.outcome for prediction in predictions)
    lengths: dict[str, list[int]] = {}
    for prediction in predictions:
        lengths.setdefault(language.get(prediction.case_id, "unknown"), []).append(prediction.reasoning_tokens)
    return Baseline(
        model=model,
        weights=weights,
        benchmark=benchmark,
        n=len(predictions),
        lengths=LengthHistogram.of(prediction.reasoning_tokens for prediction in predictions),
        lengths_by_language={name: LengthHistogram.of(group) for name, group in sorted(lengths.items())},
        outcomes={str(outcome): counts[outcome] for outcome in Outcome},
        decoding=decoding,
        languages={name: len(group) for name, group in sorted(lengths.items())},
    )


def write_baseline(baseline: Baseline, folder: Path) -> Path:
    """Write the baseline into a model folder (or any other) and return its path."""
    path = Path(folder) / FILE_NAME
    write_text(path, baseline.model_dump_json(indent=1) + "\n")
    return path


def read_baseline(path: Path) -> Baseline:
    """Read a baseline file, or the one in a model folder. Raises UserError where there is none or it is malformed."""
    path = Path(path) / FILE_NAME if Path(path).is_dir() else Path(path)
    absent = "no reasoning baseline; run the evaluation of this model to write one"
    return read_json(path, Baseline, absent, "run the evaluation again", "a reasoning baseline")
