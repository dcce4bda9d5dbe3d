"""Replies to cases from outside of the simulated world.

The simulator knows nothing about them except an answer key that it may have been handed. With it, it plays a teacher
of a stated competence whose reasoning is made of the case's own sentences: enough to run real records through the
pipeline and to measure the machinery, useless as medicine. Without a key it says that it does not know.
"""

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass

from clinical_r1.asking import asks_for
from clinical_r1.reasoning import CONCLUSION_LABELS, with_conclusion
from clinical_r1.schema import Case
from clinical_r1.simulator.diseases import Language, phrases_of

DEFAULT_COMPETENCE = 0.6
_SENTENCES = re.compile(r"(?<=[a-z0-9)%])[.?!]\s+|[。！？；\n]+")
_ASKS = re.compile(
    r"(?i)[?？]|^(?:what|which|who|whom|whose|where|when|why|how|is|are|does|do|can|could|would|should|given|based)\b"
    r".*\b(?:diagnos\w*|cause|treatment|management|mechanism|step|condition|disease|explain\w*)\b"
    r"|什么|哪[一种个项]|如何|请问|请(?:给出|诊断|判断|说明|分析)|吗$|是否"
)
"""A sentence that asks is no finding."""

_PHRASES = phrases_of("outside")


def _plain(text: str) -> str:
    return "".join(text.split())


@dataclass(frozen=True)
class AnswerKey:
    """References by case text, and the pool that wrong answers are drawn from."""

    references: dict[str, str]
    pool: dict[Language, list[str]]

    @classmethod
    def of(cls, cases: Iterable[Case]) -> "AnswerKey":
        """The key of a set of cases."""
        references: dict[str, str] = {}
        pool: dict[Language, set[str]] = {"en": set(), "zh": set()}
        for case in cases:
            references[_plain(case.question)] = case.reference
            pool[case.language].add(case.reference)
        return cls(references, {language: sorted(names) for language, names in pool.items()})

    def reference(self, case_text: str) -> str | None:
        """The reference of a case, or None where the key does not hold it."""
        while case_text:
            if (found := self.references.get(_plain(case_text))) is not None:
                return found
            case_text = case_text.rpartition("\n\n")[0]  # without the request for a line, the list of choices
        return None

    def other(self, reference: str, language: Language, rng: random.Random) -> str:
        """Another case's reference: plausible in form, wrong in fact."""
        names = [name for name in rng.choices(self.pool[language], k=8) if _plain(name) != _plain(reference)]
        return names[0] if names else _PHRASES[language]["unknown"][0]


def answer(key: AnswerKey, case_text: str, language: Language, competence: float, rng: random.Random) -> str:
    """Right with chance `competence`, else another case's answer; not known without a key."""
    reference = key.reference(case_text)
    if reference is None:
        return _PHRASES[language]["unknown"][0]
    return reference if rng.random() < competence else key.other(reference, language, rng)


def reasoning(
    case_text: str, stated: str, language: Language, strategy: str, wrong: list[str], rng: random.Random
) -> str:
    """A chain of thought over the case's own sentences that ends at `stated`."""
    phrases = _PHRASES[language]
    parts = [_pick(phrases, strategy if strategy in phrases else "open", rng)]
    if wrong:
        parts.append(_pick(phrases, "not", rng).format(w=wrong[-1]))
    sentences = [sentence.strip(" .。") for sentence in _SENTENCES.split(case_text) if sentence.strip(" .。")]
    findings = [sentence for sentence in sentences if not _ASKS.search(sentence)]
    sentences = findings or sentences
    if len(sentences) > 6:
        sentences = [sentences[index] for index in sorted(rng.sample(range(len(sentences)), 6))]
    for number, sentence in enumerate(sentences):
        form = phrases["next"][0 if number == 0 else 1 + rng.randrange(len(phrases["next"]) - 1)]
        parts.append(form.format(s=sentence))
    parts += [_pick(phrases, "turn", rng), _pick(phrases, "end", rng).format(a=stated)]
    return _join(parts, language)


def rewrite(reasonings: list[str], language: Language) -> str:
    """The natural thinking of a chain: the first try, then the last one, each as it was."""
    return reasonings[0] if len(reasonings) == 1 else _join([reasonings[0], reasonings[-1]], language)


def response(case_text: str, stated: str, language: Language) -> str:
    """The formal answer, with its conclusion line."""
    kind = asks_for(case_text)
    if CONCLUSION_LABELS[language, "answer"].rstrip() in case_text:
        kind = "answer"
    stated = stated.strip(" .。")
    return with_conclusion(_PHRASES[language][kind][0].format(a=stated), stated, language, kind)


def _pick(phrases: dict[str, list[str]], name: str, rng: random.Random) -> str:
    return phrases[name][rng.randrange(len(phrases[name]))]


def _join(parts: list[str], language: Language) -> str:
    return (" " if language == "en" else "").join(parts)
