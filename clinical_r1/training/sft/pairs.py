"""Preference pairs from verdicts that are paid for: a right and a wrong answer to one case, as token sequences.

Synthesis keeps its attempts with their verdicts, those of rejected traces too; both sides of a pair are attempts, so
that nothing but the verdict tells them apart in form. Attempts that were shown the reference are left out. A table of
completions of an RL run (`samples.jsonl`) adds the model's own.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from clinical_r1.asking import asks_for
from clinical_r1.charts import read_metrics
from clinical_r1.errors import UserError
from clinical_r1.generation.chat import completion_ids, holds_marker, prompt_ids
from clinical_r1.reasoning import Outcome, conclusion_line, render, split, with_conclusion
from clinical_r1.schema import Case, Strategy, Trace, VerdictLabel, iter_jsonl
from clinical_r1.training.sft.config import DPOConfig
from clinical_r1.training.sft.data import Example


@dataclass
class Pair(Example):
    """Two completions of one prompt, as tokens; what it is as an example is the longer one."""

    chosen: list[int]
    rejected: list[int]

    @classmethod
    def of(cls, case_id: str, prompt: list[int], chosen: list[int], rejected: list[int]) -> Self:
        """From prompt and completions."""
        return cls(case_id, prompt + max(chosen, rejected, key=len), len(prompt), chosen, rejected)


@dataclass
class _Answers:
    question: str
    right: list[tuple[str, str]] = field(default_factory=list)
    """(thinking, response)."""
    wrong: list[tuple[str, str]] = field(default_factory=list)

    def add(self, label: VerdictLabel, answer: tuple[str, str]) -> None:
        if label in (VerdictLabel.CORRECT, VerdictLabel.INCORRECT):
            (self.right if label is VerdictLabel.CORRECT else self.wrong).append(answer)


def read_pairs(
    traces: Path, config: DPOConfig, tokenizer: Any, max_length: int
) -> tuple[list[Example], dict[str, int]]:
    """At most `pairs_per_case` a case, and how many were left out by reason; UserError where fewer than `min_pairs`."""
    pairs: list[Example] = []
    dropped = {"dropped_long": 0, "dropped_marked": 0}
    for case_id, answers in _gather(traces, config).items():
        prompt = prompt_ids(tokenizer, answers.question)
        for two in list(zip(answers.right, answers.wrong, strict=False))[: config.pairs_per_case]:
            if not all(_fit(tokenizer, *one) for one in two):
                dropped["dropped_marked"] += 1
                continue
            pair = Pair.of(case_id, prompt, *(completion_ids(tokenizer, *one) for one in two))
            if len(pair.input_ids) > max_length:
                dropped["dropped_long"] += 1
                continue
            pairs.append(pair)
    if len(pairs) < config.min_pairs:
        raise UserError(
            f"{traces}: {len(pairs)} cases have a right and a wrong answer (left out: {dropped['dropped_long']} too "
            f"long, {dropped['dropped_marked']} with markers) and sft.dpo.min_pairs is {config.min_pairs}; name an RL "
            "run's samples.jsonl in sft.dpo.completions, lower it, or leave sft.dpo out"
        )
    return pairs, dropped


def _gather(traces: Path, config: DPOConfig) -> dict[str, _Answers]:
    """What was said to each case, by verdict."""
    found: dict[str, _Answers] = {}
    for trace in _traces(traces):
        answers = found.setdefault(trace.case_id, _Answers(trace.question))
        for attempt in trace.attempts:
            if attempt.strategy is not Strategy.GUIDED:
                answers.add(attempt.verdict.label, (attempt.reasoning, _response(trace, attempt.answer)))
    if config.completions:
        asked = {case.id: case.prompt for case in iter_jsonl(Path(config.cases), Case)}
        for row in _completions(config):
            if row["case_id"] in asked and row.get("response"):
                answers = found.setdefault(row["case_id"], _Answers(asked[row["case_id"]]))
                answers.add(VerdictLabel(row["verdict"]), (row["thinking"], row["response"]))
    return found


def _completions(config: DPOConfig) -> Iterator[dict[str, Any]]:
    for file in config.completions:
        for row in read_metrics(Path(file)):
            if not {"case_id", "verdict"} <= row.keys():
                raise UserError(f"sft.dpo.completions: {file}: not the samples.jsonl of an RL run; give one, or none")
            yield row


def _traces(traces: Path) -> Iterator[Trace]:
    """Those that were accepted, and those beside them that were not."""
    yield from iter_jsonl(traces, Trace)
    beside = traces.with_name("rejected.jsonl")
    if beside.is_file():
        yield from iter_jsonl(beside, Trace)


def _response(trace: Trace, answer: str) -> str:
    """An attempt's answer in the form of a trace's response."""
    if conclusion_line(answer) is not None:
        return answer
    return with_conclusion("", answer, trace.language, asks_for(trace.question))


def _fit(tokenizer: Any, thinking: str, response: str) -> bool:
    well_formed = split(render(thinking, response)).outcome is Outcome.OK
    return well_formed and not holds_marker(tokenizer, thinking + response)
