"""Multiple-choice sets in their publishers' forms. `closed: true` keeps the options, else the question is asked open.

MedQA https://github.com/jind11/MedQA, MedMCQA https://github.com/MedMCQA/MedMCQA, CMB https://github.com/FreedomIntelligence/CMB,
CMExam https://github.com/williamliujl/CMExam, MedXpertQA https://github.com/TsinghuaC3I/MedXpertQA,
MedBullets https://github.com/HanjieChen/ChallengeClinicalQA.
"""

import re
from collections.abc import Sequence
from typing import Any

from clinical_r1.records.config import Source
from clinical_r1.records.readers.mapping import chosen_option, options_of
from clinical_r1.records.readers.problems import checked, text_under
from clinical_r1.records.row import Row, RowError, UnusableError
from clinical_r1.records.values import as_text, is_placeholder
from clinical_r1.text import main_language

_CMEXAM_OPTION = re.compile(r"^\s*([A-Z])[\s.．、:：]+(.+)$", re.MULTILINE)
_OPTION_LIST = re.compile(r"\s*\n?\s*(?:Answer Choices|Options|选项)\s*[:：].*\Z", re.DOTALL | re.IGNORECASE)


def _row(question: str, options: dict[str, str], references: list[str], source: Source) -> Row:
    return Row(
        {
            "language": main_language(question + references[0]),
            "question": question,
            "references": references,
            "options": list(options.values()) if source.closed else [],
        }
    )


def _right(answer: Any, options: dict[str, str], key: str, several: bool = False) -> list[str]:
    """The option that a letter or text names; where `several` may be right, all that the letters name. Else (a set
    asked open, without its choices, among them) several letters are a question that one reference cannot answer."""
    text = as_text(answer)
    letters = re.sub(r"[\s,，、;；]", "", text.upper())
    many = len(letters) > 1 and set(letters) <= set(options)
    if several and many:
        return [options[letter] for letter in sorted(set(letters))]
    if is_placeholder(text):
        raise UnusableError(f"{key}: no answer in this part of the set")
    if many and text not in options.values():
        raise UnusableError(f"{key}: several options are right")
    return [chosen_option(text, options)]


def medqa(item: dict[str, Any], source: Source) -> Row:
    """MedQA in either language: options as an object or a list, `answer` as the text, `answer_idx` as letter or
    number."""
    question, options = text_under(item, "question"), options_of(item.get("options"))
    if not options:
        raise RowError("options: missing")
    answer, index = as_text(item.get("answer")), item.get("answer_idx")
    named = [choice for choice in options.values() if choice.strip() == answer]
    if isinstance(index, int) and not isinstance(index, bool):
        if not named and not 0 <= index < len(options):
            raise RowError("answer_idx: not one of the options")
        return _row(question, options, named[:1] or [list(options.values())[index]], source)
    right = _right(index, options, "answer_idx") if as_text(index) else _right(answer, options, "answer")
    if as_text(index) and named and right[0] not in named:
        raise RowError("answer: another option than answer_idx says")
    return _row(question, options, right, source)


def medmcqa_base(items: Sequence[dict[str, Any]]) -> int | None:
    """Does `cop` count from 0 (the Hugging Face copy) or from 1 (the authors' files)? None where no item tells."""
    numbers = {int(item["cop"]) for item in items if str(item.get("cop", "")).strip().lstrip("-").isdigit()}
    return 0 if 0 in numbers else 1 if 4 in numbers else None


def medmcqa(item: dict[str, Any], source: Source, base: int | None = None) -> Row:
    """MedMCQA: opa to opd and `cop`, the number of the right one (items of `choice_type` multi have one too)."""
    options = {letter: checked(item.get(f"op{letter.casefold()}"), f"op{letter.casefold()}") for letter in "ABCD"}
    number = as_text(item.get("cop"))
    if not number or number == "-1":
        raise UnusableError("cop: no answer in this part of the set")
    if base is None:
        raise RowError("cop: cannot tell whether it counts from 0 or from 1; give more rows of the set")
    if not number.isdigit() or not 0 <= int(number) - base < 4:
        raise RowError("cop: not one of the options")
    return _row(text_under(item, "question"), options, [options["ABCD"[int(number) - base]]], source)


def medbullets(item: dict[str, Any], source: Source) -> Row:
    """MedBullets: opa to ope, `answer` as the text, `answer_idx` as the letter."""
    options = {letter: text for letter in "ABCDE" if (text := as_text(item.get(f"op{letter.lower()}")))}
    if len(options) < 2:
        raise RowError("opa: fewer than two options")
    return medqa({**item, "options": options}, source)


def cmb(item: dict[str, Any], source: Source) -> Row:
    """CMB-Exam: `option` by letter and `answer`; questions with several right options are counted as unusable."""
    options = options_of({k: v for k, v in (item.get("option") or {}).items() if as_text(v)})
    question = text_under(item, "question")
    return _row(question, options, _right(item.get("answer"), options, "answer", source.closed), source)


def cmexam(item: dict[str, Any], source: Source) -> Row:
    """CMExam: `Options` as lettered lines, `Answer` as one letter or several."""
    raw = item.get("Options")
    lettered = dict(_CMEXAM_OPTION.findall(raw)) if isinstance(raw, str) else {}
    options = {k: v.strip() for k, v in lettered.items()} if len(lettered) > 1 else options_of(raw)
    if not options:
        raise RowError("Options: missing")
    question = text_under(item, "Question")
    return _row(question, options, _right(item.get("Answer"), options, "Answer", source.closed), source)


def medxpertqa(item: dict[str, Any], source: Source) -> Row:
    """MedXpertQA (text): the question repeats its options at the end, `label` is the letter of the right one."""
    options = options_of(item.get("options"))
    question = checked(_OPTION_LIST.sub("", text_under(item, "question")), "question")
    row = _row(question, options, _right(item.get("label"), options, "label"), source)
    if number := as_text(item.get("id")):
        row.fields["id"], row.keep_id = f"medxpertqa-{number}", True
    return row
