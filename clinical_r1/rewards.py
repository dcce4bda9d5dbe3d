"""Named reward tables over Outcome x verdict (paper section 2.2.2). Tables are data: `reward_tables.yaml`. No torch.

An output is paid as *reasoning* if its one thought is closed, followed by an answer, long enough, and not a loop.
An output that is no result at all (cut off, no answer, several blocks) earns `no_result` whatever a judge would say.
A judgement that failed is no reward: `reward` returns None and the episode is masked out.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from clinical_r1.atomic import read_table
from clinical_r1.errors import UserError, near_miss
from clinical_r1.reasoning import UNREADABLE, Outcome
from clinical_r1.schema import Case, VerdictLabel
from clinical_r1.strict import Strict
from clinical_r1.text import HAN

TABLES_FILE = Path(__file__).with_name("reward_tables.yaml")
NO_RESULT = frozenset({Outcome.UNCLOSED, Outcome.NO_ANSWER, Outcome.MULTIPLE, Outcome.ABORTED}) | UNREADABLE
"""Outcomes that are null in the paper's table: there is no single answer to judge."""
LONGEST_PERIOD = 64
"""Longest unit (in words or Chinese characters) that `repeats` takes for the body of a loop."""
SHORT_UNIT_RUN = 12
"""A unit must fill at least this many words besides repeating, so that "very, very, very" is not a loop."""
Level = Literal["category", "block"]
"""ICD-10 levels of a near miss, the closer one first (J18 is a category, J09-J18 its block)."""
Signal = Literal["verdict", "choice", "rubric"]
"""What an answer is worth by one measure, from 0 to 1: the verifier's verdict (right 1, a near miss what the table
says, wrong 0); the right option of a multiple-choice item, read by rules; the share of its rubric's points."""
_UNIT = re.compile(rf"[{HAN}]|[^\W_]+|\S")


class RewardTable(Strict):
    """What each kind of episode earns."""

    reasoning_correct: float
    """Correct, with reasoning."""
    reasoning_incorrect: float
    """Wrong, with reasoning."""
    plain_correct: float
    """Correct, without (enough) reasoning."""
    plain_incorrect: float
    """Wrong, without (enough) reasoning."""
    no_result: float
    """Null: cut off inside the thought, no answer, several blocks, aborted."""
    near_miss: dict[Level, float] = Field(default_factory=dict)
    """ICD-10 level that a wrong diagnosis shares with the reference -> how far its reward lies on the way from wrong
    (0) to correct (1). Empty: a near miss is a miss."""
    mix: dict[Signal, Annotated[float, Field(gt=0)]] = Field(default={"verdict": 1.0}, min_length=1)
    """Signal -> weight: what an answer's worth is made of, as the weighted mean of the signals that its case has
    (`choice` needs options, `rubric` a rubric). The reward lies so far on the way from wrong (0) to correct (1)."""

    def without(self, cases: Iterable[Case]) -> str:
        """The id of the first case that has none of the table's signals; empty where every case has one."""
        return next((case.id for case in cases if not self.signals(case)), "")

    def signals(self, case: Case) -> set[Signal]:
        """The signals of the mix that a case has."""
        return signals_of(case) & self.mix.keys()


def signals_of(case: Case) -> set[Signal]:
    """What an answer to the case can be paid by."""
    has: dict[Signal, object] = {"verdict": case.references, "choice": case.options, "rubric": case.rubric}
    return {name for name, there in has.items() if there}


class ReasoningRule(Strict):
    """When a thought counts as reasoning."""

    min_reasoning_tokens: int = Field(default=8, ge=0)
    """Shortest thought that is paid as reasoning, in tokens of the model, tags excluded."""
    max_repeats: int = Field(default=4, ge=2)
    """So many copies of one phrase in a row are a loop."""


@cache
def _shipped() -> dict[str, RewardTable]:
    tables = read_table(TABLES_FILE)
    return {name: RewardTable.model_validate(table) for name, table in tables.items()}


def reward_table(table: str | RewardTable) -> RewardTable:
    """A shipped table by name, or the table itself; UserError for an unknown name."""
    if isinstance(table, RewardTable):
        return table
    if table not in _shipped():
        hint = near_miss(table, _shipped()) or f"use one of {', '.join(sorted(_shipped()))}, or write out the rewards"
        raise UserError(f"reward_table {table!r}: no such table; {hint}")
    return _shipped()[table]


def reward(
    table: RewardTable,
    outcome: Outcome,
    label: VerdictLabel,
    reasoning_tokens: int,
    thinking: str,
    rule: ReasoningRule | None = None,
    level: Level | None = None,
    beside: Mapping[Signal, float | None] | None = None,
    referred: bool = True,
) -> float | None:
    """The reward of one episode; None where a signal of it failed: mask it out, never pay or punish it.

    `level` is what a wrong answer shares with the reference (`verifier.rule.near_miss`); for graded tables only.
    `beside` are the signals besides the verdict that the episode's case has; `referred`: it has a reference, and so a
    verdict.
    """
    if outcome in NO_RESULT:
        return table.no_result
    values: dict[Signal, float | None] = {name: value for name, value in (beside or {}).items() if name in table.mix}
    if "verdict" in table.mix and referred:
        near = table.near_miss.get(level, 0.0) if level else 0.0
        values["verdict"] = None if label.right is None else 1.0 if label.right else near
    worth = 0.0
    for name, value in values.items():
        if value is None:
            return None
        worth += table.mix[name] * value / sum(table.mix[one] for one in values)
    if not values:
        return None
    if with_reasoning(outcome, reasoning_tokens, thinking, rule or ReasoningRule()):
        right, wrong = table.reasoning_correct, table.reasoning_incorrect
    else:
        right, wrong = table.plain_correct, table.plain_incorrect
    return right if worth == 1 else wrong + worth * (right - wrong)


def with_reasoning(outcome: Outcome, reasoning_tokens: int, thinking: str, rule: ReasoningRule) -> bool:
    """Whether an output counts as reasoning: well-formed, long enough, no repetition loop."""
    long_enough = outcome is Outcome.OK and reasoning_tokens >= rule.min_reasoning_tokens
    return long_enough and not repeats(thinking, rule.max_repeats)


def repeats(text: str, copies: int) -> bool:
    """Whether some phrase of up to 64 units (words, Chinese characters, marks) stands `copies` times in a row.

    Phrases of one or two units need a longer run (12 units), so that emphasis and short lists are not loops.
    """
    units = _UNIT.findall(text.lower())
    numbers: dict[str, int] = {}
    sequence = np.fromiter((numbers.setdefault(unit, len(numbers)) for unit in units), dtype=np.int64)
    for period in range(1, min(LONGEST_PERIOD, len(sequence) // copies) + 1):
        same = sequence[period:] == sequence[:-period]
        needed = max(period * (copies - 1), SHORT_UNIT_RUN - period)
        if np.count_nonzero(same) >= needed:
            breaks = np.concatenate(([-1], np.flatnonzero(~same), [len(same)]))
            if np.diff(breaks).max() - 1 >= needed:  # the longest run
                return True
    return False
