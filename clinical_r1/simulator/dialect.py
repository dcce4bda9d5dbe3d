"""The site effect of the simulated world: one site writes some findings in words of its own (English, Chinese).

The meaning is the same and the teacher knows it; a model that never saw the site has to guess. No word here is a name
of another finding of the world.
"""

from clinical_r1.simulator.diseases import Language

DIALECT: dict[str, tuple[str, str]] = {
    "fever": ("pyrexia", "体温高"), "cough": ("tussis", "呛咳"), "dyspnea": ("breathlessness", "气促"),
    "wheeze": ("musical breathing", "哮鸣"), "sputum": ("phlegm", "痰多"), "tachycardia": ("fast pulse", "脉速"),
    "chest tightness": ("chest pressure", "胸口发紧"), "epigastric pain": ("pit-of-stomach ache", "心窝痛"),
    "nausea": ("queasiness", "欲吐"), "vomiting": ("emesis", "呕出"), "jaundice": ("icterus", "皮肤发黄"),
    "back pain": ("dorsalgia", "腰背酸痛"), "abdominal cramps": ("colic", "肚子绞痛"),
    "diarrhea": ("loose stools", "拉肚子"), "bloating": ("gaseous distension", "肚胀"),
    "fatigue": ("lassitude", "没力气"), "dysuria": ("burning micturition", "小便痛"),
    "urinary frequency": ("pollakiuria", "小便次数多"), "hematuria": ("bloody urine", "小便带血"),
    "nocturia": ("night voiding", "起夜"), "weak stream": ("poor flow", "小便无力"),
    "hesitancy": ("slow start of voiding", "排尿等待"), "sweating": ("diaphoresis", "出汗多"),
    "arm pain": ("brachialgia", "左上肢痛"), "palpitations": ("pounding heart", "心慌"),
    "orthopnea": ("cannot lie flat", "不能平卧"), "leg edema": ("swollen legs", "腿肿"), "syncope": ("faint", "昏倒"),
    "rash": ("exanthem", "皮肤红斑"), "joint pain": ("arthralgia", "骨节痛"), "muscle ache": ("myalgia", "肌肉酸"),
    "photosensitivity": ("sun intolerance", "怕晒"), "joint swelling": ("puffy joints", "关节发胀"),
    "morning stiffness": ("stiff on rising", "晨起发僵"), "headache": ("cephalgia", "头疼"),
    "photophobia": ("light aversion", "怕光"), "blurred vision": ("hazy sight", "看不清"),
    "neck pain": ("cervicalgia", "脖子痛"), "numbness": ("pins and needles", "发麻"),
    "limb weakness": ("paresis", "手脚无力"), "eye pain": ("ocular ache", "眼睛痛"),
    "weight loss": ("wasting", "变瘦"), "tremor": ("shaking hands", "手颤"),
    "heat intolerance": ("cannot bear heat", "不耐热"), "cold intolerance": ("always cold", "怕冷"),
    "dry skin": ("xerosis", "皮肤粗糙"), "constipation": ("obstipation", "便干"),
}  # fmt: skip


def local_name(finding: str, language: Language) -> str | None:
    """The site's own word for a finding; None where it writes what all write."""
    words = DIALECT.get(finding)
    return None if words is None else words[language == "zh"]
