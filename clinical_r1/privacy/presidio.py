"""Names and places by presidio-analyzer over a spaCy model that the user supplies as a folder (both optional).

Presidio finds people in prose better than lists do where a good model is at hand; it has no recognizers for China.
Nothing is downloaded: without the folder this module is never imported.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from clinical_r1.errors import UserError
from clinical_r1.privacy.spans import Kind, Span

_ENTITIES = {
    "PERSON": Kind.NAME,
    "LOCATION": Kind.ADDRESS,
    "IBAN_CODE": Kind.ACCOUNT,
    "MEDICAL_LICENSE": Kind.LICENSE,
    "US_ITIN": Kind.SSN,
}


def load_presidio(folder: str, threshold: float) -> Callable[[str], Iterator[Span]]:
    """A finder over the model in `folder`; finds below `threshold` keep their low score and so become doubts."""
    meta = Path(folder) / "meta.json"
    if not meta.is_file():
        raise UserError(f"{folder}: no spaCy model (meta.json is missing); give phi.ner_model the folder of one")
    try:
        from presidio_analyzer import AnalyzerEngine
        from presidio_analyzer.nlp_engine import NlpEngineProvider
    except ImportError:
        raise UserError(
            "phi.ner_model needs presidio-analyzer; install the extra `phi`, or leave ner_model empty"
        ) from None
    language = json.loads(meta.read_text(encoding="utf-8")).get("lang", "en")
    provider = NlpEngineProvider(
        nlp_configuration={"nlp_engine_name": "spacy", "models": [{"lang_code": language, "model_name": folder}]}
    )
    engine = AnalyzerEngine(nlp_engine=provider.create_engine(), supported_languages=[language])
    wanted = [name for name in _ENTITIES if name in engine.get_supported_entities(language)]

    def find(text: str) -> Iterator[Span]:
        for found in engine.analyze(text=text, language=language, entities=wanted):
            score = found.score if found.entity_type == "PERSON" else 1.0
            sure = 1.0 if score >= threshold else 0.5
            yield Span(found.start, found.end, _ENTITIES[found.entity_type], sure)

    return find
