"""The simulated judge: does an answer conclude with the reference diagnosis?

It reads the way a careful but plain grader would: the last stated conclusion counts, a denied or merely possible
diagnosis does not, several diagnoses named as equals do not. Written apart from `clinical_r1.verifier`, so that each
can show up the other's mistakes.
"""

import re
import unicodedata
from functools import lru_cache

from clinical_r1.simulator.diseases import PAIRS

_CUE = re.compile(
    r"(?:diagnosis|answer|conclusion)(?: here| in this case| for this patient)?\s*(?:is|:|=)\s*"
    r"|(?:diagnos(?:is of|ed with)|consistent with|indicative of|suffers from)\s+"
    r"|(?:诊断|答案|结论|判断)\s*(?:考虑)?\s*(?:是|为|:|=)\s*|(?:考虑为|符合|确诊为|患有)\s*",
    re.IGNORECASE,
)
_LEAD = re.compile(
    r"^(?:(?:most likely|likely|probably|therefore|thus|an?|the)\s+|最可能(?:是|为)?|很可能(?:是|为)?|是|为)+", re.I
)
_SENTENCE = re.compile(r"(?<=[a-z0-9)\]])\.(?=\s|$)|[。！？!?;；\n]+")
_DOUBT = re.compile(
    r"\b(?:not|no|never|neither|nor|cannot|can't|isn't|doubt\w*|without|against|unlikely|improbable|less likely"
    r"|possibl[ey]|perhaps|may|might|could|maybe|exclud\w*|rul(?:e|es|ed|ing) out|to be ruled|incorrect|wrong|false|unclear|uncertain"
    r"|unknown)\b"
    r"|不|非|未|无法|没有|排除|除外|待排|否定|可能性小|或许|也许|(?<![最很极])可能|难以|错误|存疑",
    re.IGNORECASE,
)
_SEVERAL = re.compile(r"[,，、/;；+&]|\b(?:and|or|versus|vs|as well as|plus)\b|或者?|以及|及|和|与|还有", re.IGNORECASE)
_NOTHING = re.compile(r"[^\w一-鿿]+")


def _plain(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).lower().replace("'s ", " ").replace("’s ", " ")
    return " ".join(_NOTHING.sub(" ", text).split())


@lru_cache(maxsize=1)
def _world_names() -> dict[str, frozenset[str]]:
    """Every name of the world's diseases with its names in both languages."""
    diseases = [disease for pair in PAIRS for disease in (pair.common, pair.rare)]
    both = [frozenset((_plain(disease.en), _plain(disease.zh))) for disease in diseases]
    return {name: names for names in both for name in names}


@lru_cache(maxsize=4096)
def _names(reference: str) -> frozenset[str]:
    plain = _plain(reference)
    return _world_names().get(plain, frozenset((plain,)))


def is_right(reference: str, answer: str) -> bool:
    """True where the answer concludes with the reference, and with it alone."""
    names = _names(reference)
    if _plain(answer) in names:
        return True
    sentences = [part for part in _SENTENCE.split(unicodedata.normalize("NFKC", answer)) if part and part.strip()]
    conclusions = [sentence for sentence in sentences if _CUE.search(sentence)]
    if not conclusions:
        return len(sentences) == 1 and _asserts(sentences[0], names)
    return all(_asserts(sentence, names) for sentence in conclusions) and not any(
        _takes_back(sentence) for sentence in sentences[sentences.index(conclusions[-1]) + 1 :]
    )


def _asserts(sentence: str, names: frozenset[str]) -> bool:
    cues = list(_CUE.finditer(sentence))
    said = sentence[cues[-1].end() :] if cues else sentence
    said = _LEAD.sub("", said.strip(" *_:：\"'“”"))
    if _plain(said) not in names:
        return False
    before = sentence[: len(sentence) - len(said)] if cues else ""
    return not _DOUBT.search(before.replace("most likely", "").replace("最可能", "").replace("很可能", ""))


def _takes_back(sentence: str) -> bool:
    """A later sentence that denies what came before, or adds another diagnosis beside it."""
    denied = _DOUBT.search(sentence) and re.search(
        r"\b(?:this|that|it|however|but)\b|但|然而|该|此|上述|这", sentence, re.IGNORECASE
    )
    return bool(denied) or bool(re.search(r"\b(?:also|alternatively|equally)\b|同样可能|也是", sentence, re.IGNORECASE))
