"""Which encoding a file is in: byte order marks, UTF-8, UTF-16 without a mark, GB18030, Big5, Windows-1252.

`charset-normalizer` reads short Chinese files as Korean more often than not (docs/log.md), so the few encodings that
records in English and Chinese come in are told apart by what they look like; whoever knows better says `encoding`.
"""

import codecs
import re

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_HIGH_RUN = re.compile(rb"[\x80-\xff]+")
_MULTIBYTE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_COMMON = frozenset(
    "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种面而方后多定行学法所民得经十三之"
    "进着等部度家电力里如水化高自二理起小物现实加量都两体制机当使点从业本去把性好应开它合还因由其些然前外天政四日那社义事平形相全表间样"
    "与关各重新线内数正心反你明看原又么利比或但质气第向道命此变条只没结解问意建月公无系军很情者最立代想已通并提直题党程展五果料象员革位"
    "患病男女岁咳嗽发热痛胸腹头肺肝肾胃肠炎症状诊断治疗检查入院门诊医史血压糖尿痰呼吸恶呕吐乏力皮肤肿瘤骨折感染急慢左右侧阳阴双异常"
    "診斷檢查與為無後個發熱體溫腫歲頭這時來說國對會學過點種電開還沒從動進長問題業機關經實現應當樣氣"
)


def find_encoding(head: bytes) -> str:
    """The encoding of a file that begins with `head`; "" where none fits."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if wide := _wide(head):
        return wide
    # The sample may end inside of a character.
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
        return "gb18030" if _only_looks_like_utf8(text, head) else "utf-8"
    except UnicodeDecodeError:
        pass
    if len(_MULTIBYTE.findall(head)) > 8 * _broken(head):
        return "utf-8"  # with a few broken rows, which are told one by one
    scores = {name: _score(head, name) for name in ("gb18030", "big5", "cp1252")}
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] > 0 else ""


def _only_looks_like_utf8(text: str, head: bytes) -> bool:
    """A few Chinese characters in GB18030 may form UTF-8's two-byte letters (头 is ͷ), of scripts that nobody mixes."""
    special = [char for char in text if ord(char) > 127]
    rare = bool(special) and all("\u0100" <= char < "\u0800" for char in special)
    return rare and len(special) < 50 and _score(head, "gb18030") > 0.6


def _wide(head: bytes) -> str:
    """UTF-16 without a mark: every other byte of Latin text and line ends is a NUL."""
    even, odd = head[0::2].count(0), head[1::2].count(0)
    half = max(1, len(head) // 2)
    if odd > 0.3 * half and even < 0.05 * half:
        return "utf-16-le"
    return "utf-16-be" if even > 0.3 * half and odd < 0.05 * half else ""


def _broken(head: bytes) -> int:
    """Bytes over 127 that are part of no UTF-8 character."""
    return sum(len(run) for run in _HIGH_RUN.findall(_MULTIBYTE.sub(b"", head)))


def _score(head: bytes, name: str) -> float:
    """How much the bytes look like text of this encoding; -1 for what cannot be it."""
    try:
        text = codecs.getincrementaldecoder(name)().decode(head)
    except UnicodeDecodeError:
        return -1.0
    special = [char for char in text if ord(char) > 127]
    if name == "cp1252":
        # Accented letters stand alone between plain ones; Chinese fills whole runs of bytes.
        lone = sum(len(run) == 1 for run in _HIGH_RUN.findall(head))
        letters = sum(char.isalpha() or char in "°µ±²³–—‘’“”…×·½¼" for char in special)
        return 0.9 * (lone / max(1, len(_HIGH_RUN.findall(head)))) * letters / max(1, len(special))
    han = [char for char in special if "\u4e00" <= char <= "\u9fff"]
    return (
        sum(char in _COMMON for char in han) / max(1, len(han)) + 0.1 * len(han) / max(1, len(special)) if han else -1
    )
