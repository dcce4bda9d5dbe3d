"""Addresses: anything smaller than a state or a province. The patterns are in `addresses.yaml`."""

import re
from collections.abc import Iterator

from clinical_r1.privacy.lexicon import english, is_word, plain, rules
from clinical_r1.privacy.spans import Kind, Span
from clinical_r1.text import HAN, has_han

RULE, EACH, WORDS = rules("addresses")


def find_addresses(text: str) -> Iterator[Span]:
    """Addresses in folded text. The whole address is one span, province and state included."""
    lowered, han = text.casefold(), has_han(text)
    for _, pattern in EACH["whole"]:
        for match in pattern.finditer(text) if han or HAN not in pattern.pattern else ():
            group = "v" if "v" in pattern.groupindex else 0
            city = re.match(r"(?:[A-Z][\w'’.\-]*\s?)+(?=,)", match.group(group))
            shouted = city and city.group().isupper() and not re.search(r"\d{5}", match.group())  # `NSTEMI, MI`
            named = not city or (not shouted and _place_end(city.group(), every=True))
            if named and not RULE["etym"].search(match.group(group)):
                yield Span(match.start(group), match.end(group), Kind.ADDRESS)
    for _, pattern in EACH["narrow"]:
        for match in pattern.finditer(text):
            start = _past_generic(text, match.start("v"), match.end("v"))
            if start is not None:
                town = RULE["town"].match(text, match.end("v")) if re.match(r"\d", match["v"]) else None
                yield Span(start, town.end("t") if town else match.end("v"), Kind.ADDRESS)
                yield from _further(text, match.end("v"))
    for match in RULE["from"].finditer(text) if any(stem in lowered for stem in WORDS["from_stems"]) else ():
        if end := _place_end(match["v"]):
            yield Span(match.start("v"), match.start("v") + end, Kind.ADDRESS)
            yield from _further(text, match.start("v") + end)
    for rule in ("role", "office") if han or RULE["role_of"].search(lowered) else ():
        for match in RULE[rule].finditer(text):
            yield Span(match.start(), match.end(), Kind.OTHER)
    for _, pattern in EACH["places_zh"] if han else ():
        for match in pattern.finditer(text):
            group = "v" if match["v"] else "w"
            if not RULE["etym"].search(match[group]) and not RULE["nowhere_zh"].match(match[group]):
                yield Span(match.start(group), match.end(group), Kind.ADDRESS)


def _further(text: str, position: int) -> Iterator[Span]:
    """The places that follow one that ends at `position`."""
    while (match := RULE["further"].match(text, position)) and (end := _place_end(match["v"])):
        position = match.start("v") + end
        yield Span(match.start("v"), position, Kind.ADDRESS)


def _past_generic(text: str, start: int, end: int) -> int | None:
    """Start without leading words that name no place (`The Community Hospital`); None where nothing else is left."""
    words = list(re.finditer(r"[^\s]+", text[start:end]))
    numbered = bool(re.match(r"[\dA-Z]{1,5}\d", text[start:end]))
    while words and not numbered and words[0].group().casefold().strip(".,") in WORDS["generic"]:
        words = words[1:]
    said = [word.group() for word in words]
    if (
        not words
        or (len(words) == 1 and not numbered and not re.search(r"\d", said[0]))
        # `Hunt & Hess`
        or (" & " in text[start:end] and any(plain(word) in english().clinical for word in said))
        or all(plain(word.strip(".,")) in WORDS["kinds"] or word.casefold() in WORDS["generic"] for word in said)
        # `Double Eyelid Surgery` is an operation, `Thornhill Surgery` a practice
        or (said[-1].startswith(("Surgery", "Practice")) and all(is_word(plain(word)) for word in said))
    ):
        return None
    return start + words[0].start()


def _place_end(value: str, every: bool = False) -> int:
    """Length of the leading words of `value` that are no country, state, everyday word or thing of the clinic."""
    end, opened = 0, False
    for word in re.finditer(r"[\w'’.]+", value):
        bare = plain(word.group().strip(".'’"))
        if not end and bare in WORDS["before_place"] and re.match(r"[ \-][A-Z]", value[word.end() :]):
            opened = True
            continue  # `New Delhi`, `Port Talbot`
        if bare in english().clinical or (is_word(bare) and not every and not opened) or len(bare) < 3:
            break
        end, opened = word.end(), False
    return end
