# ruff: noqa: E501  (a pattern or a word list reads best as one piece)
"""Addresses: anything smaller than a state or a province."""

import re
from collections.abc import Iterator

from clinical_r1.privacy.spans import Kind, Span

_SUFFIX = (
    "Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Circle|Cir|Place|Pl|Square|Sq|Terrace|Ter|"
    "Parkway|Pkwy|Highway|Hwy|Way|Trail|Trl|Alley|Aly|Annex|Arcade|Bayou|Beach|Bend|Bluffs?|Bottom|Branch|Bridge|Brooks?|"
    "Burgs?|Bypass|Camp|Canyon|Cape|Causeway|Centers?|Circles|Cliffs?|Club|Commons?|Corners?|Course|Courts|Coves?|Creek|"
    "Crescent|Crest|Crossing|Crossroads?|Curve|Dale|Dam|Divide|Drives|Estates?|Expressway|Extensions?|Falls?|Ferry|"
    "Fields?|Flats?|Fords?|Forest|Forges?|Forks?|Fort|Freeway|Gardens?|Gateway|Glens?|Greens?|Groves?|Harbors?|Haven|"
    "Heights|Hills?|Hollow|Inlet|Islands?|Isle|Junctions?|Keys?|Knolls?|Lakes?|Land|Landing|Lights?|Loaf|Locks?|Lodge|Loop|"
    "Mall|Manors?|Meadows?|Mews|Mills?|Mission|Motorway|Mount|Mountains?|Neck|Orchard|Oval|Overpass|Parks?|Parkways|Pass|"
    "Passage|Path|Pike|Pines?|Plains?|Plaza|Points?|Ports?|Prairie|Radial|Ramp|Ranch|Rapids?|Rest|Ridges?|River|Roads|Route|"
    "Row|Run|Shoals?|Shores?|Skyway|Springs?|Spurs?|Squares|Station|Stravenue|Stream|Streets|Summit|Throughway|Trace|Track|"
    "Trafficway|Tunnel|Turnpike|Underpass|Unions?|Valleys?|Viaduct|Via|Views?|Villages?|Ville|Vista|Walks?|Rue|Wall|Ways|Wells?|Well"
)
_STATE = (
    "AL|AK|AS|AZ|AR|CA|CO|CT|DE|DC|FL|FM|GA|GU|HI|ID|IL|IN|IA|KS|KY|LA|ME|MH|MD|MA|MI|MN|MS|MO|MT|NE|NV|NH|NJ|NM|NY|NC|ND|MP|"
    "OH|OK|OR|PW|PA|PR|RI|SC|SD|TN|TX|UT|VT|VI|VA|WA|WV|WI|WY|AA|AE|AP"
)
_STATE_NAME = (
    "Alabama|Alaska|Arizona|Arkansas|California|Colorado|Connecticut|Delaware|Florida|Georgia|Hawaii|Idaho|Illinois|Indiana|"
    "Iowa|Kansas|Kentucky|Louisiana|Maine|Maryland|Massachusetts|Michigan|Minnesota|Mississippi|Missouri|Montana|Nebraska|"
    "Nevada|New Hampshire|New Jersey|New Mexico|New York|North Carolina|North Dakota|Ohio|Oklahoma|Oregon|Pennsylvania|"
    "Rhode Island|South Carolina|South Dakota|Tennessee|Texas|Utah|Vermont|Virginia|Washington|West Virginia|Wisconsin|Wyoming"
)
_WORD = r"[A-Z][A-Za-z'.\-]*"
_UNIT = r"(?:,?\s{0,2}(?:Apt|Apartment|Suite|Ste|Unit|Room|Rm|Floor|Fl|#)\.?\s{0,2}#?[A-Za-z]?\d[\w\-]*)"
_CITY = rf"{_WORD}(?:\s{_WORD}){{0,3}}"
_ZIP = r"\d{5}(?:\s?-\s?\d{4})?"
_TAIL = rf"(?:[\s,;]{{1,3}}{_CITY})?[\s,]{{1,3}}(?:{_STATE}|{_STATE_NAME})\.?(?:[\s,]{{1,3}}{_ZIP})?"

_HAN = r"[\u3400-\u9fff]"
_PROVINCE = (
    "北京|天津|上海|重庆|河北|山西|辽宁|吉林|黑龙江|江苏|浙江|安徽|福建|江西|山东|河南|湖北|湖南|广东|海南|四川|贵州|云南|陕西|"
    "甘肃|青海|台湾|内蒙古|广西|西藏|宁夏|新疆|香港|澳门"
)
_LEVEL = rf"{_HAN}{{1,7}}?(?:自治区|自治州|特别行政区|地区|省|市|州|盟|区|县|旗|镇|乡|街道|开发区|新区)"
_STREET = (
    rf"{_HAN}{{1,10}}?(?:大街|大道|街道|街|路|巷|弄|胡同|里|道|村|屯|庄|社区|小区|花园|公寓|苑|大厦|广场|家园|新村)"
)
_DOOR = r"(?:\s?(?:第?\s?[A-Za-z]?[\d一二三四五六七八九十百]{1,5}\s?[-—之]?\s?\d{0,4}|[A-Za-z])\s?(?:号院|号楼|号|弄|栋|幢|座|单元|室|楼|层|组|队|户)(?:之\d)?)"

_PATTERNS = [
    rf"(?<![\d.])\d{{1,6}}(?:-\d{{1,5}}|[A-Z])?\s{{1,2}}(?:[NSEW]\.?\s|North |South |East |West )?(?:{_WORD}|\d{{1,3}}(?:st|nd|rd|th))(?:\s{_WORD}){{0,3}}"
    rf"\s(?:{_SUFFIX})\b\.?{_UNIT}?(?:{_TAIL})?",
    rf"(?<![\d.])\d{{1,6}}\s{{1,2}}(?:{_WORD}\s){{0,3}}{_WORD}{_UNIT}?,\s{{1,2}}{_CITY},\s{{1,2}}(?:{_STATE}|{_STATE_NAME})\b(?:[\s,]{{1,3}}{_ZIP})?",
    rf"(?i:\bp\.?\s?o\.?\s?box)\s?\d+(?:{_TAIL})?",
    rf"\b(?:PSC|Unit|CMR)\s\d{{1,5}}(?:,?\s?Box\s\d{{1,5}})?(?:[\s,]{{1,3}}(?:APO|FPO|DPO)\s(?:AA|AE|AP)(?:\s{_ZIP})?)?",
    rf"\bUS(?:S|NS|NV|CGC|V)\s{_WORD}(?:\s{_WORD})?[\s,]{{1,3}}(?:APO|FPO|DPO)\s(?:AA|AE|AP)(?:\s{_ZIP})?",
    rf"\b(?:APO|FPO|DPO)\s(?:AA|AE|AP)(?:\s{_ZIP})?",
    rf"\b{_CITY},\s?(?:{_STATE}|{_STATE_NAME})\b\.?(?:[\s,]{{1,3}}{_ZIP})?",
    rf"\b(?:{_STATE})\s{{1,2}}{_ZIP}(?!\d)",
    rf"(?i:\b(?:zip|postal|postcode)(?:\s?code)?)\s?(?:is|:|：|of)?\s?{_ZIP}",
    rf"(?i:\b(?:lives|living|resides|residing|resident|born|native|raised|home|from|relocated|moved)\s(?:in|at|of|to|near)\s|\b(?:town|city|village|county) of\s){_WORD}(?:\s{_WORD}){{0,2}}",
    rf"\b{_WORD}(?:\s{_WORD})?\sCounty\b",
    rf"(?:(?:{_PROVINCE})\s?(?:省|市|自治区|壮族自治区|回族自治区|维吾尔自治区|特别行政区)?\s?)(?:{_LEVEL}\s?){{1,4}}(?:{_STREET}\s?)?(?:{_DOOR}){{0,4}}(?:{_HAN}{{0,8}}?{_DOOR})?(?:\s?\d{{6}}(?!\d))?",
    rf"(?:(?:{_PROVINCE})\s?(?:省|市|自治区)\s?)(?:{_STREET}\s?)?(?:{_DOOR}){{1,4}}(?:\s?\d{{6}}(?!\d))?",
    rf"(?:{_LEVEL}\s?){{0,3}}{_STREET}\s?(?:{_DOOR}\s?){{1,4}}(?:{_HAN}{{0,6}}{_DOOR})?(?:\s?\d{{6}}(?!\d))?",
    rf"(?:住址|地址|家住|现住|住在|居住于|居住在|户籍地?|籍贯|祖籍|来自|通讯处|家庭住址)\s?[:：是为于在]?\s?(?P<v>{_HAN}{{2,12}}(?:省|市|区|县|州|镇|乡|村|街|路|小区|苑|花园)?(?:{_LEVEL}|{_STREET})*(?:{_DOOR})*)",
    r"(?:邮编|邮政编码)\s?[:：是为]?\s?(?P<v>(?:\d\s?){5}\d)",
    rf"(?:{_HAN}{{1,6}}(?:省|市|自治州))(?:{_HAN}{{1,6}}(?:市|区|县|镇|乡|街道|旗))",
]
_COMPILED = [re.compile(pattern) for pattern in _PATTERNS]


def find_addresses(text: str) -> Iterator[Span]:
    """Addresses in folded text. The whole address is one span, province and state included."""
    for pattern in _COMPILED:
        for match in pattern.finditer(text):
            group = "v" if "v" in pattern.groupindex else 0
            yield Span(match.start(group), match.end(group), Kind.ADDRESS)
