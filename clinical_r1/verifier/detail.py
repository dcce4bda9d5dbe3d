"""More detail than the reference gives: which additions to a name leave the diagnosis what it is.

Side, site, organism, severity and a plain cause may be added to a reference that says nothing of them. Everything else
that stands beside the name (unstable, aspiration, gestational, post-, non-, with empyema) may make another disease of
it, and is never taken for detail.
"""

import re

from clinical_r1.verifier.normalise import RELATIONS, words

_SIDES = {"left", "right", "bilateral", "unilateral", "sided"}
_SEVERITIES = {"mild", "moderate", "severe", "uncomplicated", "symptomatic"}
_SITES = {"distal", "proximal", "midshaft", "lobe"}
_LOBES = {"upper", "middle", "lower"}
_ORGANISMS = {
    "bacterial", "viral", "streptococcal", "pneumococcal", "staphylococcal", "mycoplasma", "mycoplasmal", "chlamydial",
    "klebsiella", "pseudomonas", "legionella", "influenzal", "ebv", "hbv", "hcv", "cmv", "hsv", "vzv", "streptococcus",
    "pneumoniae", "staphylococcus", "aureus", "escherichia", "coli", "helicobacter", "pylori", "h", "e", "s", "k",
    "epstein", "barr", "virus", "pyogenes", "infection", "related", "associated", "positive",
}  # fmt: skip
_ORIGINS = {
    "biliary",
    "gallstone",
    "alcoholic",
    "alcohol",
    "calculous",
    "community",
    "acquired",
    "hospital",
    "idiopathic",
}
_CAUSES = _ORGANISMS | _SIDES | _SEVERITIES | {
    "chronic", "acute", "recent", "blood", "loss", "gallstone", "stone", "alcohol", "use", "trauma", "fall", "smoking",
    "menorrhagia", "dietary", "deficiency", "intake", "inadequate", "overuse", "bacteria",
}  # fmt: skip
_COMPANIONS = (
    _SEVERITIES | _SIDES | {"hydronephrosis", "fever", "cough", "pain", "aura", "dehydration", "itching", "in"}
)
_LIMBS = {
    "eye", "ear", "hand", "wrist", "foot", "leg", "arm", "knee", "hip", "shoulder", "ankle", "elbow", "finger", "toe",
    "thigh", "calf", "breast", "side", "chest", "trunk", "lung", "pulmonary", "renal", "lobe", "upper",
    "middle", "lower",
    "face", "neck", "limb", "extremity", "thumb", "forearm",
}  # fmt: skip
_GRADE = re.compile(r"(?:grade|stage|class|nyha|gold) ?(?:[1-5]|i{1,3}|iv|v)[ab]?$")
_CAUSE = ("due to", "caused by", "from", "following", "secondary to", "after")
_ACUTE_ORIGIN = {"idiopathic": "secondary"}


def fits_english(phrase: list[str], reference: list[str]) -> bool:
    """Are the words of a name (in order; see `normalise.words`) the reference's and nothing but detail beside?"""
    if not RELATIONS.isdisjoint(reference):
        return False
    head, relation, rest = _divide(phrase)
    extras = list(head)
    for word in reference:
        if word not in extras:
            return False
        extras.remove(word)
    return _additions_fit(extras, reference) and (not relation or _complement_fits(relation, rest, reference))


def _divide(phrase: list[str]) -> tuple[list[str], str, list[str]]:
    """The name, the relation behind it (`due to`, `with`), and what it relates to."""
    at = next((index for index, word in enumerate(phrase) if word in RELATIONS), len(phrase))
    end = at
    while end < len(phrase) and phrase[end] in RELATIONS:
        end += 1
    return phrase[:at], " ".join(phrase[at:end]), phrase[end:]


def _additions_fit(extras: list[str], reference: list[str]) -> bool:
    rest = " ".join(extras)
    graded = re.search(r"\b(?:grade|stage|class|nyha|gold)\b", rest)
    if graded:
        if re.search(r"\b(?:grade|stage|class|type)\b", " ".join(reference)):
            return False
        rest = re.sub(r"\b(?:nyha )?(?:grade|stage|class|gold|nyha) ?(?:[1-5]|i{1,3}|iv|v)[ab]?\b", " ", rest)
    left = rest.split()
    sided = not _SIDES.isdisjoint(left)
    for word in left:
        group = next((g for g in (_SIDES, _SEVERITIES, _SITES, _ORGANISMS, _ORIGINS) if word in g), None)
        if group is None and not (sided and "lobe" in left and word in _LOBES) and not (sided and word in _LIMBS):
            return False
        if group is not None and not group.isdisjoint(reference):
            return False  # the reference says something of that kind, and something else
    kinds = [group for group in (_SIDES, _ORIGINS) if len(group.intersection(left) - {"sided", "acquired"}) > 1]
    return not kinds


def _complement_fits(relation: str, rest: list[str], reference: list[str]) -> bool:
    if not rest:
        return False
    if relation in _CAUSE:
        return set(rest) <= _CAUSES
    if relation == "with":
        return set(rest) <= _COMPANIONS
    return relation in ("in", "on") and not _SIDES.isdisjoint(rest) and set(rest) <= _SIDES | _LIMBS


_CN_SIDE = (
    r"(?:左|右|两侧|单侧|双(?=[上下]肢|[眼耳肾肺膝手足]))(?:[上中下](?=肺|$)|(?:上|下)肢|肺(?:[上中下]叶)?|胸背|头面|[胸腰背腹面颈肩臀髋踝腕肘手足眼耳肾膝]|大腿"
    r"|小腿|额|颞|季肋)?部?"
)
_CN_SITE = (
    r"(?:大脑[前中后]|椎-?基底|基底)动脉(?:供血)?区|基底节区?|(?:额|顶|颞|枕)叶|丘脑(?!下)"
    r"|远端|近端|远段|近段|上段|中段|下段|末端"
)
_CN_SEVERITY = (
    r"轻度|中度|重度|轻症|重症(?!肌)|轻型|重型|[1-5]级|[1-5]期|非?复杂性(?<!非复杂性)|典型(?<!非典型)(?<!不典型)"
)
_CN_ORGANISM = (
    r"(?:eb病毒|hbv|hcv|支原体|衣原体|肺炎链球菌|链球菌|金黄色葡萄球菌|葡萄球菌|大肠埃希菌|大肠杆菌|幽门螺杆菌"
    r"|流感病毒|腺病毒|合胞病毒|细菌|病毒)"
    r"(?:感染)?(?:所致|引起|导致|相关性?|性)?"
)
_CN_ORIGIN = r"社区获得性|医院获得性|胆源性|酒精性|原因不明"
_CN_LEVEL = r"[lcts]\d(?:[lcts]?\d|s1)*"
_CN_COMPANY = r"伴(?:有)?(?:轻度|中度|重度)?(?:左|右|两侧)?(?:肾积水|发热|咳嗽|疼痛|脱水)"
_CN_RISK = r"(?:[1-5]级)?(?:[很极]?高危|中危|低危)组?"
_TNM = r"[cp]?t[1-4][a-d]?n[0-3x][a-c]?m[01x][a-c]?"
_CN_KINDS = {
    "company": _CN_COMPANY, "side": _CN_SIDE, "site": _CN_SITE, "severity": _CN_SEVERITY,
    "organism": _CN_ORGANISM, "origin": _CN_ORIGIN,
    "level": _CN_LEVEL,
}  # fmt: skip
_CN_DETAIL = {kind: re.compile(pattern) for kind, pattern in _CN_KINDS.items()}
_CN_OTHER = re.compile(r"[和及与或]|右.*左|左.*右")


def without_detail(phrase: str, reference: str) -> str:
    """A Chinese name (normalised) without the detail that the reference (normalised too) leaves open."""
    if _CN_OTHER.search(phrase) and not _CN_OTHER.search(reference):
        return phrase
    for kind, pattern in _CN_DETAIL.items():
        if kind in ("side", "organism") and reference in phrase:
            before, _, after = phrase.rpartition(reference)
            phrase = pattern.sub("", before) + reference + pattern.sub("", after)
        elif not pattern.search(reference):
            phrase = pattern.sub("", phrase)
    return phrase


def parenthesis_fits(inside: str) -> bool:
    """Is what stands in a parenthesis nothing but detail (`L4/5`, `left`, `重度`)?"""
    compact = re.sub(r"[\s/、,，.-]+", "", inside.lower())
    plain_kinds = (_CN_LEVEL, _CN_SIDE + r"侧?", _CN_SEVERITY, _CN_RISK, _TNM)
    if re.fullmatch("|".join(f"(?:{pattern})" for pattern in plain_kinds), compact):
        return True
    tokens = words(inside)
    return bool(tokens) and (_GRADE.match(" ".join(tokens)) is not None or set(tokens) <= _SIDES | _SEVERITIES)
