"""What a model is asked: the problem with its choices, and the request to end with a conclusion line. No torch.

`schema.Case.prompt` is this for a case; synthesis teaches it, PPO and every evaluated endpoint are asked it, the chat
page sends it. The words are the same for all, so that a rival is not worse for not having been told.
"""

import re
from collections.abc import Sequence

from clinical_r1.reasoning import CONCLUSION_LABELS, ConclusionKind
from clinical_r1.text import Language

_ENDINGS: dict[tuple[Language, str], str] = {
    ("en", "diagnosis"): "End your reply with one line: {label}...",
    ("en", "answer"): "End your reply with one line: {label}...",
    ("en", "choice"): "End your reply with one line: {label}... (the letter)",
    ("en", "choices"): "Several choices are right. End your reply with one line: {label}... (all their letters)",
    ("zh", "diagnosis"): "答复末尾单独写一行：{label}……",
    ("zh", "answer"): "答复末尾单独写一行：{label}……",
    ("zh", "choice"): "答复末尾单独写一行：{label}……（选项字母）",
    ("zh", "choices"): "本题有多个正确选项。答复末尾单独写一行：{label}……（全部正确选项的字母）",
}
_SENTENCE = re.compile(r"[^.?!;。？！；\n]+[?？]?")
_ASKS = re.compile(
    r"\b(?:what|which|who|whom|whose|why|how)\b.*[?？]$|^\W*(?:what|which|why|how|name|state|give|identify|determine|make)\b"
    r"|什么|哪[一种个项些类]|何[种病]|多少|如何|请(?:给出|作出|判断|说明|分析|诊断|回答|选择)",
    re.IGNORECASE,
)
"""A sentence that asks for something; a mere question mark in a record (`? TB`, `Fever? No.`) does not."""
_SURELY_A_DIAGNOSIS = re.compile(
    r"\b(?:what|which|give|state|name|make)\W+(?:(?!tests?\b|investigat|standard|findings?\b|features?\b|signs?\b|criteri|steps?\b"
    r"|procedure|modalit|imaging|stud(?:y|ies)\b|tools?\b|confirm|establish|exclud|for\b)\w+\W+){0,5}diagnos[ie]s\b"
    r"|诊断(?:是|为)(?:什么|何|哪)|最可能的?诊断|(?:给出|作出|做出|判断)[^。；，]{0,6}诊断|(?:什么|何|哪种)病",
    re.IGNORECASE,
)
_OF_A_DIAGNOSIS = re.compile(
    r"diagnos|\b(?:disease|condition|disorder|illness|syndrome)s?\b|suffer(?:s|ing)? from|\bwrong with\b"
    r"|\bdoes (?:he|she|the patient) have\b|诊断|疾病|[什何]么?病|病名|综合征|患(?:有|的是)?(?:什么|何|哪)",
    re.IGNORECASE,
)
_OF_ANOTHER_THING = re.compile(
    r"\b(?:gold standard|modalit\w+|treat\w*|therap\w*|drugs?|medications?|manag\w*|steps?|tests?|investigat\w*"
    r"|imaging|mechanisms?"
    r"|pathogens?|organisms?|vaccin\w*|doses?|complications?|prognos\w*|enzymes?|genes?|nerves?|arter(?:y|ies)|muscles?|structures?"
    r"|probabilit\w*|percent\w*|why|how|confirm\w*|exclude|prevent\w*|true|false|criteri\w*|characteri\w*|features?|factors?)\b"
    r"|治疗|用药|药物|检查|处理|处置|机制|病原|并发症|预后|护理|方案|措施|原因|病因|依据|为什么|如何|多少|预防|标准|正确的是|错误的是",
    re.IGNORECASE,
)


_RANKED: dict[Language, str] = {
    "en": "State the {n} most likely diagnoses, the most likely one first: numbered, one a line, nothing else.",
    "zh": "请按可能性从高到低列出 {n} 个最可能的诊断：编号，每行一个，不写其他内容。",
}


def ranked(language: Language, n: int) -> str:
    """The sentence that asks for several diagnoses in place of one conclusion."""
    return _RANKED[language].format(n=n)


def problem(question: str, options: Sequence[str] = ()) -> str:
    """The question, and its choices below it where it does not list them by letter itself."""
    lettered = [(chr(ord("A") + index), option) for index, option in enumerate(options)]
    if all(
        re.search(rf"(?<!\w){letter}\s*[.)．、:：）]\s*{re.escape(option)}", question) for letter, option in lettered
    ):
        return question
    listed = "\n".join(f"{letter}. {option}" for letter, option in lettered)
    return f"{question}\n\n{listed}"


def asks_for(question: str, options: Sequence[str] = ()) -> ConclusionKind:
    """A diagnosis (a record that asks nothing is one to diagnose), or another answer (always among choices)."""
    if options:
        return "answer"
    last = next((said for said in reversed(_SENTENCE.findall(question)) if _ASKS.search(said.strip())), "")
    if not last or _SURELY_A_DIAGNOSIS.search(last):
        return "diagnosis"
    return "diagnosis" if _OF_A_DIAGNOSIS.search(last) and not _OF_ANOTHER_THING.search(last) else "answer"


def request(language: Language, kind: ConclusionKind, closed: bool = False, several: bool = False) -> str:
    """The sentence that asks for the conclusion line; `several` of the choices may be right."""
    return _ENDINGS[language, "choices" if several else "choice" if closed else kind].format(
        label=CONCLUSION_LABELS[language, kind]
    )
