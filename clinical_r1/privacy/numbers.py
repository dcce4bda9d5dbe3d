# ruff: noqa: E501  (a pattern or a word list reads best as one piece)
"""Structured identifiers that their shape or a label gives away: numbers, mail, web, vehicles, images.

Adversarial spacing is met in two ways: patterns allow separators between digits, and a find with odd separators must
still make sense (a checksum, a birth date inside, a grouping that people write), so that a row of laboratory values is
not taken for a telephone number.
"""

import re
from collections.abc import Callable, Iterator
from datetime import date

from clinical_r1.privacy.spans import Kind, Span, present, stems
from clinical_r1.privacy.values import Values
from clinical_r1.text import HAN, HAN_CHARACTER

_GAP = r"[ \t.\-·_/]{0,3}"
_RESIDENT_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def digits_of(text: str) -> str:
    """The ASCII digits of folded text."""
    return "".join(char for char in text if char.isdigit())


def resident_id_ok(text: str) -> bool:
    """A Chinese resident ID: 17 digits with a possible birth date, then the ISO 7064 MOD 11-2 check character.

    A wrong check character with a right date still counts: a mistyped ID identifies too.
    """
    body = re.sub(r"[^0-9Xx]", "", text).upper()
    if len(body) != 18 or not body[:17].isdigit() or body[0] == "0":
        return False
    return _is_date(body[6:14]) or resident_check(body[:17]) == body[17]


def resident_check(body: str) -> str:
    """Check character of the first 17 digits (GB 11643-1999)."""
    return "10X98765432"[sum(int(d) * w for d, w in zip(body, _RESIDENT_WEIGHTS, strict=True)) % 11]


def _is_date(text: str) -> bool:
    try:
        return 1850 <= date(int(text[:4]), int(text[4:6]), int(text[6:8])).year <= 2100
    except ValueError:
        return False


def luhn_ok(text: str) -> bool:
    """Bank cards' check digit."""
    numbers = [int(d) for d in digits_of(text)][::-1]
    return sum(n if i % 2 == 0 else sum(divmod(2 * n, 10)) for i, n in enumerate(numbers)) % 10 == 0


def _groups(text: str) -> tuple[int, ...]:
    return tuple(len(group) for group in re.findall(r"\d+", text))


_WRITTEN = {(3, 4, 4), (3, 3, 5), (4, 4, 3), (3, 8), (4, 7), (2, 3, 4, 4), (2, 11), (3, 3, 3, 2), (7, 4), (5, 6)}


def written_by_people(text: str) -> bool:
    """Digits in one block, one by one, in equal groups, or grouped as mobile numbers are; decimals never are."""
    groups = _groups(text)
    if re.search(r"\d\.\d", text) and len(set(groups[:-1])) > 1 and groups not in _WRITTEN:
        return False
    return len(groups) == 1 or set(groups) == {1} or len(set(groups[:-1])) == 1 or groups in _WRITTEN


def _mobile_ok(text: str) -> bool:
    return written_by_people(re.sub(r"^\s*(?:\+|00)?86", "", text))


def _card_ok(text: str) -> bool:
    return luhn_ok(text) and (len(_groups(text)) <= 5 or set(_groups(text)) == {1})


def _vin_ok(text: str) -> bool:
    body = re.sub(r"[\s\-]", "", text)
    return sum(char.isdigit() for char in body) >= 4 and sum(char.isalpha() for char in body) >= 2


def _email_ok(text: str) -> bool:
    """The word "at" makes an address only before a name that ends in a usual top-level domain, written without gaps."""
    if "@" in text or "(at)" in text or "[at]" in text:
        return True
    return bool(re.search(r"(?:dot\s|\S\.(?:com|org|net|edu|gov|cn)$)", text))


_MAKES = "volvo|ford|bmw|toyota|honda|nissan|audi|mercedes|volkswagen|vw|tesla|chevrolet|chevy|jeep|kia|hyundai|mazda|subaru|fiat|peugeot|renault|vauxhall|opel|skoda|seat|lexus|dodge|chrysler|bus"
_FILE = r"(?:jpe?g|png|gif|tiff?|bmp|heic|dcm|webp|docx?|pdf|xlsx?|pptx?|txt|csv|zip|rar|7z|nii(?:\.gz)?|mp4|avi|mov|wav|mp3|m4a|rtf|svs|ndpi|edf)"
_SPOKEN = r"(?:zero|oh|one|two|three|four|five|six|seven|eight|nine|double|triple|hundred)"
Check = Callable[[str], bool]
# Kind, pattern on folded text, check of the match.
# fmt: off
_SHAPES: list[tuple[Kind, str, Check | None]] = [
    (Kind.RESIDENT_ID, rf"(?<!\d)(?:\d{_GAP}){{17}}[\dXx](?![\dA-Za-z])", resident_id_ok),
    (Kind.RESIDENT_ID, r"(?<!\d)[1-9]\d{5}\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}(?!\d)", None),
    (Kind.ACCOUNT, rf"(?<!\d)(?:\d{_GAP}){{12,18}}\d(?!\d)", _card_ok),
    (Kind.ACCOUNT, r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?(?![A-Za-z0-9])", _vin_ok),
    (Kind.PHONE, rf"(?<!\d)(?:(?:\+|00)?\s?86{_GAP})?1{_GAP}[3-9](?:{_GAP}\d){{9}}(?!\d)", _mobile_ok),
    (Kind.PHONE, r"(?<![\d.])\(?0\d{2,3}\)?[\s\-]{0,2}[2-9]\d{2,3}[\s\-]?\d{4}(?:[\s\-转]{1,3}\d{1,5})?(?!\d)", None),
    (Kind.PHONE, r"(?<!\d)[48]00[\s\-]\d{3,4}[\s\-]\d{3,4}(?!\d)", None),
    (Kind.PHONE, r"(?<![\d.])(?:\+?\s?1[\s.\-]{0,2}|001[\s.\-]{0,2})?(?:\(\s?\d{3}\s?\)|\d{3})[\s.\-/]{0,3}\d{3}[\s.\-]{0,3}\d{4}" r"(?:\s*(?:x|ext\.?|extension|#)\s*\d{1,6})?(?!\d)", None),
    (Kind.PHONE, r"(?<![\w+])\+\s?\d{1,3}(?:[\s.\-()]{0,2}\d){7,13}(?!\d)", None),
    (Kind.SSN, r"(?<![\d.])\d{3}(?P<s>\s?[\-.\s]\s?)\d{2}(?P=s)\d{4}(?!\d)", None),
    (Kind.EMAIL, r"(?<![A-Za-z0-9_.+%\-])(?:[A-Za-z0-9]{1,20} dot ){0,2}[A-Za-z0-9][A-Za-z0-9_.+%\-]{0,64}\s{0,2}(?:@|\(at\)|\[at\]|\sat\s)\s{0,2}[A-Za-z0-9][\w\-]{0,64}" r"(?:(?:\s{0,2}(?:\(dot\)|\[dot\]|\sdot\s)\s{0,2}|\s?\.\s?)[a-z0-9\-]{1,64}){0,3}" r"(?:\s{0,2}(?:\(dot\)|\[dot\]|\sdot\s)\s{0,2}|\s?\.\s?)(?:com|org|net|edu|gov|info|biz|cn|io|[a-z]{2,4}(?=\W|$))", _email_ok),
    (Kind.EMAIL, r"(?<![A-Za-z0-9_.+%\-])[A-Za-z0-9][A-Za-z0-9_.+%\-]{0,64}\s?@\s?[A-Za-z0-9][\w\-.]{0,120}", None),
    (Kind.URL, r"(?i)\b(?:h\s?t\s?t\s?p\s?s?\s?:\s?/\s?/\s?|ftp://|www\s?\.\s?)[^\s<>\"，。；、）)]+", None),
    (Kind.URL, r"(?i)(?<![@\w.\-])(?:[a-z0-9\-]{1,63}\.){1,6}(?:com|org|net|edu|gov|info|biz|cn|io|us|uk|de)(?:/[^\s，。；]*)?\b", None),
    (Kind.IP, r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\s?\.\s?){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.]\d|\d)", None),
    (Kind.IP, r"(?i)(?<![a-z0-9])(?:[0-9a-f]{1,4}:){3,7}:?[0-9a-f]{1,4}(?![a-z0-9:])", None),
    (Kind.IP, r"(?i)(?<![\w:\-])(?:[0-9a-f]{2}[:\-]){5}[0-9a-f]{2}(?![\w:\-])", None),
    (Kind.VEHICLE, r"[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼]\s?[A-Z]\s?[·.\-]?\s?(?:[A-HJ-NP-Z0-9]\s?){5,6}(?![A-Za-z0-9])", None),
    (Kind.VEHICLE, r"(?<![A-Za-z0-9])(?:[A-HJ-NPR-Z0-9][ \-]?){16}[A-HJ-NPR-Z0-9](?![A-Za-z0-9])", _vin_ok),
    (Kind.VEHICLE, rf"(?i:\b(?:reg(?:istration)?|plates?|number ?plate|licen[cs]e plate|car|vehicle|van|lorry|truck|driver|taxi|suv|sedan|motorbike|motorcycle|{_MAKES})\b)[^.\n\d]{{0,24}}?(?P<v>\b(?:[A-Z]{{2}}\d{{2}} ?[A-Z]{{3}}|[A-Z]{{2,3}}[ \-]?\d{{3,4}}|\d{{1,4}}[ \-]?[A-Z]{{2,3}}(?:[ \-]\d{{1,3}})?|[A-Z]\d{{1,3}} ?[A-Z]{{3}}|[A-Z]{{1,3}}-[A-Z]{{1,2}} ?\d{{1,4}})\b)", None),
    (Kind.VEHICLE, r"(?P<v>\b[A-Z]{2}\d{2} [A-Z]{3}\b)(?=[^.\n]{0,24}\b(?:hit|collided|crash|barrier|parked|car|van|vehicle))", None),
    (Kind.ADDRESS, r"\d{1,3} ?° ?\d{1,2} ?['′’] ?(?:\d{1,2}(?:\.\d+)? ?(?:[\"″”]|'') ?)?[NSEW](?:[,; ]{0,3}\d{1,3} ?° ?\d{1,2} ?['′’] ?(?:\d{1,2}(?:\.\d+)? ?(?:[\"″”]|'') ?)?[NSEW])?", None),
    (Kind.ADDRESS, r"(?<![\d.])-?\d{1,2}\.\d{4,8} ?°? ?[NS]?[,; ]{1,3}-?\d{1,3}\.\d{4,8} ?°? ?[EW]?(?!\d)", None),
    (Kind.ADDRESS, r"(?i)(?:\b(?:lat(?:itude)?|lon(?:g(?:itude)?)?|lng|gps|coordinates)\b|[北南]纬|[东西]经|[纬经]度)[ :：=]{0,3}-?\d{1,3}(?:\.\d+|°|度)(?: ?\d{1,2}[′'分])?(?: ?\d{1,2}(?:\.\d+)?[″\"秒])?(?: ?[NSEW]\b)?", None),
    (Kind.ADDRESS, r"\b[A-HJ-Z]{2} ?\d{5} \d{5}\b|(?i:\b(?:grid ref(?:erence)?|os grid|mgrs|what3words|plus code)\b)[ :]{0,3}[A-Z0-9/][A-Z0-9 ./+]{3,24}[A-Z0-9]", None),
    (Kind.PHOTO, rf"(?i)(?<![\w\-/\\.{HAN}])[\w\-./\\{HAN}]{{1,120}}\.{_FILE}\b", None),
    (Kind.PHOTO, r"(?<![\w/.])(?:~|[A-Za-z]:)?(?:[/\\][\w.\-]{1,60}){2,12}", lambda text: len(re.findall(r"[A-Za-z_]{2,}", text)) >= 2),
    (Kind.PHOTO, r"data:image/[a-z+]{1,10};base64,[A-Za-z0-9+/=]+", None),
    (Kind.EMAIL, r"(?i)(?<![a-z0-9.])[a-z0-9][a-z0-9_.\-]{1,40} ?(?:艾特|#at#|[<\[({]at[>\])}]|(?-i: AT )) ?[a-z0-9][a-z0-9_\-]{0,40}(?: ?(?:[.点。]|[<\[({]dot[>\])}]|\bdot\b) ?[a-z]{2,12}){0,3}", None),
    (Kind.OTHER, rf"(?<![\w.])@(?:[A-Za-z_][\w.]{{2,30}}|{HAN_CHARACTER}{{2,8}}?(?=记录|分享|发布|晒|称|说|询问|的(?:账号|视频|帖)|[^{HAN}]|$))", None),
    (Kind.OTHER, rf"(?:微信|微博|抖音|小红书|快手|知乎|B站|QQ|贴吧)(?:号|名|昵称|账号|ID)?[@：: ]{{1,3}}(?P<v>[{HAN}A-Za-z_][\w{HAN}]{{1,15}}?)(?=记录|分享|发布|可|联系|[，。,;；\s]|$)", None),
    (Kind.SSN, r"(?i)\blast (?:four|4)(?: digits)?(?: (?:of|on))?(?: (?:the|her|his|their))?(?: (?:social(?: security)?|ssn|card|account|phone|id|number))?(?: (?:number|is|are|was))?[ :]{0,2}(?P<v>\d{4})\b", None),
    (Kind.PHONE, r"(?:后四位|后4位|尾号|末四位|后六位|尾数)(?:为|是|[:：])?\s?(?P<v>\d{4,6})(?!\d)", None),
    (Kind.LICENSE, r"(?i:\b(?:passport|licen[cs]e|pan|nin|national (?:id|insurance)|id card|identity card|visa|permit|nino|curp|cpf|tax (?:id|number)|tfn|student (?:id|number)|voter id)\b|护照|通行证|身份证|驾驶证|居留证|军官证|台胞证|回乡证|签证)" r"(?i:\s?(?:card|number|no\b\.?|#|id|is|was|号码?|为|是|[:：])){0,3}\s?(?P<v>(?=[A-Z]{0,9}\d)(?:[A-Z0-9]{5,20}|[A-Z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-D]))(?![A-Za-z0-9])", None),
    (Kind.LICENSE, r"(?<![A-Za-z0-9])[A-Z]{1,2}\d{6} ?[(（] ?[\dA] ?[)）]", None),
    (Kind.PHONE, r"(?:[(（]|(?i:\b(?:tel|phone|mob(?:ile)?|cell|ring|call|contact|whatsapp)\b|\bph\b|电话|手机)[^\d\n+]{0,24})(?P<v>0\d{1,4}(?:[ \-./]\d{2,4}){2,5})(?!\d)", lambda text: len(digits_of(text)) >= 9),
    (Kind.PLAN, r"(?i:\b(?:insur(?:ance|er|ed by|ed with)|pay[eo]r|carrier|health plan|coverage)\b)[ :]{1,3}(?:(?!\d)[A-Za-z][\w&.\-]{0,20}[ :#]{1,2}){1,5}(?P<v>(?=[A-Z]{0,4}\d)[A-Z0-9]+(?:[ \-][A-Z0-9]+){0,4})(?![\w%])", lambda text: len(digits_of(text)) >= 6),
    (Kind.OTHER, r"床[号位](?:号码?)?\s?(?:[:：]\s?|(?=\d))(?P<v>加?[A-Za-z\d]{1,4}(?:-\d{1,3})?床?)|(?i:\b(?:room|bed)\s?(?:no\.?|number|#|:)\s{0,2})(?P<w>[A-Z]?\d{1,4}[A-Z]?)\b", None),
    (Kind.PHONE, rf"(?i)\b(?:{_SPOKEN}[ ,\-]{{1,3}}){{6,20}}{_SPOKEN}\b", None),
    (Kind.PHONE, r"(?<![\d\-])1?[ \-]?[48][0-9]{2}[ \-]\d{3}[ \-][A-Z]{4}\b", None),
    (Kind.PHONE, r"(?:短号|分机号?|内线|传呼机?|小灵通|虚拟网|短码|转接?)[ :：为是]{0,2}(?P<v>\d{3,8})(?!\d|\.\d)", None),
    (Kind.PHONE, r"(?<![\d.])0\d{2,4}[ \-]\d{3}[ \-]?\d{3,4}(?!\d)|(?<![\d.])0\d{4} \d{6}(?!\d)", None),
    (Kind.RECORD, r"(?:腕带|条码|二维码|床头卡|胶片号|切片号|蜡块号|CT号|MRI?号|X线号|超声号|放射号|检验号|标本号|病理号|诊疗卡|就诊卡|健康卡|一卡通)(?:号码?|编号)?[ :：为是]{0,3}(?P<v>[A-Za-z]{0,5}\d[\dA-Za-z\-]{2,24})", None),
    (Kind.OTHER, r"(?:学号|工号|警号|胸牌|编号|考号|军号|档案号|合同号|订单号|快递单号|运单号|准考证|学籍号|病友编号|受试者|入组号|随机号)(?:号码?|编号)?[ :：为是]{0,3}(?P<v>[A-Za-z]{0,6}\d[\dA-Za-z\-]{2,24})", None),
]
# fmt: on
_COMPILED = [(kind, re.compile(pattern), check) for kind, pattern, check in _SHAPES]

# A label and, close behind it, a value that holds a digit.
_VALUE = r"(?P<value>(?:(?-i:[A-Z0-9]{1,24}|[a-z]{0,3}\d+[a-z]?)[ .\-_·/#]{1,3}){0,23}(?-i:[A-Z]{0,6}\d[A-Z0-9]*|[a-z]{0,3}\d+))"
_LINK = r"(?:\s{0,2}(?:number|num|no|nr|id|code|registered|filed|recorded|under|of|is|was|as|the|号码|编号|号|为|是|系|[.:#=\-]|：|（|\())*\s{0,2}[)）]?\s{0,2}"
# fmt: off
_LABELS: list[tuple[Kind, str]] = [
    (Kind.RECORD, r"\bm\.?\s?r\.?\s?n\b\.?|\bmr\s?(?=#)|\bmed\.? rec\b|\bpt\.? id\b|medical[- ]record|hospital (?:number|no|id)|\bchart\b|\bcase (?:number|no|id)|\baccession|" r"\bencounter|\badmission (?:number|no|id)|\bvisit (?:number|no|id)|\bspecimen|\bpatient (?:number|no|id)\b|" r"(?:住院|病案|门诊|病历|就诊|登记|检查|标本|病理|影像|患者|病人|条码|体检)(?:号|编号|ID|id|No|码|流水)"),
    (Kind.PLAN, r"\bpolicy|\bmember|\bsubscriber|\bbeneficiary|\binsurance|\bhealth plan|\bmedicare|\bmedicaid|医保|社保|保险|保单|参保"),
    (Kind.ACCOUNT, r"\baccount|\bacct|\biban|\bcard|\bbilling|\bguarantor|银行卡|卡|账户|账|帐|户"),
    (Kind.LICENSE, r"\blicen[cs]e|\bcertificate|\bdea\b|\bnpi\b|\bpassport|\bpermit|护照|执照|驾驶证|驾照|证书|证件|证|军官证|港澳通行证"),
    (Kind.VEHICLE, r"\bplates?\b|\bvehicle|\bvin\b|\btag\b|\bcar\b|\bregistration|车牌|车架|车辆"),
    (Kind.DEVICE, r"\bserial|\bs/n\b|\bdevice|\bimplant|\bpacemaker|\bmodel|\bpump\b|\budi\b|\blot\b|序列|设备|起搏器|植入|器械|批|机身"),
    (Kind.BIOMETRIC, r"\bfingerprint|\bvoice ?print|\bretina\w*|\biris\b|\bbiometric|\bface ?id|\btemplate|指纹|声纹|虹膜|人脸|面容|掌纹"),
    (Kind.IP, r"\bip\b(?: address)?|\bhost\b|\bserver\b|地址|终端|主机"),
    (Kind.SSN, r"\bssn\b|\bsocial security|\btin\b"),
    (Kind.PHONE, r"\btel\b|\bphone|\bcell\b|\bmobile|\bfax|\bpager|\bcall(?:back)?\b|电话|手机|传真|联系方式|座机|致电"),
    (Kind.OTHER, r"\bwechat|\bparticipant|\bsubject|\benrollee|\bemployee|\bbadge|\bstudent|\bid\b|微信|\bQQ\b|支付宝|工号|学号|编号|身份证"),
]
# fmt: on
_LABELLED = [(kind, re.compile(rf"(?i)(?:{label}){_LINK}{_VALUE}"), stems(label)) for kind, label in _LABELS]
_PLATE = re.compile(
    r"(?i:\bplates?\b|\blicense plate|\btag\b|\bregistration\b|车牌号?)(?i:\s?(?:number|no\.?|is|was|reads|[:：#]))*\s{0,2}"
    r"(?P<value>(?=[A-Z\-\s]{0,9}\d)[A-Z0-9]{1,4}[\s\-]{0,2}[A-Z0-9]{1,7})(?![A-Za-z0-9])"
)
_HANDLE = re.compile(
    r"(?i:wechat|微信|weixin|\bQQ\b|微博|抖音|twitter|facebook|instagram|skype|telegram|whatsapp|snapchat|tiktok|linkedin)号?(?i:\s?id)?\s*[:：是为]?\s*"
    r"(?P<value>[A-Za-z][A-Za-z0-9]*(?:[ .\-_]{1,3}[A-Za-z0-9]+)*)(?=[^A-Za-z0-9]|$)"
)

_LONG = re.compile(r"(?i)(?<![\d.,])\d(?:_?\d){5,}(?![\d]|[.,]\d)")
_LONG_DECIMAL = re.compile(r"(?<![\d.,])\d{7,}(?:[.\-/]\d+)*(?!\d)")
_ONE_BY_ONE = re.compile(r"(?<![\d.])\d(?:[ \t.\-·_*]{1,2}\d(?!\d)){5,}(?![.\d])")
_GROUPED = re.compile(r"(?<![\d.])\d{2,6}(?:[\-·_]\d{2,6}){2,}(?![\d.])")
_MIXED = re.compile(
    r"(?<![A-Za-z0-9/])(?=[A-Za-z0-9\-_]{0,60}[A-Za-z])(?=(?:[A-Za-z\-_]{0,20}\d){5})[A-Za-z0-9](?:[\-_]?[A-Za-z0-9]){1,120}(?![A-Za-z0-9])"
)
_HAN_DIGITS = re.compile(
    r"[零〇一二三四五六七八九幺两壹贰叁肆伍陆柒捌玖](?:[ \-]?[零〇一二三四五六七八九幺两壹贰叁肆伍陆柒捌玖]){6,}"
)


def find_numbers(text: str, values: Values) -> Iterator[Span]:
    """Structured identifiers in folded text; overlaps are possible and resolved later. What is a clinical value, and has
    no label that makes it an identifier, is left alone."""
    for kind, pattern, check in _COMPILED:
        for match in pattern.finditer(text):
            group = next((name for name in pattern.groupindex if name in "vw" and match[name]), 0)
            if check is None or check(match.group()):
                yield Span(match.start(group), match.end(group), kind)
    lowered = text.casefold()
    for kind, pattern, needed in _LABELLED:
        for match in pattern.finditer(text) if present(needed, lowered) else ():
            value = match.group("value")
            if len(digits_of(value)) >= 3 and not _measured(text, match, values):
                yield Span(match.start("value"), match.end("value"), kind)
    for match in _HANDLE.finditer(text):
        if len(match.group("value")) >= 5:
            yield Span(match.start("value"), match.end("value"), Kind.OTHER)
    for match in _PLATE.finditer(text):
        yield Span(match.start("value"), match.end("value"), Kind.VEHICLE)
    for match in _CLUSTER.finditer(text):
        digits = len(digits_of(match.group()))
        unspaced = digits >= 12 and " " not in match.group()
        odd = unspaced or (digits >= 9 and re.search(r"\d [.\-]\d", match.group()))
        piece = match.group() if odd else text[match.start() : values.first(*match.span())].rstrip(" \t.,-(")
        if spelled_out(piece):
            yield Span(match.start(), match.start() + len(piece), Kind.OTHER)
    for pattern in (_LONG, _LONG_DECIMAL, _ONE_BY_ONE, _GROUPED, _MIXED, _HAN_DIGITS):
        for match in pattern.finditer(text):
            if not values.touches(*match.span()):
                yield Span(match.start(), match.end(), Kind.OTHER)


def _measured(text: str, match: re.Match[str], values: Values) -> bool:
    """Is the labelled value a measurement (`实验室检查：WBC 12.4`, `pump 125 mL/h`)?"""
    value = match.group("value")
    if re.fullmatch(r"(?:[A-Za-z]{1,6} ?)?(?!0\d)\d{1,4}\.\d{1,3}|[A-Za-z]{1,6} \d{1,3}", value.strip()):
        return True
    return len(digits_of(value)) <= 5 and values.touches(match.start("value"), match.end("value"))


_CLUSTER = re.compile(
    r"(?<![A-Za-z0-9])[(+]?[A-Z0-9]{1,6}(?:[ \t.\-·_()]{1,5}[A-Z0-9]{1,6}){2,20}(?:\s?x[\d .\-]{0,10}\d)?(?![A-Za-z0-9])"
)


def spelled_out(text: str) -> bool:
    """An identifier written in pieces: equal pieces, or separators that no list of measurements has.

    `138 4.2 101 24` is no identifier; `23 18 77 98 20`, `353.854.634.2`, `350--74--24-05`, `W.U.H.9.2.4` are.
    """
    digits = len(digits_of(text))
    pieces = re.findall(r"[A-Z0-9]+", text.split("x")[0])
    gaps = re.findall(r"(?<=[A-Z0-9])[^A-Z0-9x]+(?=[A-Z0-9])", text.split("x")[0])
    if digits < 5 or digits + sum(char.isalpha() for char in text) < 6:
        return False
    lettered = bool(re.search("[A-Z]", text))
    if not lettered and set(gaps) == {"."}:
        return len(gaps) > 1
    equal = len({len(piece) for piece in pieces[:-1]}) == 1 and len(pieces[-1]) <= len(pieces[0])
    if equal and (len(pieces[0]) == 1 or len(pieces) >= 4 or len(pieces[0]) == 4):
        return len(pieces) >= 4 or digits >= 8
    odd = [gap for gap in gaps if len(gap) > 1 and gap.strip()]
    if odd and (digits >= 7 or len(odd) >= 2):
        return True
    if digits >= 10 and {"-", " "} <= set(gaps):
        return True
    return not any(" " in gap for gap in gaps) and len(gaps) >= 2 and (lettered or digits >= 7)


_RESIDUE = re.compile(r"\w ?@ ?\w|(?<![\d.])\d{6,}(?!\d)|(?<!\d)(?:\d[ \-]){7,}\d|(?i:https?:|www\.)")


def residue(text: str) -> bool:
    """After scrubbing: is something identifier-shaped left that is not a measurement? Then the record is in doubt."""
    values = Values(text)
    return any(not values.touches(*match.span()) for match in _RESIDUE.finditer(text))
