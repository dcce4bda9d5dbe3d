"""Names by their form: in lower case, spelled by letters, in other scripts; log-in names and initials; speakers."""

import re
from collections.abc import Iterator
from itertools import zip_longest

from clinical_r1.privacy.lexicon import english, is_word, plain, rules
from clinical_r1.privacy.spans import Span
from clinical_r1.privacy.words_en import (
    Word,
    is_clinical,
    is_everyday,
    is_first,
    is_last,
    is_pinyin_name,
    is_unknown,
    words_of,
)
from clinical_r1.text import main_language

RULE, EACH, WORDS = rules("names_en")


def find_forms(text: str, words: list[Word]) -> Iterator[Span]:
    """All of them in a folded text; `words` are the text's."""
    yield from _lower_case(text, words)
    for match in RULE["login"].finditer(text):  # `Author: jsmith42`
        yield Span(match.start("v"), match.end("v"))
    yield from _signatures(text)
    for _, pattern in EACH["initials"]:
        for match in pattern.finditer(text):
            group = "v" if match["v"] else "w"
            if not RULE["units"].match(re.sub(r"\s", "", match[group])):
                yield Span(match.start(group), match.end(group))
    yield from _speakers(text)
    if main_language(text) == "en":
        yield from _han_in_latin(text)
    yield from _spelled(text)
    for match in RULE["foreign"].finditer(text):  # in an English or Chinese note they name people and places
        greek = re.fullmatch(r"[\u0370-\u03ff\W]+", match.group())
        if not greek or (len(match.group()) >= 4 and not match.group().isupper()):
            yield Span(match.start(), match.end())


def _lower_case(text: str, words: list[Word]) -> Iterator[Span]:
    """Names in lower case: a listed given name with a listed surname, or with a cue; anything behind mr or dr."""
    for word, following in zip_longest(words, words[1:]):
        if word.text[0].isupper() or word.letters < 3:
            continue
        before, after = text[max(0, word.start - 14) : word.start], text[word.end : word.end + 16]
        if (
            RULE["lower_title"].search(before)
            and not is_word(word.plain)
            and word.plain not in WORDS["not_after_title"]
        ):
            yield Span(word.start, word.end)
        if word.plain not in english().first or is_everyday(word):
            continue
        if (
            following
            and following.plain in english().last
            and not is_everyday(following)
            and re.fullmatch(r"[ \t._\-]{1,2}", text[word.end : following.start])
            and not RULE["thing"].match(text[following.end : following.end + 60])
        ):
            yield Span(word.start, following.end)
        elif RULE["lower_cue"].search(before) or RULE["kin_next"].match(after):
            yield Span(word.start, word.end)


def _signatures(text: str) -> Iterator[Span]:
    """Log-in names under a note: `-- hmurphy 0715`, `Dictated by: SKowalczyk/tr`."""
    for match in RULE["signature"].finditer(text):
        for group in () if RULE["units"].match(match.group().strip()) else ("a", "b", "c"):
            parts = [plain(part) for part in re.split(r"[.\s]", match[group] or "")]
            if match[group] and not all(is_word(part) or part in english().clinical for part in parts):
                yield Span(match.start(group), match.end(group))


def _speakers(text: str) -> Iterator[Span]:
    """Who speaks: `SMITH: I have pain`, `Anna: Where does it hurt?`. A word of the clinic before a colon is a heading,
    unless what follows is said by an I to a you."""
    for match in RULE["speaker"].finditer(text):
        named = [word for word in words_of(match["v"]) if word.letters > 1 and word.capital]
        pronoun = RULE["pronoun"].match(match["said"])
        listed = [word for word in named if is_first(word) or (is_last(word) and not is_everyday(word))]
        if (
            named
            and all(word in listed or is_unknown(word) for word in named)
            and (pronoun or (RULE["personal"].search(match["said"]) and not any(is_clinical(word) for word in named)))
            and (pronoun or listed or RULE["dialogue"].search(text))
        ):
            yield Span(match.start("v"), match.end("v"))


def _han_in_latin(text: str) -> Iterator[Span]:
    """`Dr. 太郎 鈴木`: in a note in Latin letters two Han words beside each other are a name, or one with a cue;
    terms of Chinese medicine (气虚) stand there too."""
    for match in RULE["han_run"].finditer(text):
        before = text[max(0, match.start() - 60) : match.start()]
        cue = any(RULE[rule].search(before) for rule in ("before_han", "left_person", "left_agent"))
        person = re.search(r"[ ·.]", match.group()) or cue or RULE["sure_verb"].match(text[match.end() :][:60])
        if person and not RULE["no_name"].search(match.group()):
            yield Span(match.start(), match.end())


def _spelled(text: str) -> Iterator[Span]:
    """`T e m p e r a n c e`: a name letter by letter."""
    first, last = english().first, english().last
    for match in RULE["spelled"].finditer(text):
        word = re.sub(r"[^A-Za-z]", "", match.group()).casefold()
        if (
            word in first
            or word in last
            or any(word[:i] in first and word[i:] in last for i in range(2, len(word) - 1))
            or any(is_pinyin_name(word[:i], word[i:]) for i in range(2, len(word) - 2))
        ):
            yield Span(match.start(), match.end())
