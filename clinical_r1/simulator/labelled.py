"""Answers with a grade that is known by construction: what experts' grades are for a real audit of a verifier.

Answers are bare names: the audit puts them into sentences itself.
"""

import random
from collections.abc import Iterator

from clinical_r1.simulator.diseases import PAIRS, Disease
from clinical_r1.simulator.world import WorldCase, sample_cases

_DISEASES: tuple[Disease, ...] = tuple(disease for pair in PAIRS for disease in (pair.common, pair.rare))
P_LOOK_ALIKE = 0.6  # a wrong answer is the pair's other member so often, else any disease
P_CLOSED = 0.25  # rows that come with a list of choices


def sample_judgements(
    n: int, seed: int, right_share: float = 0.5, zh_share: float = 0.5
) -> Iterator[dict[str, object]]:
    """n rows of `clinical_r1.evaluation.audit.LabelledJudgement`, languages mixed."""
    rng = random.Random(f"labelled-{seed}")
    for case in sample_cases(n, seed=seed + 7919, zh_share=zh_share):
        right = rng.random() < right_share
        said = case.disease if right else _wrong(case, rng)
        language = case.chart.language
        yield {
            "question": case.question,
            "reference": case.reference,
            "answer": said.name(language),
            "language": language,
            "correct": right,
            "icd10": case.disease.icd10,
            "options": _options(case, said, rng) if rng.random() < P_CLOSED else [],
        }


def _wrong(case: WorldCase, rng: random.Random) -> Disease:
    pair = PAIRS[case.disease.pair]
    if rng.random() < P_LOOK_ALIKE:
        return pair.common if case.disease.rare else pair.rare
    return rng.choice([disease for disease in _DISEASES if disease.pair != case.disease.pair])


def _options(case: WorldCase, said: Disease, rng: random.Random) -> list[str]:
    others = rng.sample([disease for disease in _DISEASES if disease not in (case.disease, said)], 2)
    listed = list(dict.fromkeys((case.disease, said, *others)))
    rng.shuffle(listed)
    return [disease.name(case.chart.language) for disease in listed]
