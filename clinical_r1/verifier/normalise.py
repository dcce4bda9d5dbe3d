"""One spelling for each name of a diagnosis, English or Chinese."""

import re
import unicodedata
from functools import lru_cache

CJK = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_TOKEN = re.compile(r"[a-z0-9]+")
_NOT_CJK_NAME = re.compile(r"[^a-z0-9\u3400-\u4dbf\u4e00-\u9fff]+")
_DROPPED = frozenset(("a", "an", "the", "of", "unspecified", "nos"))
_RELATIONS = frozenset(
    ("due", "secondary", "to", "after", "following", "from", "with", "without", "caused", "by", "in", "on", "than",
     "versus", "vs", "before", "not", "no", "non", "and", "or")
)  # fmt: skip
_ROMAN = {"i": "1", "ii": "2", "iii": "3", "iv": "4", "v": "5"}
_GRADED = frozenset(("type", "stage", "grade", "class"))
_BRITISH = (
    ("haem", "hem"), ("anaem", "anem"), ("oedem", "edem"), ("oesoph", "esoph"), ("rrhoe", "rrhe"), ("tumour", "tumor"),
    ("paed", "ped"), ("leucocyt", "leukocyt"), ("leukaem", "leukem"), ("foet", "fet"), ("coeliac", "celiac"),
    ("gynaec", "gynec"), ("ischaem", "ischem"), ("caesar", "cesar"), ("aetiol", "etiol"), ("caec", "cec"),
    ("faec", "fec"), ("glycaem", "glycem"), ("septicaem", "septicem"), ("uraem", "urem"), ("pnoea", "pnea"),
)  # fmt: skip


def fold(text: str) -> str:
    """Half-width, lower case, plain apostrophes and dashes."""
    text = unicodedata.normalize("NFKC", text).lower()
    return text.replace("’", "'").replace("‘", "'").replace("–", "-").replace("—", "-").replace("\u00ad", "")


@lru_cache(maxsize=8192)
def normalise(name: str) -> str:
    """The form that two spellings of one name share; empty for a text without letters.

    English: possessive and plural endings, articles, punctuation, British spelling and the order of words do not count
    (`carcinoma, prostate` = `prostate carcinomas`), unless the name relates two things (`A due to B` is not `B due to
    A`). Chinese: spaces, punctuation and 的 do not count.
    """
    text = fold(name)
    if CJK.search(text):
        return _NOT_CJK_NAME.sub("", text).replace("的", "")
    text = "".join(
        character for character in unicodedata.normalize("NFKD", text) if not unicodedata.combining(character)
    )
    tokens = _TOKEN.findall(text.replace("'s ", " ").removesuffix("'s").replace("s' ", "s "))
    tokens = [_singular(_american(token)) for token in tokens if token not in _DROPPED]
    for place in range(1, len(tokens)):
        if tokens[place - 1] in _GRADED:
            tokens[place] = _ROMAN.get(tokens[place], tokens[place])
    if _RELATIONS.isdisjoint(tokens):
        tokens.sort()
    return " ".join(tokens)


def _american(token: str) -> str:
    for british, american in _BRITISH:
        if british in token:
            token = token.replace(british, american)
    return token


def _singular(token: str) -> str:
    if len(token) > 4 and token.endswith("s") and not token.endswith(("ss", "us", "is")):
        return token[:-1]
    return token


def initials(name: str) -> str:
    """First letters of an English name: `COPD` for `chronic obstructive pulmonary disease`."""
    return "".join(word[0] for word in re.findall(r"[a-z0-9]+", fold(name)) if word not in ("of", "the", "and", "a"))
