"""Our own JSONL: one `schema.Case` a line. Identifiers that it carries are hashed later, unless they already are."""

from typing import Any

from pydantic import ValidationError

from clinical_r1.records.config import Source
from clinical_r1.records.row import Row, RowError, detect_language
from clinical_r1.schema import Case, first_problem


def case(item: dict[str, Any], line: int, source: Source) -> Row:
    """Validate one line against `Case`; the language is detected where the line has none."""
    fields = dict(item)
    if not fields.get("language"):
        fields["language"] = detect_language(str(fields.get("question", "")))
    try:
        checked = Case.model_validate(fields)
    except ValidationError as error:
        raise RowError(first_problem(error)) from None
    kept = checked.model_dump(exclude_defaults=True)
    if not item.get("id"):
        kept.pop("id", None)
    kept["references"] = [reference.strip() for reference in checked.references]
    kept["question"] = checked.question.strip()
    if not kept["question"]:
        raise RowError("question: empty")
    return Row(file=source.path, line=line, fields=kept, patient_id=kept.pop("patient", ""))
