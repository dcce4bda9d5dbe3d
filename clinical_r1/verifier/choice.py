"""Which option of a multiple-choice item an answer chooses: by letter, by text or by both, English and Chinese.

Commitments are looked for from the most to the least formal: the conclusion line (`Final answer: C`, `最终答案：C`), a
box, `the answer is C`, `C is correct`, `故选C`, an answer that begins with its option. The most formal kind decides;
where it commits to two different options, or letter and text contradict each other, nothing is decided.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from clinical_r1.reasoning import conclusion_line
from clinical_r1.verifier.normalise import CJK, normalise, plain

Problem = Literal["", "empty", "no_choice", "several"]


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen option's index, or why none could be read."""

    index: int | None
    problem: Problem = ""


_STRUCK = re.compile(r"~~.*?~~|<(s|del|strike)>.*?</\1>", re.DOTALL | re.I)
_BOXED = re.compile(
    r"\\boxed\{(?:\\(?:text|textbf|mathrm)\{)?\s*([^{}]*?)\s*\}?\}|<answer>\s*(.*?)\s*</answer>", re.DOTALL | re.I
)
_MARKUP = re.compile(r"[*_`#“”\"「」『』【】]+|\\[()]|\$|^\s*>+", re.M)
_KEPT = re.compile(r"[^a-z0-9\u3400-\u9fff<>=≥≤↑↓→+%±.]+|\.(?!\d)|(?<!\d)\.")
_LETTER = (
    r"(?:[(\[（［]\s*(?P<{0}a>[A-Ja-j])\s*[)\]）］]|(?P<{0}b>[A-J])(?![A-Za-z0-9'’-])"
    r"|(?P<{0}c>[a-j])(?=\s*[).:：、]|\s*$))"
)
_ADJECTIVE = (
    r"(?:(?:final|correct|best|right|single best|most (?:likely|appropriate|accurate|suitable|probable|fitting)"
    r"|likely|my|our|chosen) )*"
)
_IS = (
    r"(?:\s*(?:is|was|=|:|would be|should be|must be|will be|has to be|therefore is)(?: (?:therefore|thus"
    r"|clearly|most likely|likely"
    r"|definitely))?:?\s*(?:not (?:option )?[(\[]?[A-J]\b[^.;]{0,40}?,? but (?:rather )?)?)"
)
_OPTION = r"(?:(?:option|choice|letter|answer)\s*:?\s*)?"
_SUBJECT = (
    r"(?:answer|ans\.?|option|choice|letter|response|diagnosis|treatment|medication|drug|cause|step|next step"
    r"|management|test|finding|explanation|mechanism|therapy"
    r"|action|intervention|organism|agent|pathogen|study|statement)"
)
_ASKED = (
    r"(?: (?:here|to (?:this|the) question|for this (?:question|patient|case)|in this (?:case|patient|scenario)"
    r"|among the (?:options|choices)))?"
)
_RIGHT = (
    r"(?: \([^()]*\))?,? (?:is|would be|represents|must be|seems to be|appears to be)(?: clearly| therefore"
    r"| indeed| most likely)? (?:the )?(?:single )?(?:most )?"
    r"(?:correct|right|best|appropriate|likely|accurate|suitable|probable|fitting|consistent"
    r"|indicated)\b(?! (?:wrong|incorrect|not))|,? (?:is|would be) the (?:answer|diagnosis)\b"
)
_FRAME_EN = re.compile(rf"\b{_ADJECTIVE}{_SUBJECT}{_ASKED}{_IS}{_OPTION}", re.I)
_PICK_EN = re.compile(
    r"\b(?:actually|correction|wait|no|sorry|scratch that)[,:] (?=[(\[]?[A-J][)\]]?(?:[.,:!]|\s*$))|"
    r"\bit(?:'s| is| must be| has to be| should be) (?=[(\[]?[A-J][)\]]?(?:[.,:]|\s*$))|"
    r"\b(?:(?:i|we)(?: would| will|'d|'ll)? (?:choose|select|pick|go with|answer|opt for|favou?r)|i(?: would"
    r"|'d) say|choose|select|go with) "
    rf"(?:the )?{_OPTION}",
    re.I,
)
_FRAME_ZH = re.compile(
    r"(?:正确|最佳|最终|本题|最合适|最可能|合适|参考)*的?(?:答案|选项|选择|诊断|治疗|措施|处理|药物"
    r"|原因)(?:应该?|应当)?\s*(?:是|为|选择|选(?!项)|:|=)+\s*(?:选项)?\s*|(?:不是"
    r"|并非)\s*[A-J][^,，。]{0,30}?[,，]?\s*而是\s*|(?<![不错误])正确的是\s*|(?:^|\n)\s*答\s*[:：]\s*"
    r"|(?<![不未])(?:应该?|应当)(?:是|为)\s*(?=[A-J](?![A-Za-z]))"
    r"|(?<![不未])(?:故|因此|所以|应该?|应当|综上|本题|可以?|我|,|，|。|^)\s*选(?:择|项|的是|取)?\s*(?:选项"
    r"|答案)?\s*[:为是]?\s*|(?:答案|选项)\s*[:：]?\s*(?=[A-J])"
)
_HEADED = re.compile(
    rf"(?:^|\n)\s*(?:{_ADJECTIVE}(?:answer|option|choice)|(?:正确)?答案)\s*[:：]?\s*\n\s*"
    r"|\b(?:thus|therefore|so|hence)[,:]? (?=[(\[][A-J][)\]]|[A-J][.\s]*(?:\n|$))",
    re.I,
)
_LETTER_RIGHT_EN = re.compile(
    rf"(?:\b(?:option|choice|answer) |(?<![A-Za-z0-9]))[(\[]?(?P<letter>[A-J])[)\]]?(?P<text>(?:[.:)]"
    rf"|,? (?=\()) ?[^;!?\n]{{0,300}}?)?(?:{_RIGHT})"
)
_LETTER_RIGHT_ZH = re.compile(
    r"(?:选项)?\s*[(（]?(?P<letter>[A-J])[)）]?(?P<text>[.、:：]?[^。;；,，\n]{0,60}?)(?:选?项)?(?:是"
    r"|为)?(?:最)?(?:正确|对的|合适|恰当|符合题意)(?!率)"
)
_NOT = re.compile(
    r"\b(?:not|isn't|incorrect|wrong|never|least|neither|except|cannot|rather than"
    r"|unlikely|tempting|students?|some|others|might|may)\b|不|非|错|(?<![切摘])除|误|有人|也许|可能(?!的)",
    re.I,
)
_NOT_BUT = re.compile(r"\bnot\b.*?\bbut\b|(?:不是|并非).*?而是", re.I)
_UNREAL = re.compile(r"\b(?:if|unless|had|were)\b|如果|若|假如|倘若|要是|除非", re.I)
_DENIED = re.compile(
    r"\s*(?:选?项|选项)?(?::\s*|\s+-+\s*)?(?:(?:is|was|are|were|can|could|cannot|can't|would|should|may|might|seems|does|has)"
    r"(?:n't\b)?(?: be| been| very| much| also| clearly| definitely| therefore| a)*)?\s*"
    r"(?:(?:not|no|incorrect|wrong|false|less|least|unlikely|improbable|excluded|ruled out|eliminated|contraindicated"
    r"|distractor|impossible|inappropriate|questionable|doubtful|possible|tempting|cannot be|can't be)\b|[✗✘❌×]"
    r"|有误|错|不|非|误|(?:已|可以?|被)*(?:排除|除外)|的?可能性(?:较|很|极|更)?(?:小|低))",
    re.I,
)
"""What stands behind an option and takes it back."""
_ASKS = re.compile(r"[^.!;。！；\n]{0,60}\?")
_NAMED_LETTER = re.compile(
    r"\b(?:hepatitis|vitamin|influenza|amphotericin|group|type|protein|factor|grade|stage|class|apolipoprotein"
    r"|immunoglobulin|ha?emophilia|polymyxin|coenzyme|cyclosporine?|interferon|category|[Bb]lood) $",
    re.I,
)
"""Words whose letter belongs to a name (`hepatitis A`), not to an option."""
_REVISES = re.compile(
    r"\b(?:wait|actually|correction|on reflection|no,|reconsider\w*|rather|instead|therefore|thus|so)\b|更正"
    r"|不对|再想|重新|因此|所以|故|综上",
    re.I,
)
_JOINS = r"\s*[(\[]?\s*(?:,|、|/|&|\+|;|and|or|vs\.?|versus|还是|抑或|和|或|及|与)\s*"
_ALSO = re.compile(
    rf"{_JOINS}(?:(?:also|possibly|maybe|perhaps|even|option|choice) |选项)*"
    r"[(\[（]?([A-J])(?=\s*(?:$|[.,;:)\]、。/?&]|and\b|or\b|vs\b|[\u3400-\u9fff]))",
    re.I,
)


@dataclass(frozen=True)
class _Options:
    """The options of an item in comparable form."""

    texts: tuple[str, ...]
    forms: tuple[str, ...]
    """Each option's letters and digits only, lower case: what a text begins with is compared in this form."""

    def letter(self, letter: str) -> int | None:
        place = ord(letter.upper()) - ord("A")
        return place if place < len(self.texts) else None

    def begins(self, text: str) -> list[int]:
        """Options that a text begins with, the longest only (`aspirin plus heparin` is not `aspirin`)."""
        form = _compact(text)
        found = [
            i
            for i, option in enumerate(self.forms)
            if option and form.startswith(option) and _ends(text, self.texts[i])
        ]
        longest = max((len(self.forms[i]) for i in found), default=0)
        return [i for i in found if len(self.forms[i]) == longest]

    def ends(self, text: str) -> list[int]:
        """Options that a text ends with, the longest only."""
        form = _compact(text)
        found = [i for i, option in enumerate(self.forms) if len(option) > 1 and form.endswith(option)]
        longest = max((len(self.forms[i]) for i in found), default=0)
        return [i for i in found if len(self.forms[i]) == longest]


def _compact(text: str) -> str:
    """What options are compared by: letters, digits and the signs that tell options apart (`LOD > 3`, `1.5`, `↑ ↓`)."""
    return _KEPT.sub("", plain(text).lower())


def _ends(text: str, option: str) -> bool:
    """Does the option end at a word's edge in the text (`ear` is not the beginning of `early`)?"""
    if CJK.search(option):
        return True
    wanted, text = len(_compact(option)), plain(text)[: 2 * len(option) + 40]
    end = next((at for at in range(len(text) + 1) if len(_compact(text[:at])) >= wanted), len(text))
    return not re.match(r"[A-Za-z0-9]|\.\d", text[end : end + 2])


@lru_cache(maxsize=4096)
def _prepared(options: tuple[str, ...]) -> _Options:
    return _Options(options, tuple(_compact(option) for option in options))


def read_choice(answer: str, options: Sequence[str]) -> Choice:
    """The option that an answer commits to."""
    prepared = _prepared(tuple(options))
    text = _STRUCK.sub(" ", plain(answer))
    if not _compact(text):
        return Choice(None, "empty")
    for kind in (_formal, _boxed, _whole, _stated, _opening):
        found = list(kind(text, prepared))
        if found:
            return _decide(text, found)
    return Choice(None, "no_choice")


def chosen_index(reference: str, options: Sequence[str]) -> int | None:
    """Place of the right option: by its text, else by its letter."""
    forms = [normalise(option) or _compact(option) for option in options]
    wanted = normalise(reference) or _compact(reference)
    exact = [i for i, option in enumerate(options) if option.strip() == reference.strip()]
    found = exact or [i for i, form in enumerate(forms) if form == wanted]
    if found:
        return found[0]
    letter = re.fullmatch(r"\s*[(\[]?([A-Ja-j])[)\].]?\s*", reference)
    return _prepared(tuple(options)).letter(letter[1]) if letter else None


_Found = tuple[int, int | None]
"""Place in the text and chosen option; None where letter and text contradict each other, or two are named."""


def _decide(text: str, found: list[_Found]) -> Choice:
    chosen = {index for _, index in found}
    if None in chosen:
        return Choice(None, "several")
    if len(chosen) == 1:
        return Choice(chosen.pop())
    (before, _), (last, index) = found[-2], found[-1]
    others = {i for at, i in found if at >= last}
    revised = _REVISES.search(text[before : last + 12]) and len(others) == 1
    return Choice(index) if revised else Choice(None, "several")


def _formal(text: str, options: _Options) -> Iterator[_Found]:
    line = conclusion_line(text)
    if line is not None:
        boxed = _BOXED.search(line)
        said = _MARKUP.sub("", next((g for g in boxed.groups() if g), "") if boxed else line)
        frame = _FRAME_EN.match(said) or _FRAME_ZH.match(said)
        chosen = _slot(said[frame.end() :] if frame else said, options, alone=True)
        yield 0, chosen if chosen is not NOTHING else None


def _boxed(text: str, options: _Options) -> Iterator[_Found]:
    for found in _BOXED.finditer(text):
        said = next((group for group in found.groups() if group), "")
        yield found.start(), _known(_slot(_MARKUP.sub("", said), options, alone=True))


def _whole(text: str, options: _Options) -> Iterator[_Found]:
    """The answer is nothing but an option."""
    said = _MARKUP.sub("", text).strip()
    form = _compact(said)
    for index, option in enumerate(options.forms):
        if form == option and len(option) > 1:
            yield 0, index


def _stated(text: str, options: _Options) -> Iterator[_Found]:
    """`the answer is C`, `I choose C`, `C is correct`, `答案是C`, `故选C`, `C项正确`."""
    text = _MARKUP.sub(" ", text)
    text = re.sub(r"[ \t]+", " ", text)
    places: list[tuple[int, int | None]] = []
    for pattern in (_FRAME_EN, _PICK_EN, _FRAME_ZH, _HEADED):
        for found in pattern.finditer(text):
            chosen = _slot(text[found.end() :], options)
            if chosen is not NOTHING and not _taken_back(text, found.end()):
                places.append((found.start(), chosen))
    for pattern in (_LETTER_RIGHT_EN, _LETTER_RIGHT_ZH):
        for found in pattern.finditer(text):
            index = options.letter(found["letter"])
            said = found["text"] or ""
            stated = options.begins(said.lstrip(" .:()"))
            denied = not stated and _NOT.search(said)
            word = re.search(r"\w+ $", text[: found.start("letter")])
            if word and any(_compact(word[0] + found["letter"]) in form for form in options.forms):
                continue  # amphotericin B is correct
            if _NAMED_LETTER.search(text[: found.start("letter")]):
                continue
            if index is None or denied or _taken_back(text, found.start()):
                continue
            places.append((found.start(), index if not stated or index in stated else None))
    for found in re.finditer(_RIGHT, text):
        line = text[: found.start()].splitlines()[-1] if text[: found.start()].strip() else ""
        named = options.ends(line)
        if named and not _taken_back(text, found.start() - len(options.texts[named[0]])):
            places.append((found.start(), named[0] if len(named) == 1 else None))
    yield from sorted(places, key=lambda place: place[0])


def _opening(text: str, options: _Options) -> Iterator[_Found]:
    """The answer begins with its option, as a letter with a mark or as the text."""
    first = next((line.strip() for line in _MARKUP.sub("", text).splitlines() if line.strip()), "")
    if _echoes(text, options):
        yield 0, None
        return
    first = re.sub(r"^(?:option|choice|letter|选项)\s*(?=[(\[]?[A-J]\b)", "", first, flags=re.I)
    if len(_compact(text)) == 1 and (index := options.letter(_compact(text))) is not None and _compact(text).isalpha():
        yield 0, None if "?" in text else index
        return
    letter = re.match(
        r"[(\[]?([A-Ja-j])(?:[)\]]\s*[.:]?|[.:、。)])\s*|([A-J])(?=\s*$|,|\s+(?:because|since|as|-)\s)"
        r"|([A-J])(?=\s?[\u3400-\u9fff])",
        first,
    )
    if letter or options.begins(first):
        chosen = _slot(first, options)
        if chosen is not NOTHING:
            yield 0, chosen


NOTHING = -1


def _known(chosen: int | None) -> int | None:
    return None if chosen == NOTHING else chosen


def _slot(said: str, options: _Options, alone: bool = False) -> int | None:
    """The option that a slot holds, as letter, text or both; None where it holds two, NOTHING where it holds none."""
    said = said.strip(" \t\n\"'“”:：")
    found = re.match(_LETTER.format(""), said) or (re.match(r"(?P<b>[A-Ja-j])\s*[.。]?\s*$", said) if alone else None)
    by_text = options.begins(said)
    if found and not (by_text and len(options.forms[by_text[0]]) > 1):
        letter = next(value for value in found.groupdict().values() if value)
        index = options.letter(letter)
        rest = said[found.end() :].lstrip(" .:：、)）]-")
        if index is None:
            return NOTHING
        also = _ALSO.match(said[found.end() :].lstrip(")）]"))
        if also and options.letter(also[1]) not in (None, index):
            return None
        stated = options.begins(rest)
        behind = said[found.end() :] if not stated else rest[len(options.texts[stated[0]]) :]
        if _ASKS.match(behind) or _DENIED.match(behind.lstrip(" .:：、)）]")):
            return NOTHING
        return index if not stated or index in stated else None
    if not by_text:
        return NOTHING
    beyond = said[len(options.texts[by_text[0]]) :]
    if (also_text := re.match(rf"{_JOINS}(.+)", beyond)) and options.begins(also_text[1]):
        return None
    if _ASKS.match(beyond) or _DENIED.match(beyond):
        return NOTHING
    return by_text[0] if len(by_text) == 1 or len({options.forms[i] for i in by_text}) == 1 else None


def _taken_back(text: str, at: int) -> bool:
    """Does the clause in front of a place deny, or its sentence only suppose, what follows?"""
    sentence = re.split(r"[.;!?。；！？\n]", text[: max(0, at)])[-1]
    return bool(_NOT.search(_NOT_BUT.sub("", _clause(text, at))) or _UNREAL.search(sentence))


def _echoes(text: str, options: _Options) -> bool:
    """Does the answer only begin by writing down all options in their order?"""
    lines = [line.strip() for line in _MARKUP.sub("", text).splitlines() if line.strip()][: len(options.texts)]
    letters = [found[1].upper() for line in lines if (found := re.match(r"[(\[]?([A-Ja-j])[)\].:、]", line))]
    return len(letters) > 1 and letters == [chr(ord("A") + place) for place in range(len(options.texts))]


def _clause(text: str, at: int) -> str:
    """The part of its clause in front of a place."""
    return re.split(r"[.,;!?。，；！？\n]", text[: max(0, at)])[-1]
