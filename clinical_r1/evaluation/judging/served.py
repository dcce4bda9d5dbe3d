"""The gateway's audit samples and the reference diagnoses that arrived for them, as they lie in the object store."""

from datetime import date, timedelta
from typing import Literal

from pydantic import Field, ValidationError

from clinical_r1.errors import Strict, UserError
from clinical_r1.objectstore.face import Store
from clinical_r1.reasoning import Outcome
from clinical_r1.schema import Case, Prediction
from clinical_r1.text import Language

SAMPLES, REFERENCES = "samples/", "references/"
NO_REFERENCE = "(none yet)"


class Sample(Strict):
    """One kept answer, as serving/gateway/sampling.py writes it."""

    request_id: str
    recorded: date
    model_version: str
    language: Literal["en", "zh", "other"]
    messages: list[dict[str, str]]
    thinking: str
    response: str
    outcome: Outcome
    reasoning_tokens: int | None = None
    rate: float = Field(gt=0, le=1)

    @property
    def question(self) -> str:
        """What the user said, all turns of it."""
        return "\n\n".join(m["content"] for m in self.messages if m.get("role") == "user").strip()

    def case(self, reference: str = NO_REFERENCE) -> Case:
        """As evaluation sees it."""
        language: Language = "zh" if self.language == "zh" else "en"
        return Case(id=self.request_id, language=language, question=self.question or "?", references=[reference])

    def prediction(self) -> Prediction:
        """As evaluation sees it."""
        return Prediction(
            case_id=self.request_id, output="", thinking=self.thinking, response=self.response, outcome=self.outcome
        )


class Reference(Strict):
    """A diagnosis that arrived later, by the request id that the client was given (X-Request-Id)."""

    request_id: str
    reference: str = Field(min_length=1)


def read_samples(
    store: Store, today: date, days: int, retention_days: int = 0, model_version: str = ""
) -> tuple[list[Sample], int]:
    """(samples of the last days, lines that cannot be read). Deletes what is past its retention."""
    first, samples, bad = today - timedelta(days=days), [], 0
    for entry in list(store.list(SAMPLES)):
        written = _date_of(entry.key)
        if retention_days and written and written < today - timedelta(days=retention_days):
            store.delete(entry.key)
            continue
        if written and written < first:
            continue
        for line in store.get(entry.key).decode("utf-8", "replace").splitlines():
            try:
                sample = Sample.model_validate_json(line)
            except ValidationError:
                bad += 1
                continue
            if model_version in ("", sample.model_version):
                samples.append(sample)
    return samples, bad


def _date_of(key: str) -> date | None:
    """The day in `samples/VERSION/DATE/NAME`."""
    try:
        return date.fromisoformat(key.split("/")[-2])
    except (ValueError, IndexError):
        return None


def read_references(store: Store) -> dict[str, str]:
    """Reference diagnosis by request id. Raises UserError that names object and line."""
    found: dict[str, str] = {}
    for entry in store.list(REFERENCES):
        for number, line in enumerate(store.get(entry.key).decode("utf-8", "replace").splitlines(), 1):
            try:
                row = Reference.model_validate_json(line)
            except ValidationError:
                place = f"{store.uri}/{entry.key}:{number}"
                raise UserError(
                    f'{place}: no reference; write {{"request_id": "req-...", "reference": "..."}}'
                ) from None
            found[row.request_id] = row.reference
    return found
