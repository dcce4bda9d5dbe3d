"""A reference that lists several diagnoses, taken apart: discharge diagnoses are lists more often than not.

`1.肺炎 2.高血压`, numbered lines, `肺炎；高血压`, `pneumonia; hypertension`, `肺炎、高血压`: principal first. A comma
never divides (`carcinoma, prostate`), and neither does a mark within a sentence or within one long name
(`脑炎、脊髓炎和脑脊髓炎`): a wrongly divided reference would make half of a name a right answer.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from clinical_r1.text import HAN

_NUMBER = re.compile(
    rf"(?:(?<=^)|(?<=[\s;；,，、。.)）{HAN}]))(?:[(（](\d{{1,2}})[)）]|(\d{{1,2}})[.、．)）](?!\d(?![型级期度]))|([①-⑳]))\s*"
)
_SEMICOLON = re.compile(r"[;；\n]+")
_BULLET = re.compile(r"^[-*•–]\s+(?=\S)")
_EDGE = " \t\r\n;；,，、。."
_SENTENCE = re.compile(
    r"\b(?:is|are|was|were|has|have|had|may|might|should|would|can|cannot|will|be|do|does|did)\b|[。？?！!]|因为|所以|应该|可以|不宜"
)
_DISEASE_ENDS = re.compile(
    r"(?:炎|症|病|癌|瘤|征|候群|损伤|骨折|结石|积液|出血|梗[死塞]|狭窄|不全|衰竭|肥大|增生|囊肿|溃疡|息肉|感染|贫血|高血压|低血压|水肿|硬化|栓塞"
    r"|血栓|脱位|扭伤|哮喘|休克|昏迷|中毒|畸形|缺损|疝|痔|疮|痛|风|麻痹|瘫|聋|盲|障|白血病|紫癜|血症|气胸|流产|妊娠|早产|术后|状态|扩张|心律失常|颤动|房颤|阻滞"
    r"|脂肪肝|结节|脓肿|坏死|破裂|穿孔|梗阻|脱垂|突出|退变|疹|癣|尿路感染|冠心病|糖尿病|结核|卒中|梗|级|期|型)(?:[(（][^()（）]*[)）])?$"
)


def references_of(fields: Mapping[str, Any]) -> list[str]:
    """The list `references` of a row, or its one text `reference` taken apart; an option of a multiple-choice item is
    one thing."""
    if fields.get("references"):
        return list(fields["references"])
    return [fields["reference"]] if fields.get("options") else split_references(fields["reference"])


def split_references(text: str) -> list[str]:
    """The diagnoses of a reference in order; one element where it names one thing. Never empty for a text that is
    not."""
    text = text.strip()
    for parts in (_numbered(text), _by_semicolon(text), _by_enumeration(text)):
        if len(parts) > 1:
            first = {part.casefold(): part for part in reversed(parts)}
            return list(dict.fromkeys(first[part.casefold()] for part in parts))
    return [text]


def _numbered(text: str) -> list[str]:
    """Parts behind 1, 2, 3 ... in that order, beginning at the start of the text."""
    marks: list[re.Match[str]] = []
    for found in _NUMBER.finditer(text):
        number = int(found[1] or found[2] or ord(found[3]) - ord("①") + 1)
        if number == len(marks) + 1:
            marks.append(found)
    if len(marks) < 2 or text[: marks[0].start()].strip(_EDGE):
        return []
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return _clean(text[mark.end() : end] for mark, end in zip(marks, ends, strict=True))


def _by_semicolon(text: str) -> list[str]:
    parts = _clean(_SEMICOLON.split(text))
    names = all(not _SENTENCE.search(part) and len(part.split()) <= 8 and len(part) <= 80 for part in parts)
    return parts if names else []


def _by_enumeration(text: str) -> list[str]:
    parts = _clean(text.split("、"))
    names = all(_DISEASE_ENDS.search(part) and 2 <= len(part) <= 30 for part in parts)
    return parts if parts and names and not re.search(r"[和及或的与]", parts[-1]) else []


def _clean(parts: Iterable[str]) -> list[str]:
    return [part for raw in parts if (part := _BULLET.sub("", raw.strip(_EDGE)))]
