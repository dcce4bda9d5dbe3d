"""Traces become token sequences: the prompt masked out, the thought, answer and end of turn trained. And preference
pairs, from verdicts that are paid for: a right and a wrong answer to one case.

Nothing is ever cut: an example that does not fit is left out and counted, or refused before training.

Synthesis keeps its attempts with their verdicts, those of rejected traces too; both sides of a pair are attempts, so
that nothing but the verdict tells them apart in form. Attempts that were shown the reference are left out. A table of
completions of an RL run (`samples.jsonl`) adds the model's own.
"""

import hashlib
import itertools
import os
import random
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clinical_r1.asking import asks_for
from clinical_r1.charts import read_metrics
from clinical_r1.errors import UserError
from clinical_r1.generation.chat import completion_ids, holds_marker, prompt_ids
from clinical_r1.reasoning import Outcome, conclusion_line, render, split, with_conclusion
from clinical_r1.schema import Case, Strategy, Trace, VerdictLabel, iter_jsonl
from clinical_r1.training.sft.config import DPOConfig

IGNORED = -100
"""Label of positions without loss."""


@dataclass
class Example:
    """One trace as tokens."""

    case_id: str
    input_ids: list[int]
    prompt_length: int

    @property
    def labels(self) -> list[int]:
        """The tokens to predict: the completion with its end of turn, IGNORED on the prompt."""
        return [IGNORED] * self.prompt_length + self.input_ids[self.prompt_length :]

    @property
    def completion_length(self) -> int:
        """Tokens that carry loss."""
        return len(self.input_ids) - self.prompt_length


Examples = list[Example]


def read_examples(
    traces: Path, tokenizer: Any, max_length: int, unusable: str = "refuse"
) -> tuple[Examples, dict[str, int]]:
    """Accepted traces as examples, in file order, and how many were left out by reason.

    `unusable`: `drop` or `refuse` what is longer than `max_length`, has an empty part, or holds think tags or markers
    of this tokenizer in its text.

    Raises:
        UserError: none is left, or one is unusable and that is refused (case ids are named).
    """
    examples: Examples = []
    marked: list[str] = []
    long: dict[str, int] = {}
    unconcluded = 0
    for trace in iter_jsonl(traces, Trace):
        if not trace.accepted:
            continue
        if not _fit(tokenizer, trace.thinking, trace.response):
            marked.append(trace.case_id)
            continue
        prompt = prompt_ids(tokenizer, trace.question)
        completion = completion_ids(tokenizer, trace.thinking, trace.response)
        if len(prompt) + len(completion) > max_length:
            long[trace.case_id] = len(prompt) + len(completion)
            continue
        unconcluded += conclusion_line(trace.response) is None
        examples.append(Example(trace.case_id, prompt + completion, len(prompt)))
    if marked and (unusable == "refuse" or not examples):
        raise UserError(
            f"{traces}: {len(marked)} accepted traces have an empty part or hold markers of a thought or of this model "
            f"in their text (cases {_names(marked)}); filter them in synthesis, or set sft.unusable to drop"
        )
    if long and (unusable == "refuse" or not examples):
        raise UserError(
            f"{traces}: {len(long)} examples are longer than max_length {max_length} (longest {max(long.values())} "
            f"tokens; cases {_names(list(long))}); raise sft.max_length, or set sft.unusable to drop"
        )
    if not examples:
        raise UserError(f"{traces}: no accepted trace to train on; look at rejected.jsonl of the synthesis step")
    if unconcluded and os.environ.get("RANK", "0") == "0":
        print(
            f"{traces}: {unconcluded} of {len(examples)} traces have no conclusion line (`Final diagnosis: ...`), "
            "so the model does not learn to state one; make them again with synthesis",
            file=sys.stderr,
            flush=True,
        )
    return examples, {"dropped_long": len(long), "dropped_marked": len(marked)}


def hold_out(examples: Examples, share: float, most: int) -> tuple[Examples, Examples]:
    """(train, evaluation): all traces of a case go to one side, chosen by a hash of its id."""
    chosen = [example for example in examples if _position(example.case_id) < share]
    kept = {example.case_id for example in sorted(chosen, key=lambda example: _position(example.case_id))[:most]}
    train = [example for example in examples if example.case_id not in kept]
    held = [example for example in examples if example.case_id in kept]
    return (train, held) if train else (examples, [])


class EpochOrder:
    """The order of examples: a pure function of (seed, epoch), so that a resumed run sees the same batches.

    With grouping, windows of 16 batches are sorted by length and their batches shuffled. The last batch is filled up
    with examples drawn again, so that every step and every process has a full share.
    """

    def __init__(self, lengths: list[int], batch_size: int, group: bool, seed: int) -> None:
        self.lengths, self.batch_size, self.group, self.seed = lengths, batch_size, group, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer's data loader."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size) * self.batch_size

    def __iter__(self) -> Iterator[int]:
        generator = random.Random(f"{self.seed}/{self.epoch}")
        order = list(range(len(self.lengths)))
        generator.shuffle(order)
        order += generator.choices(order, k=len(self) - len(order))
        if not self.group:
            return iter(order)
        window = self.batch_size * 16
        ordered = [
            index
            for start in range(0, len(order), window)
            for index in sorted(order[start : start + window], key=self.lengths.__getitem__)
        ]
        batches = [ordered[start : start + self.batch_size] for start in range(0, len(ordered), self.batch_size)]
        generator.shuffle(batches)
        return iter([index for batch in batches for index in batch])


def _fit(tokenizer: Any, thinking: str, response: str) -> bool:
    well_formed = split(render(thinking, response)).outcome is Outcome.OK
    return well_formed and not holds_marker(tokenizer, thinking + response)


def _position(case_id: str) -> float:
    return int.from_bytes(hashlib.sha256(case_id.encode()).digest()[:6], "big") / 2**48


def _names(case_ids: list[str]) -> str:
    unique = list(dict.fromkeys(case_ids))
    return ", ".join(unique[:10]) + (f" and {len(unique) - 10} more" if len(unique) > 10 else "")


@dataclass
class Pair(Example):
    """Two completions of one prompt, as tokens; what it is as an example is the longer one."""

    chosen: list[int]
    rejected: list[int]


def read_pairs(traces: Path, config: DPOConfig, tokenizer: Any, max_length: int) -> tuple[Examples, dict[str, int]]:
    """At most `pairs_per_case` a case, and how many were left out by reason; UserError where fewer than `min_pairs`."""
    pairs: Examples = []
    dropped = {"dropped_long": 0, "dropped_marked": 0}
    for case_id, (question, said) in _said(traces, config).items():
        prompt = prompt_ids(tokenizer, question)
        answers = zip(said[VerdictLabel.CORRECT], said[VerdictLabel.INCORRECT], strict=False)
        for two in list(answers)[: config.pairs_per_case]:
            if not all(_fit(tokenizer, *one) for one in two):
                dropped["dropped_marked"] += 1
                continue
            chosen, rejected = (completion_ids(tokenizer, *one) for one in two)
            longer = prompt + max(chosen, rejected, key=len)
            if len(longer) > max_length:
                dropped["dropped_long"] += 1
            else:
                pairs.append(Pair(case_id, longer, len(prompt), chosen, rejected))
    if len(pairs) < config.min_pairs:
        raise UserError(
            f"{traces}: {len(pairs)} cases have a right and a wrong answer (left out: {dropped['dropped_long']} too "
            f"long, {dropped['dropped_marked']} with markers) and sft.dpo.min_pairs is {config.min_pairs}; name an RL "
            "run's samples.jsonl in sft.dpo.completions, lower it, or leave sft.dpo out"
        )
    return pairs, dropped


_Said = tuple[str, dict[VerdictLabel, list[tuple[str, str]]]]
"""A case's question, and (thinking, response) by verdict."""


def _said(traces: Path, config: DPOConfig) -> dict[str, _Said]:
    """What was said to each case: in traces that were accepted, in those beside them that were not, in an RL run."""
    found: dict[str, _Said] = {}
    beside = traces.with_name("rejected.jsonl")
    refused = iter_jsonl(beside, Trace) if beside.is_file() else ()
    for trace in itertools.chain(iter_jsonl(traces, Trace), refused):
        said = found.setdefault(trace.case_id, (trace.question, defaultdict(list)))[1]
        for attempt in trace.attempts:
            if attempt.strategy is not Strategy.GUIDED:
                response = attempt.answer
                if conclusion_line(response) is None:  # in the form of a trace's response
                    response = with_conclusion("", response, trace.language, asks_for(trace.question))
                said[attempt.verdict.label].append((attempt.reasoning, response))
    asked = {case.id: case.prompt for case in iter_jsonl(Path(config.cases), Case)} if config.completions else {}
    for file in config.completions:
        for row in read_metrics(Path(file)):
            if not {"case_id", "verdict"} <= row.keys():
                raise UserError(f"sft.dpo.completions: {file}: not the samples.jsonl of an RL run; give one, or none")
            if row["case_id"] in asked and row.get("response"):
                said = found.setdefault(row["case_id"], (asked[row["case_id"]], defaultdict(list)))[1]
                said[VerdictLabel(row["verdict"])].append((row["thinking"], row["response"]))
    return found
