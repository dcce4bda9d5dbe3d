"""One spelling for each name of a diagnosis, English or Chinese."""

import re
import unicodedata
from functools import lru_cache

CJK = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_TOKEN = re.compile(r"[a-z0-9]+")
_NOT_CJK_NAME = re.compile(r"[^a-z0-9\u3400-\u4dbf\u4e00-\u9fff]+")
_DROPPED = frozenset(("a", "an", "the", "of", "unspecified", "nos"))
_RELATIONS = frozenset(
    ("due", "secondary", "to", "after", "following", "from", "with", "without", "caused", "by", "in", "on", "than",
     "versus", "vs", "before", "not", "no", "non", "and", "or")
)  # fmt: skip
_ROMAN = {"i": "1", "ii": "2", "iii": "3", "iv": "4", "v": "5"}
_GRADED = frozenset(("type", "stage", "grade", "class"))
_BRITISH = (
    ("haem", "hem"), ("anaem", "anem"), ("oedem", "edem"), ("oesoph", "esoph"), ("rrhoe", "rrhe"), ("tumour", "tumor"),
    ("paed", "ped"), ("leucocyt", "leukocyt"), ("leukaem", "leukem"), ("foet", "fet"), ("coeliac", "celiac"),
    ("gynaec", "gynec"), ("ischaem", "ischem"), ("caesar", "cesar"), ("aetiol", "etiol"), ("caec", "cec"),
    ("faec", "fec"), ("glycaem", "glycem"), ("septicaem", "septicem"), ("uraem", "urem"), ("pnoea", "pnea"),
)  # fmt: skip


_SIMPLIFIED = str.maketrans(
    "診斷為無並絕確結論沒與應還認錯誤請問題屬於終後經過種類腫腦臟腎膽闌癥綜徵紅瘡關節風濕潰瘍腸頸損傷貧壓動脈靜鐵蕁帶皰頭癲癇憂鬱慮證據臨檢顯療術級質機鬆纖維膿蟲熱瘧對懷會從個這實體發變"
    "擴張縮異陽陰氣電鈣鉀鈉黃單雙內產婦兒膚齒齦顎顱間盤側彎積齡狹閉鎖麼門勞營養礙歲難盜狀嚴標準將給讓稱較慣時餘遺癬燒燙聽覺視網澱樣鍵顫縱項僅顆細樑點錐癱瘓瀉嘔噁膠淚膕輸賁竇頻亂",
    "诊断为无并绝确结论没与应还认错误请问题属于终后经过种类肿脑脏肾胆阑症综征红疮关节风湿溃疡肠颈损伤贫压动脉静铁荨带疱头癫痫忧郁虑证据临检显疗术级质机松纤维脓虫热疟对怀会从个这实体发变"
    "扩张缩异阳阴气电钙钾钠黄单双内产妇儿肤齿龈颚颅间盘侧弯积龄狭闭锁么门劳营养碍岁难盗状严标准将给让称较惯时余遗癣烧烫听觉视网淀样键颤纵项仅颗细梁点锥瘫痪泻呕恶胶泪腘输贲窦频乱",
)
_INVISIBLE = re.compile(r"[\u00ad\u200b-\u200f\u2060\ufeff]")


def fold(text: str) -> str:
    """Half-width, lower case, plain apostrophes and dashes, the characters of diagnoses simplified, nothing
    invisible."""
    text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).lower().translate(_SIMPLIFIED)
    return text.replace("’", "'").replace("‘", "'").replace("–", "-").replace("—", "-")


@lru_cache(maxsize=8192)
def normalise(name: str) -> str:
    """The form that two spellings of one name share; empty for a text without letters.

    English: possessive and plural endings, articles, punctuation, British spelling and the order of words do not count
    (`carcinoma, prostate` = `prostate carcinomas`), unless the name relates two things (`A due to B` is not `B due to
    A`). Chinese: spaces, punctuation and 的 do not count.
    """
    text = fold(name)
    if CJK.search(text):
        return _NOT_CJK_NAME.sub("", text).replace("的", "")
    text = "".join(
        character for character in unicodedata.normalize("NFKD", text) if not unicodedata.combining(character)
    )
    tokens = _TOKEN.findall(text.replace("'s ", " ").removesuffix("'s").replace("s' ", "s "))
    tokens = [_singular(_american(token)) for token in tokens if token not in _DROPPED]
    for place in range(1, len(tokens)):
        if tokens[place - 1] in _GRADED:
            tokens[place] = _ROMAN.get(tokens[place], tokens[place])
    if _RELATIONS.isdisjoint(tokens):
        tokens.sort()
    return " ".join(tokens)


def _american(token: str) -> str:
    for british, american in _BRITISH:
        if british in token:
            token = token.replace(british, american)
    return token


def _singular(token: str) -> str:
    if len(token) > 4 and token.endswith("s") and not token.endswith(("ss", "us", "is")):
        return token[:-1]
    return token


def initials(name: str) -> str:
    """First letters of an English name: `COPD` for `chronic obstructive pulmonary disease`."""
    return "".join(word[0] for word in re.findall(r"[a-z0-9]+", fold(name)) if word not in ("of", "the", "and", "a"))
