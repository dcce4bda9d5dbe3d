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
from clinical_r1.records.readers.problems import checked, text_of
from clinical_r1.records.row import Row, RowError, UnusableError
from clinical_r1.records.values import as_text, is_placeholder
from clinical_r1.text import main_language

_CMEXAM_OPTION = re.compile(r"^\s*([A-Z])[\s.．、:：]+(.+)$", re.MULTILINE)
_OPTION_LIST = re.compile(r"\s*\n?\s*(?:Answer Choices|Options|选项)\s*[:：].*\Z", re.DOTALL | re.IGNORECASE)


def choice_row(question: str, options: dict[str, str], reference: str | list[str], source: Source) -> Row:
    """A row of a question with its options by letter."""
    references = [reference] if isinstance(reference, str) else reference
    return Row(
        {
            "language": main_language(question + references[0]),
            "question": question,
            "references": references,
            "options": list(options.values()) if source.closed else [],
        }
    )


def _by_letter(answer: Any, options: dict[str, str], key: str) -> str:
    """The option of one letter; several letters are a question that one reference cannot answer."""
    text = as_text(answer).strip()
    if is_placeholder(text):
        raise UnusableError(f"{key}: no answer in this part of the set")
    letters = re.sub(r"[\s,，、;；]", "", text.upper())
    if len(letters) > 1 and set(letters) <= set(options) and text not in options.values():
        raise UnusableError(f"{key}: several options are right")
    return chosen_option(text, options)


def _by_letters(answer: Any, options: dict[str, str], key: str, source: Source) -> str | list[str]:
    """The right option, or all of several; asked open (without its choices), such an item cannot be answered."""
    letters = re.sub(r"[\s,，、;；]", "", as_text(answer).upper())
    if source.closed and len(letters) > 1 and set(letters) <= set(options):
        return [options[letter] for letter in sorted(set(letters))]
    return _by_letter(answer, options, key)


def medqa(item: dict[str, Any], source: Source) -> Row:
    """MedQA in either language: options as an object or a list, `answer` as the text, `answer_idx` as letter or
    number."""
    question, options = text_of(item, "question"), options_of(item.get("options"))
    if not options:
        raise RowError("options: missing")
    answer, index = as_text(item.get("answer")), item.get("answer_idx")
    named = [choice for choice in options.values() if choice.strip() == answer]
    if isinstance(index, int) and not isinstance(index, bool):
        if not named and not 0 <= index < len(options):
            raise RowError("answer_idx: not one of the options")
        return choice_row(question, options, named[0] if named else list(options.values())[index], source)
    if as_text(index):
        by_letter = _by_letter(index, options, "answer_idx")
        if named and by_letter not in named:
            raise RowError("answer: another option than answer_idx says")
        return choice_row(question, options, by_letter, source)
    return choice_row(question, options, _by_letter(answer, options, "answer"), source)


def medmcqa_base(items: Sequence[dict[str, Any]]) -> int | None:
    """Does `cop` count from 0 (the Hugging Face copy) or from 1 (the authors' files)? None where no item tells."""
    numbers = {int(item["cop"]) for item in items if str(item.get("cop", "")).strip().lstrip("-").isdigit()}
    if 0 in numbers:
        return 0
    return 1 if 4 in numbers else None


def medmcqa(item: dict[str, Any], source: Source, base: int | None = None) -> Row:
    """MedMCQA: opa to opd and `cop`, the number of the right one."""
    options = {letter: checked(item.get(f"op{letter.casefold()}"), f"op{letter.casefold()}") for letter in "ABCD"}
    number = as_text(item.get("cop"))
    if not number or number == "-1":
        raise UnusableError("cop: no answer in this part of the set")
    if base is None:
        raise RowError("cop: cannot tell whether it counts from 0 or from 1; give more rows of the set")
    if not number.isdigit() or not 0 <= int(number) - base < 4:
        raise RowError("cop: not one of the options")
    if str(item.get("choice_type", "single")).casefold() == "multi":
        pass  # the set's "multi" items still have one right option
    return choice_row(text_of(item, "question"), options, options["ABCD"[int(number) - base]], source)


def medbullets(item: dict[str, Any], source: Source) -> Row:
    """MedBullets: opa to ope, `answer` as the text, `answer_idx` as the letter."""
    options = {l.upper(): as_text(item.get(f"op{l}")) for l in "abcde" if as_text(item.get(f"op{l}"))}  # noqa: E741
    if len(options) < 2:
        raise RowError("opa: fewer than two options")
    return medqa({**item, "options": options}, source)


def cmb(item: dict[str, Any], source: Source) -> Row:
    """CMB-Exam: `option` by letter and `answer`; questions with several right options are counted as unusable."""
    options = {k: v for k, v in (item.get("option") or {}).items() if as_text(v)}
    choices = options_of(options)
    return choice_row(
        text_of(item, "question"), choices, _by_letters(item.get("answer"), choices, "answer", source), source
    )


def cmexam(item: dict[str, Any], source: Source) -> Row:
    """CMExam: `Options` as lettered lines, `Answer` as one letter or several."""
    raw = item.get("Options")
    options = dict(_CMEXAM_OPTION.findall(raw)) if isinstance(raw, str) else {}
    choices = {k: v.strip() for k, v in options.items()} if len(options) > 1 else options_of(raw)
    if not choices:
        raise RowError("Options: missing")
    return choice_row(
        text_of(item, "Question"), choices, _by_letters(item.get("Answer"), choices, "Answer", source), source
    )


def medxpertqa(item: dict[str, Any], source: Source) -> Row:
    """MedXpertQA (text): the question repeats its options at the end, `label` is the letter of the right one."""
    options = options_of(item.get("options"))
    question = checked(_OPTION_LIST.sub("", text_of(item, "question")), "question")
    row = choice_row(question, options, _by_letter(item.get("label"), options, "label"), source)
    if as_text(item.get("id")):
        row.fields["id"], row.keep_id = f"medxpertqa-{as_text(item['id'])}", True
    return row
