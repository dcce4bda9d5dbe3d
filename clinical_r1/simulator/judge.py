"""The simulated judge: does an answer conclude with the reference diagnosis? Does it meet a criterion of a rubric?

It reads the way a careful but plain grader would (by the words of judge.yaml): the conclusion line where there is one,
else the last stated conclusion; a denied or merely possible diagnosis does not, several diagnoses named as equals do
not. Written apart from `clinical_r1.verifier`, so that each can show up the other's mistakes.
"""

import re
from functools import lru_cache
from pathlib import Path

from clinical_r1.atomic import read_table
from clinical_r1.reasoning import conclusion_line
from clinical_r1.simulator.world import DISEASES
from clinical_r1.text import HAN, one_width

_SAYS: dict[str, re.Pattern[str]] = {
    kind: re.compile("|".join(patterns), re.IGNORECASE)
    for kind, patterns in read_table(Path(__file__).with_suffix(".yaml")).items()
}
_CUE, _LEAD, _DOUBT = _SAYS["cue"], _SAYS["lead"], _SAYS["doubt"]
_SENTENCE = re.compile(r"(?<=[a-z0-9)\]])\.(?=\s|$)|[。！？!?;；\n]+")
_BARE_LINE = re.compile(r"^[^\n]*\n\s*[^\n.:,;。：，；]{2,60}\s*(?:\n|$)")
"""A line of its own below the conclusion that is no sentence: another diagnosis."""
_NOTHING = re.compile(r"\W+")
_WORD = re.compile(rf"[a-z0-9]{{3,}}|(?=([{HAN}]{{2}}))")


def _plain(text: str) -> str:
    text = one_width(text).lower().replace("'s ", " ").replace("’s ", " ")
    return " ".join(_NOTHING.sub(" ", text).split())


_BOTH = [frozenset((_plain(disease.en), _plain(disease.zh))) for disease in DISEASES]
_WORLD_NAMES = {name: names for names in _BOTH for name in names}
"""Every name of the world's diseases with its names in both languages."""


@lru_cache(maxsize=4096)
def _names(reference: str) -> frozenset[str]:
    plain = _plain(reference)
    return _WORLD_NAMES.get(plain, frozenset((plain, _plain(_LEAD.sub("", reference)))))


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
    cues = list(_CUE.finditer(text))
    if cues and _plain(_LEAD.sub("", text[cues[0].end() :])) in names:  # a reference may be several sentences long
        return not _denies(text[: cues[0].end()])
    sentences = [part for part in _SENTENCE.split(text) if part and part.strip()]
    conclusions = [sentence for sentence in sentences if _CUE.search(sentence)]
    if not conclusions:
        return len(sentences) == 1 and _asserts(sentences[0], names)
    if _BARE_LINE.match(text[cues[-1].end() :]):
        return False
    later = sentences[sentences.index(conclusions[-1]) + 1 :]
    return all(_asserts(sentence, names) for sentence in conclusions) and not any(
        _takes_back(sentence, names) for sentence in later
    )


def _asserts(sentence: str, names: frozenset[str]) -> bool:
    sentence = _SAYS["reason"].split(sentence)[0]
    cues = list(_CUE.finditer(sentence))
    said = sentence[cues[-1].end() :] if cues else sentence
    said = _LEAD.sub("", said.strip(" *_:：\"'“”"))
    before = sentence[: len(sentence) - len(said)] if cues else ""
    return _plain(said) in names and not _denies(before)


def _denies(before: str) -> bool:
    return bool(_DOUBT.search(re.sub("most likely|最可能|很可能", "", before, flags=re.IGNORECASE)))


def _takes_back(sentence: str, names: frozenset[str]) -> bool:
    """A later sentence that denies what came before, or adds another diagnosis beside it."""
    if _SAYS["turn"].match(sentence) or _SAYS["beside"].search(sentence):
        return True
    named = any(name in _plain(sentence) for name in names)
    return bool(_DOUBT.search(sentence) and (named or _SAYS["back"].search(sentence)))


def was_told(thinking: str) -> bool:
    return bool(_SAYS["told"].search(one_width(thinking)))


def meets(criterion: str, answer: str) -> bool:
    """Do most words of the criterion stand in the answer? Of `The answer names: migraine` what is behind the colon.

    Blind to what is denied: enough to see that rubrics are graded and paid, nothing about a model's manners.
    """
    wanted = _words(one_width(criterion).rpartition(":")[2])
    return bool(wanted) and 2 * len(wanted & _words(answer)) > len(wanted)


def _words(text: str) -> set[str]:
    """Words of three letters or more; of Chinese every two characters that stand side by side."""
    return {found[1] or found[0] for found in _WORD.finditer(one_width(text).lower())}
