"""The words by which an answer states, denies or doubts a diagnosis, English and Chinese, on folded text."""

import re


def _either(english: tuple[str, ...] = (), chinese: tuple[str, ...] = ()) -> str:
    """Alternatives as one pattern: English ones as whole words."""
    parts = [rf"\b(?:{'|'.join(english)})\b"] if english else []
    return "|".join([*parts, *chinese])


STRUCK = re.compile(r"~~.*?~~|<(s|del|strike)>.*?</\1>|<!--.*?-->", re.DOTALL)
"""Text that its writer took back."""
WRAPPED = re.compile(r"\\boxed\{(?:\\text\{)?([^{}]*)\}?\}|</?(?:answer|final|diagnosis|b|strong|i|em|p|br) ?/?>")
MARKUP = re.compile(r"[*_`#>]+")
HEADING = re.compile(
    r"^(?:(?:final|most likely|primary|main|likely|my) )*(?:diagnosis|answer|conclusion|impression)$"
    r"|^(?:最终|最可能的?|主要|临床|初步)*(?:诊断|答案|结论)$"
)
"""A line that announces a conclusion without a colon."""
BULLET = re.compile(r"^\s*(?:[-•·▪◦]|\(?\d{1,2}[.)、]|[(（]\d{1,2}[)）]|[①-⑳])\s*")
NO_ANSWER = re.compile(
    r"^(?:n/?a|none|unknown|unclear|undetermined|nil|no diagnosis|i (?:do not|don't|cannot|can't) \w+.*|not sure.*"
    r"|无|不详|未知|不明|不清楚|不知道|无法(?:确定|判断|诊断).*|诊断不明)[.。]?$"
)
END = re.compile(r"(?<!\bst)(?<!\bdr)(?<!\bvs)(?<!\bno)(?<!\be\.g)(?<!\bi\.e)(?<!\b[a-z])\.(?=\s|$)|[!?。！？]+|\n+")
"""End of a sentence: not the dot of an abbreviation or of a genus (`S. aureus`)."""

STRONG = re.compile(
    r"(?:diagnosis|diagnoses|answer|conclusion"
    r"|\b(?:the|this|likely|probable|underlying) (?:condition|disease|disorder))"
    r"(?: (?:here|in this case|for this patient|of this patient|for (?:the|this) case|that fits best))?"
    r"\s*(?:is|was|would be|should be|:|=)\s*|\bimpression\s*:\s*|\bdiagnos(?:is of|ed (?:with|as))\s+"
    r"|(?:诊断|答案|结论|结果|疾病|判断)(?:[^\s，,。:是为]{0,4})?\s*(?:是|为|:|=)\s*"
    r"|(?:确诊为|诊断为|诊断考虑|患者?(?:最可能|很可能)?患有|考虑诊断)\s*:?\s*"
)
"""States a conclusion in so many words."""
WEAK = re.compile(
    r"\b(?:(?:most )?consistent with|indicative of|points? to|explained by|fits? best with|suffer(?:s|ing) from"
    r"|(?:this|it) is|(?:findings|symptoms|picture|results?|history) (?:strongly )?suggests?)\s+"
    r"|\b(?:patient|he|she) (?:(?:most|very|highly) likely )?has\s+|(?:考虑为|考虑"
    r"|这是|最可能是|很可能是|符合|属于|归结为|提示|指向)\s*"
)
"""Counts as a conclusion only where no strong cue is found."""
FINAL = re.compile(
    _either(("final", "finally", "therefore", "thus", "in conclusion"), ("最终", "最后", "因此", "综上", "所以"))
)
DIFFERENTIAL = re.compile(r"differential|鉴别")
LEAD = re.compile(
    r"^(?:[\s\"'“”‘’「『:]"
    r"|(?:most likely|very likely|highly likely|likely|probably|clearly|indeed|therefore|thus|a case of|an|a|the)\b"
    r"|(?:最可能|很可能|极可能|最有可能|高度考虑|首先考虑|应该|应)(?:的)?(?:是|为)?|是|为)+"
)
AFFIRMING = re.compile(r"most likely|very likely|highly likely|最可能|最有可能|很可能|极可能")

CLAUSE = re.compile(
    r"[,，]?\s*\b(?:because|since|given|based on|considering|supported by|which|in view of|in light of|confirmed by"
    r"|as (?:the|there|he|she|it|shown|suggested|evidenced)|presenting with|in this patient|in this case|in an?\b"
    r"|fits best|rather than|instead of)"
    r"|[,，]?\s*(?:因为|由于|基于|依据|根据|考虑到|理由|支持点|其|该|这|而不是|而非|最符合|可能性最大|可能性大)"
    r"|[(（](?=\s*(?:because|given|based|supported|as |since|因为|由于|基于|根据|支持))|[,，;；]|\s[-–—:]\s|[:：]"
)
"""Where the name of a diagnosis can end and its explanation begin."""
PREDICATE = re.compile(
    r"\s+(?:is|was|has|cannot|can|remains?|seems?|should|must|needs?)\b|被|已|可能|的可能|待|需|不(?=能|支持|成立|除外|排除|大|符合|明|考虑)"
)
"""Where the name of a diagnosis can end because something is said of it."""
AFFIRMED = re.compile(
    r"^\s*(?:is|was) (?:the|my|our) (?:most likely |likely |final |correct |best |right )*(?:diagnosis|answer)\b"
    r"|^\s*(?:的)?(?:可能性(?:最大|很大|较大|大|最高|高))|^\s*(?:is|seems) (?:the )?most likely\b|^\s*已(?:确诊|明确)"
)
"""A predicate that keeps the diagnosis standing."""
REASON = re.compile(r"\b(?:because|since|given|based on|as the|considering)\b|因为|由于|基于|根据|考虑到")
SEVERAL = re.compile(
    r"^\s*(?:[,，、/;；+&]"
    r"|\b(?:and|or|versus|vs|plus|as well as|along with|together with|alternatively|but also)\b"
    r"|或者?|和|及|与|以及|还有|并)\s*"
)
"""Another diagnosis may follow."""
OPEN_END = re.compile(r"(?:[、,，/;；+&]|\b(?:and|or|versus|vs|plus)|或者?|和|及|与)$")
"""A name cannot end here: another one is coming."""
LISTED = re.compile(r"[、/,，]|\b(?:and|or|versus|vs)\b|或|和|及|与")
EXPLAINS = re.compile(
    r"^(?:and |并)?(?:because|since|given|based|considering|supported|as\b|which|who|in (?:view|light|this)|confirmed"
    r"|presenting|with\b|due\b|caused|characteri[sz]ed|most likely\b|(?:i|we) |this\b|these\b|it\b"
    r"|the (?:patient|findings|most|combination|presentation)"
    r"|(?:the |his |her )?(?:[\w-]+ ){1,3}"
    r"(?:shows?|is|are|was|were|has|have|reveals?|suggests?|supports?|confirms?|fits?)\b"
    r"|[^,;、]{1,12}(?:示|显示|可见|升高|降低|阳性|阴性|符合|异常)"
    r"|因为|由于|基于|依据|根据|考虑到|理由|其|该|这|患者|建议|需|应|最符合|可能性(?:最大|大)|伴随|支持|结合)"
)
"""An explanation follows, not another diagnosis."""

NEGATION = re.compile(
    _either(
        (
            "not", "no", "never", "neither", "nor", "isn't", "wasn't", "doesn't", "don't", "cannot be", "can't be",
            "without", "against", "excludes?", "excluded", "excluding", "rul(?:e|es|ed|ing) out", "unlikely",
            "improbable", "less likely", "incorrect", "wrong", "false", "denied", "absence of", "rather than",
            "instead of", "other than", "except", "negative for", "lack of", "discarded", "dismissed", "rejected",
            "nothing", "nobody", "none", "hardly", "far from", "fails?", "least", "misdiagnos\\w*", "revised",
            "retracted", "corrected", "withdrawn", "mistaken", "erroneous", "refuted", "disproven", "untrue",
            "misleading",
        ),
        (
            # 不 and 无 begin many names (不稳定型心绞痛, 无症状性菌尿): those are not denials
            "不(?!稳定|典型|完全|全|宁|孕|育|随意|自主|安腿|寐|良|规则|等)", "并非", "绝非", "而非",
            "非(?=是|为)", "未(?!分化|破裂)",
            "无(?=证据|依据|法)", "没有", "排除", "除外", "否定", "否认", "可能性(?:很|较|极)?(?:小|低)",
            "难以", "错误", "反对", "缺乏", "勿", "莫", "改为", "更正", "修正", "推翻", "撤回", "有误", "不对",
        ),
    )
)  # fmt: skip
HEDGE = re.compile(
    _either(
        (
            "may", "might", "could", "possibl[ey]", "possibility", "perhaps", "maybe", "suspect\\w*", "suspicious",
            "cannot (?:be )?(?:exclude|excluded|rule|ruled)", "can't (?:be )?(?:exclude|excluded|rule|ruled)",
            "not (?:be )?(?:excluded|ruled)", "to be (?:excluded|ruled out)", "r/o", "uncertain", "unclear", "unsure",
            "equivocal", "doubt\\w*", "unconfirmed", "pending",
            "provisional", "if", "unless", "assuming", "provided that", "remains? (?:open|to be)", "either",
            "whether", "question", "toss-up", "conceivabl[ey]", "seems? to", "appears? to", "presumabl[ey]",
        ),
        (
            "(?:不能|无法|尚不能|不|难以)(?:完全)?(?:除外|排除)", "待(?:排|查|除外|排除|确认|定)", "疑似",
            "疑诊", "或许", "也许", "大概", "存疑", "可疑",
            "如果", "若(?!干)", "假如", "假设", "除非", "拟诊", "是否", "是不是", "怀疑", "好像", "似乎",
            "还是", "(?<![最很极有])可能(?!性(?:最?大|高))", "有待",
        ),
    )
)  # fmt: skip
BYGONE = re.compile(
    _either(
        ("previous(?:ly)?", "prior", "former", "past", "earlier", "initial(?:ly)?", "first", "rejected", "excluded",
         "alternative", "considered", "textbook", "reference", "(?:grand)?(?:mother|father|parent)s?(?:'s)?",
         "brothers?(?:'s)?", "sisters?(?:'s)?", "siblings?", "sons?", "daughters?", "uncles?", "aunts?", "cousins?",
         "wife", "husband", "relatives?", "family", "neighbou?rs?", "history of"),
        ("父", "母", "兄", "弟", "姐", "妹", "祖", "家族", "家属", "亲属", "丈夫", "妻子", "参考", "标准答案",
         "既往", "曾", "以前", "此前", "起初", "最初", "原先", "被否", "误诊", "最不"),
    )
)  # fmt: skip
"""Makes a stated diagnosis one that no longer stands, or somebody else's."""
SET_ASIDE = re.compile(
    r"^[^,]*\b(?:considered|ruled out|excluded|suspected)[^,]{0,20}, (?:but|so) (?=(?:the|my|our) )"
    r"|^(?:已|可)?(?:排除|除外)了?(?:(?!不能|不除|不排)[^,]){1,25},"
)
"""Another diagnosis was denied before this one is stated."""
CONTRAST = re.compile(
    r"^\s*(?:[,，]\s*)?(?:rather than|instead of|而不是|而非)(?!\s*(?:确|肯定|sure|certain|proven))[^,;:.()，；]+$"
)
"""The diagnosis stands, and another one does not."""
SAYS = re.compile(
    r"[:：]|\b(?:is|are|was|were|has|have|had|shows?|fits?|this|these|because|since|due|based|given|we|i)\b"
    r"|因|依据|理由|根据|符合|支持|表现|建议|需|应|治疗|为|有|可|示|见"
)
"""Makes a line more than the name of a disease."""
TURN = re.compile(
    r"^(?:no\b|not\b|wait\b|correction\b|sorry\b|actually\b|rather\b|instead\b|alternatives?\b|or\b|and\b|plus\b|versus\b|vs\b"
    r"|scratch that|just kidding|my mistake|oops|i mean\b|on second thou|strike that|开玩笑|抱歉"
    r"|或|更正|修正|改为|不对|不,|不是|错|和|及|另)"
)
"""Begins a sentence that takes back the one before, or goes on listing."""
BACK = re.compile(
    _either(
        (
            "it", "this", "that", "which", "the (?:diagnosis|former|latter|above)", "however", "but", "actually",
            "although", "though",
        ),
        ("但", "然而", "不过", "该诊断", "此诊断", "上述", "这一?诊断", "其实", "这个"),
    )
)  # fmt: skip
"""Points back at the conclusion, or turns against it."""
BESIDE = re.compile(
    _either(
        (
            "also",
            "equally",
            "second(?:ly)?",
            "secondary",
            "third",
            "runner-up",
            "alternatively",
            "another (?:possibility|diagnosis)",
            "or else",
            "same time",
            "as likely",
        ),
        (
            "其次",
            "次之",
            "同样可能",
            "同等可能",
            "另一(?:种|个)?(?:可能|诊断)",
            "也(?:可能|可以|有可能|是|考虑)",
            "同时(?:存在|患有|诊断)",
            "或者",
        ),
    )
)
"""Puts another diagnosis beside the conclusion."""
