"""presidio-analyzer with a user's model folder: a rule-based spaCy pipeline made here stands for the model."""

import pytest

from clinical_r1.errors import UserError
from clinical_r1.privacy.known import Known, KnownFinder
from clinical_r1.privacy.presidio import load_presidio
from clinical_r1.privacy.scrub import scrub


def test_a_folder_without_a_model_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="no spaCy model"):
        load_presidio(str(tmp_path), 0.6)


def test_names_that_only_the_model_knows_are_scrubbed(tmp_path):
    spacy = pytest.importorskip("spacy", reason="presidio-analyzer (extra `phi`) is not installed")
    pytest.importorskip("presidio_analyzer", reason="presidio-analyzer (extra `phi`) is not installed")
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "PERSON", "pattern": "zorblax quuvv"}])
    nlp.to_disk(tmp_path / "model")
    text, nobody = "the ward clerk zorblax quuvv waved", KnownFinder(Known())
    assert "zorblax" in scrub(text, nobody, None).text
    found = scrub(text, nobody, None, extra=load_presidio(str(tmp_path / "model"), 0.6))
    assert "zorblax" not in found.text and not found.doubts
    unsure = scrub(text, nobody, None, extra=load_presidio(str(tmp_path / "model"), 0.99))
    assert unsure.doubts == ["name"]
