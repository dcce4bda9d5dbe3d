"""Which characters are Chinese, which language a text is in, one width."""

import pytest

from clinical_r1.text import han_of, has_han, latin_of, main_language, one_width, without_accents


@pytest.mark.parametrize("text", ["肺炎", "CT示肺炎", "㐀", "鿿"])
def test_chinese_characters_are_found(text: str) -> None:
    assert has_han(text)


@pytest.mark.parametrize("text", ["", "pneumonia", "。，", "かな", "１２"])
def test_chinese_marks_and_other_scripts_are_none(text: str) -> None:
    assert not has_han(text)


def test_letters_of_one_script() -> None:
    assert (han_of("CT 示肺炎，WBC 12"), latin_of("CT 示肺炎，WBC 12")) == ("示肺炎", "CTWBC")


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Fever for three days.", "en"),
        ("发热三天，WBC 12.3，CRP 45", "zh"),
        ("The patient calls it 上火 and has had fever", "en"),
        ("", "en"),
    ],
)
def test_a_chart_is_in_the_language_of_its_words_not_of_its_abbreviations(text: str, language: str) -> None:
    assert main_language(text) == language


def test_one_width_and_no_accents() -> None:
    assert one_width("ＷＢＣ１２．３") == "WBC12.3"
    assert without_accents("Sjögren, Ménière") == "Sjogren, Meniere"
