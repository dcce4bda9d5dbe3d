"""The rule verifier: equal names, synonyms and ICD-10 codes. Needs no endpoint, never errs on the generous side."""

import re
from functools import lru_cache

from clinical_r1.schema import Verdict, VerdictLabel
from clinical_r1.verifier.conclusion import read
from clinical_r1.verifier.config import IcdLevel
from clinical_r1.verifier.icd import STATED, clean_code, code_of_title, same_at
from clinical_r1.verifier.judgement import Judgement
from clinical_r1.verifier.normalise import CJK, initials, normalise
from clinical_r1.verifier.synonyms import Synonyms, load_synonyms

SURE = frozenset(("empty", "negated", "hedged", "several"))
"""Refusals that need no second opinion; `different` and `no_conclusion` may only be another wording."""
_LETTER = re.compile(
    r"^\s*(?:(?:the )?(?:correct |final |best )?(?:answer|option|choice)(?: is|:)?|答案(?:是|为|选|：|:)?|选)?"
    r"\s*[(（]?([A-J])[)）]?(?:[.:、：．]\s*(.+?))?\s*[.。]?\s*$",
    re.IGNORECASE | re.DOTALL,
)
_PARENTHESIS = re.compile(r"\s*[(（\[]([^()（）\[\]]*)[)）\]]")


class RuleVerifier:
    """Correct only where the answer asserts the reference, and it alone, by a name or code that is known to mean it."""

    name = "rule"

    def __init__(self, icd_level: IcdLevel = "code", synonyms: Synonyms | None = None) -> None:
        self._level: IcdLevel = icd_level
        self._synonyms = synonyms or load_synonyms()
        self._same = lru_cache(maxsize=16384)(self._compare)

    async def judge(self, item: Judgement) -> Verdict:
        """As `judge_sync`."""
        return self.judge_sync(item)

    def judge_sync(self, item: Judgement) -> Verdict:
        """The verdict, in about 50 microseconds. The reason is one of: equal, synonym, icd10, option; empty,
        no_conclusion, negated, hedged, several, different."""
        reference, answer = item.reference, item.answer
        if item.options:
            reference = _option(reference, item.options) or reference
            chosen = _option(answer, item.options)
            if chosen == "":
                return Verdict(label=VerdictLabel.INCORRECT, judge=self.name, reason="different")
            answer = answer if chosen is None else chosen
        reading = read(answer, lambda phrase: self._same(phrase, reference, item.icd10))
        if reading.finding == "asserted":
            return Verdict(label=VerdictLabel.CORRECT, judge=self.name, reason=reading.reason)
        return Verdict(label=VerdictLabel.INCORRECT, judge=self.name, reason=reading.finding)

    def _compare(self, phrase: str, reference: str, code: str) -> str:
        """Why a phrase names the reference, or ""."""
        if len(phrase) > 4 * len(reference) + 120:
            return ""
        stated = STATED.search(phrase)
        if stated and clean_code(code) and not same_at("category", code, stated[1]):
            return ""
        names = self._readings(phrase)
        wanted = self._readings(reference)
        if not names.isdisjoint(wanted):
            return "equal"
        if any(self._synonyms.same(name, other) for name in names for other in wanted):
            return "synonym"
        return "icd10" if self._same_code(phrase, names, wanted, code) else ""

    def _readings(self, phrase: str) -> frozenset[str]:
        """Normalised forms of a name: as it stands, and without a parenthesis that only restates it."""
        forms = {normalise(phrase)}
        parentheses = _PARENTHESIS.findall(phrase)
        if parentheses:
            bare = _PARENTHESIS.sub("", phrase)
            if all(self._restates(inside, bare) for inside in parentheses):
                forms.add(normalise(bare))
        return frozenset(forms - {""})

    def _restates(self, inside: str, name: str) -> bool:
        """Is a parenthesis the same diagnosis again: an ICD code, its initials, a synonym?"""
        inside = inside.strip()
        if clean_code(re.sub(r"(?i)^icd[- ]?10\s*[:：]?\s*", "", inside)):
            return True
        if not inside or normalise(inside) == normalise(name):
            return True
        if self._synonyms.same(normalise(inside), normalise(name)):
            return True
        return not CJK.search(inside) and inside.isalnum() and inside.lower() == initials(name)

    def _same_code(self, phrase: str, names: frozenset[str], wanted: frozenset[str], code: str) -> bool:
        if self._level == "off":
            return False
        wanted_code = clean_code(code) or next((c for name in wanted if (c := self._synonyms.code(name))), "")
        if not wanted_code:
            return False
        own = clean_code(phrase) or next((c for name in names if (c := self._synonyms.code(name))), "")
        if not own and not CJK.search(phrase) and len(phrase) > 3:
            own = code_of_title(phrase)
        return same_at(self._level, wanted_code, own)


def _option(answer: str, options: list[str]) -> str | None:
    """The text of the choice that a letter stands for; None where the answer is not a letter, or a letter with a text
    that is no choice; "" where letter and text contradict each other."""
    found = _LETTER.match(answer)
    if not found:
        return None
    place = ord(found[1].upper()) - ord("A")
    chosen = options[place] if place < len(options) else ""
    stated = normalise(found[2] or "")
    if not stated or stated == normalise(chosen):
        return chosen
    return "" if stated in map(normalise, options) else None
