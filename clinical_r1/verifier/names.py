"""The one place that knows names: do two names mean the same disease, and where does a text name one?

A name is its spellings (`normalise`), its groups (`synonyms.tsv` and a user's file of the same form), its ICD-10 title,
and what a user's terminology (code, tab, name) holds. Verifier, leakage check and chain analysis ask here.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

from clinical_r1.errors import UserError
from clinical_r1.text import HAN, has_han
from clinical_r1.verifier import detail
from clinical_r1.verifier.normalise import (
    RELATIONS,
    STATED,
    IcdLevel,
    chosen,
    clean_code,
    code_of_title,
    initials,
    normalise,
    plain,
    same_at,
    words,
)

OWN = Path(__file__).with_name("synonyms.tsv")
Match = Literal["", "equal", "synonym", "icd10", "detail"]
_PARENTHESIS = re.compile(r"\s*[(（\[]([^()（）\[\]]*)[)）\]]")
_SHORT_WORDS = frozenset(
    ("all", "aids", "ms", "mm", "pe", "mi", "as", "an", "et", "ed", "pd", "aa", "cap", "mono", "cf")
)

_ANY_DISEASE = frozenset(("acute", "chronic", "disease", "syndrome", "disorder", "primary", "infection", "type"))
_ANY_DISEASE_ZH = re.compile("急性|慢性|原发性|综合征|感染|障碍|性(?=疾?病|炎)|症$|病$|疾病|炎$")


@dataclass(frozen=True, eq=False)
class Table:
    """Normalised name -> its groups, the groups' codes and narrower names, and a user's terminology."""

    groups: dict[str, frozenset[int]]
    codes: dict[int, str]
    narrower: dict[str, frozenset[int]]
    members: dict[int, tuple[str, ...]]
    written: dict[int, tuple[str, ...]]
    """Names of a group as they are written."""
    terms: dict[str, str] = field(default_factory=dict)
    """Normalised name -> its national code, where the user's terminology gives it exactly one."""

    def same(self, one: str, other: str) -> bool:
        """Do two normalised names share a group?"""
        return not self.groups.get(one, frozenset()).isdisjoint(self.groups.get(other, frozenset()))

    def code(self, name: str) -> str:
        """The code of a normalised name; empty where it has none, or more than one."""
        found = {self.codes[group] for group in self.groups.get(name, ()) if self.codes[group]}
        return found.pop() if len(found) == 1 else clean_code(self.terms.get(name, ""))


@lru_cache(maxsize=8)
def load_names(further: Path | None = None, terminology: Path | None = None) -> Table:
    """The project's own groups, those of a user's file, and a user's terminology; UserError for a line that is none."""
    names: defaultdict[str, set[int]] = defaultdict(set)
    narrower: defaultdict[str, set[int]] = defaultdict(set)
    codes: dict[int, str] = {}
    written: dict[int, tuple[str, ...]] = {}
    for path in (OWN, further) if further else (OWN,):
        for number, line in _lines(path, "`synonyms` names a file of groups such as `I21.9|heart attack|AMI`"):
            code, *members = [part.strip() for part in line.split("|")]
            if not members or (code and not clean_code(code)):
                raise UserError(
                    f"{path}:{number}: not a synonym group; write an ICD-10 code (or nothing), |, and names"
                )
            group = len(codes)
            codes[group] = clean_code(code)
            written[group] = tuple(member.lstrip("> ") for member in members)
            for member in members:
                (narrower if member.startswith(">") else names)[normalise(member.lstrip(">"))].add(group)
    listed: defaultdict[int, list[str]] = defaultdict(list)
    for name, groups in names.items():
        for group in groups:
            listed[group].append(name)
    own, below = ({name: frozenset(groups) for name, groups in table.items()} for table in (names, narrower))
    members_of = {group: tuple(found) for group, found in listed.items()}
    return Table(own, codes, below, members_of, written, _terms(terminology) if terminology else {})


def _lines(path: Path, what: str) -> list[tuple[int, str]]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; {what}")
    held = path.read_bytes()
    try:
        lines = enumerate(held.decode("utf-8-sig").splitlines(), 1)
    except UnicodeDecodeError as error:
        number = held.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{number}: not UTF-8; save it as UTF-8 (iconv -f GB18030 -t UTF-8, say)") from None
    return [(number, line) for number, line in lines if line.strip() and not line.startswith("#")]


def _terms(path: Path) -> dict[str, str]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for number, line in _lines(path, "`terminology` names a file of lines `ICD-10 code<TAB>name`"):
        code, tab, name = line.partition("\t")
        if not tab or not clean_code(code.strip()) or not name.strip():
            if number == 1:
                continue  # a header
            raise UserError(f"{path}:{number}: not a term; write an ICD-10 code, a tab and a name")
        found[normalise(name)].add(code.strip())
    return {name: codes.pop() for name, codes in found.items() if len(codes) == 1}


class Names:
    """Compares names by one table and at one ICD-10 level; comparisons are cached."""

    def __init__(self, table: Table | None = None, level: IcdLevel = "code") -> None:
        self.table = table or load_names()
        self._level: IcdLevel = level
        self.match = lru_cache(maxsize=32768)(self._match)

    def _match(self, phrase: str, reference: str, code: str = "") -> Match:
        """Why a phrase names the reference (`code`: its ICD-10 code where the record has one), or ""."""
        phrase, reference = plain(phrase), plain(reference)
        if len(phrase) > 4 * len(reference) + 120 or not normalise(phrase):
            return ""
        stated = STATED.search(phrase)
        if stated and clean_code(code) and not same_at("category", code, stated[1]):
            return ""
        said, wanted = self._forms(phrase), self.names_of(reference)
        if not said.isdisjoint(wanted):
            return "equal" if self._spelled(phrase, said & wanted) else ""
        wanted = self._own(reference, wanted)
        if any(self.table.same(name, other) for name in said for other in wanted) and self._spelled(phrase, said):
            return "synonym"
        if self._same_code(phrase, said, wanted, code):
            return "icd10"
        return "detail" if self._is_detail(phrase, said, wanted) else ""

    def names_of(self, reference: str) -> frozenset[str]:
        """Normalised names of a reference: as written, and its parts where a parenthesis only restates the name."""
        forms = set(self._forms(reference))
        for inside in _PARENTHESIS.findall(reference):
            if self._restates(inside, _PARENTHESIS.sub("", reference)) and not clean_code(inside):
                forms.add(normalise(inside))
        return frozenset(forms - {""})

    def _own(self, reference: str, names: frozenset[str]) -> frozenset[str]:
        """Names of a reference without an abbreviation that the table knows for another disease too (`autism spectrum
        disorder (ASD)` is no atrial septal defect): no name of such a group has a word in common with the reference."""
        bare = _content(_PARENTHESIS.sub("", reference))
        if not bare or has_han(reference) or "(" not in reference:
            return names

        def foreign(group: int) -> bool:
            members = (name for name in self.table.members[group] if len(name) > 5 and not has_han(name))
            return all(bare.isdisjoint(_content(name)) for name in members)

        known = self.table.groups
        return frozenset(n for n in names if len(n) > 5 or not any(foreign(group) for group in known.get(n, ())))

    def code(self, phrase: str) -> str:
        """The ICD-10 code of a name or of a written code; "" where nothing tells."""
        if own := clean_code(phrase):
            return own
        found = next((c for name in sorted(self._forms(plain(phrase))) if (c := self.table.code(name))), "")
        return found or (code_of_title(phrase) if not has_han(phrase) and len(phrase) > 3 else "")

    def written(self, reference: str) -> list[str]:
        """All names of a reference as they are written: its own parts and those of its groups, longest first."""
        bare = _PARENTHESIS.sub("", reference).strip()
        inside = [part.strip() for part in _PARENTHESIS.findall(reference) if self._restates(part, bare)]
        found = {reference.strip(" .。"), bare if inside or bare == reference else reference, *inside}
        for name in self._own(plain(reference), self.names_of(plain(reference))):
            for group in self.table.groups.get(name, ()):
                found.update(self.table.written[group])
        return sorted((name for name in found if normalise(name)), key=lambda name: (-len(name), name))

    def differs(self, phrase: str, reference: str, code: str = "") -> bool:
        """Is a phrase surely another disease: a known name of another ICD-10 category, without a word in common?"""
        own, wanted = self.code(phrase), clean_code(code) or self.code(reference)
        if not own or not wanted or own[:3] == wanted[:3]:
            return False
        said, others = _content(phrase), [_content(name) for name in {reference, *self.names_of(plain(reference))}]
        return all(said.isdisjoint(other) for other in others)

    def another_in(self, text: str, reference: str, code: str = "") -> bool:
        """Does a text name a disease (no symptom, no injury) that surely is not the reference?"""
        latin = re.findall(r"[A-Za-z0-9'-]+", text)
        spans = [" ".join(latin[i:j]) for i in range(len(latin)) for j in range(i + 1, min(i + 6, len(latin)) + 1)]
        for run in re.findall(f"[{HAN}]+", text):
            spans += [run[i:j] for i in range(len(run)) for j in range(i + 2, min(i + 12, len(run)) + 1)]
        known = (
            span for span in spans if len(span) > (1 if has_han(span) else 4) and self.code(span)[:1] not in "RSTUVWXYZ"
        )
        return any(self.differs(span, reference, code) for span in known)

    def _forms(self, phrase: str) -> frozenset[str]:
        """Normalised forms of a name: as it stands, and without a parenthesis that only restates it."""
        forms = {normalise(phrase), normalise(chosen(phrase))}
        parentheses = _PARENTHESIS.findall(phrase)
        if parentheses:
            bare = _PARENTHESIS.sub("", phrase)
            if len(parentheses) == 1 and re.fullmatch("[甲乙丙丁戊]型", parentheses[0]):
                forms.add(normalise(parentheses[0] + bare))
            if all(self._restates(inside, bare) for inside in parentheses):
                forms.add(normalise(bare))
        return frozenset(forms - {""})

    def _restates(self, inside: str, name: str) -> bool:
        """Is a parenthesis the same diagnosis again: an ICD code, its initials, a synonym?"""
        inside = inside.strip()
        if clean_code(re.sub(r"(?i)^icd[- ]?10\s*[:：]?\s*", "", inside)):
            return True
        if not inside or normalise(inside) == normalise(name) or self.table.same(normalise(inside), normalise(name)):
            return True
        if has_han(inside) or not inside.replace("-", "").isalnum():
            return False
        short = re.sub(r"\W", "", inside).lower()
        return short == initials(name) or (inside.isupper() and len(short) <= 5 and _abbreviates(short, name))

    def _spelled(self, phrase: str, forms: frozenset[str]) -> bool:
        """A short word that is also English (`all`, `as`) is an abbreviation only in capitals."""
        return not any(form in _SHORT_WORDS for form in forms) or phrase.strip(" .*").isupper()

    def _same_code(self, phrase: str, said: frozenset[str], wanted: frozenset[str], code: str) -> bool:
        if self._level == "off":
            return False
        if self._level != "code":  # nearness: every known code counts
            reference = clean_code(code) or next((c for name in wanted if (c := self.table.code(name))), "")
            return same_at(self._level, reference, self.code(phrase))
        terms = self.table.terms
        if {terms.get(name, "") for name in said} & {terms.get(name, "") for name in wanted} - {""}:
            return True
        own = clean_code(phrase) or ("" if has_han(phrase) or len(phrase) <= 3 else code_of_title(phrase))
        return same_at("code", clean_code(code), own)

    def _is_detail(self, phrase: str, said: frozenset[str], wanted: frozenset[str]) -> bool:
        bare, parentheses = _PARENTHESIS.sub("", phrase), _PARENTHESIS.findall(phrase)
        if parentheses and all(
            detail.parenthesis_fits(inside) or self._restates(inside, bare) for inside in parentheses
        ):
            return self._adds(bare, wanted)
        if (
            len(parentheses) == 1
            and phrase.rstrip().endswith((")", "）"))
            and self._related(bare, parentheses[0], wanted)
        ):
            return True
        return not parentheses and self._adds(phrase, wanted)

    def _related(self, bare: str, inside: str, wanted: frozenset[str]) -> bool:
        """`primary liver cancer (hepatocellular carcinoma)`: the parenthesis is the reference, and what stands before
        it a name of the same ICD-10 category."""
        one, other = self.code(bare), self.code(inside)
        same = normalise(inside) in wanted or any(self.table.same(normalise(inside), name) for name in wanted)
        return same and one != "" and one[:3] == other[:3]

    def _adds(self, phrase: str, wanted: frozenset[str]) -> bool:
        """Is the phrase a name of the reference (or of its group) with fitting detail?"""
        form = normalise(phrase)
        groups = {group for name in wanted for group in self.table.groups.get(name, ())}
        known = wanted.union(*(self.table.members[group] for group in groups))
        known |= {name for name, above in self.table.narrower.items() if not groups.isdisjoint(above)}
        if form in known:
            return True
        if has_han(form):
            return any(has_han(name) and detail.fits_chinese(form, name) for name in known)
        said = words(phrase)
        return any(not has_han(name) and len(name) > 3 and detail.fits_english(said, name.split()) for name in known)


def _abbreviates(short: str, name: str) -> bool:
    """Do the letters of an abbreviation stand in the name in their order, the first one first?"""
    letters = re.sub(r"[^a-z0-9]", "", plain(name).lower())
    left = iter(letters)
    return letters[:1] == short[0] and all(letter in left for letter in short)


def _content(name: str) -> set[str]:
    """What two names of related diseases would share: longer words, or pairs of Chinese characters; not what any two
    diseases may share."""
    form = normalise(name)
    if has_han(form):
        form = _ANY_DISEASE_ZH.sub("　", form)
        return {form[i : i + 2] for i in range(len(form) - 1) if "　" not in form[i : i + 2]}
    return {word for word in form.split() if word not in RELATIONS and word not in _ANY_DISEASE and len(word) > 2}


@lru_cache(maxsize=8)
def _names(table: Table | None) -> Names:
    return Names(table)


def same_disease(one: str, other: str, table: Table | None = None) -> bool:
    """Do two names mean the same disease (spelling, synonym, ICD-10 title), without more or less detail?"""
    return _names(table).match(one, other) in ("equal", "synonym", "icd10")


def names_in(text: str, reference: str, table: Table | None = None) -> list[tuple[int, int]]:
    """Where a text names a reference, as [start, end): by any name that is known for it, denied or not.

    Latin names end at a word's edge, with a plural's ending or without; a name of up to three capitals is looked for in
    capitals, one of a single character not at all.
    """
    pattern = _mention_pattern(reference, table)
    return [found.span() for found in pattern.finditer(text)] if pattern else []


@lru_cache(maxsize=8192)
def _mention_pattern(reference: str, table: Table | None) -> re.Pattern[str] | None:
    parts = []
    for name in _names(table).written(reference):
        if has_han(name):
            parts.append(r"\s*".join(re.escape(character) for character in name if not character.isspace()))
        elif sum(character.isalnum() for character in name) >= 2:
            body = r"[\s-]*".join(re.escape(word) for word in re.split(r"[\s-]+", name))
            exact = name.isupper() and len(name) <= 3
            parts.append(rf"(?<![A-Za-z0-9]){body if exact else f'(?i:{body}(?:e?s)?)'}(?![A-Za-z0-9])")
    parts = [part for part in parts if len(part) > 1]
    return re.compile("|".join(parts)) if parts else None
