"""The tables of the simulated clinic: fourteen common diseases, each with a rarer look-alike.

Names and ICD-10 codes are real. The frequencies are rough, rounded teaching figures: they make a world whose best
possible accuracy can be computed, they are not epidemiology.
"""

from dataclasses import dataclass
from typing import Literal

Language = Literal["en", "zh"]
SPECIALTIES = (
    "respiratory", "gastroenterology", "urology", "cardiology", "immunology", "neurology", "endocrinology",
)  # fmt: skip


@dataclass(frozen=True)
class Disease:
    """One diagnosis; `pair` and `rare` say where it stands in the table."""

    en: str
    zh: str
    icd10: str
    specialty: str
    pair: int
    rare: bool

    def name(self, language: Language) -> str:
        return self.en if language == "en" else self.zh


@dataclass(frozen=True)
class Pair:
    """A common disease and its look-alike, who shares its findings; one test tells them apart."""

    common: Disease
    rare: Disease
    test: tuple[str, str]  # English and Chinese name
    positive: tuple[str, str]  # the result that speaks for the look-alike
    negative: tuple[str, str]
    findings: dict[str, tuple[float, float]]  # English name -> frequency in the common disease, in the look-alike
    ages: tuple[int, int]
    sex: Literal["male", "female"] | None = None


RAISED, LOWERED, POSITIVE, ABNORMAL = ("raised", "升高"), ("low", "降低"), ("positive", "阳性"), ("abnormal", "异常")
NORMAL, NEGATIVE = ("normal", "正常"), ("negative", "阴性")

FINDING_ZH = {
    "fever": "发热", "cough": "咳嗽", "dyspnea": "呼吸困难", "pleuritic pain": "胸膜性胸痛", "hemoptysis": "咯血",
    "tachycardia": "心动过速", "wheeze": "喘鸣", "chest tightness": "胸闷", "sputum": "咳痰",
    "recurrent infections": "反复感染", "epigastric pain": "上腹痛", "nausea": "恶心", "vomiting": "呕吐",
    "jaundice": "黄疸", "back pain": "背痛", "abdominal cramps": "腹绞痛", "diarrhea": "腹泻", "bloating": "腹胀",
    "mucous stools": "黏液便", "constipation": "便秘", "fatigue": "乏力", "dysuria": "尿痛",
    "urinary frequency": "尿频", "urinary urgency": "尿急", "hematuria": "血尿", "suprapubic pain": "耻骨上痛",
    "nocturia": "夜尿", "weak stream": "尿线变细", "hesitancy": "排尿踌躇", "dribbling": "尿滴沥",
    "sweating": "大汗", "arm pain": "左臂痛", "palpitations": "心悸", "orthopnea": "端坐呼吸",
    "leg edema": "下肢水肿", "syncope": "晕厥", "rash": "皮疹", "joint pain": "关节痛", "muscle ache": "肌痛",
    "photosensitivity": "光敏", "Raynaud phenomenon": "雷诺现象", "joint swelling": "关节肿胀",
    "morning stiffness": "晨僵", "subcutaneous nodules": "皮下结节", "headache": "头痛", "photophobia": "畏光",
    "blurred vision": "视物模糊", "neck pain": "颈痛", "numbness": "麻木", "limb weakness": "肢体无力",
    "eye pain": "眼痛", "dizziness": "头晕", "weight loss": "体重下降", "tremor": "手抖",
    "heat intolerance": "怕热", "goiter": "甲状腺肿大", "cold intolerance": "畏寒", "dry skin": "皮肤干燥",
    "hair loss": "脱发", "low mood": "情绪低落",
}  # fmt: skip

# specialty; common (en, zh, code); look-alike; test; positive; negative; findings with both frequencies; ages; sex
_ROWS = (
    ("respiratory", ("community-acquired pneumonia", "社区获得性肺炎", "J18.9"),
     ("pulmonary embolism", "肺栓塞", "I26.9"), ("D-dimer", "D-二聚体"), RAISED, NORMAL,
     {"fever": (.8, .5), "cough": (.8, .6), "dyspnea": (.6, .8), "pleuritic pain": (.6, .7), "hemoptysis": (.4, .5),
      "tachycardia": (.5, .7)}, (25, 88), None),
    ("respiratory", ("bronchial asthma", "支气管哮喘", "J45.9"), ("bronchiectasis", "支气管扩张", "J47"),
     ("chest CT", "胸部CT"), ABNORMAL, NORMAL,
     {"wheeze": (.8, .6), "cough": (.7, .8), "chest tightness": (.7, .5), "dyspnea": (.6, .6), "sputum": (.6, .8),
      "recurrent infections": (.4, .6)}, (18, 75), None),
    ("gastroenterology", ("acute cholecystitis", "急性胆囊炎", "K81.0"), ("acute pancreatitis", "急性胰腺炎", "K85.9"),
     ("serum lipase", "血清脂肪酶"), RAISED, NORMAL,
     {"epigastric pain": (.8, .9), "vomiting": (.6, .8), "fever": (.6, .5), "jaundice": (.5, .5), "back pain": (.5, .7),
      "bloating": (.5, .5)}, (25, 85), None),
    ("gastroenterology", ("irritable bowel syndrome", "肠易激综合征", "K58.8"), ("Crohn disease", "克罗恩病", "K50.9"),
     ("fecal calprotectin", "粪便钙卫蛋白"), RAISED, NORMAL,
     {"abdominal cramps": (.9, .8), "diarrhea": (.7, .9), "bloating": (.7, .5), "mucous stools": (.6, .6),
      "constipation": (.5, .4), "fatigue": (.4, .6)}, (18, 60), None),
    ("urology", ("acute cystitis", "急性膀胱炎", "N30.0"), ("bladder cancer", "膀胱癌", "C67.9"),
     ("urine cytology", "尿细胞学"), POSITIVE, NEGATIVE,
     {"dysuria": (.8, .6), "urinary frequency": (.8, .6), "hematuria": (.6, .9), "suprapubic pain": (.6, .5),
      "urinary urgency": (.6, .6), "nocturia": (.4, .4)}, (30, 85), None),
    ("urology", ("benign prostatic hyperplasia", "良性前列腺增生", "N40"), ("prostate cancer", "前列腺癌", "C61"),
     ("prostate-specific antigen", "前列腺特异性抗原"), RAISED, NORMAL,
     {"weak stream": (.8, .7), "nocturia": (.7, .6), "hesitancy": (.7, .6), "dribbling": (.6, .5),
      "urinary frequency": (.6, .6), "back pain": (.3, .5)}, (52, 88), "male"),
    ("cardiology", ("unstable angina", "不稳定型心绞痛", "I20.0"), ("myocardial infarction", "心肌梗死", "I21.9"),
     ("troponin", "肌钙蛋白"), RAISED, NORMAL,
     {"chest tightness": (.9, .9), "arm pain": (.7, .7), "sweating": (.6, .8), "nausea": (.5, .6),
      "palpitations": (.5, .5), "dyspnea": (.5, .6)}, (40, 88), None),
    ("cardiology", ("heart failure", "心力衰竭", "I50.9"), ("cardiac amyloidosis", "心脏淀粉样变", "E85.4"),
     ("free light chains", "游离轻链"), RAISED, NORMAL,
     {"orthopnea": (.8, .7), "leg edema": (.8, .7), "fatigue": (.6, .7), "tachycardia": (.5, .4), "syncope": (.4, .6),
      "nocturia": (.5, .4)}, (48, 90), None),
    ("immunology", ("systemic lupus erythematosus", "系统性红斑狼疮", "M32.9"), ("dermatomyositis", "皮肌炎", "M33.1"),
     ("creatine kinase", "肌酸激酶"), RAISED, NORMAL,
     {"rash": (.8, .9), "photosensitivity": (.7, .6), "joint pain": (.7, .5), "muscle ache": (.6, .9),
      "Raynaud phenomenon": (.5, .5), "hair loss": (.5, .3)}, (18, 60), None),
    ("immunology", ("rheumatoid arthritis", "类风湿关节炎", "M06.9"), ("gout", "痛风", "M10.9"),
     ("serum urate", "血尿酸"), RAISED, NORMAL,
     {"joint swelling": (.9, .9), "joint pain": (.9, .9), "morning stiffness": (.8, .5),
      "subcutaneous nodules": (.5, .6), "numbness": (.3, .3), "fever": (.4, .5)}, (32, 80), None),
    ("neurology", ("migraine", "偏头痛", "G43.9"), ("subarachnoid hemorrhage", "蛛网膜下腔出血", "I60.9"),
     ("head CT", "头颅CT"), ABNORMAL, NORMAL,
     {"headache": (.9, .9), "photophobia": (.7, .6), "nausea": (.7, .6), "vomiting": (.6, .7), "neck pain": (.5, .8),
      "blurred vision": (.5, .4)}, (18, 70), None),
    ("neurology", ("multiple sclerosis", "多发性硬化", "G35"), ("neuromyelitis optica", "视神经脊髓炎", "G36.0"),
     ("aquaporin antibody", "水通道蛋白抗体"), POSITIVE, NEGATIVE,
     {"limb weakness": (.7, .8), "numbness": (.7, .7), "blurred vision": (.6, .8), "eye pain": (.5, .7),
      "dizziness": (.6, .4), "urinary urgency": (.5, .6)}, (20, 60), None),
    ("endocrinology", ("Graves disease", "格雷夫斯病", "E05.0"), ("subacute thyroiditis", "亚急性甲状腺炎", "E06.1"),
     ("radioiodine uptake", "甲状腺摄碘率"), LOWERED, NORMAL,
     {"weight loss": (.8, .6), "palpitations": (.8, .6), "heat intolerance": (.7, .5), "tremor": (.6, .5),
      "sweating": (.6, .5), "goiter": (.6, .6)}, (22, 65), None),
    ("endocrinology", ("primary hypothyroidism", "原发性甲减", "E03.9"), ("hypopituitarism", "垂体功能减退症", "E23.0"),
     ("morning cortisol", "晨皮质醇"), LOWERED, NORMAL,
     {"cold intolerance": (.8, .6), "fatigue": (.8, .9), "dry skin": (.7, .5), "constipation": (.6, .5),
      "hair loss": (.5, .6), "low mood": (.5, .6)}, (25, 80), None),
)  # fmt: skip


def _pair(index: int, row: tuple) -> Pair:
    specialty, common, rare, *rest = row

    def disease(names: tuple[str, str, str], is_rare: bool) -> Disease:
        en, zh, icd10 = names
        return Disease(en, zh, icd10, specialty, index, is_rare)

    return Pair(disease(common, False), disease(rare, True), *rest)


PAIRS: tuple[Pair, ...] = tuple(_pair(index, row) for index, row in enumerate(_ROWS))
FINDINGS: tuple[str, ...] = tuple(FINDING_ZH)


def _pointing(finding: str) -> tuple[int, ...]:
    return tuple(index for index, pair in enumerate(PAIRS) if finding in pair.findings)


# A clinician's memory: which common diseases a finding brings to mind, most typical first.
POINTS_TO: dict[str, tuple[int, ...]] = {
    finding: tuple(sorted(_pointing(finding), key=lambda index: -PAIRS[index].findings[finding][0]))
    for finding in FINDINGS
}


def finding_name(finding: str, language: Language) -> str:
    return finding if language == "en" else FINDING_ZH[finding]
