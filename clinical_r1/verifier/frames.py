"""The wordings by which an answer states, denies or doubts a diagnosis, English and Chinese: data of `reading`.

What may *state* a diagnosis, or follow it, is a list of what is known to be plain; what may *object* is as wide as it
can be. A wording that the first lacks costs a call of the judge, one that the second lacks a wrong reward.
"""

import re


def _any(*parts: str) -> str:
    return "(?:" + "|".join(parts) + ")"


# ---------------------------------------------------------------------------------------------------------- the text

STRUCK = re.compile(r"~~.*?~~|<(s|del|strike)>.*?</\1>|<!--.*?-->", re.DOTALL | re.I)
WRAPPED = re.compile(
    r"\\boxed\{(?:\\text\{)?([^{}]*)\}?\}|</?(?:answer|final|diagnosis|b|strong|i|em|p|br) ?/?>",
    re.I,
)
MARKUP = re.compile(r"[*_`#>|]+")
BULLET = re.compile(r"^\s*(?:[-•·▪◦]|\(?\d{1,2}[.)、](?!\d)|[(（]\d{1,2}[)）]|[①-⑳]|[(（]?[一二三四五][)）、])\s*")
END = re.compile(
    r"(?<!\bst)(?<!\bdr)(?<!\bvs)(?<!\bno)(?<!\be\.g)(?<!\bi\.e)(?<!\b[a-z])\.+[\"'”’]?(?=\s|$)|[!?。！？]+|\n+", re.I
)
"""End of a sentence: not the dot of an abbreviation or of a genus (`S. aureus`)."""
CROSSED = re.compile(r"[✗✘❌❎]|×\s*$", re.M)
"""A cross that marks what it stands beside as wrong."""
NO_ANSWER = re.compile(
    r"(?:n/?a|none|unknown|unclear|undetermined|nil|no diagnosis|i (?:do not|don't|cannot|can't) \w+.*|not sure.*"
    r"|无|不详|未知|不明|不清楚|不知道|无法(?:确定|判断|诊断).*|诊断不明)[.。]?",
    re.I,
)

# ------------------------------------------------------------------------------------------- how a diagnosis is stated

_LIKELY = r"(?:(?:most|very|highly) (?:likely|probable|plausible)|most fitting|best fitting|likely)"
_ADJECTIVE = _any(_LIKELY, "final", "correct", "right", "best", "main", "primary", "principal", "clinical", "leading")
_NOUN = r"(?:diagnosis|answer|conclusion|impression)"
_SCOPE = (
    r"(?: (?:here|in (?:this|the) (?:case|patient|scenario|setting)|for (?:this|the|our|a|an) [^;:.]{1,200}?"
    r"|of (?:this|the) patient"
    r"|(?:given|considering|based on|explaining) [^;:.]{1,120}?|that (?:best )?fits(?: best)?),?)?"
)
_IS = r"(?:(?<!that)(?<!which)(?<!who) is| would be|\s*:|\s*=)\s*"
_IS += rf"(?:{_LIKELY} |therefore |thus |indeed |clearly |a case of |that of"
_IS += r"|not (?!only|just|merely|yet|necessarily)[^,;.]{2,60}?,? but (?:rather )?)*"
_STATES = rf"(?:(?:the|my|our|this|his|her) )?(?:patient's )?(?:{_ADJECTIVE} )*{_NOUN}{_SCOPE}{_IS}"
_MOST_LIKELY = rf"(?:the )?{_LIKELY} (?:condition|disease|disorder|explanation|cause){_SCOPE}{_IS}"
_BELIEVES = (
    r"(?:(?:(?:i|we) (?:can |would )?(?:therefore )?(?:conclude|believe|think|am confident|are confident)"
    r"|it is (?:therefore )?concluded"
    r"|(?:the|these|her|his) (?:[\w-]+ ){0,5}?(?:findings?|symptoms|results?|signs|features)(?: strongly"
    r"| clearly)? (?:suggest|indicate)s?)(?: that)? )?"
)
_PATIENT = r"(?:he|she|(?:the|this|our) (?:[\w-]+ ){0,3}?(?:patient|man|woman|boy|girl|child|infant|newborn))"
_FINDINGS = (
    r"(?:this|it|these|(?:the|this|these|her|his|all) (?:[\w-]+ ){0,3}?(?:findings?|picture|presentation"
    r"|symptoms?|features?"
    r"|results?|signs?|case|combination|constellation|pattern|triad)(?: of [^;:.]{1,160}?)?)"
)
_SHOWS = (
    r"(?:(?: is| are)(?: all)?(?: most| highly| very| entirely| fully| best| strongly)? "
    r"(?:consistent with|classic(?:al)? (?:for|of)|typical (?:of|for)|characteristic of|diagnostic of"
    r"|pathognomonic (?:of|for)"
    r"|indicative of|explained by|suggestive of|in keeping with)"
    r"|(?: strongly| clearly| most| all)* (?:suggest|indicate|establish|confirm|point to"
    r"|fit best with)(?:e?s)?(?: the diagnosis of)?"
    r"|(?: clearly| most likely)? is(?: most likely| clearly)?)"
)
FRAMES_EN = (
    # strong: says in so many words that this is the diagnosis
    rf"{_BELIEVES}{_STATES}",
    rf"{_BELIEVES}{_MOST_LIKELY}",
    rf"{_PATIENT}(?: is| was| has been)? diagnosed (?:with|as(?: having)?) ",
)
FRAMES_EN_WEAK = (
    rf"{_BELIEVES}{_PATIENT}(?: {_LIKELY}| clearly)? (?:has|suffers from|is suffering from|has developed) ",
    rf"{_BELIEVES}{_FINDINGS}{_SHOWS} ",
)
_CN_WHO = r"(?:该|本|此|这位|这名|这例)?(?:患者|病人|患儿|病例|例|疾病)?(?:目前|此次|所患|的)?"
_CN_HOW = (
    r"(?:最可能|最有可能|很可能|可能性最大|最终|最后|主要|首要|临床|初步|入院|出院|明确|正确|最佳|首先|第一"
    r"|综合|西医)"
)
_CN_NOUN = r"(?:诊断|答案|结论|判断|印象|疾病)(?:结果|意见|结论)?"
_CN_IS = r"\s*(?:首先|高度|应该?|应当|最可能|很可能|倾向)*(?:考虑为|考虑|是|为|系|:|=|于)\s*"
_CN_SUBJECT = (
    r"(?:患者|病人|患儿|本例|该例|这|此|本病|上述|以上|这些|全部|所有|临床|影像学?|实验室|检查|检验|结果|表现"
    r"|症状|体征|病史|资料|特征|特点|综合|结合|根据"
    r"|来看|分析|所述|情况|均|都|高度|最|较|完全|基本|典型|更|更为|首先|应该?|应当|则|故|因此|所以|目前|的|和"
    r"|及|与|、|总体|整体|符合于|但|故而|综上|,|，)*"
)
FRAMES_ZH = (
    rf"{_CN_SUBJECT}{_CN_WHO}(?:{_CN_HOW}|的)*{_CN_NOUN}(?:上)?{_CN_IS}",
    rf"{_CN_SUBJECT}{_CN_WHO}(?:{_CN_HOW}|的|被|可|可以|应|考虑)*(?:确诊|诊断)(?:为|是|考虑为?)\s*:?\s*",
    rf"{_CN_SUBJECT}(?:不是|并非)[^,，;；。]{{1,20}}[,，]?而是\s*",
)
FRAMES_ZH_WEAK = (
    rf"{_CN_SUBJECT}{_CN_WHO}(?:最可能|很可能|极可能|最有可能)(?:是|为|的是|患有|患的是)\s*",
    rf"{_CN_SUBJECT}(?:患有|考虑(?:为|是)?|符合|属于|提示|指向|支持|是|即为|为)\s*",
)
_CLAUSE_START = (
    r"(?:^|(?<=[,;:，；：] )|(?<=[,;，；：])|(?<= but )|(?<= so )|(?<= therefore )|(?<= thus )|(?<=, and )"
    r"|(?<= hence ))"
)
OPENERS = (
    r"(?:(?:so|thus|therefore|hence|overall|in summary|in conclusion|in short|taken together|finally|but|and"
    r"|however),? )*"
)
STRONG = re.compile(
    rf"{_CLAUSE_START}{OPENERS}{_any(*FRAMES_EN)}|(?:^|(?<=[,;:，；：。]))\s*{_any(*FRAMES_ZH)}"
    rf"|[【\[]\s*{_CN_NOUN}\s*[】\]]\s*:?",
    re.I,
)
WEAK = re.compile(
    rf"{_CLAUSE_START}{OPENERS}{_any(*FRAMES_EN_WEAK)}|(?:^|(?<=[,;:，；：。]))\s*{_any(*FRAMES_ZH_WEAK)}", re.I
)
CLOSES = re.compile(
    r"\b(?:final|finally|therefore|thus|hence|in summary|in conclusion|overall)\b|最终|因此|综上|所以", re.I
)
"""Marks the sentence that concludes; what stood before it may have been provisional."""
ARTICLE = re.compile(
    rf"(?:a case of\b|(?:the )?presence of\b|[\s\"'“”‘’「『:]|{_LIKELY} |(?:most likely|an?|the)\b)+", re.I
)
HEADING = re.compile(
    rf"(?:{_ADJECTIVE} )*(?:diagnosis|answer|conclusion|impression)|(?:{_CN_HOW})*的?{_CN_NOUN}",
    re.I,
)

# ------------------------------------------------------------------------------------------------ what may follow it

_HERE = r"(?: (?:here|in (?:this|the) (?:case|patient|setting)|for (?:this|the) (?:case|patient)))?"
SETTLED = re.compile(
    rf"\s*(?:is|remains) (?:the|my|our) (?:{_ADJECTIVE} )*(?:diagnosis|answer|explanation)\b{_HERE}"
    rf"|\s*(?:is|seems) (?:the )?(?:most|very|highly) likely(?: diagnosis)?{_HERE}(?=$|[,;.]| (?:given|because"
    rf"|since)\b)"
    r"|\s*(?:fits|explains)(?: \w+)? best|\s*best explains (?:the|his|her|this|these|all)\b[^,;]*"
    r"|(?:的)?(?:可能性(?:最大|很大|较大|大|最高|高)|诊断(?:明确|成立)|最为?(?:符合|可能))",
    re.I,
)
"""A predicate that keeps a name in front of it standing."""
BECAUSE = re.compile(
    r"\s*[,;:(（-]?\s*(?:(?:because|since|given|based on|considering|supported by|in view of|in light of"
    r"|confirmed by|owing to"
    r"|as (?:the|there|he|she|it|shown|suggested|evidenced|indicated)|presenting (?:with|as)|in this (?:patient"
    r"|case)|explaining"
    r"|in an? (?:\d|young|old|elderly|male|female|patient|man|woman|child|boy|girl)|which (?:explains|fits"
    r"|accounts for|is supported)"
    r"|on the basis of|with (?:typical|classic|characteristic))\b"
    r"|因为|由于|基于|依据|根据|考虑到|理由|支持点|诊断依据|结合|建议|需(?!与)|需要(?!与)|应(?!与)|该|其|患者)",
    re.I,
)
ALSO_CALLED = re.compile(
    r"\s*[,(]\s*(?:also|otherwise|commonly|sometimes) (?:known as|called|termed|referred to as) ([^,;:.()]{2,60})"
    r"(?:[,)]|$)",
    re.I,
)
CONTRAST = re.compile(
    r"\s*[,;]?\s*(?:(?:and|but) )?(?:not|rather than|instead of|as opposed to) (?P<en>[^,;:.()]+)"
    r"|\s*[,;]?\s*(?:而不是|而非|而并非|不是|并非|而不考虑|不考虑|不支持|(?:可|已|基本)?(?:排除"
    r"|除外)了?)(?P<zh>[^,;:()]+)"
    r"|\s*[,;]\s*(?P<less>[^,;:()]+?)(?:可能性(?:较|很|极)?(?:小|低)|可(?:以)?(?:排除|除外)|已(?:被)?(?:排除|除外))"
    r"|\s*[,;]\s*(?:但)?(?:需|应|可|要|注意)(?:要)?与(?P<from>[^;:()]+?)(?:等)?(?:相)?鉴别",
    re.I,
)
"""The diagnosis stands, and another one does not."""
SHOWS_FINDING = re.compile(
    r"\s*[,;]\s*(?:and )?(?:the |his |her |this |these |it )?(?:[\w-]+ ){0,3}?(?:shows?|showed|reveals?"
    r"|supports?|confirms?|fits?) [^;]*"
    r"|\s*[,;]\s*(?:and )?(?:the|his|her|these) (?:[\w-]+ ){0,3}?(?:is|are) [^;]*"
    r"|\s*[,;]\s*[^,;、]{1,12}(?:示|显示|可见|升高|降低|阳性|阴性|符合|异常)[^;]*",
    re.I,
)
UNSURE = re.compile(
    r"\b(?:not|no|never|nor|cannot|can't|isn't|without|unlikely|but|although|though|however|if|unless|or|may"
    r"|might|could|possib\w+"
    r"|perhaps|maybe|likely|alternativ\w+|equally|also|versus|vs|pending|suspect\w*|exclud\w+|rul(?:e|ed"
    r"|ing) out|doubt\w*|diagnos\w+"
    r"|uncertain\w*|until|second\w*|another|revised|wrong|false|so is|so are|too|as well)\b"
    r"|不|未|无法|没有|非|排除|除外|但|然而|可能|或|也|亦|还|其次|待|疑|若|如果|否|误|诊断",
    re.I,
)
"""After a reason, any of these may take the diagnosis back: too much to read by rules."""
UNSURE_REASON = re.compile(
    r"\b(?:latter|former|main diagnosis|more likely|referring|not excluded|cannot|can't|unlikely|but"
    r"|although|though|however|if|unless|might|could|possib\w+|perhaps|maybe"
    r"|alternativ\w+|equally|versus|vs"
    r"|pending|suspect\w*|doubt\w*|uncertain\w*|until|another|revised|wrong|false|or else|not (?:yet|been|be"
    r"|certain|sure|confirmed|clear))\b"
    r"|但(?!见)|然而|可能(?!性[最较很]?大)|或者?(?!许)|也|亦|其次|待(?:排|查|定|除)|疑|若|如果|误|不(?:能|除|排"
    r"|考虑|成立|对|确定|支持)|不足|不充分|不够|欠|缺乏|薄弱|存疑|疑问|尚早|其实|更正|除外|排除|未(?:能|被)|无法|否",
    re.I,
)
UNSETTLED_CONTRAST = re.compile(
    r"present|seen|found|evident|at all|diagnos|confirm|certain|sure|prove|exclud|rule|likely|establish|definit"
    r"|known|clear|possib|\byet|only|just"
    r"|necessar|typical|other|if\b|but\b|also\b"
    r"|再|后|确|肯定|完全|一定|典型|该|此|其他|但|也",
    re.I,
)

# ----------------------------------------------------------------------------------------------------- what objects

HYPOTHETICAL = re.compile(
    r"^(?:should|had|were)\b|如(?![下上])|一旦|倘若|要是|假使|待|"
    r"\b(?:if|unless|assuming|suppos\w+|provided|hypothe\w+|whether|were (?:it|this)|until|pending|initial\w*"
    r"|previous\w*|former\w*|at first"
    r"|earlier|original\w*|mother|father|brother|sister|parents?|uncle|aunt|cousin|grand\w+|husband|wife|friend"
    r"|roommate|neighbou?r|colleague|except|apart from|aside from|horses|animals|dogs|not (?:like|this|the)"
    r"|reference|textbook|would say|some|wrong|false"
    r"|incorrect|error|mis\w+|deny|denied"
    r"|doubt\w*|least|excluded)\b|如果|若|假如|假设|除非|是否|父|母|兄|姐|参考|标准答案|错误|误诊|否认|请问",
    re.I,
)
_NEGATES = (
    r"(?:\b(?:not|no|never|neither|isn't|wasn't|cannot|can't|without|against|excluded?|exclud(?:es|ing)|rul(?:e"
    r"|es|ed|ing) out|unlikely|improbable"
    r"|incorrect|wrong|false|denied|rejected|dismissed|discarded|revised|retracted|withdrawn|mistaken|refuted"
    r"|disproven|untrue|misdiagnos\w*"
    r"|less likely|argues? against|erroneous|error)\b|不|非|未|没有|无|排除|除外|否定|否认|可能性(?:很|较"
    r"|极)?(?:小|低)|错误|反对|推翻|更正|改为|有误)"
)
_DOUBTS = (
    r"(?:\b(?:may|might|could|possib\w+|perhaps|maybe|suspect\w*|uncertain|unclear|unsure|doubt\w*|pending"
    r"|provisional|unconfirmed|questionable"
    r"|to be (?:excluded|ruled out|confirmed)|if|unless|whether|considered?|consideration)\b|待|疑|或许|也许"
    r"|存疑|如果|若|是否|怀疑|似乎|可能|鉴别)"
)
AGAINST = re.compile(rf"{_NEGATES}|{_DOUBTS}", re.I)
TURN = re.compile(
    r"(?:no\b|not\b|wait\b|correction\b|sorry\b|actually\b|rather\b|instead\b|alternatives?\b|or\b|and\b|plus\b"
    r"|versus\b|vs\b"
    r"|scratch that|just kidding|my mistake|oops|i mean\b|on second thou|strike that|i take (?:that|it) back"
    r"|开玩笑|抱歉"
    r"|或|更正|修正|改为|不对|不[,，]|不是|错|和|及|另|上述说法|以上说法|说错)",
    re.I,
)
"""Begins a sentence that takes back the one before, or goes on listing."""
HOWEVER = re.compile(
    r"(?:however|but|yet|nevertheless|nonetheless|alternatively|on the other hand|that said|still)\b", re.I
)
ANOTHER = re.compile(
    r"\b(?:I|we|my|our)\b|(?i:\b(?:better|more (?:closely|likely|commonly|often|probabl[ey])|(?:old|older|newer|newest"
    r"|former|traditional) (?:view|sources?|texts?)|today|nowadays|outdated|answer|except|is too|are too|as well|so is"
    r"|so are|in truth|in fact|in reality)\b)"
)
"""Beside an answer in the question's words: speaks of another one."""
SUPPORTS_THIS = re.compile(
    r"[\w, -]{3,60} (?:supports?|confirms?|suggests?) (?:this|it|that|the diagnosis)"
    r"|this (?:fits|explains|matches|is because) (?:the|his|her|all) [\w ]{3,40}",
    re.I,
)
"""Short words for a conclusion."""
RETRACTS = re.compile(
    r"\b(?:not sure|unsure|a guess|(?:the|my) (?:choice|answer|truth)|(?:is|are|was|be) (?:the )?(?:right|correct|true"
    r"|wrong|best)(?! (?:treatment|therapy|test|way|approach|management|side|lung|eye|arm|leg))|misconceptions?|belief"
    r"|myths?|disprov\w+|disregard|ignore|opposite|trap|is meant|replaced by|true until|was (?:true|once)"
    r"|(?:in|for) (?:animals|horses|dogs|mice|rats)|previous statement|the above|equally|does the same|the same role"
    r"|so (?:does|do|is|are)|likewise|qualif\w+|a (?:second|third|further) one|both this|is concluded"
    r"|(?:authors|guidelines|sources|experts|textbooks?) (?:now |today )?(?:say|name|prefer|state|answer))\b"
    r"|^[^,]{1,40} cannot be excluded$|^(?:hmm|here,|in this (?:patient|case),? (?:it|this) is)",
    re.I,
)
"""After a conclusion: doubts it as a whole, or answers the question again."""
BACK = re.compile(
    r"^(?:(?:however|but|yet|still|actually|though|although|nevertheless),? )?(?:this|that|it|the (?:diagnosis"
    r"|former|latter|above|statement"
    rf"|answer|assumption))\b[^,;]{{0,60}}?{_NEGATES}"
    rf"|[,;] (?:but|and|yet) (?:it|this|that) (?:is|was|has been)\b[^,;]{{0,20}}?{_NEGATES}"
    r"|(?:该|此|上述|以上|这一?|本)(?:诊断|说法|结论|判断|答案)[^,，;；]{0,16}?(?:不|否|错|排除|除外|未|存疑"
    r"|推翻|更正|可能)|(?:这|那)是(?:不|错)",
    re.I,
)
"""Points back at the conclusion to deny it."""
BESIDE = re.compile(
    r"\b(?:could|may|might) (?:equally|also|as well|just as well) be\b|\b(?:equally|just as|also) (?:likely"
    r"|possible|plausible)\b|\bas likely\b"
    r"|\b(?:second(?:ary)?|third|other|alternative|additional) (?:diagnos[ie]s|possibility|option)\b"
    r"|^(?:second(?:ly)?|third(?:ly)?)\b|\bruns? up\b"
    r"|\balternatively\b|\banother (?:possibility|diagnosis|option)\b|\bor else\b|\bthe (?:second|third) is\b"
    r"|\bit could be\b|\btoss-?up\b|\b(?:fits?|explains?|matche?s?|suits?) (?:\w+ )?(?:better|best)\b"
    r"|\b(?:better|best) (?:explain|fit|match)\w*\b(?! by\b)|\bmore (?:likely|probable|plausible)\b|\bon reflection\b"
    r"|更(?:符合|支持|像|可能|倾向|应(?:考虑|诊断))|再想|重新考虑|其次|次之|同样可能|同等可能|另一(?:种|个)?(?:可能|诊断)|也(?:可能|有可能|是|考虑|不能)|(?:次要|第二|其他"
    r"|另外)诊断|同时(?:存在|患有|诊断)|或者",
    re.I,
)
"""Puts another diagnosis beside the conclusion."""
VERB = re.compile(
    r"[:：]|\b(?:is|are|was|were|has|have|had|shows?|fits?|because|since|due|based|given|we|i|should|would|can"
    r"|cannot|may|will|this|these)\b"
    r"|因|依据|理由|根据|符合|支持|表现|建议|需|应|治疗|为|有|可|示|见|是",
    re.I,
)
"""Makes a line more than the name of a disease."""
