"""Chinese names in running text: a surname, one or two characters that given names use, and a context that fits."""

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import yaml

from clinical_r1.privacy.spans import Kind, Span

_HAN = r"\u3400-\u9fff"
_LABEL = (
    r"姓\s{0,2}名|患者姓名|联系人|签名|签字|签署人|记录人|报告人|审核人|申请人|监护人|家属|亲属|主刀|术者|助手|麻醉师|经治医[师生]|"
    r"主治医[师生]|主管医[师生]|接诊医[师生]|住院医[师生]|责任护士|管床医[师生]|医[师生]签[名字]|陪护人?|紧急联系人"
)
_BEFORE = (
    r"患者|患儿|病人|病员|产妇|孕妇|家属|医生|医师|大夫|主任|教授|护士长?|专家|同事|邻居|室友|病友|朋友|丈夫|妻子|爱人|配偶|儿子|女儿|"
    r"父亲|母亲|爸爸|妈妈|哥哥|弟弟|姐姐|妹妹|孙子|孙女|祖父|祖母|之[子女父母夫妻]|其[子女父母夫妻兄弟姐妹]|由|经|请|叫|名叫|名为|"
    r"的|是|为|系|与|和|及|让|向|被|给|对|随|陪同者?|嘱|告知|通知|致电|联系|委托|转|见|找|从|本人|我叫|老"
)
_AFTER = (
    r"先生|女士|小姐|同志|老师|医生|医师|主任|教授|大夫|护士长?|阿姨|叔叔|大爷|大妈|奶奶|爷爷|师傅|老人|患者|"
    r"\s?[（(，,、]?\s?[男女](?![性方])|\s?[（(，,]\s?(?:签|\d{1,3}\s?岁)|今日|今晨|昨日|因|于\d|诉|自诉|主诉|自述|表示|反映|说|称|来|到|至|"
    r"入院|出院|就诊|复诊|陪同|陪护|签|同意|负责|主刀|查房|会诊|执刀|记录|审核|的(?:病|主|家|床|电|检|报|住|手|丈|妻|父|母|儿|女)|在|已|曾|将|要求|拒绝|接诊|随访|打电话|通知|电话|手机|住|床|身份|联系|提供|发现|昨|今|近|主|教"
)
_TITLE = r"先生|女士|小姐|同志|老师|医生|医师|主任|教授|大夫|护士长?|阿姨|叔叔|大爷|大妈|奶奶|爷爷|师傅|某某?"
_STOP = rf"(?=$|[^{_HAN}]|{_AFTER})"
_ETHNIC = re.compile(rf"[{_HAN}]{{2,8}}\s?·\s?[{_HAN}]{{2,8}}?(?=$|[^{_HAN}]|{_AFTER})(?!综合征|病|征|氏)")
_LABELLED = re.compile(
    rf"(?:{_LABEL})\s{{0,2}}[:：为是]?\s{{0,2}}(?P<name>[{_HAN}](?:\s?[{_HAN}·]){{1,7}}?)(?=$|[^{_HAN}·\s]|\s{{1,3}}[^\s{_HAN}]|\s{{2,}}|\s[{_HAN}]{{2,}}|{_AFTER})"
)


@lru_cache(maxsize=1)
def _tables() -> dict[str, frozenset[str]]:
    raw = yaml.safe_load(Path(__file__).with_name("names_zh.yaml").read_text(encoding="utf-8"))
    tables = {key: frozenset("".join(raw[key].split())) for key in ("surnames", "rare_surnames", "given")}
    return tables | {key: frozenset(raw[key].split()) for key in ("compound", "not_names")}


@lru_cache(maxsize=1)
def _candidate() -> re.Pattern[str]:
    tables = _tables()
    surname = "(?:" + "|".join(sorted(tables["compound"])) + "|[" + "".join(sorted(tables["surnames"])) + "])"
    return re.compile(rf"(?P<s>{surname})(?P<g>[ \t*.]{{0,2}}[{_HAN}](?:[ \t*.]{{0,2}}[{_HAN}])?)")


@lru_cache(maxsize=1)
def _titled() -> re.Pattern[str]:
    return re.compile(
        rf"(?P<s>{'|'.join(sorted(_tables()['compound']))}|[{''.join(sorted(_tables()['surnames']))}])\s?(?={_TITLE})"
    )


_LEFT = re.compile(rf"(?:{_BEFORE}|(?:^|[^{_HAN}]))\s{{0,2}}$")
_RIGHT = re.compile(rf"\s{{0,2}}(?:{_AFTER}|$|[^{_HAN}])")


def find_names_zh(text: str) -> Iterator[Span]:
    """Chinese names in folded text, with a score that says how sure."""
    for match in _LABELLED.finditer(text):
        yield Span(match.start("name"), match.end("name"), Kind.NAME, 0.95)
    for match in _ETHNIC.finditer(text):
        yield Span(match.start(), match.end(), Kind.NAME, 0.9)
    rare = _tables()["rare_surnames"]
    for match in _titled().finditer(text):
        if match.group("s") not in rare or _LEFT.search(text[max(0, match.start() - 4) : match.start()]):
            yield Span(match.start("s"), match.end("s"), Kind.NAME, 0.9)
    words = {index for word in _words().finditer(text) for index in range(*word.span())}
    position = 0
    pattern = _candidate()
    while candidate := pattern.search(text, position):
        span = _judge(text, candidate, words)
        if span:
            yield span
        position = span.end if span else candidate.start() + 1


def _judge(text: str, match: re.Match[str], words: set[int]) -> Span | None:
    """The better reading of surname + two or one characters at this place, or None.

    `words` are the indices that belong to words of clinical prose: no name begins or ends in one.
    """
    start, surname = match.start(), match.group("s")
    tail = [i for i in range(match.start("g"), match.end("g")) if "\u3400" <= text[i] <= "\u9fff"]
    best: tuple[float, Span] | None = None
    for count in (2, 1):
        if len(tail) < count or start in words or tail[count - 1] in words:
            continue
        end = tail[count - 1] + 1
        margin = _margin(text, start, end, surname, "".join(text[i] for i in tail[:count]))
        if margin >= -1e-9 and (best is None or margin > best[0] + 1e-9):
            best = margin, Span(start, end, Kind.NAME, 0.7 + margin)
    return best[1] if best else None


def _margin(text: str, start: int, end: int, surname: str, given: str) -> float:
    """How far the evidence for a name exceeds what is needed; negative: no name."""
    tables = _tables()
    left = bool(_LEFT.search(text[max(0, start - 6) : start]))
    right = bool(_RIGHT.match(text[end : end + 8]))
    titled = bool(_TITLED_RIGHT.match(text[end : end + 4]))
    rare, compound = surname in tables["rare_surnames"], len(surname) > 1
    typical = sum(char in tables["given"] for char in given)
    score = 0.15 * left + 0.15 * right + 0.15 * titled - 0.15 * rare + 0.2 * compound
    if len(given) == 2:
        if not typical and not (left and right):
            return -1.0
        return score + 0.3 + 0.2 * typical - (0.6 if left or right else 0.7)
    if not typical and (rare or not (left and right) or surname in _ADJECTIVES):
        return -1.0
    return score + 0.3 + 0.2 * typical - (0.6 if not typical else 0.65)


_ADJECTIVES = "高黄白石金毛马温方水"
_TITLED_RIGHT = re.compile(rf"\s?(?:{_TITLE})")


@lru_cache(maxsize=1)
def _words() -> re.Pattern[str]:
    return re.compile("|".join(sorted(_tables()["not_names"], key=len, reverse=True)))
