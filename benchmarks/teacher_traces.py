"""Traces of the simulated teacher without the endpoint in between: what synthesis leaves of the same world.

The pipeline asks the teacher over HTTP; benches that need thousands of traces for each of several seeds call it here,
with the same strategies and the same rule: only what the verifier accepts goes on.
"""

import random
from collections.abc import Iterator

from clinical_r1.schema import RETRY_STRATEGIES, Case, Strategy, Trace, TraceOutcome
from clinical_r1.simulator.teacher import (
    CARE_FIRST,
    CARE_RETRY,
    attempt,
    draw_care,
    guided,
    response,
    retry,
    rewrite,
    with_careful,
)
from clinical_r1.simulator.world import WorldCase, sample_cases

RETRIES = 3


def as_case(drawn: WorldCase) -> Case:
    """The record of a drawn case."""
    return Case(
        language=drawn.chart.language,
        question=drawn.question,
        reference=drawn.reference,
        icd10=drawn.disease.icd10,
        specialty=drawn.disease.specialty,
        source="simulator",
    )


def teacher_traces(count: int, seed: int, careful: float | None = None) -> Iterator[Trace]:
    """One accepted trace for each of `count` cases drawn by seed; `careful`: share of careful tries, None = its own."""
    rng = random.Random(seed)
    for drawn in sample_cases(count, seed):
        case, chart = as_case(drawn), drawn.chart
        thinking, outcome = _search(drawn, rng, careful)
        yield Trace(
            case_id=case.id, language=chart.language, specialty=case.specialty, question=case.prompt,
            reference=case.reference, thinking=thinking, response=response(chart.language, case.reference),
            outcome=outcome, synthesizer="simulated-clinician",
        )  # fmt: skip


def _search(drawn: WorldCase, rng: random.Random, careful: float | None) -> tuple[str, TraceOutcome]:
    chart, reference = drawn.chart, drawn.reference
    first = attempt(chart, draw_care(rng, with_careful(CARE_FIRST, careful)), rng)
    if first.answer == reference:
        return first.reasoning, TraceOutcome.DIRECT
    wrong = [first.answer]
    for _ in range(RETRIES):
        strategy: Strategy = rng.choice(RETRY_STRATEGIES)
        care = draw_care(rng, with_careful(CARE_RETRY, careful))
        again = retry(chart, strategy.value, first.reasoning, wrong, care, rng)
        if again.answer == reference:
            return rewrite(chart.language, first.reasoning, again.reasoning), TraceOutcome.RECOVERED
        wrong.append(again.answer)
    return guided(chart, reference, rng).reasoning, TraceOutcome.GUIDED
