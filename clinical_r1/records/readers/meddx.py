"""Preset `meddx-ft`: MedDX-FT, the paper's fine-tuning set (section 2.1.1). **Unverified**: the set is not public.

The keys below are a reading of the paper (patient record in, diagnosis out). Correct them with `map` when you see the
files; the card and the report say "unverified" until then.
"""

from typing import Any

from clinical_r1.records.config import Source
from clinical_r1.records.readers.tabular import mapped
from clinical_r1.records.row import Row, RowError

UNVERIFIED = True
_CANDIDATES = {
    "question": ("question", "input", "case", "record", "medical_record", "病历", "问题"),
    "reference": ("reference", "answer", "output", "diagnosis", "诊断", "答案"),
    "icd10": ("icd10", "icd", "icd_code", "ICD编码"),
    "department": ("department", "specialty", "科室"),
    "patient": ("patient", "patient_id"),
    "language": ("language", "lang"),
}


def meddx(item: dict[str, Any], line: int, source: Source) -> Row:
    """One item: the first known key for each field, unless `map` names it."""
    found = {field: key for field, keys in _CANDIDATES.items() for key in reversed(keys) if item.get(key)}
    for field in ("question", "reference"):
        if field not in found and field not in source.map:
            raise RowError(f"{field}: none of the keys {', '.join(_CANDIDATES[field])}; give map")
    return mapped(item, line, source.model_copy(update={"map": {**found, **source.map}}))
