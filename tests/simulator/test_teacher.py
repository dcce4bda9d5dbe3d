"""What the simulated teacher writes: care pays, strategies continue, chains are rewritten into one thought."""

import random
from dataclasses import replace

import pytest

from clinical_r1.simulator import teacher, world


@pytest.fixture(scope="module")
def cases():
    return list(world.sample_cases(800, seed=11))


def _accuracy(cases, care):
    rng = random.Random(0)
    return sum(teacher.attempt(case.chart, care, rng).answer == case.reference for case in cases) / len(cases)


def test_care_pays(cases):
    hasty, medium, careful = (_accuracy(cases, care) for care in ("hasty", "medium", "careful"))
    assert hasty + 0.05 < medium < careful - 0.3
    assert careful > 0.9


def test_accepted_unchecked_attempts_have_both_kinds_of_truth(cases):
    """Else checking would be a sign of the look-alike, and a model would check where it knows the answer already."""
    rng = random.Random(3)
    accepted = [case for case in cases if teacher.attempt(case.chart, "medium", rng).answer == case.reference]
    share = sum(case.disease.rare for case in accepted) / len(accepted)
    assert 0.2 < share < 0.45


def test_an_attempt_is_a_function_of_its_seed(cases):
    one, two = (teacher.attempt(cases[0].chart, "careful", random.Random(4)) for _ in range(2))
    assert one == two


def test_a_careful_attempt_weighs_all_findings_and_checks(cases):
    for case in cases[:100]:
        text = teacher.attempt(case.chart, "careful", random.Random(1)).reasoning
        assert teacher.is_careful(case.chart, text)
        assert len(teacher.covered_findings(case.chart, text)) == len(case.chart.findings)
        assert not teacher.is_careful(case.chart, teacher.attempt(case.chart, "medium", random.Random(1)).reasoning)


def test_a_check_that_reads_the_wrong_result_is_not_careful(cases):
    """What counts is what the chart says, not the words of a check."""
    for case in cases[:100]:
        text = teacher.attempt(case.chart, "careful", random.Random(1)).reasoning
        turned = replace(case.chart, tests=tuple((index, not positive) for index, positive in case.chart.tests))
        guess = teacher.last_hypothesis(case.chart, text)
        assert teacher.is_careful(turned, text) == (guess not in dict(case.chart.tests))


def test_verification_mends_an_overlooked_look_alike(cases):
    rng = random.Random(2)
    firsts = [(case, teacher.attempt(case.chart, "medium", rng)) for case in cases if case.disease.rare]
    overlooked = [(case, first) for case, first in firsts if first.answer != case.reference]
    seconds = [
        (case, teacher.retry(case.chart, "verification", first.reasoning, [first.answer], "careful", rng))
        for case, first in overlooked
    ]
    mended = [second.answer == case.reference for case, second in seconds]
    assert sum(mended) / len(overlooked) > 0.75


@pytest.mark.parametrize("strategy", ["exploring_new_paths", "backtracking", "verification", "corrections"])
def test_the_rewrite_is_one_thought_that_ends_in_the_answer(cases, strategy):
    rng = random.Random(6)
    for case in cases[:100]:
        first = teacher.attempt(case.chart, "hasty", rng)
        again = teacher.retry(case.chart, strategy, first.reasoning, [first.answer], "careful", rng)
        thought = teacher.rewrite(case.chart.language, first.reasoning, again.reasoning)
        assert thought.count("fits best") + thought.count("最符合") == 1
        assert "Wait," in thought or "等等" in thought
        assert teacher.conclusion(case.chart.language, thought) == again.answer


def test_guided_reasoning_ends_in_the_reference(cases):
    for case in cases[:100]:
        written = teacher.guided(case.chart, case.reference, random.Random(3))
        assert teacher.conclusion(case.chart.language, written.reasoning) == case.reference
        assert case.reference in teacher.response(case.chart.language, case.reference)
