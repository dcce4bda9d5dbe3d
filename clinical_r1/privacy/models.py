"""Names by presidio-analyzer over a spaCy model that the user supplies as a folder (extra `privacy`).

A statistical recogniser finds people that no list and no cue gives away; alone it also takes drugs, eponyms and
findings for people. So its recall is used with our precision: a find counts where the
words in it may be a name (`is_person`). A model is for a language: an English one never reads a Chinese note. Nothing
is downloaded.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from clinical_r1.errors import UserError
from clinical_r1.privacy.names_en import is_person
from clinical_r1.privacy.names_zh import is_person_zh
from clinical_r1.privacy.spans import Span
from clinical_r1.text import main_language

_CHUNK = 20_000
"""Characters a model is given at once, cut at a line's or sentence's end; spaCy refuses more than a million."""


def check_model(language: str, folder: str) -> None:
    """Raise UserError unless the folder holds a spaCy model for this language, and presidio-analyzer is installed."""
    meta = Path(folder) / "meta.json"
    if not meta.is_file():
        raise UserError(
            f"phi.ner_models.{language}: {folder}: no spaCy model (meta.json is missing); name the folder that holds it"
        )
    try:
        stated = json.loads(meta.read_text(encoding="utf-8")).get("lang", "")
    except ValueError:
        raise UserError(f"phi.ner_models.{language}: {meta}: not JSON; install the model anew") from None
    if stated != language:
        raise UserError(f"phi.ner_models.{language}: {folder}: a model for {stated or 'no language'}; name one for it")
    try:
        import presidio_analyzer  # noqa: F401
    except ImportError:
        raise UserError(
            "phi.ner_models needs presidio-analyzer; install the extra `privacy`, or leave ner_models empty"
        ) from None


def load_models(folders: Mapping[Any, str], threshold: float) -> Callable[[str], Iterator[Span]]:
    """A finder over the models, language -> folder; finds below `threshold` become doubts."""
    from_language = {}
    for language, folder in folders.items():
        check_model(language, folder)
        from_language[language] = _analyzer(language, folder, threshold)

    def find(text: str) -> Iterator[Span]:
        language = main_language(text)
        if language in from_language:
            yield from from_language[language](text)

    return find


def _analyzer(language: str, folder: str, threshold: float) -> Callable[[str], Iterator[Span]]:
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import NlpEngineProvider

    named = {"lang_code": language, "model_name": folder}
    provider = NlpEngineProvider(nlp_configuration={"nlp_engine_name": "spacy", "models": [named]})
    engine = AnalyzerEngine(nlp_engine=provider.create_engine(), supported_languages=[language])
    person = is_person_zh if language == "zh" else is_person

    def find(text: str) -> Iterator[Span]:
        for offset, chunk in _chunks(text):
            for found in engine.analyze(text=chunk, language=language, entities=["PERSON"]):
                start, end = offset + found.start, offset + found.end
                for piece_start, piece_end in person(text, start, end):
                    yield Span(piece_start, piece_end, doubt=found.score < threshold)

    return find


def _chunks(text: str) -> Iterator[tuple[int, str]]:
    start = 0
    while start < len(text):
        end = min(len(text), start + _CHUNK)
        if end < len(text):
            cut = max(text.rfind(mark, start + _CHUNK // 2, end) for mark in ("\n", ". ", "。"))
            end = cut + 1 if cut > start else end
        yield start, text[start:end]
        start = end
