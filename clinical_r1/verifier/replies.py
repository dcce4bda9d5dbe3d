"""The verdict in a judge's reply: one valid object or word, or the one that is clearly meant, or none.

What is only talked about is no verdict, wherever it stands: a condition ("if it matched I would say ..."), a denial
("not ..."), a question, an example, the alternatives of the instruction ("... or ..."). A draft may stand before the
verdict. Two verdicts that disagree without such words are no verdict.
"""

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from clinical_r1.lexicon import wordings
from clinical_r1.verifier.normalise import plain

Word = Literal["correct", "incorrect"]
WORDS: tuple[Word, ...] = ("correct", "incorrect")
RULE = wordings(Path(__file__).with_suffix(".yaml"))
_JSON = json.JSONDecoder(strict=False)


_Said = tuple[int, int, Word]
"""Where an object with a verdict begins and ends, and the verdict."""


def read_verdict(reply: str) -> Word | None:
    """The verdict of a reply without its thought; None where it holds none, or two that disagree."""
    reply = re.sub("[“”„]", '"', plain(reply))
    objects = list(_objects(reply))
    if not objects:
        return _bare(reply)
    talked = _talked_about(reply, objects)
    found = [said for said in objects if said[0] not in talked]
    for (start, end, earlier), (following, _, later) in pairwise(found):
        before, between = reply[:start].rpartition("}")[2], reply[end:following]
        if earlier != later and not (RULE["a_draft"].search(before) or RULE["meant"].search(between)):
            return None
    return found[-1][2] if found else None


def _objects(reply: str) -> Iterator[_Said]:
    at = reply.find("{")
    while at >= 0:
        row: Any = None
        end = at + 1
        try:
            row, end = _JSON.raw_decode(reply, at)
        except (ValueError, RecursionError):
            if loose := RULE["loose"].match(reply, at):
                row, end = {"verdict": loose["value"]}, loose.end()
        if isinstance(row, dict):
            said = next((str(value) for key, value in row.items() if key.lower() == "verdict"), "")
            if word := _word(said.strip(" .*。")):
                yield at, end, word
        at = reply.find("{", end)


def _word(said: str) -> Word | None:
    return next((word for word in WORDS if RULE[word].fullmatch(said)), None)


def _talked_about(reply: str, objects: list[_Said]) -> set[int]:
    """Where objects begin that their own sentence does not give as the verdict."""
    found: set[int] = set()
    last, last_end, last_word = 0, 0, objects[0][2]
    for start, end, word in objects:
        before = reply[last_end:start]
        if last_word != word and RULE["alternatives"].fullmatch(before):
            found |= {last, start}
        lead = RULE["sentence"].split(re.sub(r"`+(?:json)?", " ", before, flags=re.IGNORECASE).rstrip())[-1]
        words = [] if lead.endswith((".", "!", "?", ";")) else list(RULE["talked_about"].finditer(lead))
        if (words and not RULE["meant"].search(lead[words[-1].end() :])) or RULE["taken_back"].match(reply, end):
            found.add(start)
        last, last_end, last_word = start, end, word
    return found


def _bare(reply: str) -> Word | None:
    """A reply that is a verdict word and nothing else but marks, or a JSON string of it."""
    said = reply.strip()
    try:
        loaded = json.loads(said)
    except ValueError:
        loaded = said
    if not isinstance(loaded, str):
        return None
    bare = RULE["bare"].fullmatch(re.sub(r"[*_`\"'#>]+", "", loaded).strip().rstrip(".。!").strip())
    return _word(bare["word"]) if bare else None
