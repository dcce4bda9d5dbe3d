"""Knobs of the world that the experiments plant their effects with: twins, a site's dialect, labelled answers."""

import random

import pytest

from clinical_r1.simulator import world
from clinical_r1.simulator.judge import is_right
from clinical_r1.simulator.world import DIALECT, FINDING_ZH, FINDINGS, sample_judgements


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_dialect_question_reads_back_to_the_same_chart(language) -> None:
    rng = random.Random(4)
    changed = 0
    for _ in range(200):
        chart = world.sample_case(rng, language).chart
        question = world.render_question(chart, dialect=True)
        assert world.parse_question(question) == chart
        changed += question != world.render_question(chart)
    assert changed > 180


def test_no_word_of_the_dialect_names_another_finding() -> None:
    words = [word for names in DIALECT.values() for word in names]
    assert len(set(words)) == len(words) and set(DIALECT) <= set(FINDINGS)
    assert not set(words) & {*FINDINGS, *FINDING_ZH.values()}
    assert not any("," in word or "，" in word or "." in word for word in words)


def test_only_the_dialect_site_writes_in_its_words() -> None:
    plain = list(world.sample_records(300, seed=1))
    local = list(world.sample_records(300, seed=1, dialect_site="hillside"))
    for one, other in zip(plain, local, strict=True):
        assert one.reference == other.reference and one.site == other.site
        assert one.site == "hillside" or one.question == other.question
    assert sum(one.question != other.question for one, other in zip(plain, local, strict=True)) > 70


def test_twins_are_one_patient_in_two_languages() -> None:
    records = list(world.sample_records(100, seed=3, twins=True))
    assert len(records) == 100
    for english, chinese in zip(records[::2], records[1::2], strict=True):
        assert (english.language, chinese.language) == ("en", "zh")
        assert english.id.removesuffix("-en") == chinese.id.removesuffix("-zh")
        assert english.patient == chinese.patient and english.icd10 == chinese.icd10
        first, second = world.parse_question(english.question), world.parse_question(chinese.question)
        assert first is not None and second is not None and first.findings == second.findings


def test_labels_of_answers_are_right_by_construction() -> None:
    rows = list(sample_judgements(300, seed=0))
    assert 100 < sum(bool(row["correct"]) for row in rows) < 200
    for row in rows:
        assert is_right(str(row["reference"]), str(row["answer"])) == row["correct"]
        options = row["options"]
        assert isinstance(options, list) and (not options or row["reference"] in options)
    assert any(row["options"] for row in rows)
