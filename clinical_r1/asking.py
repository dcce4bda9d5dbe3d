"""What a model is asked: the problem with its choices, and the request to end with a conclusion line. No torch.

`schema.Case.prompt` is this for a case; synthesis teaches it, PPO and every evaluated endpoint are asked it, the chat
page sends it. The words are the same for all, so that a rival is not worse for not having been told.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from clinical_r1.atomic import read_table
from clinical_r1.reasoning import CONCLUSION_LABELS, ConclusionKind
from clinical_r1.text import Language

_WORDS = read_table(Path(__file__).with_suffix(".yaml"))
_SENTENCE = re.compile(r"[^.?!;。？！；\n]+[?？]?")
_ASKS, _SURELY_A_DIAGNOSIS, _OF_A_DIAGNOSIS, _OF_ANOTHER_THING = (
    re.compile("|".join(_WORDS[kind]), re.IGNORECASE)
    for kind in ("asks", "surely_a_diagnosis", "of_a_diagnosis", "of_another_thing")
)


def ranked(language: Language, n: int) -> str:
    return _WORDS["ranked"][language].format(n=n)


def problem(question: str, options: Sequence[str] = ()) -> str:
    """The question, and its choices below it where it does not list them by letter itself."""
    lettered = [(chr(ord("A") + index), option) for index, option in enumerate(options)]
    marked = (rf"(?<!\w){letter}\s*[.)．、:：）]\s*{re.escape(option)}" for letter, option in lettered)
    if all(re.search(pattern, question) for pattern in marked):
        return question
    listed = "\n".join(f"{letter}. {option}" for letter, option in lettered)
    return f"{question}\n\n{listed}"


def asks_for(question: str, options: Sequence[str] = ()) -> ConclusionKind:
    """A diagnosis (a record that asks nothing is one to diagnose), or another answer (always among choices)."""
    if options:
        return "answer"
    last = next((said for said in reversed(_SENTENCE.findall(question)) if _ASKS.search(said.strip())), "")
    if not last or _SURELY_A_DIAGNOSIS.search(last):
        return "diagnosis"
    return "diagnosis" if _OF_A_DIAGNOSIS.search(last) and not _OF_ANOTHER_THING.search(last) else "answer"


def request(language: Language, kind: ConclusionKind, closed: bool = False, several: bool = False) -> str:
    """The sentence that asks for the conclusion line; `several` of the choices may be right."""
    ending = _WORDS["endings"][language]["choices" if several else "choice" if closed else kind]
    return ending.format(label=CONCLUSION_LABELS[language, kind])
