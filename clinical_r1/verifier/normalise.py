"""One spelling for each name of a diagnosis, English or Chinese."""

import re
import unicodedata
from functools import lru_cache

CJK = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_TOKEN = re.compile(r"[a-z0-9]+")
_NOT_CJK_NAME = re.compile(r"[^a-z0-9\u3400-\u4dbf\u4e00-\u9fff]+")
_DROPPED = frozenset(("an", "the", "of", "unspecified", "nos"))
RELATIONS = frozenset(
    ("due", "secondary", "to", "after", "following", "from", "with", "without", "caused", "by", "in", "on", "than",
     "versus", "vs", "before", "not", "no", "non", "and", "or", "complicated", "complicating", "post", "against", "for")
)  # fmt: skip
_ROMAN = {"i": "1", "ii": "2", "iii": "3", "iv": "4", "v": "5"}
_GRADED = frozenset(("type", "stage", "grade", "class"))
_BRITISH = (
    ("haem", "hem"), ("anaem", "anem"), ("oedem", "edem"), ("oesoph", "esoph"), ("rrhoe", "rrhe"), ("tumour", "tumor"),
    ("paed", "ped"), ("leucocyt", "leukocyt"), ("leukaem", "leukem"), ("foet", "fet"), ("coeliac", "celiac"),
    ("gynaec", "gynec"), ("ischaem", "ischem"), ("caesar", "cesar"), ("aetiol", "etiol"), ("caec", "cec"),
    ("faec", "fec"), ("glycaem", "glycem"), ("septicaem", "septicem"), ("uraem", "urem"), ("pnoea", "pnea"),
)  # fmt: skip
_SAME_WORD = {
    "calculus": "stone", "calculi": "stone", "lithiasis": "stone", "ureteric": "ureteral", "ureter": "ureteral",
    "kidney": "renal", "lung": "pulmonary", "liver": "hepatic", "heart": "cardiac", "stomach": "gastric",
    "prostatic": "prostate", "colonic": "colon", "pancreas": "pancreatic", "ovary": "ovarian", "uterus": "uterine",
    "oesophagus": "esophageal", "esophagus": "esophageal", "femur": "femoral", "radial": "radius", "humerus": "humeral",
    "carcinoma": "cancer", "infarct": "infarction", "bleeding": "hemorrhage", "disk": "disc", "mammary": "breast",
    "cervix": "cervical", "fractured": "fracture", "fibula": "fibular", "tibia": "tibial", "larynx": "laryngeal",
    "diabetes": "diabete", "diagnoses": "diagnosis", "metastases": "metastasis", "leiomyomata": "leiomyoma",
    "fibromata": "fibroma", "vertebrae": "vertebra", "nuclei": "nucleus", "bacilli": "bacillus",
}  # fmt: skip
"""Words that mean the same in the name of a disease, in either direction."""
_CHINESE_SPELLINGS = tuple(
    (re.compile(pattern), form)
    for pattern, form in (
        ("综合症", "综合征"), ("梗塞", "梗死"), ("骨性关节炎", "骨关节炎"),
        ("风湿性关节炎", "风湿关节炎"), ("腺肌症", "腺肌病"),
        ("不稳定型", "不稳定性"), ("(减退|亢进|增生|扩张|突出|狭窄|缺损|硬化|结石|积液|低下)[症病]", r"\1"),
        ("心功能不全|心功能衰竭|心衰竭|心衰(?!竭)", "心力衰竭"), ("食道", "食管"), ("机能", "功能"),
        ("粘膜", "黏膜"), ("高血压病", "高血压"),
        ("结核病", "结核"), ("癫痫病", "癫痫"), ("([甲乙丙丁戊])肝(?!炎)", r"\1型肝炎"),
        ("型病毒性肝炎", "型肝炎"), ("病毒性([甲乙丙丁戊])型肝炎", r"\1型肝炎"), ("肾功能衰竭|肾衰(?!竭)", "肾衰竭"),
        ("呼吸功能衰竭|呼衰(?!竭)", "呼吸衰竭"), ("肝功能衰竭|肝衰(?!竭)", "肝衰竭"), ("恶性肿瘤", "癌"),
        ("左侧", "左"), ("右侧", "右"),
        ("双侧", "两侧"), ("(糖尿病)([12])型", r"\2型\1"), ("氏(病|综合征)", r"\1"),
    )
)  # fmt: skip
_CHINESE_NUMBER = re.compile(r"(iii|ii|iv|i|v|[一二三四五])(?=[型期级度])")
_DIGIT = {"i": "1", "ii": "2", "iii": "3", "iv": "4", "v": "5", "一": "1", "二": "2", "三": "3", "四": "4", "五": "5"}

_SIMPLIFIED = str.maketrans(
    "診斷為無並絕確結論沒與應還認錯誤請問題屬於終後經過種類腫腦臟腎膽闌癥綜徵紅瘡關節風濕潰瘍腸頸損傷貧壓動脈靜鐵蕁帶皰頭癲癇憂鬱慮證據臨檢顯療術級質機鬆纖維膿蟲熱瘧對懷會從個這實體發變"
    "擴張縮異陽陰氣電鈣鉀鈉黃單雙內產婦兒膚齒齦顎顱間盤側彎積齡狹閉鎖麼門勞營養礙歲難盜狀嚴標準將給讓稱較慣時餘遺癬燒燙聽覺視網澱樣鍵顫縱項僅顆細樑點錐癱瘓瀉嘔噁膠淚膕輸賁竇頻亂選項",
    "诊断为无并绝确结论没与应还认错误请问题属于终后经过种类肿脑脏肾胆阑症综征红疮关节风湿溃疡肠颈损伤贫压动脉静铁荨带疱头癫痫忧郁虑证据临检显疗术级质机松纤维脓虫热疟对怀会从个这实体发变"
    "扩张缩异阳阴气电钙钾钠黄单双内产妇儿肤齿龈颚颅间盘侧弯积龄狭闭锁么门劳营养碍岁难盗状严标准将给让称较惯时余遗癣烧烫听觉视网淀样键颤纵项仅颗细梁点锥瘫痪泻呕恶胶泪腘输贲窦频乱选项",
)
_INVISIBLE = re.compile(r"[\u00ad\u200b-\u200f\u2060\ufeff]")


def plain(text: str) -> str:
    """Half-width, plain apostrophes and dashes, the characters of diagnoses simplified, nothing invisible; case
    stays, since `ALL` is a leukaemia and `all` is not."""
    text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).translate(_SIMPLIFIED)
    return text.replace("’", "'").replace("‘", "'").replace("–", "-").replace("—", "-")


def fold(text: str) -> str:
    """`plain`, in lower case."""
    return plain(text).lower()


@lru_cache(maxsize=16384)
def normalise(name: str) -> str:
    """The form that two spellings of one name share; empty for a text without letters.

    English: possessive and plural endings, articles, punctuation, British spelling, adjective or noun of an organ and
    the order of words do not count (`carcinoma, prostate` = `prostate carcinomas`), unless the name relates two things
    (`A due to B` is not `B due to A`). Chinese: spaces, punctuation and 的 do not count, nor does 综合症 for 综合征.
    """
    text = fold(name)
    if CJK.search(text):
        return _chinese(_NOT_CJK_NAME.sub("", text).replace("的", ""))
    tokens = words(text)
    if RELATIONS.isdisjoint(tokens):
        tokens.sort()
    return " ".join(tokens)


def words(text: str) -> list[str]:
    """The words of an English name in order, each in its one spelling."""
    text = "".join(c for c in unicodedata.normalize("NFKD", fold(text)) if not unicodedata.combining(c))
    tokens = _TOKEN.findall(text.replace("'s ", " ").removesuffix("'s").replace("s' ", "s "))
    if tokens[:1] == ["a"]:
        del tokens[0]  # elsewhere it may be hepatitis A
    tokens = [_word(token) for token in tokens if token not in _DROPPED]
    for place in range(1, len(tokens)):
        if tokens[place - 1] in _GRADED:
            tokens[place] = _ROMAN.get(tokens[place], tokens[place])
    return tokens


def _word(token: str) -> str:
    for british, american in _BRITISH:
        if british in token:
            token = token.replace(british, american)
    token = _SAME_WORD.get(token, token)
    if len(token) > 4 and token.endswith("s") and not token.endswith(("ss", "us", "is")):
        token = token[:-1]
    return _SAME_WORD.get(token, token)


def _chinese(name: str) -> str:
    name = _CHINESE_NUMBER.sub(lambda found: _DIGIT[found[1]], name)
    for pattern, form in _CHINESE_SPELLINGS:
        name = pattern.sub(form, name)
    return name


def initials(name: str) -> str:
    """First letters of an English name: `COPD` for `chronic obstructive pulmonary disease`."""
    return "".join(word[0] for word in re.findall(r"[a-z0-9]+", fold(name)) if word not in ("of", "the", "and", "a"))
