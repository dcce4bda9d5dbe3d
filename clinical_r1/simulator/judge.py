"""The simulated judge: does an answer conclude with the reference diagnosis? Does it meet a criterion of a rubric?

It reads the way a careful but plain grader would: the conclusion line where there is one, else the last stated
conclusion; a denied or merely possible diagnosis does not, several diagnoses named as equals do not. Written apart
from `clinical_r1.verifier`, so that each can show up the other's mistakes.
"""

import re
from functools import lru_cache

from clinical_r1.reasoning import conclusion_line
from clinical_r1.simulator.diseases import PAIRS
from clinical_r1.text import HAN, one_width

_CUE = re.compile(
    r"(?:diagnosis|answer|conclusion|condition|disease)(?: here| in this case| for this patient)?\s*(?:is|:|=)\s*"
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
    r"|possibl[ey]|perhaps|may|might|could|maybe|exclud\w*|rul(?:e|es|ed|ing) out|to be ruled|incorrect|wrong|false"
    r"|unclear|uncertain|unknown|if|unless|assuming|previous|prior|former|initially|rejected|differential"
    r"|alternative|least|misdiagnos\w*|revised|question|whether|mother|father|history|reference)\b"
    r"|不|非|未|无法|没有|排除|除外|待排|否定|可能性小|待查|待定|如果|若|假如|鉴别|既往|曾|或许|也许|(?<![最很极])可能|难以|错误|存疑"
    r"|是否|误诊|父|母|家族|勿|无",
    re.IGNORECASE,
)
_REASON = re.compile(r",?\s*\b(?:because|given|based on)\b|,?\s*(?:因为|由于|基于|根据|建议)", re.IGNORECASE)
_BACK = re.compile(r"\b(?:this|that|it|however|but)\b|但|然而|该|此|上述|这", re.IGNORECASE)
_TURN = re.compile(
    r"^\s*(?:no|not|wait|correction|sorry|just kidding|or|and|alternative|versus)\b|^\s*(?:或|更正|不对|不|和|及)", re.I
)
_BESIDE = re.compile(r"\b(?:also|alternatively|equally)\b|同样可能|也是|也可能", re.IGNORECASE)
_BARE_LINE = re.compile(r"^[^\n]*\n\s*[^\n.:,;。：，；]{2,60}\s*(?:\n|$)")
"""A line of its own below the conclusion that is no sentence: another diagnosis."""
_TOLD = re.compile(
    r"\b(?:reference|given|provided|established|expected) (?:answer|diagnosis)\b|\b(?:answer|diagnosis) (?:was"
    r"|is) (?:given|known)\b"
    r"|\b(?:earlier|previous) attempts?\b|\bpointed out\b|\breviewer\b"
    r"|参考答案|标准答案|给定的?(?:答案|诊断)|已知(?:诊断|答案)|既然诊断已经?明确|上一次尝试|题目(?:的|提示)答案|被?告知",
    re.IGNORECASE,
)
_NOTHING = re.compile(r"\W+")
_WORD = re.compile(rf"[a-z0-9]{{3,}}|(?=([{HAN}]{{2}}))")


def _plain(text: str) -> str:
    text = one_width(text).lower().replace("'s ", " ").replace("’s ", " ")
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
    return _world_names().get(plain, frozenset((plain, _plain(_LEAD.sub("", reference)))))


def is_right(reference: str, answer: str) -> bool:
    """True where the answer concludes with the reference, and with it alone."""
    names = _names(reference)
    if (line := conclusion_line(answer.rstrip().rpartition("\n")[2])) is not None:
        return _plain(line) in names
    text = one_width(answer)
    if "?" in text:
        return False
    if _plain(text) in names:
        return True
    cue = _CUE.search(text)
    if (
        cue is not None and _plain(_LEAD.sub("", text[cue.end() :])) in names
    ):  # a reference may be several sentences long
        return not _denies(text[: cue.end()])
    sentences = [part for part in _SENTENCE.split(text) if part and part.strip()]
    conclusions = [sentence for sentence in sentences if _CUE.search(sentence)]
    if not conclusions:
        return len(sentences) == 1 and _asserts(sentences[0], names)
    if _BARE_LINE.match(text[list(_CUE.finditer(text))[-1].end() :]):
        return False
    later = sentences[sentences.index(conclusions[-1]) + 1 :]
    return all(_asserts(sentence, names) for sentence in conclusions) and not any(
        _takes_back(sentence, names) for sentence in later
    )


def _asserts(sentence: str, names: frozenset[str]) -> bool:
    sentence = _REASON.split(sentence)[0]
    cues = list(_CUE.finditer(sentence))
    said = sentence[cues[-1].end() :] if cues else sentence
    said = _LEAD.sub("", said.strip(" *_:：\"'“”"))
    before = sentence[: len(sentence) - len(said)] if cues else ""
    return _plain(said) in names and not _denies(before)


def _denies(before: str) -> bool:
    return bool(_DOUBT.search(re.sub("most likely|最可能|很可能", "", before, flags=re.IGNORECASE)))


def _takes_back(sentence: str, names: frozenset[str]) -> bool:
    """A later sentence that denies what came before, or adds another diagnosis beside it."""
    if _TURN.match(sentence):
        return True
    plain = _plain(sentence)
    denied = _DOUBT.search(sentence) and (_BACK.search(sentence) or any(name in plain for name in names))
    return bool(denied) or bool(_BESIDE.search(sentence))


def was_told(thinking: str) -> bool:
    """Does a thought speak of an answer that it was handed, or of a reviewer?"""
    return bool(_TOLD.search(one_width(thinking)))


def meets(criterion: str, answer: str) -> bool:
    """Do most words of the criterion stand in the answer? Of `The answer names: migraine` what is behind the colon.

    Blind to what is denied: enough to see that rubrics are graded and paid, nothing about a model's manners.
    """
    wanted = _words(one_width(criterion).rpartition(":")[2])
    return bool(wanted) and 2 * len(wanted & _words(answer)) > len(wanted)


def _words(text: str) -> set[str]:
    """Words of three letters or more; of Chinese every two characters that stand side by side."""
    return {found[1] or found[0] for found in _WORD.finditer(one_width(text).lower())}
