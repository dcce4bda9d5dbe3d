"""A user's model for presidio-analyzer: its finds count only where they may be persons, and only in its language."""

import json
from pathlib import Path

import pytest

from clinical_r1.errors import UserError
from clinical_r1.privacy.gate import scrub
from clinical_r1.privacy.known import Known, KnownFinder
from clinical_r1.privacy.models import load_models
from clinical_r1.privacy.names_en import is_person


def test_a_folder_without_a_model_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no spaCy model"):
        load_models({"en": str(tmp_path)}, 0.6)


def test_a_model_for_another_language_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text(json.dumps({"lang": "en"}))
    with pytest.raises(UserError, match=r"ner_models.zh: .*a model for en"):
        load_models({"zh": str(tmp_path)}, 0.6)


@pytest.mark.parametrize(
    ("text", "found", "kept"),
    [
        ("Thalia Brandvold waved.", "Thalia Brandvold", True),
        ("Started Humira again.", "Humira", False),
        ("Takayasu was suspected.", "Takayasu", False),
        ("a positive Blumberg sign", "Blumberg", False),
        ("Gamma gap was wide.", "Gamma", False),
        ("Bibasilar crackles heard.", "Bibasilar", False),
    ],
)
def test_what_a_model_finds_counts_where_it_may_be_a_person(text: str, found: str, kept: bool) -> None:
    start = text.index(found)
    assert bool(list(is_person(text, start, start + len(found)))) == kept


def test_names_that_only_the_model_knows_are_scrubbed(tmp_path: Path) -> None:
    spacy = pytest.importorskip("spacy", reason="presidio-analyzer (extra `privacy`) is not installed")
    pytest.importorskip("presidio_analyzer", reason="presidio-analyzer (extra `privacy`) is not installed")
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "PERSON", "pattern": "Zorblax"}])
    nlp.to_disk(tmp_path / "model")
    text, nobody = "the scan of Zorblax showed a mass", KnownFinder(Known())
    assert "Zorblax" in scrub(text, nobody, None).text
    found = scrub(text, nobody, None, model=load_models({"en": str(tmp_path / "model")}, 0.6))
    assert "Zorblax" not in found.text and not found.doubts
    unsure = scrub(text, nobody, None, model=load_models({"en": str(tmp_path / "model")}, 0.99))
    assert unsure.doubts == ["name"]
    chinese = "患者昨日出现发热，咳嗽，Zorblax 复查胸片未见异常，继续抗感染治疗。"
    assert scrub(chinese, nobody, None, model=load_models({"en": str(tmp_path / "model")}, 0.6)).text == chinese
