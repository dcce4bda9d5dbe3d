"""Does a thought betray that its writer was told the answer? Phrases by kind, English and Chinese; no model.

Thinking aloud must pass: naming a diagnosis, doubting it, coming back to it, and the patient's own history of
diagnoses, reviews and attempts (at a treatment). So each kind asks for the *answer* to stand outside of the thought:
handed over, known beforehand, corrected by somebody, or held beside the findings.
"""

import re
from functools import cache

from clinical_r1.schema import Language
from clinical_r1.synthesis.text import cjk_share, fold, sentences

# The words that the kinds are made of.
_RIGHT = r"(?:final|correct|right|true|actual|real)"
_GIVEN = (
    r"(?:given|provided|supplied|stated|official|expected|intended|desired|target|reference|model|predetermined|known"
    r"|listed|established|ground[- ]truth)"
)
_ANY = rf"(?:{_RIGHT} |{_GIVEN} |confirmed )*"
_ANSWER = r"(?:answer|diagnosis|conclusion|solution)"
_HANDED = r"(?:given|provided|supplied|stated|revealed|told|shown|listed|handed|specified|disclosed|announced)"
_WRONG = r"(?:wrong|incorrect|mistaken|not (?:right|correct|accepted|it)|off)\b"
_PERSON = r"(?:reviewer|grader|verifier|checker|evaluator|assessor|judge|marker|question writer)s?"
_JUDGED = r"(?:marked|graded|judged|deemed|flagged|rated|scored|rejected|declared|called|ruled|found|said|turned down)"
_ME = r"(?:i|we)(?:'m|'re|'ve|'d| am| are| was| were| have| had)(?: been)?"
_OURS = r"(?:my|our|the|this|that|these|those|all|both|every|an?)"
_EARLIER = r"(?:earlier|previous|prior|preceding|last|first|second|third|failed|past|initial|other)"
_OPEN = (
    r"(?! (?:not\b|un|in doubt|still|yet|in question|likely|most|probabl|possibl|perhaps|clinical|often|usually|based"
    r"|to be|going to|made\b|a matter|clear|obvious|almost|hidden|therefore|thus|hard|easy|difficult|malignant|benign"
    r"|missed|delayed|overlooked|only|never|first|later|suspected|confirmed|established|reached|important|one of))"
)
"""What may follow `the diagnosis is` in an open mind."""
_NO_NAME = (
    r"(?!not\b|an?\b|the\b|only\b|been\b|un|in\b|on\b|at\b|acute|chronic|viral|bacterial|infect|inflamm|autoimm|malign"
    r"|benign|genetic|unilat|bilat|severe|mild|likely|prob|poss|worse|better|too|very|more|less|hard|important"
    r"|common|rare)"
)
"""What follows `we know it is` where no answer is named."""

ENGLISH: dict[str, tuple[str, ...]] = {
    "given_answer": (  # the provided answer, the established answer is
        rf"\b(?:the|this|that|my|our|its) (?:already )?(?:{_RIGHT} )?(?!known|established){_GIVEN} (?:{_RIGHT} )?"
        rf"{_ANSWER}\b(?! of (?:his|her|the patient)| code| to\b| choices| options)",
        rf"\b(?:the|this) (?:known|established) (?:answer|conclusion|(?:diagnosis|solution) (?:is|was|here)\b{_OPEN})",
        r"\bthe confirmed (?:answer|diagnosis is)\b",
        r"\b(?:ground[- ]truth|answer[- ]key|key answer|gold (?:answer|label)|reference answer)\b",
    ),
    "answer_is_given": (  # the answer is given as, has been provided, as stated
        rf"\b{_ANY}answer (?:here )?(?:is|was|has|had)(?: already| now| been| actually| indeed| in fact)* "
        rf"(?:{_HANDED}|known|confirmed|established|supposed to|meant to|expected to)\b",
        rf"\b(?:the|{_RIGHT}) (?:{_RIGHT} )?diagnosis (?:here )?(?:is|was|has|had)(?: already| now| been| actually)* "
        rf"(?:{_HANDED}\b(?! (?:by|at|in|to))|(?:known|said|stated|supposed|meant|expected) to be|known(?: as\b"
        rf"|[,:;.]|$))",
        rf"\bthe {_ANY}(?:answer|diagnosis),? (?:as |that (?:was|is|has been) )?{_HANDED}"
        r"(?:\W*$|[,:;]| (?:is|was|here|above|below|to (?:me|us)|and|as)\b)",
        rf"\bthe {_ANY}answer,? [^.;]{{0,40}},? (?:is|was|has been|had been) (?:already )?{_HANDED}\b",
        rf"\b(?:the {_ANY}answer|the solution) (?:mentions|says|states|names|lists|specifies|reads|indicates"
        rf"|tells|calls|suggests"
        r"|implies)\b",
        rf"\bit(?:'s|'s been| is| was| has been) (?:already )?(?:known|stated|given|confirmed|established"
        rf"|said) that the {_ANY}"
        r"(?:answer|diagnosis) (?:is|was)\b",
        r"\bdiagnosis (?:has|had) been established (?:as|to be)\b|\banswer is indicated as\b",
        r"\banswer (?:that )?(?:they|you|the \w+) (?:want|expect|are after|are looking for)\w*\b",
        r"\b(?:it|they|(?:the|a|this) (?:hint|key|sheet|note|prompt|question|task|instructions?|exercise|system))"
        r" (?:already )?(?:says?|said|tells?|told|gives?|gave|provides?|reveals?|states?|mentions?|indicates?|hints?)"
        rf"(?: us| me| at| that| away)* (?:the )?{_ANY}answer\b",
        r"\bthe hint (?:says|said|is|was|gives|tells|points)\b",
        r"\banswer,? (?:which|that) (?:i|we)(?:'ve| have| was| were)(?: been)? (?:given|told|handed|shown)\b",
        r"\bas (?:stated|given|said|shown|indicated) in the (?:answer|solution|key|reference)\b",
        r"\bthe reference (?:says|states|gives|names|is that)\b|\bthe answer (?:given|provided|supplied) (?:says"
        r"|states|reads)\b",
        r"\b(?:conclusion|solution) is (?:known|said|stated|supposed|meant) to be\b",
    ),
    "known_beforehand": (  # we already know it's gout; knowing the answer; as I was told
        rf"\b(?:i|we|you) (?:already|now) (?:know|knew) (?:that )?(?:(?:it'?s|it is|it was|this is|this was) {_NO_NAME}"
        rf"|the {_ANY}(?:answer|diagnosis))\b",
        rf"\b(?:(?:since|because|given that|now that|as) (?:i|we|you) (?:do )?know|(?:^|so |okay,? |now,? "
        rf"|, )knowing) (?:that )?"
        rf"(?:(?:it'?s|it is) {_NO_NAME}|the {_ANY}(?:answer|diagnosis) (?:is|was)\b{_OPEN})",
        rf"\b(?:i|we) (?:do )?know (?:that )?the {_ANY}(?:answer|diagnosis) (?:is|was)\b{_OPEN}",
        rf"\b(?:i|we) (?:do )?know the {_ANY}answer\b|\bknowing (?:that )?the {_ANY}(?:answer|diagnosis)\b"
        rf"(?! (?:is|would|will|can|helps|matters))",
        r"\bwith the (?:\w+ )?answer (?:in (?:hand|mind|view)|known|given|already)\b",
        rf"\b{_ME} (?:just |already |also )*(?:told|given|informed|handed|shown|provided)(?: with| of| that)* "
        rf"(?:the |my |this |that |a )?{_ANY}(?:answer\b|diagnosis (?:is|was)\b|diagnosis\W*$|(?:is|was|it'?s"
        rf"|it is) {_WRONG})",
        rf"\b{_ME} told (?:that )?(?:(?:it'?s|it is|this is) {_NO_NAME}|(?:\w+ ){{0,3}}(?:is|was|were) {_WRONG})",
        rf"\btold (?:that )?(?:i|we) (?:was|were|am|are|had it|got it) {_WRONG}",
        rf"\b(?:answer|diagnosis)\b[^.;]{{0,60}}\bas {_ME} (?:told|informed|given|shown)\b",
        rf"\bknow(?:n)? from the (?:{_ANY}answer|solution|key)\b",
        r"\b(?:i|we) (?:was|were|am|are|have been) (?:already )?given the (?:\w+ )?diagnosis of\b",
        rf"\bthe (?:user|prompt|task|instructions?|examiner) (?:has |have |had |already )*(?:told|tells?) (?:me|us)"
        rf" (?:that )?(?:(?:it is|it's|this is) {_NO_NAME}|the {_ANY}(?:answer|diagnosis) (?:is|was)\b)",
        rf"\bthe (?:prompt|task|instructions?) (?:already )?(?:states?|says?) that the {_RIGHT} (?:answer|diagnosis)"
        r" (?:is|was)\b",
        r"\blabell?ed (?:answer|diagnosis) (?:is|was)\b",
    ),
    "as_a_premise": (  # given that the final diagnosis is gout, ...
        rf"\b(?:given|since|seeing|now|because|considering|assuming|as) (?:that )?the (?:{_RIGHT}|{_GIVEN}) "
        rf"(?:answer|diagnosis) (?:is|was|has to be|must be|turned out)\b{_OPEN}",
        rf"\b(?:given|since|seeing|now|because|considering) (?:that )?the answer (?:turns out\b|(?:is|was"
        rf"|has to be)\b{_OPEN})",
        rf"\b(?:given the {_RIGHT} (?:answer|diagnosis) (?:of|being)|with the {_RIGHT} answer (?:of|being))\b",
        r"\b(?:see|show|work out|figure out|explain|trace|understand) (?:how|why) (?:we|i|one|you"
        r"|someone)(?: can| could| would"
        r"| might| should)? (?:get|got|arrive|arrived|reach|come|came|end up) (?:there\b|(?:at |to )?(?:that"
        r"|this|the) (?:answer|diagnosis))",
        r"\b(?:answer|diagnosis) is [^.;]{1,60}[,;] (?:so |and |now )?(?:let me|let'?s|i need to"
        r"|we need to) (?:figure out|work out"
        r"|explain|see|understand) why\b",
        r"\b(?:answer|diagnosis) (?:that )?(?:i|we)(?: am| are|'re|'m)? (?:supposed to|need to|have to|must|should) "
        r"(?:reach|arrive|get|justify|match|end)\b",
        rf"\b(?:need|have|supposed|want) to (?:get|arrive|end|land|come) (?:up )?(?:to|at|with"
        rf"|on) [^.,;]{{1,40}} as the {_ANY}"
        r"(?:answer|diagnosis)\b",
        rf"\b(?:since|because|given that|now that|considering that|with) [\w -]{{2,40}} (?:is|was"
        rf"|being) the {_RIGHT} (?:answer|diagnosis)\b",
        r"\b(?:let me|let'?s|need to|have to|must|now) (?:justify|rationali[sz]e)\b",
    ),
    "turns_out": (  # it turns out that the diagnosis was; the right answer is actually
        rf"(?<!if )(?<!if it )\bturn(?:s|ed) out (?:that )?the {_ANY}(?:answer|diagnosis) (?:is|was|had been)\b{_OPEN}",
        r"\bit (?:was|is) (?:\w+ )?(?:revealed|disclosed|announced|established) that the (?:\w+ )?(?:answer"
        r"|diagnosis) (?:is|was)\b",
        rf"\bthe {_RIGHT} (?:answer|diagnosis) (?:turn(?:s|ed) out|end(?:s|ed) up|proved)\b",
        r"\bthe (?:correct|right|true|real|actual) (?:answer|diagnosis) (?:is|was) (?:actually|in fact|indeed"
        r"|instead|really)\b",
        rf"\bthe (?:correct|right|true|real|actual|ultimate) (?:answer|diagnosis) was\b{_OPEN}",
        rf"\bthe actual (?:answer|diagnosis) is\b{_OPEN}",
        rf"\b{_RIGHT} (?:answer|diagnosis), (?:as )?it turn(?:s|ed) out\b",
    ),
    "held_beside": (  # which matches the final answer; looking at the answer; working backwards from it
        r"\b(?:match|agree|align|consist|correspond|square|tall|compatib|in (?:line|keeping)"
        r"|fit)\w* (?:up )?(?:with |to )?"
        rf"the (?:{_RIGHT}|{_GIVEN}) (?:answer|diagnosis)\b",
        r"\b(?:looking|look|looked|peeking|glancing|judging) (?:back )?(?:at|from|by) the (?:\w+ )?answer\b"
        r"(?! (?:to|choices|options|that (?:he|she|the patient)|(?:he|she) (?:gave|gives)))",
        rf"\bcompar(?:ing|ed) (?:\w+ )?(?:with|to|against) the (?:{_RIGHT}|{_GIVEN}) (?:answer|diagnosis)\b",
        rf"\bback(?:ward)?s? from the {_ANY}(?:answer|diagnosis|conclusion)\b|\breverse[- ]engineer",
        rf"\b(?:according to|per|based on|by|from) (?:the (?:(?:{_RIGHT}|{_GIVEN}) answer|solution (?:given"
        rf"|provided|key)))\b",
    ),
    "corrected": (  # the reviewer said; it was pointed out that my answer is wrong
        rf"\b(?:the|a|my|our|one|another) (?!judges? (?:is|was|has|had|did)\b){_PERSON} (?:\w+ )?(?:said|says"
        rf"|noted|notes|told|pointed|points|marked"
        rf"|marks|flagged"
        r"|rejected|rejects|found|thinks|considered|disagree\w*|indicated|wrote|was|is|has|had|wants|did)\b",
        rf"\b(?:according to|as|by|feedback (?:from|of)) the {_PERSON}\b",
        r"\baccording to the (?:review|feedback|grading|evaluation|verdict)\b(?! of)",
        rf"\b(?:pointed out|told|informed|noted|flagged|stated|established|confirmed) (?:to me |me "
        rf"|us )?(?:that )?(?:my|our)"
        rf" (?:\w+ )?(?:answer|diagnosis|guess|conclusion|attempt|response)s? (?:is|was|were"
        rf"|had been) (?:\w+ )?{_WRONG}",
        rf"\b{_OURS} (?:{_EARLIER} )?(?:answer|guess|attempt|response|reasoning|analysis"
        rf"|conclusion)s?(?:, [^.;,]{{1,40}},)?"
        rf" (?:was|were|has been|had been|is|got) (?:\w+ )?{_JUDGED} (?:as |to be )*{_WRONG}",
        rf"\b(?:my|our) (?:{_EARLIER} )?(?:answer|attempt|response|diagnosis)s? (?:was|were|has been|had been"
        rf"|got) (?:\w+ )?rejected\b",
        r"\b(?:the|some|this) feedback (?:says?|said|was|is|on|that|about|i|we)\b",
        rf"\b(?:i|we) (?:was|were|am|are|have been) (?:told|informed) (?:that )?[\w -]{{2,40}} (?:is|was"
        rf"|were) {_WRONG}",
        rf"\bapparently,? (?:my|the|that) (?:\w+ )?(?:answer|diagnosis|guess|conclusion) (?:is|was) {_WRONG}",
    ),
    "attempts": (  # the earlier attempts; my previous answer
        rf"\b{_OURS} (?:\w+ )?{_EARLIER} (?:(?:failed|unsuccessful|wrong|two|three|few"
        rf"|diagnostic) )?(?:attempts?|tries)\b",
        rf"\bin {_EARLIER} attempts?\b",
        r"\b(?:one|two|three|four|all|both|several|these|those|my|our) (?:\w+ )?attempts? (?:have |has |had "
        r"|all |both )*"
        r"(?:failed|went|missed|concluded|settled|focused|ignored|overlooked|led)\b",
        r"\bmy (?:earlier|previous|prior|last) (?:answers?|responses?)\b(?! would)",
        r"\b(?:all|our|the|these|those|both) (?:\w+ )?(?:earlier|previous|prior) answers?\b",
        r"\bafter (?:\w+ ){0,2}failed attempts\b",
    ),
}

_ZH_RIGHT = r"(?:(?:最终|最后|正确|标准|实际|真实|真正|明确)的?)"
_ZH_OPEN = r"(?!什么|否|不|未|谁|哪|怎|如何|需|应|要|可能|很|最|也许|何|啥|几|依据|依靠|基于)"
_ZH_TASK = r"(?:题目|题干|题里|题中|题面|提示|任务|系统)"
_ZH_SAYS = r"(?:提示|给出|给了|告诉|告知|说明|透露|标明|写明|写出|写着|点明|指出|明确|说)"
_ZH_HANDED = r"(?:给定|给出|给的|告知|告诉|公布|揭晓|提供|已知|写明)"
_ZH_OTHERS = r"(?<!院)(?<!诊)(?<!生)(?<!师)(?<!者)(?<!科)(?<!属)"
"""Not what another hospital, clinic, doctor, patient or department said."""

CHINESE: dict[str, tuple[str, ...]] = {
    "given_answer": (  # 参考答案, 给定的诊断
        r"(?:参考|标准|给定|所给|已给出?|给出|题给|提供|既定|预设|预期|期望|官方|出题人|预先设定)的?(?:正确|最终)?的?(?:答案|结论)",
        rf"{_ZH_OTHERS}(?:给定|所给|已给出?|题给|预设|既定|{_ZH_TASK}(?:所|已|中)?(?:给出?|提供)|提供|给出|给)的?(?:正确|最终)?的?"
        r"诊断(?!依据|标准|意见|线索|思路|价值|信息|流程|建议)(?<=的诊断|给诊断|定诊断|供诊断|终诊断|确诊断)",
        rf"参考诊断(?!标准|依据|指南|要点)|答案解析|答案提示|{_ZH_OTHERS}给的(?:正确|最终)?答案",
        r"标准诊断(?:是|为)(?!什么)|(?:老师|别人|他们|人家|系统|出题人)给的?(?:出的)?(?:正确|最终)?答案",
    ),
    "answer_is_given": (  # 最终答案给的是, 题目提示答案
        rf"{_ZH_RIGHT}?答案(?:里|中|上)?(?:已经?|早已|就|便|都|是)*(?:{_ZH_HANDED}|写的|说的?是|列的|显示|明确(?:是|为|写))",
        rf"(?:最终|正确|标准)的?诊断(?:已经?|早已|就)*{_ZH_HANDED}",
        rf"{_ZH_TASK}(?:里|中|已经|已|都|就|上)*{_ZH_SAYS}(?:了|的|我们|我|过|说)*{_ZH_RIGHT}?(?:答案|诊断(?:就|已经?)?(?:是|为|：|:))",
        r"(?:为|被)?告知(?:的)?(?:正确|最终)?的?(?:答案|诊断)(?:是|为)|(?:公布|揭晓)的(?:诊断|答案)",
        r"答案所(?:说|示|述|指|写)|(?:诊断|答案)(?:结果)?已知(?:为|是)|(?<!所以)(?<!因此)题目的答案",
        r"答案(?:已经?)?(?:揭示|揭晓)|(?:提示|线索)(?:是|为)?正确答案|题目?(?:里|中)(?:面)?的答案",
    ),
    "known_beforehand": (  # 既然诊断已经明确为, 已知诊断为
        r"(?:^|[，,。；;：:！!\s]|因为|由于|既然|我们?|这里|本题|此例|本例|好|嗯|那|但|而)已知(?:道|的|了)?(?:本例|该例)?"
        rf"{_ZH_RIGHT}?(?:诊断|答案|结果|结论)(?:就)?(?:是|为|：|:)",
        rf"既然(?:我们?|这里|本例)?(?:已经?|都)?(?:知道|明确|确定|告知|给出|给定|揭晓|清楚)了?{_ZH_RIGHT}?(?:答案|诊断)",
        rf"既然{_ZH_RIGHT}?(?:答案|诊断|结论)(?:已经?|就|既|都)*(?:明确(?:为|是)|确定(?:为|是)|是|为|给|告知|知道|定了){_ZH_OPEN}",
        rf"(?:因为|由于|我们?|事先|预先|早就|已经?)+(?:知道|知晓|得知){_ZH_RIGHT}?的?(?:答案|诊断(?:就)?(?:是|为)|最终诊断|正确诊断)",
        r"(?:知道|知晓|得知|看到|拿到|看|看了)(?:正确|最终|标准)?的?答案(?:之?后|以后|了|再|，|,|是|为|就|来)",
        r"(?:被|已经?|已被|有人|事先|提前|预先|题目|系统|老师|上级)告[知诉](?:了|过|我|我们)*(?:正确|最终|标准)?的?"
        r"(?:答案|诊断(?:是|为|就是)|结果(?:是|为))",
        r"诊断(?:已经?|早已|既已)(?:被)?(?:明确告知|告知|给出|给定|揭晓|公布)",
        r"(?:用户|提问者|出题人)(?:已经?|也)?(?:告诉|告知|给出|指出|说)(?:了|过|我|我们)*(?:正确|最终)?的?(?:答案|诊断)(?:是|为)",
        r"(?<!检查)(?<!结果)(?<!报告)提示说(?:是|为)",
        r"(?:我|我们)(?:已经|早已|早就|事先)?知道了(?:正确|最终|标准)?的?答案",
    ),
    "as_a_premise": (  # 正确诊断是痛风，那么: a premise, where thinking aloud concludes
        r"(?<!所以)(?<!因此)(?<!综上)(?<!综上，)(?<!看来)(?<!可见)(?<!认为)(?<!觉得)(?<!于是)(?<!说明)(?<!推断)"
        rf"(?:正确|标准)的?(?:诊断|答案|结论)(?:就)?(?:是|为){_ZH_OPEN}[^，,。；;]{{1,20}}[，,；;](?:那么?|所以|因此|既然|回过?头"
        r"|倒(?:过来|推)|反(?:过来|推)|再(?:看|来|回)|于是|这样|可见|说明|因而|下面|现在|怎么|如何|我|让我|来?想想|来?看看)",
        r"答案(?:就)?(?:是|为)[^，,。；;]{1,20}[，,；;](?:那|让我|我们)*(?:再|来)?(?:看看?|想想?|分析|解释|说明)?(?:一下)?(?:怎么|如何|为什么|为何)",
        r"(?<!者)已经?明确(?:了)?诊断(?:为|是)[^，,。；;]{1,20}[，,](?:那么|需要解释|要解释|再|回)",
        r"(?:(?:最终|最后|正确|标准)的?(?:诊断|答案|结论)(?:结果)?|(?:最终|最后)?确诊(?:结果)?)(?:就)?(?:是|为)[^，,。；;]{1,20}[，,；;。]"
        r"(?:再|现在|那就|我们)?(?:回过?头|倒过?来|反过来|倒推|反推|往回|反着|那么?(?:之前|前面|先前|此前|为什么|为何))",
        rf"(?:由于|因为|鉴于|考虑到|基于){_ZH_RIGHT}(?:诊断|答案|结论)(?:就)?(?:是|为){_ZH_OPEN}",
        r"正确的?(?:答案|诊断)应该?(?:是|为)[^，,。；;]{1,20}[，,](?:我)?(?:前面|之前|先前|刚才)[^，,。；;]{0,8}(?:错|误|不对)",
        r"(?:需要|必须|要)(?:推|得|导)出[^，,。；;]{1,20}这[一个](?:结论|答案|诊断)",
        r"答案(?:就)?(?:是|为)[^，,。；;]{1,20}[，,；;。](?:再|现在)?(?:回过?头|倒推|反推|往回)",
    ),
    "turns_out": (  # 实际诊断为痛风
        rf"(?:实际|真实|真正)(?:上)?的?(?:诊断|答案|结论)(?:却|其实|原来|就|竟)?(?:是|为){_ZH_OPEN}",
        r"(?:正确|最终|标准)的?(?:诊断|答案)(?:其实|原来|竟然?|却|实际上?)(?:就)?(?:是|为)",
        r"(?:原来|事实上|结果|事后证明|后来得知|后来知道|后来才知道)(?:正确|最终|标准)?的?(?:诊断|答案)(?:就)?(?:是|为)"
        r"(?<!结果诊断是|结果诊断为)",
        r"(?:事实|后来|最后)证明(?:正确|最终|标准)的?(?:诊断|答案)(?:就)?(?:是|为)",
    ),
    "held_beside": (  # 按照题目的答案, 从答案倒推
        r"(?:按照?|根据|依照|依据|对照|参照|参考|结合|看(?:看|了|到|一下)?|符合|吻合|契合|对应|照着|冲着|朝着|围绕|与|和|跟|同|朝)"
        rf"(?:着|了)?(?:本|这个?|该)?(?:{_ZH_TASK}|{_ZH_HANDED}|最终|最后|正确|标准|参考)(?:中|里|所|给出|给|提供)*的?"
        r"(?:正确|最终|标准)?的?答案",
        r"(?:符合|吻合|契合|对应|与|和|跟)(?:着|了)?(?:最终|正确|标准)的?诊断(?:相|一致|吻合|是|完全|就|$|[，,。])(?!标准)",
        r"(?:先|再|偷|直接|回头|去)看(?:一下|了|看|一看|一眼)?(?:正确|最终|标准)?的?答案(?!选项)",
        r"(?:从|由)(?:正确|最终|标准)?的?(?:答案|最终诊断|正确诊断)(?:出发|往回|往前|反推|倒推|倒着|反着|倒过来|来看(?!选)|看(?!选))"
        r"|(?:答案|诊断)(?:倒推|反推)|倒推(?:答案|诊断)",
        r"(?:按照?|照着|顺着|参照|围绕)(?:着)?答案(?!选项)|(?:根据|按照?|依据|结合)(?:已知|既定)的?(?:诊断|答案)(?!标准|依据)",
    ),
    "corrected": (  # 被指出, 经复核答案不对
        r"(?:被|有人|经|经过|对方|别人|老师|上级|审核(?:者|人)?|评审(?:者|人|专家)?|复核(?:者|人|后|结果)?|评判者?|阅卷(?:人|老师)?"
        r"|批改(?:者|人)?|验证者?|系统|反馈)(?:后|已|就|里|中|也)?(?:指出|告知|告诉|认为|认定|判定|判为|判断|评为|说|提示|指正|纠正|否定"
        r"|打回|标记|显示)(?:过|了|我|我们|说|是|为)*[^。；;，,]{0,12}(?:答案|诊断|回答|结论|判断|推理|答)[^。；;，,]{0,6}"
        r"(?:错|不对|不正确|有误|有问题|不符)",
        r"(?:答案|回答|结论|诊断|作答|分析|推理|判断)(?:被|已被|经复核)(?:判|指|评|认|标|否|打回|纠正|证明)[^。；;，,]{0,6}(?:错|不对|不正确|误)",
        r"(?:答案|回答|结论)(?:已)?被(?:否定|打回|驳回|纠正)",
        r"(?:有人|别人|他们|对方)(?:告诉我|说)[^。；;]{0,6}(?:答案|诊断|错|不对)|有人告诉我",
        r"(?:评审|审核|复核|阅卷|批改|验证)(?:者|人|老师|专家|意见|结果)(?:说|指出|认为|告诉|提示|表示|是|：|不)",
        r"反馈(?:说|指出|表明|提到|告诉)[^。；;]{0,8}(?:答案|诊断|错|不对|不正确)",
    ),
    "attempts": (  # 上一次尝试
        r"(?:上一?次|上一?轮|上几次|之前|先前|此前|前(?:一|几|两|三|面几)次|早先|刚才|前面|头(?:一|几|两)次|(?:第[一二三四1-4]|首)次)"
        r"(?:的|那|几次|两次|三次)*(?:尝试|作答|回答(?!问题|病史|提问)|答题|答案)|(?:上一?次|之前|前几次|刚才)[^，,。；;]{0,4}答错",
        r"(?:几|两|三|数|多)次(?:失败的尝试|尝试(?:都|均|全)(?:失败|错|不对))",
    ),
}

_HISTORY = re.compile(
    r"\b(?:years?|months?|weeks?|days?) (?:ago|earlier|before|prior)\b|\bpast medical|\bhistory of\b"
    r"|\boutside hospital\b"
    r"|\b(?:pcp|referring|referral|family doctor|pathologist|radiologist|biopsy|in (?:19|20)\d\d)\b"
    r"|既往|病史|曾|[年月周天]前|入院前|外院|家族|当地医院|转诊|体检|门诊|家属|患者(?:已|自|本人)?被?告知"
)
"""A sentence about what was known of the patient before, or elsewhere."""
_TREATED = re.compile(
    r"\b(?:intubat|extubat|wean|conceiv|ivf|quit|cessation|suicid|cathet|cannul|defibrill|cardiover|lumbar"
    r"|pregnan|reduc|taper"
    r"|control|relie|manag|diet|weight|resuscit|insert|access|therap|treat|antibiot|steroid|walk|stand|sleep"
    r"|void|swallow|abstin|detox|closure)"
    r"|插管|拔管|脱机|戒|停药|减药|减量|减重|服|用药|治疗|手术|怀孕|受孕|妊娠|自杀|备孕|静滴|换药|降压|控制|运动|节食|行走|下床|进食|溶栓|复律|穿刺"
)
"""A sentence in which an attempt is one at a treatment."""
_EXCUSED = {
    "answer_is_given": _HISTORY,
    "held_beside": _HISTORY,
    "known_beforehand": _HISTORY,
    "turns_out": _HISTORY,
    "attempts": _TREATED,
}


@cache
def _kinds(language: Language) -> dict[str, re.Pattern[str]]:
    table = ENGLISH if language == "en" else CHINESE
    return {kind: re.compile("|".join(patterns)) for kind, patterns in table.items()}


def told(text: str) -> str:
    """The kind of the first phrase that betrays a told answer (`given_answer`, `corrected`, ...), or ""."""
    for sentence in sentences(fold(text).replace("’", "'")):
        language: Language = "zh" if cjk_share(sentence) > 0.3 else "en"
        for kind, pattern in _kinds(language).items():
            excuse = _EXCUSED.get(kind)
            if pattern.search(sentence) and not (excuse and excuse.search(sentence)):
                return kind
    return ""
