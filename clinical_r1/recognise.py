"""Which dialect does an answer, an endpoint or a model folder think in? And an answer read by it.

`read` takes a whole answer with all that came beside its text; what no dialect explains is `unknown_form`, never "did
not think". A `Reader` remembers what one endpoint or model speaks, tells it once, and may be set (`thinking: NAME`).
"""

import html
import re
import sys
from dataclasses import dataclass, replace

from clinical_r1.dialects import AUTO, DIALECTS, SIGNS, TAGS, THINK, Dialect, opened_form
from clinical_r1.reasoning import Outcome, Piece, Split, Splitter, split
from clinical_r1.text import HAN, one_width

NONE, FIELD, HIDDEN = DIALECTS["none"], DIALECTS["field"], DIALECTS["hidden"]
_LEADING = tuple(d for d in DIALECTS.values() if d.opens and not (d.opened or d.strict))
CUT = ("length", "max_tokens", "MAX_TOKENS", "model_length")
"""What finish_reason says where an output reached its bound."""
FILTERED = ("content_filter", "refusal", "safety", "SAFETY", "guardrail_intervened", "content_filtered", "sensitive")
"""What finish_reason says where the endpoint would not answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """All that came back for one question."""

    content: str
    reasoning: str | None = None  # the thought, where the message has it in a field of its own
    finish_reason: str = ""
    reasoning_tokens: int | None = None  # as usage states them; None where it does not
    refusal: bool = False  # the message declares a refusal

    @property
    def cut(self) -> bool:
        return self.finish_reason in CUT


def named(name: str) -> Dialect | None:
    """The dialect of a (checked) configuration; None for `auto`."""
    return None if name == AUTO else DIALECTS[name]


def recognise(text: str, cut: bool = False) -> Dialect | None:
    """The dialect that the marks of a whole output speak, `none` for one without any; None for marks of no dialect.

    `cut`: the output reached its bound, so a closing mark may be missing.
    """
    body = text.lstrip()
    if begun := _begun(body, cut):
        return begun
    for dialect in _LEADING:
        if dialect.once:
            continue
        kinds = (dialect.kinds[match[0]] for match in dialect.pattern.finditer(dialect.fold(text)))
        first = next((kind for kind in kinds if kind != "drop"), None)
        if first is not None:  # a closing mark alone: the prompt held the opening one
            opening = first == "open" or dialect.name == "channels"
            return dialect if opening else opened_form(dialect)
    return None if _strange(body) else NONE


def _begun(body: str, cut: bool) -> Dialect | None:
    """The dialect whose opening mark stands first."""
    for dialect in _LEADING:
        folded, at = dialect.fold(body), 0
        while (match := dialect.pattern.match(folded, at)) and dialect.kinds[match[0]] == "drop":
            at = match.end()
        if match is None or dialect.kinds[match[0]] != "open":
            continue
        if not dialect.once or split(body, dialect=dialect).outcome is not Outcome.UNCLOSED:
            return dialect
        if cut and dialect.name != "channels_bare":
            return dialect
    return None


_THOUGHT_WORDS = "|".join(SIGNS["labels"])
_LABEL = re.compile(rf"^[\s#*_>【\[<(`]{{0,6}}(?:{_THOUGHT_WORDS})[\s*_]{{0,4}}(?:\.\.\.|[:\n】\]])", re.IGNORECASE)
_TAG = re.compile(rf"[<\[◁{{「⟨]{{1,2}}\|?\s*([A-Za-z_{HAN}][\w:\- {HAN}]{{1,40}}?)\s*\|?[>\]▷}}」⟩]{{1,2}}")
_CLOSING = re.compile(rf"[<\[◁{{]{{1,2}}\s*/\s*([A-Za-z_{HAN}][\w:\-]{{1,40}})\s*[>\]▷}}]{{1,2}}")
_FOLDED = re.compile(
    rf"<details\b[^>]*(?:reasoning[^>]*>|>\s*<summary>[^<]{{0,20}}(?:{_THOUGHT_WORDS}|reasoning))", re.IGNORECASE
)
"""A thought that a chat page folds away."""
_CONTROL = re.compile(r"<\|/?[A-Za-z][\w:]*\|>|<(?:unused|extra_id_|reserved_)\w*\d+>")
_UNSEEN = "\ufeff\u200b\u2060 \t\r\n"
"""What may stand in front of an answer without a sign."""
_PLAIN = re.compile("|".join(SIGNS["plain_tags"]), re.IGNORECASE)


def _without_end(text: str) -> str:
    text = text.rstrip().lstrip(_UNSEEN)
    while end := next((end for end in SIGNS["ends"] if text.endswith(end)), ""):
        text = text[: -len(end)].rstrip()
    return text


def _strange(body: str) -> bool:
    """Signs of a thought in a form that no dialect knows; `&lt;think&gt;` and `＜think＞` are such a form, too."""
    body = one_width(html.unescape(_without_end(body)))
    if _CONTROL.search(body) or _LABEL.match(body) or _FOLDED.match(body):
        return True
    opening = _TAG.match(body)
    if opening and not _PLAIN.fullmatch(opening[1]):
        name = re.escape(opening[1].strip())
        # Its end is marked, and something follows: <plan>...</plan> answer.
        end = re.search(rf"(?:/|\bend[_ ]?(?:of[_ ])?)\s*{name}\s*\|?[>\]▷}}」⟩]{{1,2}}", body[opening.end() :], re.I)
        if end and body[opening.end() + end.end() :].strip():
            return True
    return any(_unopened(body, match) for match in _CLOSING.finditer(body))


def _unopened(body: str, closing: re.Match[str]) -> bool:
    """Whether a closing tag ends something that never began (the prompt held its beginning), with an answer after."""
    name = closing[1]
    if _PLAIN.fullmatch(name) or re.search(rf"[<\[◁{{]\s*{re.escape(name)}\b", body[: closing.start()], re.IGNORECASE):
        return False
    return bool(body[: closing.start()].strip() and body[closing.end() :].strip())


def read(answer: Answer, dialect: Dialect | None = None) -> Split:
    """Thought, answer and outcome. `dialect`: what is set for the model; None reads each answer by its own marks.

    An answer in no known form, or refused, has no response that somebody could judge.
    """
    if answer.refusal or answer.finish_reason in FILTERED:
        return Split("", "", Outcome.REFUSED)
    answer = replace(answer, content=_without_end(answer.content))
    if answer.reasoning is not None and dialect is not NONE:
        return _beside(answer)
    if dialect is None or dialect in (FIELD, HIDDEN):
        dialect = recognise(answer.content, answer.cut)
    if dialect is None:
        return Split("", "", Outcome.UNKNOWN_FORM)
    if dialect is NONE:
        whole = answer.content.strip()
        return _counted(Split("", whole, Outcome.NO_THINK if whole else Outcome.NO_ANSWER), answer)
    return _counted(split(answer.content, dialect=dialect), answer)


def _beside(answer: Answer) -> Split:
    """A thought in a field of its own; the content may carry it once more, or the marks of it."""
    inner = recognise(answer.content, answer.cut)
    response = answer.content.strip() if inner in (None, NONE) else split(answer.content, dialect=inner).response
    thinking = (answer.reasoning or "").strip()
    if not response:
        return Split(thinking, "", Outcome.UNCLOSED if answer.cut else Outcome.NO_ANSWER)
    return Split(thinking, response, Outcome.OK if thinking else Outcome.EMPTY_THINK)


def _counted(parts: Split, answer: Answer) -> Split:
    """A thought whose text is kept back but whose tokens are stated is one all the same."""
    if parts.thinking or not answer.reasoning_tokens:
        return parts
    if parts.outcome in (Outcome.NO_THINK, Outcome.EMPTY_THINK):
        return Split("", parts.response, Outcome.OK)
    if parts.outcome is Outcome.NO_ANSWER and answer.cut:
        return Split("", "", Outcome.UNCLOSED)
    return parts


def of_template(prompt: str, template: str, has_tags: bool) -> Dialect | None:
    """The dialect of a model folder by its chat template; None where the template says nothing (read each answer).

    Args:
        prompt: a rendered conversation up to the assistant's turn.
        template: the template's source.
        has_tags: <think> and </think> are tokens of the tokenizer.
    """
    end = prompt.rstrip()
    for dialect in _LEADING:
        if not dialect.once and any(dialect.fold(end).endswith(dialect.fold(mark.rstrip())) for mark in dialect.opens):
            return opened_form(dialect)
    for mark, name in (("<|channel|>", "channels"), ("<unused94>", "gemma"), ("<|channel>", "gemma")):
        if mark in template:
            return DIALECTS[name]
    return THINK if has_tags else None


class Reader:
    """Reads the answers of one endpoint or model; learns its dialect from the first answers that show one.

    An answer without any mark that reached its bound may be a thought that the prompt has opened: where that is, only
    another answer tells (`doubtful`).
    """

    def __init__(self, who: str, setting: str = AUTO) -> None:
        self.who = who
        self.dialect = named(setting)
        self.fixed = self.dialect is not None
        self.unknown = 0
        """Answers in no known form so far."""

    def read(self, answer: Answer) -> Split:
        if self.fixed:
            return read(answer, self.dialect)
        parts = read(answer)
        if parts.outcome is Outcome.UNKNOWN_FORM:
            self.unknown += 1
            if self.unknown == 1:
                print(
                    f"{self.who}: an answer marks its thought in a form that is not known; it counts as unknown_form "
                    "and is not judged. Set `thinking` to its dialect, or to `none` where it is no thought",
                    file=sys.stderr,
                    flush=True,
                )
        elif parts.outcome is not Outcome.REFUSED and self.dialect is None:
            found = None if parts.outcome is Outcome.NO_THINK else recognise(answer.content, answer.cut)
            if answer.reasoning and answer.reasoning.strip():
                found = FIELD
            elif answer.reasoning_tokens and not parts.thinking:
                found = HIDDEN
            if found is not None and found is not NONE:
                self.settle(found)
        if self.dialect is not None and self.dialect.opened and parts.outcome is Outcome.NO_THINK and answer.cut:
            return split(answer.content, dialect=self.dialect)
        return parts

    def doubtful(self, answer: Answer, outcome: Outcome) -> bool:
        """Whether the answer may be a thought that the prompt opened and its bound cut."""
        return not self.fixed and self.dialect is None and outcome is Outcome.NO_THINK and answer.cut

    def told(self) -> str:
        if self.dialect is None:
            return f"{self.who}: no answer shows a thought"
        how = "as set" if self.fixed else "found out by its answers"
        return f"{self.who}: thoughts are in dialect `{self.dialect.name}` ({how})"

    def settle(self, dialect: Dialect) -> None:
        """Take what a chat template or a probe shows."""
        if not self.fixed and self.dialect != dialect:
            self.dialect = dialect
            print(self.told(), file=sys.stderr, flush=True)


class AutoSplitter(Splitter):
    """A `Splitter` that takes the dialect whose mark stands first in the output; for streams, of which nothing later is
    known. A thought that the prompt opened shows no such mark: there the dialect has to be set or found out before."""

    def __init__(self) -> None:
        super().__init__(dialect=TAGS)
        self._decided = False

    def _take(self, text: str, last: bool) -> list[Piece]:
        if not self._decided:
            text, self._held = self._held + text, ""
            body = text.lstrip()
            begun = next((d for d in _STREAMED if d.pattern.match(d.fold(body))), None)
            if begun is None and not last and any(d.fold(body) in d.beginnings or not body for d in _STREAMED):
                self._held = text
                return []
            self._decided = True
            self.dialect = begun or TAGS
        return super()._take(text, last)

    def _outcome(self, thinking: str, response: str, aborted: bool) -> Outcome:
        outcome = super()._outcome(thinking, response, aborted)
        unmarked = outcome is Outcome.NO_THINK and not self.tag_spans
        return Outcome.UNKNOWN_FORM if unmarked and _strange(response) else outcome


_STREAMED = tuple(dialect for dialect in _LEADING if dialect.name != "channels_bare")
