"""Which encoding a file is in: byte order marks, UTF-8, UTF-16 without a mark, GB18030, Big5, Windows-1252.

`charset-normalizer` reads short Chinese files as Korean more often than not (docs/log.md), so the few encodings that
records in English and Chinese come in are told apart by what they look like; whoever knows better says `encoding`.
"""

import codecs
import re

from clinical_r1.lexicon import simplified

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
    "一三上下不与业丝两严个中丸为主么义之乏乘乙也乱乳了事二于五些交产人从他代以们会传伤伴但位低住体作你使侧便倒假"
    "偏偶儿先光克免党入全公共关其养内冒军农冠冷减出分列创利别到制刺剂前剧力功加动劳勃包化区医十升半单卵压厚原去又"
    "及双反发受变口只可史右吃各合同后吐向听吸呕员周味呼命和咬咳咽品响哭唇喉嗽嘴器囊四因困围固国图在地场坏坐块垂型"
    "域塞增壁声处复外多夜大天失头女奶好如妊娠娩子孔孕学它官定实室宫害家容对导射小少尔尖就尿局屁居展岁巢工左差已巴"
    "带常干平年并幼床应底度延建开异式引张强归当形影征很律得微心态急性息恶患情想意感慢成我或房所扁手打扩扭把抑抗折"
    "抽拉持指挛损排接提搐撞支放政故效敏散数斑料斜断新方施族无日早时明易是显晕晚晨暴曲最月有服期木未本术机杀条来板"
    "构果染查柱栓样核根梗梦检植椎次欲正此死殖母每毒比毛民气水汗汽沉没治泌法泡波注泻活流浅消涕液淋清温湿溃滑激火炎"
    "点烧热焦然燥牙物特状狭环现球理瓣生用由甲电男界畸疗疙疡疫疮疱疲疹疼疾病症痒痕痘痛痤痫痰瘘瘙瘤瘩瘫癌癜癫白的皮"
    "盆盖盘直相看眠眼着睑睛睡睾短石破硬确碍碰社神种秘积移程稳穿突窄窝窦立端第等筑管篷类粒粘精糖系紊素紧紫累繁红纤"
    "线组细织经结统继绪续维综缓缩缺网置翻者而耳肉肌肚肛肝肠股肢肤肥肩肪育肺肾肿胀胃胆背胎胞胰胱胸能脂脉脊脏脑脓脖"
    "脚脱脸脾腐腔腕腰腱腹腺腿膀膜膝臂自致舌舒良色节茎药菌萎落虑虫蚀蛋血行表被裂装西要见规视觉角解触设诊该语说调象"
    "货质贫走起足跌路跳踝躁身车转轮软轻辆输边过运近还这进连迟退适通速造道遗那郁部都酒酶酸醒里重量金铁锁长门闭问间"
    "闷阳阴阻降限院陷隐隔障难露青静非面革音颅颈颌频题颜颤风食饮骨髋髓高麻黄黑鼻齿龈"
)
"""Characters (as simplified) that make most of any clinical Chinese; of bytes in another encoding they make a fifth."""
_MARKS_OF_TEXT = re.compile(r"[\u2000-\u206f\u2100-\u27bf\u3000-\u303f\uff00-\uff65\u00a0-\u00bf×÷]")
_ALIEN = re.compile(r"(?<=[^\W\d_])[³¹²¿¶¼¾£¥ªºŸ†‡‰Š]+(?=[^\W\d_])|[ðþýÐÞÝ]")
"""What Central European, Turkish and Macintosh letters look like in Windows-1252."""
_LEAST = 0.45


def find_encoding(head: bytes) -> str:
    """The encoding of a file that begins with `head`; "" where none fits."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if wide := _wide(head):
        return wide
    if b"\x1b$" in head:
        return ""  # ISO 2022: Japanese and Korean mail
    if head.isascii():
        return "utf-8"
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
    return best if scores[best] > _LEAST else ""


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
        runs = _HIGH_RUN.findall(head)
        letters = sum(char.isalpha() or char in "°µ±²³–—‘’“”…×·½¼" for char in special)
        alien = sum(map(len, _ALIEN.findall(text)))
        return (
            0.9 * sum(len(run) == 1 for run in runs) / max(1, len(runs)) * (letters - 2 * alien) / max(1, len(special))
        )
    plain = _MARKS_OF_TEXT.sub("", "".join(special)).translate(simplified())
    common = sum(char in _COMMON for char in plain)
    return common / len(plain) if len(plain) > 3 or common == len(plain) > 0 else -1
