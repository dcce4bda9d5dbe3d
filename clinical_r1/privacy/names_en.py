# ruff: noqa: E501, SIM905  (a pattern or a word list reads best as one piece)
"""Names in Latin letters in running text, with any accent: what stands around a capitalised word says whether it is a person.

Lists alone would know the names of one country. So a title, a label or a kinship makes any word behind it a name, a verb
of persons makes an unknown word before it one, and lists (of names, and of words, drugs, eponyms) settle what is left.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

from clinical_r1.privacy.cues_en import (
    CREDENTIAL,
    DEMOGRAPHIC,
    LEFT_AGENT,
    LEFT_FIELD,
    LEFT_NAMED,
    LEFT_PERSON,
    NOT_AFTER_TITLE,
    PARTICLES,
    POSSESSED,
    STATIONS,
    SURE_VERB,
    THING,
    TITLES,
    WEAK_AGENT,
    WEAK_VERB,
)
from clinical_r1.privacy.forms_en import find_foreign, han_in_latin, initials, lower_case, signatures, speakers, spelled
from clinical_r1.privacy.lexicon import english
from clinical_r1.privacy.spans import Kind, Span
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


def find_names_en(text: str) -> Iterator[Span]:
    """Names in Latin letters in folded text, with a score that says how sure."""
    words = words_of(text)
    last, passed = 0, None
    for run in runs_of(text, words):
        for piece in pieces_of(text, run):
            found = list(_judge(text, piece))
            joined = (
                last and piece[0].start - last <= 5 and re.fullmatch(r"\s(?:and|&|und)\s", text[last : piece[0].start])
            )
            if (
                not found
                and joined
                and (is_first(piece[0]) or is_unknown(piece[0]))
                and not THING.match(text[piece[-1].end :][:60])
            ):
                found = [Span(piece[0].start, piece[-1].end, Kind.NAME, 0.8)]  # `Chase and Summer`
            last = found[-1].end if found and found[-1].score > 0.6 else 0
            if last and passed and re.fullmatch(r"\s(?:and|&)\s", text[passed.end : found[0].start]):
                yield Span(passed.start, passed.end, Kind.NAME, 0.8)  # `Tom and Lucy`
            yield from found
            lone = len(piece) == 1 and not found and is_first(piece[0]) and piece[0].plain not in english().clinical
            passed = piece[0] if lone and piece[0].letters > 1 else None
    yield from lower_case(text, words)
    yield from signatures(text)
    yield from initials(text)
    yield from speakers(text)
    yield from han_in_latin(text)
    yield from spelled(text)
    yield from find_foreign(text)


def _judge(text: str, run: list[Word]) -> Iterator[Span]:
    """Cut what is no name off the ends of a run, then weigh what is left by what stands around it."""
    titled = False
    while run and (run[0].plain in TITLES or (run[0].plain in PARTICLES and not run[0].capital)):
        titled = titled or run[0].plain in TITLES
        run = run[1:]
    while run and run[-1].plain.upper() in _CREDENTIALS:
        run = run[:-1]
    if not run:
        return
    before = text[max(0, run[0].start - 70) : run[0].start]
    titled = titled or bool(_TITLE_BEFORE.search(before[-32:]))
    if titled and run[0].plain in NOT_AFTER_TITLE and text[run[0].end : run[0].end + 1] != ".":
        return
    field = bool(_FIELD_END.search(before[-4:]) and LEFT_FIELD.search(before))
    named = bool(LEFT_NAMED.search(before[-40:])) and run[0].plain not in _FUNCTION
    if not titled and len(run) == 1 and (run[0].plain in _FUNCTION or (run[0].letters < 3 and not field)):
        return
    strong = titled or named or (field and not _filled_by_prose(text, run))
    run = _until_prose(run) if titled else run if strong else _trimmed(text, run)
    if not run or (len(run) == 1 and run[0].letters == 1):
        return
    start, end = run[0].start, run[-1].end
    after = text[end + (run[-1].letters == 1 and text[end : end + 1] == ".") :][:60]  # `Maria G. is 34`
    if not strong and THING.match(after) and not _TELLS.match(after):
        return
    if not strong and _GRADED.match(after) and not any(is_first(word) and not is_clinical(word) for word in run):
        return  # `House-Brackmann IV`, `Tanner IV`
    if titled and THING.match(after) and all(is_clinical(word) for word in run if word.letters > 1):
        return  # `Sister Mary Joseph nodule`
    score = 0.95 if strong else _score(text, run, text[max(0, start - 70) : start], after)
    if score:
        yield Span(_with_initials(text, start), end, Kind.NAME, score)


_TELLS = re.compile(
    r"\s(?:also\s|now\s|still\s)?(?:denie[sd]|report(?:s|ed)|complain(?:s|ed)|describe[sd]|fe(?:els|lt)|experience[sd]|mention(?:s|ed)|admit(?:s|ted))\s"
)  # `denies pain`: no pain bears the name
_GRADED = re.compile(r"\s(?:grade|class|type|stage|score)?\s?(?:I{1,3}|IV|VI{0,3})[abcABC]?\b")
_FIELD_END = re.compile(r"[:：=,\-#\n]\s{0,3}$|(?:by|is|as)\s{1,2}$")
_TITLE_BEFORE = re.compile(
    r"(?i)\b(?:(?:mr|mrs|ms|mx|dr|prof|rev|sgt|capt|sra?)\b\.?\s{0,2}|(?:miss|doctor|nurse|mme|mlle|frau|herr|señora?)\b[ \t]{0,2})(?:(?:(?:med|habil|dent|phil|rer|nat|univ|h\.?\s?c)\.\s{1,2}){1,3}|(?:and|&)\s(?:mr|mrs|ms|dr)\b\.?\s{0,2})?\Z"
)
_CREDENTIALS = frozenset(
    "MD DO RN NP PHD JR SR III II IV MBBS DDS LPN PA ESQ BSN FRCP MRCP CRNA DNP MBCHB FRCS".split()
)


def _with_initials(text: str, start: int) -> int:
    """Initials before the run (`J. P. Worthington`) belong to it."""
    match = re.search(
        r"(?:\b[A-Z]\.\s?){1,3}$|\b(?:(?:van|von|der|den|de|la|del|di|da|bin|al|el|ter|ten|du|le)\s){1,3}$",
        text[max(0, start - 14) : start],
    )
    return start - len(match.group()) if match else start


def _filled_by_prose(text: str, run: list[Word]) -> bool:
    """`Patient: Denies pain`, `Name: Unknown`: a label before prose."""
    words = [word for word in run if word.letters > 1]
    if not words or words[0].plain in _NOBODY:
        return True
    known = [word for word in words if is_first(word) or is_last(word)]
    if all(is_everyday(word) for word in words) and not (
        known and re.match(r"\s{0,2}(?:$|[.,;)\n|(+\d]|MD|DOB)", text[run[-1].end :][:12])
    ):
        return True
    return is_abbreviation(words[0]) and len(words) == 1


_FUNCTION = frozenset(
    "he she it they we you i an a the this that these those his her hers its their our my your who what which when where why how if in on at by to of or and but so as for from with "
    "no not do did does has had have is are was were be been might would could should also then than there here all any both each few more most other some such only own same "
    "patient pt family mother father monday tuesday wednesday thursday friday saturday sunday tomorrow".split()
)
_NOT_ONLY_PEOPLE = re.compile(
    r"\s(?:can|cannot|can't|could|will|won't|would|did|does|did not|does not|doesn't|didn't|started|starts|stopped|stops|becomes|became|helps|helped|takes|took|appears|appeared|found|needs|needed|gives|gave|works|worked|noted|called|comes|came|goes|went|looks|looked|is an?(?! \d{1,3}[ \-]?(?:y|mo|we|day)| (?:pleasant|elderly|young|delightful|lovely|retired|\w+ (?:man|woman|boy|girl|lady|gentleman)))|was (?:started|taken|given|found|well|at|in|on|reviewed|able|unable|last)|had (?:a|an|no|to|never|two)|has (?:a|an|two|three|four|no|never|been (?:started|given|increased|decreased|stopped|shown|used|associated|held|continued|tapered|reported|detected|isolated|linked|approved|added|switched|found))|is now|is still)\b"
)
_NOBODY = frozenset(
    "unknown none anonymous unnamed withheld redacted na nil self same other not no yes deceased see refused declined patient test name confidential unavailable".split()
)


def _trimmed(text: str, run: list[Word]) -> list[Word]:
    """Without leading and trailing words of prose; those that are names too stay where a name stands beside them."""
    if of_family(run):
        return run
    while run and run[0].letters > 1 and is_everyday(run[0]):
        short = run[0].letters < 5 and not run[0].text.isupper()  # `Ana`: no antibody
        beside = (
            len(run) > 1
            and is_first(run[0])
            and (short or run[0].plain not in english().clinical)
            and (is_last(run[1]) or is_unknown(run[1]) or run[1].letters == 1)
        )
        listed = len(run) > 1 and "," in text[run[0].end : run[1].start]
        if beside or listed or len(run) == 1:
            break
        run = run[1:]
    while (
        len(run) > 1
        and run[-1].letters > 1
        and is_everyday(run[-1])
        and not is_last(run[-1])
        and run[-1].plain not in english().clinical
    ):
        run = run[:-1]
    while len(run) > 1 and run[-1].plain in PARTICLES and not run[-1].capital:
        run = run[:-1]
    return run


def _until_prose(run: list[Word]) -> list[Word]:
    """Behind a title: the first word is a name; later ones while they may be."""
    kept = run[:1]
    for word in run[1:]:
        if (
            is_everyday(word)
            and not (is_first(word) or is_last(word))
            and word.plain not in PARTICLES
            and word.letters > 1
        ):
            break
        kept = [*kept, word]
    return kept


def _score(text: str, run: list[Word], before: str, after: str) -> float:
    """How sure an unlabelled run is a person's name; 0 where nothing says so."""
    words = [word for word in run if word.letters > 1 and not (word.plain in PARTICLES and not word.capital)]
    if of_family(run):
        return 0.85
    derived = len(words) == 1 and _is_derived(words[0]) and bool(LEFT_PERSON.search(before))
    if not words or (
        not derived and all(is_everyday(word) and not is_first(word) and not is_last(word) for word in words)
    ):
        return 0.0
    verb = bool(SURE_VERB.match(after) or POSSESSED.match(after) or DEMOGRAPHIC.match(after))
    relation, agent = bool(LEFT_PERSON.search(before)), bool(LEFT_AGENT.search(before))
    opening = bool(STATIONS.search(before)) or not before
    if (
        CREDENTIAL.match(after)
        and (agent or not any(is_clinical(w) for w in words))
        and any(is_unknown(w) or is_first(w) or (is_last(w) and (agent or not is_everyday(w))) for w in words)
    ):
        return 0.9
    return (
        _pair(text, run, words, verb, relation, agent, opening, after)
        if len(words) > 1
        else _single(run, words[0], verb, relation, agent, opening, before, after)
    )


def _pair(
    text: str, run: list[Word], words: list[Word], verb: bool, relation: bool, agent: bool, opening: bool, after: str
) -> float:
    if (
        verb
        and all(word.text.isupper() and word.letters > 3 for word in words)
        and not all(is_everyday(w) for w in words)
    ):
        return 0.85  # `LUDVIG TOFT tolerated`: no abbreviations
    if len(words) > 5:
        return 0.0
    if any("," in text[a.end : b.start] for a, b in pairwise(run)):
        return 0.9  # `SURNAME, Given` was looked at when the run was cut
    strange = [word for word in words if is_unknown(word)]
    clinical = [word for word in words if is_clinical(word)]
    if (
        is_first(words[0])
        and words[0] not in clinical
        and len(clinical) < 2
        and all(is_last(word) or is_first(word) or is_unknown(word) for word in words[1:])
    ):
        everyday = all(is_everyday(word) for word in words)
        listed = (
            len(words) == 2 and is_last(words[1]) and (agent or not opening or bool(re.match(r"['’]s\s[a-z]", after)))
        )
        return 0.9 if not everyday or verb or relation or (listed and not words[0].text.isupper()) else 0.0
    if (
        any(is_pinyin_name(a.plain, b.plain) for a, b in pairwise(words))
        and len(clinical) < len(words)
        and not all(is_everyday(w) for w in words)
    ):
        return 0.85
    if len(strange) == len(words) and not is_abbreviation(words[0]):
        return 0.85
    if words[0].plain in _VIETNAMESE and len(words) > 1 and not clinical:
        return 0.85
    owner = bool(re.match(r"['’]s\s[a-z]", after))
    if (
        (strange or (is_first(words[0]) and words[0] not in clinical))
        and len(clinical) < len(words)
        and (verb or relation or agent or owner)
    ):
        return 0.8
    if strange and not clinical and any(is_first(word) and not is_everyday(word) for word in words):
        return 0.8
    if (
        (verb or relation)
        and is_first(words[0])
        and is_last(words[-1])
        and (words[0] not in clinical or DEMOGRAPHIC.match(after))
    ):
        return 0.8
    return 0.0


_VIETNAMESE = frozenset("nguyen tran pham huynh hoang phan dang bui duong ngo truong".split())
"""Surnames that stand first."""


def _single(
    run: list[Word], word: Word, verb: bool, relation: bool, agent: bool, opening: bool, before: str, after: str
) -> float:
    name, everyday, strange = is_first(word) or is_last(word), is_everyday(word), is_unknown(word)
    initial = run[0].letters == 1 or bool(re.search(r"\b[A-Z]\.\s?$", before))
    if word.plain in _FUNCTION or word.letters < 2:
        return 0.0
    if is_abbreviation(word) and not (strange and relation):
        return 0.0
    weak = bool(WEAK_AGENT.search(before))
    if initial and (
        strange or (is_last(word) and (not everyday or verb or re.search(r"[a-z,]\s(?:[A-Z]\.\s?)?$", before)))
    ):
        return 0.8
    if relation and (strange or _is_derived(word) or (name and not is_clinical(word)) or (name and verb)):
        return 0.85
    if agent and not weak and (strange or (name and not is_clinical(word))):
        return 0.8
    if verb and (strange or (name and not everyday)) and not (strange and _NOT_ONLY_PEOPLE.match(after)):
        return 0.8
    if (
        verb
        and name
        and (is_first(word) or is_clinical(word))
        and (opening or agent)
        and not re.match(
            r"\s(?:will|would|can|could|does|did|has|had|found|started|stopped|takes|needs|helps|helped|notes|noted|gives|gave|calls|is|becomes|was (?:found|started|given|at|in|on|well|taken|last|reviewed|seen in))\b",
            after,
        )
    ):
        return 0.75
    if (
        verb
        and is_first(word)
        and opening
        and re.match(
            r"\s(?:says|said|drove|states|denies|reports|feels|lives|attended|told|asked|thinks|wants)\b", after
        )
    ):
        return 0.75
    if is_first(word) and not everyday and word.letters > 3 and word.plain in english().first:
        return 0.7
    if is_first(word) and not everyday and word.letters > 2 and (agent or WEAK_VERB.match(after)):
        return 0.7
    if strange and POSSESSED.match(after):
        return 0.75
    # A lone surname in the middle of a sentence may be a person or an unlisted eponym: a doubt.
    lone = is_last(word) and not everyday and word.letters > 3 and not word.text.isupper() and not opening
    return (
        0.5
        if lone
        and re.search(r"\b(?:the|of|by|to|with|for)\s$", before)
        and re.match(r"\s(?:team|family|case|boy|girl|child|baby|household|twins|patient)\b", after)
        else 0.0
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
    """The parts of a model's find that read as persons. A find made of words, drugs, findings or eponyms is none, unless
    a title, a kinship or a verb of persons stands beside it."""
    words = words_of(text[start:end])
    moved = [Word(start + w.start, start + w.end, w.text, w.plain, w.capital, w.letters) for w in words]
    for run in runs_of(text, moved):
        run = _trimmed(text, run)
        named = [word for word in run if word.letters > 1 and word.plain not in _FUNCTION and word.plain not in TITLES]
        if not named or all(is_abbreviation(word) for word in named):
            continue
        before, after = text[max(0, run[0].start - 70) : run[0].start], text[run[-1].end : run[-1].end + 60]
        if THING.match(after) or re.match(r"[\-/]?\d", after):
            continue
        left = (
            LEFT_PERSON.search(before)
            or LEFT_FIELD.search(before)
            or LEFT_NAMED.search(before)
            or LEFT_AGENT.search(before)
            or _TITLE_BEFORE.search(before)
        )
        cue = bool(left or SURE_VERB.match(after) or DEMOGRAPHIC.match(after) or POSSESSED.match(after))
        strange = [
            word for word in named if is_unknown(word) or ((is_first(word) or is_last(word)) and not is_everyday(word))
        ]
        opening = bool(STATIONS.search(before)) or not before
        if opening and not cue and len(named) == 1 and not (is_first(named[0]) or is_last(named[0])):
            continue
        clinical = [word for word in named if is_clinical(word)]
        if (strange and not clinical and (cue or len(strange) == len(named))) or (
            cue and len(clinical) < len(named) and any(is_first(word) for word in named)
        ):
            yield run[0].start, run[-1].end
