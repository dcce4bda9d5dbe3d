"""Names in Latin letters, with any accent: what stands around a capitalised word says whether it is a person.

Lists alone would know the names of one country. So a title, a label or a kinship makes any word behind it a name, a
verb of persons makes an unknown word before it one, and lists (of names, and of words, drugs, eponyms) settle what is
left. What stands around is in `names_en.yaml`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from clinical_r1.privacy.forms_en import find_forms
from clinical_r1.privacy.lexicon import english, rules
from clinical_r1.privacy.spans import Span
from clinical_r1.privacy.words_en import (
    Word,
    is_abbreviation,
    is_clinical,
    is_everyday,
    is_first,
    is_last,
    is_pinyin_name,
    is_unknown,
    of_family,
    pieces_of,
    runs_of,
    words_of,
)

RULE, _, WORDS = rules("names_en")


def find_names_en(text: str) -> Iterator[Span]:
    """Names in Latin letters in folded text."""
    words = words_of(text)
    last, passed = 0, None
    for piece in (piece for run in runs_of(text, words) for piece in pieces_of(text, run)):
        found = _judge(text, piece)
        joined = last and piece[0].start - last <= 5 and re.fullmatch(r"\s(?:and|&|und)\s", text[last : piece[0].start])
        thing = RULE["thing"].match(text[piece[-1].end :][:60])
        if not found and joined and not thing and (is_first(piece[0]) or is_unknown(piece[0])):
            found = Span(piece[0].start, piece[-1].end)  # `Chase and Summer`
        last = found.end if found and not found.doubt else 0
        if found:
            if last and passed and re.fullmatch(r"\s(?:and|&)\s", text[passed.end : found.start]):
                yield Span(passed.start, passed.end)  # `Tom and Lucy`
            yield found
        lone = len(piece) == 1 and piece[0].letters > 1 and not found and is_first(piece[0])
        passed = piece[0] if lone and piece[0].plain not in english().clinical else None
    yield from find_forms(text, words)


def _judge(text: str, run: list[Word]) -> Span | None:
    """Cut what is no name off the ends of a run, then weigh what is left by what stands around it."""
    titled = False
    while run and (run[0].plain in WORDS["titles"] or (run[0].plain in WORDS["particles"] and not run[0].capital)):
        titled = titled or run[0].plain in WORDS["titles"]
        run = run[1:]
    while run and run[-1].plain.upper() in WORDS["credentials"]:
        run = run[:-1]
    if not run:
        return None
    before = text[max(0, run[0].start - 70) : run[0].start]
    titled = titled or bool(RULE["title_before"].search(before[-32:]))
    if titled and run[0].plain in WORDS["not_after_title"] and text[run[0].end : run[0].end + 1] != ".":
        return None
    function = run[0].plain in WORDS["function"]
    field = RULE["field_end"].search(before[-4:]) and RULE["left_field"].search(before)
    if not titled and len(run) == 1 and (function or (run[0].letters < 3 and not field)):
        return None
    named = RULE["left_named"].search(before[-40:]) and not function
    strong = titled or named or (field and not _filled_by_prose(text, run))
    run = _until_prose(run) if titled else run if strong else _trimmed(text, run)
    if not run or (len(run) == 1 and run[0].letters == 1):
        return None
    start, end = run[0].start, run[-1].end
    after = text[end + (run[-1].letters == 1 and text[end : end + 1] == ".") :][:60]  # `Maria G. is 34`
    thing = RULE["thing"].match(after)
    if titled and thing and all(is_clinical(word) for word in run if word.letters > 1):
        return None  # `Sister Mary Joseph nodule`
    sure = True
    if not strong:
        if thing and not RULE["tells"].match(after):
            return None
        if RULE["graded"].match(after) and not any(is_first(word) and not is_clinical(word) for word in run):
            return None  # `House-Brackmann IV`, `Tanner IV`
        said = _said(text, run, _Around.of(text[max(0, start - 70) : start], after))
        if said is None:
            return None
        sure = said
    initials = RULE["initials_before"].search(text[max(0, start - 14) : start])  # of `J. P. Worthington`
    return Span(start - len(initials.group()) if initials else start, end, doubt=not sure)


def _filled_by_prose(text: str, run: list[Word]) -> bool:
    """`Patient: Denies pain`, `Name: Unknown`: a label before prose."""
    words = [word for word in run if word.letters > 1]
    if not words or words[0].plain in WORDS["nobody"]:
        return True
    if all(is_everyday(word) for word in words):
        ends = re.match(r"\s{0,2}(?:$|[.,;)\n|(+\d]|MD|DOB)", text[run[-1].end :][:12])
        if not ends or not any(is_first(word) or is_last(word) for word in words):
            return True
    return is_abbreviation(words[0]) and len(words) == 1


def _trimmed(text: str, run: list[Word]) -> list[Word]:
    """Without leading and trailing words of prose; those that are names too stay where a name stands beside them."""
    if of_family(run):
        return run
    clinical = english().clinical
    while len(run) > 1 and run[0].letters > 1 and is_everyday(run[0]):
        short = run[0].letters < 5 and not run[0].text.isupper()  # `Ana`: no antibody
        beside = is_last(run[1]) or is_unknown(run[1]) or run[1].letters == 1
        if is_first(run[0]) and (short or run[0].plain not in clinical) and beside:
            break
        if "," in text[run[0].end : run[1].start]:
            break
        run = run[1:]
    while len(run) > 1 and run[-1].letters > 1 and is_everyday(run[-1]) and not is_last(run[-1]):
        if run[-1].plain in clinical:
            break
        run = run[:-1]
    while len(run) > 1 and run[-1].plain in WORDS["particles"] and not run[-1].capital:
        run = run[:-1]
    return run


def _until_prose(run: list[Word]) -> list[Word]:
    """Behind a title: the first word is a name; later ones while they may be."""
    for place, word in enumerate(run[1:], 1):
        particle = word.plain in WORDS["particles"] or word.letters == 1
        if not particle and is_everyday(word) and not (is_first(word) or is_last(word)):
            return run[:place]
    return run


@dataclass(frozen=True)
class _Around:
    """What the text before and behind a run says of it."""

    before: str
    after: str
    verb: bool
    """Behind it: what only persons do, have or are."""
    relation: bool
    """Before it: whose it is, or a word for a person."""
    agent: bool
    """Before it: somebody acts on it."""
    opening: bool
    """It begins a sentence."""

    @classmethod
    def of(cls, before: str, after: str) -> "_Around":
        verb = any(RULE[rule].match(after) for rule in ("sure_verb", "possessed", "demographic"))
        relation, agent = (bool(RULE[rule].search(before)) for rule in ("left_person", "left_agent"))
        return cls(before, after, verb, relation, agent, not before or bool(RULE["opening"].search(before)))


def _said(text: str, run: list[Word], around: _Around) -> bool | None:
    """Is an unlabelled run a person's name? True where something says so, False where it is in doubt, else None."""
    words = [word for word in run if word.letters > 1 and (word.capital or word.plain not in WORDS["particles"])]
    if of_family(run):
        return True
    derived = len(words) == 1 and _is_derived(words[0]) and around.relation
    if not derived and all(is_everyday(word) and not is_first(word) and not is_last(word) for word in words):
        return None
    agent = around.agent
    if (
        RULE["credential"].match(around.after)
        and (agent or not any(is_clinical(word) for word in words))
        and any(is_unknown(w) or is_first(w) or (is_last(w) and (agent or not is_everyday(w))) for w in words)
    ):
        return True
    if len(words) > 1:
        return _is_pair(text, run, words, around) or None
    word = words[0]
    if word.plain in WORDS["function"]:
        return None
    if _is_single(run, word, around):
        return True
    # A lone surname in the middle of a sentence may be a person or an unlisted eponym: a doubt.
    lone = is_last(word) and not is_everyday(word) and word.letters > 3 and not word.text.isupper()
    beside = RULE["some_before"].search(around.before) and RULE["some_behind"].match(around.after)
    return False if lone and not around.opening and beside else None


def _is_pair(text: str, run: list[Word], words: list[Word], around: _Around) -> bool:
    all_everyday = all(is_everyday(word) for word in words)
    if around.verb and all(word.text.isupper() and word.letters > 3 for word in words) and not all_everyday:
        return True  # `LUDVIG TOFT tolerated`: no abbreviations
    if len(words) > 5:
        return False
    if any("," in text[a.end : b.start] for a, b in pairwise(run)):
        return True  # `SURNAME, Given` was looked at when the run was cut
    strange = [word for word in words if is_unknown(word)]
    clinical = [word for word in words if is_clinical(word)]
    first = is_first(words[0]) and words[0] not in clinical
    owner = bool(re.match(r"['’]s\s[a-z]", around.after))
    cue = around.verb or around.relation
    if first and len(clinical) < 2 and all(is_last(w) or is_first(w) or is_unknown(w) for w in words[1:]):
        listed = len(words) == 2 and is_last(words[1]) and (around.agent or not around.opening or owner)
        return not all_everyday or cue or (listed and not words[0].text.isupper())
    mixed = len(clinical) < len(words)
    person = words[0] not in clinical or RULE["demographic"].match(around.after)
    return bool(
        (mixed and not all_everyday and any(is_pinyin_name(a.plain, b.plain) for a, b in pairwise(words)))
        or (len(strange) == len(words) and not is_abbreviation(words[0]))
        or (words[0].plain in WORDS["vietnamese"] and not clinical)
        or ((strange or first) and mixed and (cue or around.agent or owner))
        or (strange and not clinical and any(is_first(word) and not is_everyday(word) for word in words))
        or (cue and is_first(words[0]) and is_last(words[-1]) and person)
    )


def _is_single(run: list[Word], word: Word, around: _Around) -> bool:
    first, last, everyday, strange = is_first(word), is_last(word), is_everyday(word), is_unknown(word)
    name, clinical = first or last, is_clinical(word)
    verb, relation, agent, before, after = around.verb, around.relation, around.agent, around.before, around.after
    if is_abbreviation(word) and not (strange and relation):
        return False
    initial = run[0].letters == 1 or re.search(r"\b[A-Z]\.\s?$", before)
    certain = not everyday or verb or re.search(r"[a-z,]\s(?:[A-Z]\.\s?)?$", before)
    listed = first and not everyday
    return bool(
        (initial and (strange or (last and certain)))
        or (relation and (strange or _is_derived(word) or (name and (verb or not clinical))))
        or (agent and not RULE["weak_agent"].search(before) and (strange or (name and not clinical)))
        or (verb and not strange and name and not everyday)
        or (verb and strange and not RULE["not_only_people"].match(after))
        or (
            verb and name and (first or clinical) and (around.opening or agent) and not RULE["also_things"].match(after)
        )
        or (verb and first and around.opening and RULE["says"].match(after))
        or (listed and word.letters > 3 and word.plain in english().first)
        or (listed and word.letters > 2 and (agent or RULE["weak_verb"].match(after)))
        or (strange and RULE["possessed"].match(after))
    )


def _is_derived(word: Word) -> bool:
    """A word only by an ending (`Aisling`): beside a kinship it is a name."""
    return (
        word.plain not in english().words
        and not is_clinical(word)
        and word.letters > 3
        and word.text.istitle()
        and not word.plain.endswith(("s", "ed"))
    )


def is_person(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts of a model's find that read as persons. One made of words, drugs, findings or eponyms is none, unless a
    title, a kinship or a verb of persons stands beside it."""
    for run in runs_of(text, words_of(text[start:end], start)):
        run = _trimmed(text, run)
        unnamed = WORDS["function"] | WORDS["titles"]
        named = [word for word in run if word.letters > 1 and word.plain not in unnamed]
        if not named or all(is_abbreviation(word) for word in named):
            continue
        before, after = text[max(0, run[0].start - 70) : run[0].start], text[run[-1].end : run[-1].end + 60]
        if RULE["thing"].match(after) or re.match(r"[\-/]?\d", after):
            continue
        around = _Around.of(before, after)
        left = any(RULE[rule].search(before) for rule in ("left_field", "left_named", "title_before"))
        cue = around.verb or around.relation or around.agent or left
        if around.opening and not cue and len(named) == 1 and not (is_first(named[0]) or is_last(named[0])):
            continue
        strange = [w for w in named if is_unknown(w) or ((is_first(w) or is_last(w)) and not is_everyday(w))]
        clinical = [word for word in named if is_clinical(word)]
        if (strange and not clinical and (cue or len(strange) == len(named))) or (
            cue and len(clinical) < len(named) and any(is_first(word) for word in named)
        ):
            yield run[0].start, run[-1].end
