# ruff: noqa: E501, SIM905  (a pattern or a word list reads best as one piece)
"""Chinese names in running text: who is spoken of on the left, a string that can be a name, what a person does on the right.

A surname's character alone says nothing (金黄, 石膏, 高热): a candidate needs a cue, and a word of prose or of the clinic is
a name only where a title or `，女，5岁` stands behind it.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

from clinical_r1.privacy.lexicon import chinese
from clinical_r1.privacy.spans import Kind, Span
from clinical_r1.text import HAN
from clinical_r1.text import HAN_CHARACTER as _H

_LATIN_TITLE = re.compile(r"\b(?:Dr|Mr|Mrs|Ms|Prof|Miss)\b\.?\s?$")
_TITLE = r"先生|女士|小姐|太太|同志|同学|老师|医生|医师|(?:主治|住院|规培|进修|实习|管床|责任)(?:医[师生]|护[士师])|(?:副)?主任|(?:副)?教授|大夫|护士|护师|院长|科长|处长|局长|校长|书记|经理|警官|阿姨|叔叔|伯伯|大爷|大妈|大娘|大哥|大姐|大嫂|奶奶|爷爷|师傅|老人|[姐哥嫂姨叔婶](?![姐哥嫂姨叔婶妹弟])|某某?|氏(?=[，,。、]|之)"
_PEOPLE = r"[，,、（(\s]{0,2}(?:性别\s?[:：]?\s?)?[男女](?![性方友朋儿孩士生科婴童])|(?:[，,（(\s]{1,2}\s?)?\d{1,3}\s?岁(?!以)|[，,（(]\s?[一二三四五六七八九十]{1,3}岁|[，,（(、\s]{1,2}[汉满回蒙藏苗彝壮侗瑶白傣黎畲土羌水京][族][，,。、（(\s]|[，,（(]\s?(?:维吾尔|哈萨克|蒙古|朝鲜|土家|布依|柯尔克孜|锡伯|达斡尔|哈尼|纳西|塔吉克|乌孜别克|撒拉|东乡|仡佬|拉祜|景颇|鄂温克|鄂伦春|俄罗斯|裕固|保安)族|之[妻夫子女父母]|[（(]\s?\d{1,3}\s?床|\s?[，,]?\s?[你您]好"
_DOES = (
    r"诉|近[一二三四五六七八九十两半几数\d日来期]|否认|昨|亦|也[出有感觉诉]|病史|自诉|主诉|自述|述|代诉|自称|称[其：，]|表示|反映|说|因[^为此素子]|今日|今晨|今天|昨日|昨晚|昨天|于[\d昨今晚早上下]|要求|拒绝|同意|陪同|陪护|陪伴|签字|签名|就诊|入院|出院|来院|来诊|来我院|复诊|住院|"
    r"精神[可尚好差欠萎]|神志|无(?:药物|明显|发热|过敏)|既往|谈话|查房|会诊|主刀|执刀|接诊|处(?=[，。,.；;]|就|转)|亦|负责|提供|发现|的(?:病|主|家属|床|电话|检|报告|手术|丈夫|妻子|父|母|儿|女|病情|住院)|随访|打电话|电话|手机|给药|核对|输液|抽血|采血|病情|目前|现[病年住]|一般情况|家住|住[在于院]|出生|系我|患[有病]|"
    r"行[^走为]|接受|确诊|被诊断|不慎|突发|突然|自觉|出现|感[到觉]|进食|服[用药]|醒|能[自配]|可[下自配]|生命体征|体检|术后|家属|护理|交代|沟通|签署|探视|联系|告知|接[听通]|回电|来电|代述|死亡|去世|转入|转出|建议|指示|记录|审核|书写|报告|完成|[，,]?身份证|生人|生于|宣教|交班|接班|巡视|送[来入医]"
)
_EDGE = r"$|[\s，。；：、！？,.;:!?（）()\[\]【】\"“”/|\-]"
_VERY = re.compile(rf"\s?(?:{_TITLE})|{_PEOPLE}|\s?[（(]\s?[A-Z][a-z]+\s[A-Z]")
_RIGHT = re.compile(rf"\s?(?:{_DOES}|{_TITLE})|{_PEOPLE}")
_ENDS = re.compile(rf"\s{{0,2}}(?:{_EDGE})")
_KIN = (
    r"妻子|丈夫|老公|老婆|爱人|配偶|儿子|女儿|长子|次子|长女|次女|父亲|母亲|爸爸|妈妈|哥哥|弟弟|姐姐|妹妹|孙子|孙女|外孙|外孙女|祖父|祖母|外公|外婆|岳父|岳母|婆婆|公公|儿媳|女婿|叔父|伯父|舅舅|姑姑|侄子|侄女|外甥|"
    r"其[妻夫子女父母兄弟姐妹]|之[子女父母夫妻]|家长|监护人|家属|亲属|亲戚|邻居|同村|同事|同学|室友|舍友|工友|病友|朋友|女友|男友|保姆|护工|房东"
)
_STAFF = r"告知|通知|联系|致电|询问|嘱咐|劝说|转告|感谢|陪诊的?|术者|主刀|手术者|[一二三]助|助手|麻醉|麻醉师|麻醉医[师生]|器械护士|洗手护士|巡回护士|责任护士|护士长?|医生|医师|大夫|主任|副主任|教授|专家|技师|药师|检查者|操作者|记录者|记录人|报告者|报告人|审核者|审核人|送检者|诊断者|采集者|书写者|陈述者|病史陈述者|供史者|联系人|陪同者|申请人|经手人|导师|班主任|民警|转诊自|同志|司机|伤者|死者|逝者|翻译|受检[者人]|嫌疑人"
_PATIENT = r"患者|患儿|病人|病员|病患|产妇|孕妇|伤员|受试者|姓名|女婴|男婴|我叫|我是|本人|名叫|名为|叫做|叫|姓名为|自称"
_LEFT_STRONG = re.compile(rf"(?:\d\s?床|{_PATIENT}|{_KIN}|{_STAFF})(?:\s?[:：是为]\s?|[（(]|\s{{1,2}})?$")
_LEFT_WEAK = re.compile(
    r"(?:由|与|和|及|经|请|嘱|向|跟|随|同|给|被|的|该|我院|贵科|代|予|让|对|告知|通知|联系|致电|转告|询问|咨询|找|委托|感谢|群里|汇报|请示|报告?|系|今日|昨日|今晨|今|昨|次日|当日|日|科|院|组)$"
)
_OPEN = re.compile(rf"(?:^|[^{HAN}\w]|[\n])\s{{0,3}}$")
_PETNAME = re.compile(
    rf"(?:乳名|小名|昵称|绰号|外号|化名|别名|艺名|曾用名|网名|诨名)\s?[:：叫为是]?\s?[“\"「]?(?P<v>{_H}{{2,4}}?)(?=[”\"」，。,.；、）)\s]|$)"
)
_FIELD = re.compile(
    r"(?:(?:患者|病人|患儿|产妇|孕妇|家属|亲属|配偶|父亲|母亲|监护人|联系人|医[师生]|护士)?\s?(?:姓\s{0,2}名|名\s{0,2}字|签\s?[名字]|签署人?|签章)|(?:参加|参与|讨论|与会|在场|联系|记录|报告|审核|申请|书写|采集|检查|操作|送检|诊断|复核|校对|录入|执行|核对|接诊|陪护|陪同|责任|经办|经手|填表|委托|代理|见证|谈话|告知|被告知)(?:人员?|者|医[师生]|护士)|"
    r"(?P<bare>主[治管诊]|经治|管床|首诊|值班|上级|麻醉|接诊|带教|[一二三]线|责护|[受被]检[者人])(?=\s?[:：])|(?:主[治管诊]|经治|住院|管床|首诊|值班|上级|会诊|麻醉|手术|进修|实习|规培)医[师生]|主刀|术\s?者|[一二三]助|助手|麻醉师|紧急联系人|家长|患者|病人|医[师生]|护士|产妇|新生儿父|新生儿母|"
    rf"{_H}{{0,4}}(?:主任|院长|科长|处长|护士长|组长|队长|校长|所长|站长|主管|负责人|(?:带教|指导)老师|老师|教授|导师|博士|专家|药师|技师|护师|护理员|打字员|录入员|记录员|检验[者师员]|书记员|秘书|助理|会诊者|随访[者人]|核对|校对|录入|打字|口述|听写|复核|审核|记录|书写|报告|采血|送检|抄送))"
    rf"(?:签[名字])?\s?[:：]\s{{0,3}}(?P<v>{_H}(?:\s?[{_H[1:-1]}·.]){{1,9}}?)(?=$|[^{HAN}·.\s]|\s{{1,3}}[^\s{HAN}]|\s{{2,}}|\n|\s{_H}{{2}})"
)
_SIGNED = re.compile(
    r"签|姓\s{0,2}名|名\s{0,2}字|(?:记录|报告|审核)[者人医]|联系|术\s?者|主刀|[一二三]助|书写[者人]|(?<!患)者[:：]|(?<!病)人[:：]|医师[:：]|麻醉师"
)
_NOBODY = re.compile(
    r"^(?:未知|不详|无名|无|未填|待查|保密|匿名|略|同意|拒绝|不同意|已签|未签|代签|本人|家属|患者|病人|见|详见|手术|暂无|以上|情况|要求|知情|了解|自诉|诉|因|否认|男|女|未婚|已婚|神志|一般|精神|可|目前|现)"
)
_ROLE = r"医[生师]|大夫|护[士师工]|主任|教授|师傅|阿姨|保姆|大[爷妈娘]|[姐哥](?![姐哥妹弟])"
_NICK = re.compile(
    rf"(?P<left>嘱|请|告知|与|和|给|向|护士|医生|大夫|医师|同事|邻居|工友|同村|朋友|室友|病友|老板|师傅|司机|[日夜白晚早中值]班|领导|护工|保姆|[爸妈爷奶公婆哥姐弟妹叔伯舅姨]|找|由|叫|的|^|[，。；、\s“\"‘「（(])(?P<v>(?!大黄|老花|大安|小方)[小老阿大](?P<s>{_H}))(?!\s?\d+(?:\.\d+)?\s?[g克])(?=$|[^{HAN}]|{_TITLE}|{_DOES}|(?<=[士生夫师工居事友][小老].)(?:已|正|再次|立即|协助|遵|打|拨))|(?P<w>[小老](?P<t>{_H})|阿{_H})(?={_ROLE})"
)
_TWICE = rf"(?P<s>(?![天常往渐刚频时慢多少早晚每各日夜偶仅略稍单双好宝乖爸妈爷奶哥姐弟妹叔伯姑婆公舅姨]){_H})(?P=s)"
_CHILD = [
    re.compile(pattern)
    for pattern in (
        rf"(?:儿子|女儿|孙子|孙女|弟弟|妹妹|患儿|其[子女])(?P<v>小(?![学产时便儿腿肠脑头三中大小指孩]){_H}|{_TWICE})(?=陪|代[述诉]|主?诉|说|发现|送[来入医]|签)",
        rf"(?<=患儿)(?P<v>{_TWICE})(?=[，,（(、\s])",
        rf"(?<!{_H})(?P<v>{_TWICE})(?=的?(?:妈妈|爸爸|奶奶|爷爷|外婆|外公|姥姥|姥爷|家长))",
    )
]
"""Pet names of children, by kinship, by what the child does, by whose parent speaks."""
_ORDINAL = re.compile(rf"(?P<v>(?P<s>{_H})[老小][大二三四五六七八九幺])(?=$|[^{HAN}]|{_DOES}|家|亦|也)")
_DOTTED = re.compile(
    rf"(?<![{HAN}·])(?P<lead>(?:{_PATIENT}|{_KIN}|{_STAFF})?)(?P<v>{_H}{{1,6}}(?:\s?·\s?{_H}{{1,7}}){{1,3}}?)(?=$|[^{HAN}·]|{_TITLE}|{_DOES}|{_H}{{0,3}}(?:咳|发热|腹|头|胸|呕))"
)
_PEOPLE_OF = re.compile(
    rf"(?:^|[，。；;\n]|{_PATIENT})\s?(?P<v>(?!男|女|患|已|未|系){_H}{{2,8}}?)(?=[，,（(、]\s?(?:[男女][，,]\s?(?:\d+岁[，,])?\s?)?(?:维吾尔|哈萨克|蒙古|朝鲜|土家|布依|柯尔克孜|锡伯|达斡尔|哈尼|纳西|塔吉克|乌孜别克|撒拉|东乡|仡佬|拉祜|景颇|鄂温克|鄂伦春|俄罗斯|裕固|保安|[汉满回藏苗彝壮侗瑶白傣黎畲土羌水京佤])族)"
)


def find_names_zh(text: str) -> Iterator[Span]:
    """Chinese names in folded text, with a score that says how sure."""
    if not re.search(_H, text):
        return
    found = list(_han_names(text))
    yield from found
    yield from _listed(text, found)
    spaced = [match.span() for match in _SPACED.finditer(text)]
    if spaced:  # `林 海 燕`: once more without the spaces between the characters
        dropped = {index for start, end in spaced for index in range(start, end)}
        kept = [index for index in range(len(text)) if index not in dropped]
        for span in _han_names("".join(text[index] for index in kept)):
            start, end = kept[span.start], kept[span.end - 1] + 1
            if _APART.fullmatch(text, start, end):
                yield Span(start, end, span.kind, span.score)


_NEXT = re.compile(rf"\s?(?P<by>[、/／和与及，,])\s?(?P<v>{_H}{{2,3}})(?=$|[^{HAN}]|{_DOES})")
_PREVIOUS = re.compile(rf"(?:^|[^{HAN}]|[由请经])(?P<v>{_H}{{2,3}})\s?[、/／和与及]\s?$")
_TOGETHER = re.compile(
    rf"[由请经与和](?P<v>{_H}{{2,3}}(?:[、和及]{_H}{{2,3}}?){{1,4}})(?=陪[同护]|护送|送[来入医]|代[述诉]|[会查]诊|主刀|签字)"
)


def _listed(text: str, found: list[Span]) -> Iterator[Span]:
    """Names beside a name: `签名：李华/王明`, `由赵敏、李雷陪同`."""
    for group in _TOGETHER.finditer(text):
        for one in re.finditer(rf"{_H}+", group["v"]):
            if _is_full_name(one.group(), all_typical=False):
                start = group.start("v") + one.start()
                yield Span(start, start + len(one.group()), Kind.NAME, 0.8)
    for span in found:
        position = span.end
        while (match := _NEXT.match(text, position)) and _is_full_name(match["v"], all_typical=match["by"] in "，,"):
            yield Span(match.start("v"), match.end("v"), Kind.NAME, 0.8)
            position = match.end()
        before = _PREVIOUS.search(text[max(0, span.start - 8) : span.start])
        if before and _is_full_name(before["v"], all_typical=True):
            start = max(0, span.start - 8) + before.start("v")
            yield Span(start, start + len(before["v"]), Kind.NAME, 0.8)


def _is_full_name(value: str, all_typical: bool) -> bool:
    """A surname that is seldom a word, and a given name; no word of prose or of the clinic."""
    lists = chinese()
    typical = sum(char in lists.given for char in value[1:])
    return (
        value[0] in lists.surnames - lists.rare
        and typical >= (len(value) - 1 if all_typical else 1)
        and not _wordy(value)
        and not _ETYM.search(value[1:])
    )


_APART = re.compile(rf"{_H}(?:[ \t*]{{1,2}}{_H}{{2}}|(?:[ \t*]{{1,2}}{_H}){{1,3}})")
_GIVEN_APART = re.compile(rf"\s{_H}(?:\s{_H})?(?=$|[^{HAN}]|\s|\n)")
_SPACED = re.compile(rf"(?<={_H})[ \t*]{{1,2}}(?={_H})")


def _han_names(text: str) -> Iterator[Span]:
    yield from _labelled(text)
    yield from _speakers(text)
    for pattern in (_NICK, _ORDINAL):
        for match in pattern.finditer(text):
            group = "w" if match.groupdict().get("w") else "v"
            surname = match["s"] if group == "v" else match["t"]
            if surname is None or surname in chinese().surnames - chinese().rare:
                yield Span(match.start(group), match.end(group), Kind.NAME, 0.85)
    for pattern in (_PETNAME, *_CHILD):
        for match in pattern.finditer(text):
            yield Span(match.start("v"), match.end("v"), Kind.NAME, 0.8)
    for match in _DOTTED.finditer(text):
        if not re.search(
            r"综合征|病|征|氏|试验|定律|反射|曲线|手术", text[match.end() : match.end() + 4] + match["v"][-3:]
        ):
            yield Span(match.start("v"), match.end("v"), Kind.NAME, 0.9)
    for match in _PEOPLE_OF.finditer(text):
        if match["v"] not in chinese().words and not _ETYM.search(match["v"][1:]):
            yield Span(match.start("v"), match.end("v"), Kind.NAME, 0.85)
    yield from _surnamed(text)
    yield from _minority(text)


_SAID = re.compile(r"[了吗呢吧啊么呀嘛的是没不我你您他她这那哪什怎很请问谢]|好[的，]")
"""Characters of speech: `医生：多久了？`"""
_SPEAKER = re.compile(
    rf"(?m)^[ \t\u3000【\[]{{0,4}}(?P<v>{_H}{{2,4}})[】\]]?\s?[:：]\s?[“\"]?(?=[^\n]{{0,60}}[我你您吗呢吧啊呀嘛？?])"
)


def _speakers(text: str) -> Iterator[Span]:
    """Who speaks in a dialogue: a line's `王建国：我最近咳嗽`."""
    for match in _SPEAKER.finditer(text):
        if _is_full_name(match["v"], all_typical=False) or match["v"][:2] in chinese().compound:
            yield Span(match.start("v"), match.end("v"), Kind.NAME, 0.8)


def _labelled(text: str) -> Iterator[Span]:
    """What fills a field for a name or a signature is a name, with or without a listed surname."""
    lists = chinese()
    for match in _FIELD.finditer(text):
        value = re.sub(r"\s", "", match["v"])
        label = match.group()[: match.start("v") - match.start()].strip()
        if _NOBODY.match(value) or _SAID.search(value):
            continue
        if match["bare"] and not (len(value) <= 4 and _is_full_name(value, all_typical=False)):
            continue
        surname = (
            value[0] in lists.surnames or value[:2] in lists.compound or any(piece in value for piece in lists.minority)
        )
        if (
            (bool(_SIGNED.search(label)) and len(value) <= 4 and value not in lists.words)
            or (surname and len(value) <= 8 and not _wordy(value))
            or "·" in value
        ):
            yield Span(match.start("v"), match.end("v"), Kind.NAME, 0.95)


def _wordy(value: str) -> bool:
    """Is it a word, or does it begin with one?"""
    words = chinese().words
    return value in words or (len(value) > 2 and value[:2] in words and value[:2] not in chinese().wordlike)


@lru_cache(maxsize=1)
def _surname() -> re.Pattern[str]:
    lists = chinese()
    compound = "|".join(sorted(lists.compound))
    return re.compile(rf"(?:{compound}|[{''.join(sorted(lists.surnames))}])")


def _surnamed(text: str) -> Iterator[Span]:
    """Every surname's character with a cue before or behind it; a find ends the search inside it."""
    position = 0
    pattern = _surname()
    while match := pattern.search(text, position):
        end = _name_end(text, match)
        if end:
            yield Span(match.start(), end, Kind.NAME, 0.85)
        position = end or match.start() + 1


def _name_end(text: str, match: re.Match[str]) -> int:
    """End of the name that begins with this surname, 0 where it begins none."""
    start, surname = match.start(), match.group()
    left = text[max(0, start - 8) : start]
    opening, strong, weak = bool(_OPEN.search(left)), bool(_LEFT_STRONG.search(left)), bool(_LEFT_WEAK.search(left))
    if (
        strong
        and not opening
        and re.search(r"(?:[医药]生|护士|主任|教授|大夫)$", left)
        and re.match(r"查房|会诊|医[师生]|嘱", text[start : start + 3])
    ):
        return 0
    if not (opening or strong or weak) and not _LATIN_TITLE.search(left):
        return 0
    if _LATIN_TITLE.search(left):
        given = re.compile(rf"{_H}{{0,2}}(?={_EDGE})").match(text, match.end())
        return given.end() if given else 0
    rare = surname in chinese().rare
    best = 0
    for length in (3, 2, 1):
        end = match.end() + length
        if not re.fullmatch(rf"{_H}{{{length}}}", text[match.end() : end]):
            continue
        if _accepts(text, start, end, surname, (opening, strong, weak)) and (
            not best or _VERY.match(text[end : end + 12])
        ):
            best = end
    if best:
        return best
    titled = re.match(rf"\s?(?:{_TITLE})", text[match.end() : match.end() + 5])
    if (
        titled
        and len(surname) <= 2
        and (not rare or strong)
        and (opening or strong or weak)
        and not _crosses(text, start, match.end())
    ):
        return match.end()
    spaced = _GIVEN_APART.match(text, match.end()) if strong and re.search(r"[:：]\s?$", left) else None
    return spaced.end() if spaced else 0


def _accepts(text: str, start: int, end: int, surname: str, cues: tuple[bool, bool, bool]) -> bool:
    """Do the cues around `text[start:end]` outweigh what speaks against a name?"""
    opening, strong, weak = cues
    lists = chinese()
    name, given = text[start:end], text[start + len(surname) : end]
    right = text[end : end + 12]
    very, does, ends = bool(_VERY.match(right)), bool(_RIGHT.match(right)), bool(_ENDS.match(right))
    typical = sum(char in lists.given for char in given)
    double = len(given) == 3 and len(surname) == 1
    if double and not (given[0] in lists.surnames and typical >= 2 and very):
        return False
    rare, titled = surname in lists.rare, bool(re.match(rf"\s?(?:{_TITLE})", right))
    polite = bool(re.match(r"\s?(?:先生|女士|小姐|太太|同志|阿姨|大爷|大妈|奶奶|爷爷)", right))
    word = name in lists.words or (len(name) > 2 and _wordy(name) and len(surname) == 1)
    if name in lists.wordlike and (very or name not in ("平安", "安静", "冷静", "温柔", "安宁")):
        if strong and (very or (does and name not in ("高兴", "平静"))):
            return True
        alone = opening and name in ("夏天", "安静", "平安", "汤圆", "米粒", "冷静")
        return very and (titled or opening or weak) and not alone
    if (word and not (polite and not rare and len(name) == 2)) or _ETYM.search(given):
        return False
    if len(surname) == 2:
        return (strong or very or does) if not ends else (strong or very)
    sure = strong and typical == len(given) and bool(_ACTS.match(right))
    if not very and not sure and _crosses(text, start, end):
        return False
    if very and _crosses_left(text, start):
        return False
    if strong:
        return (
            very
            or ((does or right.startswith(_TOLD)) and (typical > 0 or not rare))
            or (ends and typical > 0 and not (rare and typical < len(given)))
        )
    if very:
        return (typical > 0 and not (rare and weak and typical < len(given))) or (
            opening and not rare and len(given) == 2 and not titled
        )
    if weak:
        return not rare and typical == len(given) and (does or (ends and len(given) == 2))
    opens = _OPENS_SHORT if len(given) == 1 else _OPENS
    return (
        opening
        and does
        and (not rare or len(given) == 2)
        and typical == len(given)
        and bool(opens.match(text[end : end + 30]))
    )


_SELF = r"诉|近[一二三四五六七八九十两半几数\d日来期]|否认|昨|亦|也[出有感觉诉]|病史|自诉|主诉|自述|要求|签"
_OPENS = re.compile(rf"{_SELF}|因|今[日晨]|于\d|来[院诊]|入院|出院")
_OPENS_SHORT = re.compile(rf"{_SELF}|因.{{2,20}}(?:入院|就诊|来诊|来院)")
"""What a person does whose name opens a sentence; one of two characters needs more."""
_ACTS = re.compile(r"代[述诉]|陪同|陪护|签字|签名|自诉|主诉|否认|告知|联系")
_TOLD = ("手术", "风险", "输血", "操作", "用药")
"""What a patient is told of: `已告知患者某某手术风险`."""
_ETYM = re.compile(
    r"[病炎症癌瘤痛药膜肿胀疸痰咳喘泻疹痒麻汤散丸剂酸素碱酶胺唑烷酯酮醇癣疮痔瘘瘫疝腺肠胃肝脾肾肺胰胆膀胱脑髓骨骼腱筋脉血尿便粪脓痈疽疖疱斑疣痣瘢痕栓梗]|[室房]性|可疑|[患医护]|检查|治疗|手术"
)


def _crosses(text: str, start: int, end: int) -> bool:
    """Does a word of prose run across an edge of the candidate (`主|任医师`, `张口|`)?"""
    words = chinese().words
    for at in (end - 1, end - 2):
        if at > start and any(text[at : at + size] in words for size in (2, 3) if at + size > end):
            return True
    return _crosses_left(text, start)


def _crosses_left(text: str, start: int) -> bool:
    return text[max(0, start - 1) : start + 1] in _ACROSS or text[max(0, start - 1) : start + 2] in _ACROSS


_ACROSS = frozenset(
    "主任 责任 主管 上任 信任 胜任 当时 同时 及时 按时 随时 平时 有时 定时 实时 临时 暂时 全程 专科 全科 外科 内科 分时 共和 温和 缓和 中和 饱和 调和 日常 异常 正常 经常 通常 非常 时常 照常 家常 由于 对于 关于 至于 位于 属于 处于 给予 对应 反应 供应 适应 相应 及其 与其 由其 向其 "
    "对成 被单 被动 随同 和解 和平 由东 向东 同安 随机 给水 组成 科主 日方 院方 对方 今年 昨夜 日许 日余 组方".split()
)


@lru_cache(maxsize=1)
def _pieces() -> re.Pattern[str]:
    return re.compile("|".join(sorted(chinese().minority, key=len, reverse=True)))


_TRANSLIT = frozenset("阿艾依古丽买提江尔巴特扎西次仁卓玛才让旦增尼央金格桑洛多吉达瓦热布克拜木汗别孜吐逊玉素甫卡德苏莱曼帕娜乌云其那呼和图雅力萨日朗根努山合麦吾肉祖农伊亚森里哈斯赛库班卜杜都不叶加纳沙兰勒波登玛高娃额孟敖宝音牧赫塔铁青满朝白查干通拉嘎坦胡旺平措边普米索南贡曲珍强顿珠罗坚赞群培杰当周项秀宗姆美土毛华完么更昂切再衣比亥海沙也生艳")  # fmt: skip


def _minority(text: str) -> Iterator[Span]:
    """Names that Chinese characters spell by sound: a known piece, and around it characters that such names use."""
    for match in _pieces().finditer(text):
        start, end = match.span()
        while start and text[start - 1] in _TRANSLIT and match.start() - start < 5:
            start -= 1
        while (
            end < len(text)
            and text[end] in _TRANSLIT
            and end - match.end() < 6
            and not re.match(rf"{_DOES}", text[end : end + 4])
        ):
            end += 1
        left, right = text[max(0, start - 8) : start], text[end : end + 12]
        strong, opening, weak = bool(_LEFT_STRONG.search(left)), bool(_OPEN.search(left)), bool(_LEFT_WEAK.search(left))
        very, does = bool(_VERY.match(right)), bool(_RIGHT.match(right))
        if (
            end - start < 3
            or text[start:end] in _SOUND_WORDS
            or re.match(r"[病征炎菌药片胶]|综合|试验|单抗|滨|韦|汀|坦|星|唑|素|酶|霉", right)
        ):
            continue
        if (
            (strong and (very or does or bool(_ENDS.match(right))))
            or (opening and (very or does))
            or (weak and (very or does))
        ):
            yield Span(start, end, Kind.NAME, 0.85)


_SOUND_WORDS = frozenset("巴特综合 阿昔洛韦 哈斯林 布拉氏 尼玛 乌兰察布 呼和浩特 罗布泊 达瓦昆".split())


def is_person_zh(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """A Chinese model's find that reads as a person: a surname and a given name, no word, nothing of the clinic."""
    name = re.sub(r"\s", "", text[start:end])
    lists = chinese()
    if not re.fullmatch(rf"{_H}{{2,4}}", name) or name in lists.words or _wordy(name) or _ETYM.search(name[1:]):
        return
    if name[0] in lists.surnames - lists.rare or name[:2] in lists.compound:
        yield start, end
