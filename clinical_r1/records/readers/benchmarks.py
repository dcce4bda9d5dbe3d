"""DxBench, HuatuoGPT-o1 problems and MedQA: public sets with fixed keys. Each function turns one item into a `Row`."""

from typing import Any

from clinical_r1.records.config import Source
from clinical_r1.records.row import Row, RowError, detect_language

_YES, _NO = "True", "False"

_EN = {
    "explicit": "A patient presents with: {}.",
    "implicit": "Further questioning reveals: {}.",
    "denied": "Absent on questioning: {}.",
    "unsure": "Uncertain: {}.",
    "candidates": "Candidate diagnoses: {}.",
    "ask": "What is the most likely diagnosis?",
    "join": "; ",
    "space": " ",
}
_ZH = {
    "explicit": "患者主诉：{}。",
    "implicit": "进一步问诊发现：{}。",
    "denied": "问诊否认：{}。",
    "unsure": "不能确定：{}。",
    "candidates": "候选诊断：{}。",
    "ask": "最可能的诊断是什么？",
    "join": "、",
    "space": "",
}


def text_of(item: dict[str, Any], key: str) -> str:
    """A non-empty string under `key`, stripped; RowError names the key otherwise."""
    value = item.get(key)
    if not isinstance(value, str) or not value.strip():
        raise RowError(f"{key}: missing or not a text")
    return value.strip()


def _symptoms(item: dict[str, Any], key: str) -> list[tuple[str, str]]:
    value = item.get(key)
    pairs = value if isinstance(value, list) else None
    if pairs is None or not all(isinstance(p, list) and len(p) == 2 and isinstance(p[0], str) for p in pairs):
        raise RowError(f"{key}: not a list of [symptom, polarity]")
    return [(name.strip(), str(polarity)) for name, polarity in pairs if name.strip()]


def dxbench(item: dict[str, Any], line: int, source: Source) -> Row:
    """DxBench: symptoms with polarity ("True", "False", else uncertain). The department is not told to the doctor."""
    disease, candidates = text_of(item, "disease"), item.get("candidate_diseases") or []
    explicit, implicit = _symptoms(item, "explicit_symptoms"), _symptoms(item, "implicit_symptoms")
    if not explicit and not implicit:
        raise RowError("explicit_symptoms: no symptom at all")
    language = detect_language(disease + "".join(name for name, _ in explicit + implicit))
    words = _ZH if language == "zh" else _EN
    groups = {
        "explicit": [name for name, polarity in explicit if polarity == _YES],
        "implicit": [name for name, polarity in implicit if polarity == _YES],
        "denied": [name for name, polarity in explicit + implicit if polarity == _NO],
        "unsure": [name for name, polarity in explicit + implicit if polarity not in (_YES, _NO)],
        "candidates": [str(name).strip() for name in candidates] if source.candidates else [],
    }
    parts = [words[key].format(words["join"].join(names)) for key, names in groups.items() if names]
    number = text_of(item, "id")
    return Row(
        file=source.path,
        line=line,
        fields={
            "id": f"{number}-{language}",
            "language": language,
            "question": words["space"].join([*parts, words["ask"]]),
            "reference": disease,
            "options": groups["candidates"],
        },
        problem=f"dxbench:{number}",
        department=str(item.get("department") or ""),
        keep_id=True,
    )


def huatuo(item: dict[str, Any], line: int, source: Source) -> Row:
    """HuatuoGPT-o1's verifiable problems: open question and ground truth; its chain of thought is left behind."""
    question, reference = text_of(item, "Open-ended Verifiable Question"), text_of(item, "Ground-True Answer")
    return Row(
        file=source.path,
        line=line,
        fields={"language": detect_language(question), "question": question, "reference": reference.rstrip("。. ")},
    )


def medqa(item: dict[str, Any], line: int, source: Source) -> Row:
    """MedQA (USMLE form): question, lettered options, `answer` or `answer_idx`."""
    question, options = text_of(item, "question"), item.get("options")
    if not isinstance(options, dict) or len(options) < 2:
        raise RowError("options: not an object of at least two lettered choices")
    letter = str(item.get("answer_idx") or item.get("answer") or "").strip()
    reference = str(options.get(letter) or item.get("answer") or "").strip()
    if reference not in {str(choice).strip() for choice in options.values()}:
        raise RowError("answer: not one of the options")
    return Row(
        file=source.path,
        line=line,
        fields={
            "language": detect_language(question),
            "question": question,
            "reference": reference,
            "options": [str(choice).strip() for choice in options.values()] if source.closed else [],
        },
    )
