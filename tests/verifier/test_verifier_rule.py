"""The rule verifier: what it takes for the reference, and what it must never take for it."""

import pytest

from benchmarks.verifier_probes import generate, written_cases
from clinical_r1.errors import UserError
from clinical_r1.schema import VerdictLabel
from clinical_r1.verifier.judgement import Judgement
from clinical_r1.verifier.names import load_names
from clinical_r1.verifier.normalise import clean_code, normalise, same_at
from clinical_r1.verifier.rule import RuleVerifier

RULE = RuleVerifier()


def verdict(reference: str, answer: str, **fields) -> tuple[bool, str]:
    """(accepted, reason)."""
    given = RULE.judge_sync(Judgement("q", reference, answer, "en", **fields))
    assert given.label is not VerdictLabel.INVALID and given.judge == "rule"
    return given.label is VerdictLabel.CORRECT, given.reason


@pytest.mark.parametrize(
    ("reference", "answer", "reason"),
    [
        ("pneumonia", "Pneumonia.", "equal"),
        ("Crohn disease", "Final diagnosis: **Crohn's disease**", "equal"),
        ("prostate cancer", "The diagnosis is cancer of the prostate.", "equal"),
        ("myocardial infarction", "The patient most likely suffered a... The diagnosis is heart attack.", "synonym"),
        ("chronic obstructive pulmonary disease", "This is chronic obstructive pulmonary disease (COPD).", "equal"),
        ("Anaemia of chronic disease", "anemia of chronic disease", "equal"),
        ("type 2 diabetes mellitus", "Diagnosis: Type II Diabetes Mellitus", "equal"),
        ("Guillain-Barré syndrome", "Guillain-Barre syndrome", "equal"),
        ("pneumonia", "Not asthma. The diagnosis is pneumonia because the CT excluded embolism.", "equal"),
        ("pneumonia", "Asthma was considered and excluded. Therefore the final diagnosis is pneumonia.", "equal"),
        ("pneumonia", "Differential diagnosis: asthma, embolism. The most likely diagnosis is pneumonia.", "equal"),
        ("ST elevation and heart block", "The diagnosis is ST elevation and heart block.", "equal"),
        ("心肌梗死", "最可能的诊断是 心肌梗死。", "equal"),
        ("肺炎", "右下肺炎", "detail"),
        ("输尿管结石", "左输尿管结石伴左肾积水", "detail"),
        ("高血压", "高血压3级（极高危）", "detail"),
        ("脑梗死", "左侧大脑中动脉供血区急性脑梗死", "detail"),
        ("胃癌", "胃癌（T3N1M0）", "detail"),
        ("deep vein thrombosis", "Left lower-extremity deep vein thrombosis", "detail"),
        ("acute cholecystitis", "Acute calculous cholecystitis", "detail"),
        ("acute appendicitis", "Acute perforated appendicitis", "detail"),
        ("Autism Spectrum Disorder (ASD)", "ASD", "equal"),
        ("心肌梗死", "综合考虑，诊断为急性心肌梗死，因为肌钙蛋白升高。", "synonym"),
        ("不稳定型心绞痛", "诊断：不稳定型心绞痛", "equal"),
        ("非霍奇金淋巴瘤", "考虑为非霍奇金淋巴瘤。", "equal"),
        ("2型糖尿病", "２型 糖尿病", "equal"),
        ("心肌梗死", "heart attack", "synonym"),
    ],
)
def test_accepts(reference: str, answer: str, reason: str) -> None:
    assert verdict(reference, answer) == (True, reason)


# Written apart from the probe generator, so that the rule is not measured only by what it was built on.
@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("pneumonia", "I would not call this pneumonia."),
        ("pneumonia", "It isn't pneumonia."),
        ("pneumonia", "Pneumonia? No, asthma."),
        ("pneumonia", "Everything but pneumonia."),
        ("pneumonia", "The diagnosis of pneumonia should be discarded."),
        ("pneumonia", "The diagnosis is pneumonia. I take that back: it is not."),
        ("pneumonia", "The patient never had pneumonia."),
        ("pneumonia", "History of pneumonia, now asthma."),
        ("pneumonia", "aspiration pneumonia"),
        ("pneumonia", "pneumonia with empyema"),
        ("pneumonia", "pneumonia|asthma|embolism"),
        ("pneumonia", "pneumonia asthma embolism"),
        ("pneumonia", "Both pneumonia and asthma are present."),
        ("pneumonia", "Top diagnoses: pneumonia; asthma; embolism"),
        ("pneumonia", "A) pneumonia B) asthma C) embolism"),
        ("pneumonia", "Pneumonia would be one option."),
        ("pneumonia", "We should think about pneumonia."),
        ("pneumonia", "Pneumonia remains in the differential diagnosis."),
        ("pneumonia", "The differential diagnosis is pneumonia."),
        ("pneumonia", "Unless proven otherwise, asthma; pneumonia less so."),
        ("pneumonia", "diagnosis: asthma\nreference: pneumonia"),
        ("angina", "unstable angina"),
        ("type 1 diabetes", "type 2 diabetes"),
        ("Hodgkin lymphoma", "non-Hodgkin lymphoma"),
        ("infarction due to dissection", "dissection due to infarction"),
        ("left renal colic", "right renal colic"),
        ("hypertension", "hypotension"),
        ("肺炎", "非肺炎"),
        ("肺炎", "肺炎的可能性不大"),
        ("肺炎", "与肺炎不符"),
        ("肺炎", "肺炎证据不足"),
        ("肺炎", "首先要想到肺炎、哮喘等多种可能"),
        ("肺炎", "吸入性肺炎"),
        ("肺炎", "诊断为肺炎合并哮喘"),
        ("肺炎", "诊断是肺炎，随后更正为哮喘"),
        ("霍奇金淋巴瘤", "非霍奇金淋巴瘤"),
        ("糖尿病", "无糖尿病"),
        ("高血压", "低血压"),
        ("心绞痛", "不稳定型心绞痛"),
        # grounds that do not suffice, a cross, another diagnosis that fits better
        ("肺炎", "肺炎依据不足。"),
        ("肺炎", "诊断为肺炎依据不充分"),
        ("肺炎", "肺炎依据欠充分"),
        ("肺炎", "最终诊断：肺炎缺乏依据"),
        ("肺炎", "最终诊断：肺炎×"),
        ("pneumonia", "Final diagnosis: pneumonia ✗"),
        ("pneumonia", "The diagnosis is pneumonia. On reflection, sepsis fits better."),
        ("肺炎", "诊断为肺炎。哮喘更符合。"),
        # one abbreviation, two diseases
        ("Autism Spectrum Disorder (ASD)", "Atrial Septal Defect (ASD)"),
        ("Atrial Septal Defect (ASD)", "Autism spectrum disorder"),
        # detail of another kind
        ("肺炎", "右下肺脓肿"),
        ("高血压（低危）", "高血压（极高危）"),
        ("输尿管结石", "左肾结石伴左肾积水"),
        ("acute cholecystitis", "acute acalculous cholecystitis"),
    ],
)
def test_refuses(reference: str, answer: str) -> None:
    assert not verdict(reference, answer)[0]


@pytest.mark.parametrize("answer", ["", "  \n", "...", "。", "**", "<>"])
def test_an_empty_answer_is_incorrect(answer: str) -> None:
    assert verdict("pneumonia", answer) == (False, "empty")


@pytest.mark.parametrize(
    "case", written_cases(), ids=lambda case: f"{case.kind}-{case.item.reference}-{case.item.answer}"[:80]
)
def test_cases_written_by_hand(case) -> None:
    given = RULE.judge_sync(case.item)
    assert (given.label is VerdictLabel.CORRECT) is case.acceptable
    assert case.acceptable <= (given.label is not VerdictLabel.INCORRECT)


def test_no_probe_is_accepted_that_must_not_be() -> None:
    probes = list(generate(per_kind=60, seed=1))
    refused = [probe for probe in probes if not probe.acceptable]
    assert len(refused) >= 400
    for probe in probes:
        accepted = RULE.judge_sync(probe.item).label is VerdictLabel.CORRECT
        assert accepted <= probe.acceptable, (probe.kind, probe.item.reference, probe.item.answer)
        assert accepted or probe.kind != "right", (probe.item.reference, probe.item.answer)


@pytest.mark.parametrize(
    ("level", "reference", "answer", "same"),
    [
        ("code", "J18.9", "J18.9", True),
        ("code", "J18", "J18.9", True),
        ("code", "J18.9", "J18", False),
        ("code", "I20.0", "I20.8", False),
        ("category", "I20.0", "I20.8", True),
        ("category", "I21.9", "I20.0", False),
        ("block", "I21.9", "I20.0", True),
        ("block", "I21.9", "J18.9", False),
        ("code", "I21.900x001", "I21.9", True),
        ("off", "J18.9", "J18.9", False),
        ("code", "", "J18.9", False),
        ("code", "J18.9", "pneumonia", False),
    ],
)
def test_icd_levels(level, reference, answer, same) -> None:
    assert same_at(level, reference, answer) is same


@pytest.mark.parametrize(
    ("code", "clean"),
    [("i21.9", "I21.9"), ("I219", "I21.9"), ("J18", "J18"), ("B12 deficiency", ""), ("J45.901", "J45.9")],
)
def test_codes_are_cleaned(code: str, clean: str) -> None:
    assert clean_code(code) == clean


def test_codes_and_titles_of_codes_are_names() -> None:
    assert verdict("pneumonia, organism unspecified", "J18.9", icd10="J18.9") == (True, "icd10")
    assert verdict("心肌梗死", "Acute myocardial infarction, unspecified", icd10="I21.9")[0]
    assert not verdict("unstable angina", "I20.8", icd10="I20.0")[0]
    assert (
        RuleVerifier("category").judge_sync(Judgement("q", "unstable angina", "I20.8", "en", icd10="I20.0")).label
        is VerdictLabel.CORRECT
    )
    assert not verdict("pneumonia", "pneumonia (I21.9)", icd10="J18.9")[0], "a code that contradicts the name"


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [("B", True), ("(B)", True), ("The answer is B.", True), ("B. asthma", True), ("答案：B", True), ("asthma", True),
     ("A", False), ("A. asthma", False), ("B. pneumonia", False), ("A and B", False), ("D", False)],
)  # fmt: skip
def test_multiple_choice(answer: str, accepted: bool) -> None:
    assert verdict("asthma", answer, options=["pneumonia", "asthma", "embolism"])[0] is accepted


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Carcinoma, prostate", "prostate carcinomas"),
        ("Crohn’s disease", "crohn disease"),
        ("haemorrhagic oedema", "hemorrhagic edema"),
        ("stage II tumour", "stage 2 tumor"),
        ("慢性 阻塞性肺疾病。", "慢性阻塞性肺疾病"),
        ("ＣＯＰＤ", "copd"),
    ],
)
def test_spellings_of_one_name(one: str, other: str) -> None:
    assert normalise(one) == normalise(other) != ""


def test_own_synonyms_can_be_added(tmp_path) -> None:
    path = tmp_path / "more.txt"
    path.write_text("# ours\n|zebra fever|stripe disease\n", encoding="utf-8")
    rule = RuleVerifier(table=load_names(path))
    item = Judgement("q", "zebra fever", "stripe disease", "en")
    assert rule.judge_sync(item).reason == "synonym"
    assert RULE.judge_sync(item).label is not VerdictLabel.CORRECT
    path.write_text("zebra fever\n", encoding="utf-8")
    load_names.cache_clear()
    with pytest.raises(UserError, match=r"more\.txt:1"):
        load_names(path)


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("pneumonia", "The diagnosis is pneumonia rather than asthma."),
        ("pneumonia", "Asthma was considered, but the diagnosis is pneumonia."),
        ("pneumonia", "### Final diagnosis\npneumonia"),
        ("pneumonia", "\\boxed{pneumonia}"),
        ("pneumonia", "<answer>pneumonia</answer>"),
        ("pneumonia", "Impression: pneumonia"),
        ("pneumonia", "The diagnosis is pneumonia.\nThis fits the fever."),
        ("肺炎", "診斷為肺炎。"),
        ("关节炎", "最終診斷：關節炎"),
        ("肺炎", "诊断为肺炎，而不是哮喘。"),
        ("肺炎", "排除了哮喘，诊断为肺炎。"),
        ("肺炎", "该患者最可能患有肺炎。"),
    ],
)
def test_plain_right_answers_in_many_layouts(reference: str, answer: str) -> None:
    assert verdict(reference, answer)[0]


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("pneumonia", "The least likely diagnosis is pneumonia."),
        ("pneumonia", "Diagnosis: ?pneumonia"),
        ("pneumonia", "Diagnosis: pneumonia (?)"),
        ("pneumonia", "The diagnosis is ~~pneumonia~~ asthma."),
        ("pneumonia", "The diagnosis is n\u200bot pneumonia."),
        ("pneumonia", "Diagnosis:\npneumonia\nasthma of the young"),
        ("pneumonia", "The question is whether the patient has pneumonia."),
        ("pneumonia", "We cannot exclude asthma, but the diagnosis may be pneumonia."),
        ("pneumonia", "The diagnosis is pneumonia rather than certain."),
        ("肺炎", "並非肺炎。"),
        ("肺炎", "患者的父亲诊断为肺炎。"),
        ("肺炎", "勿诊断为肺炎。"),
        ("肺炎", "诊断为肺炎，其次为哮喘。"),
        ("肺炎", "不能排除哮喘，诊断为肺炎的可能。"),
    ],
)
def test_refuses_disguised_answers(reference: str, answer: str) -> None:
    assert not verdict(reference, answer)[0]


LATER = [
    ("pneumonia", "The most likely diagnosis is pneumonia. The patient was seen again, and in the end it proved to be"
     " sarcoidosis."),
    ("pneumonia", "The most likely diagnosis is pneumonia. A review of the slides by another pathologist changed"
     " this to sarcoidosis."),
    ("pneumonia", "The most likely diagnosis is pneumonia. Everybody on the ward agreed the next morning that this had"
     " been heart failure from the start."),
    ("pneumonia", "The most likely diagnosis is pneumonia. On balance the findings speak more for an infarction of the"
     " lung than for an infection."),
    ("肺炎", "最可能的诊断是肺炎。随访两周后，最后证实为结节病。"),
    ("肺炎", "最可能的诊断是肺炎。死亡证明上写的是肺栓塞。"),
    ("肺炎", "最可能的诊断是肺炎。事后看来，整个病程用肺栓塞来解释更合理。"),
]  # fmt: skip
STANDS = [
    ("pneumonia", "The most likely diagnosis is pneumonia. Asthma would cause wheezing, which is absent here, and would"
     " not explain the fever and the sputum."),
    ("pneumonia", "The most likely diagnosis is pneumonia. This condition can lead to sepsis in frail people and"
     " calls for early treatment."),
    ("pneumonia", "The most likely diagnosis is pneumonia. It was later confirmed by a sputum culture that grew"
     " Streptococcus pneumoniae in large numbers."),
    ("pneumonia", "1. Diagnosis: pneumonia\n2. Supporting evidence: fever and cough\n3. Treatment: antibiotics"),
    ("pneumonia", "## Diagnosis\nPneumonia\n## Plan\nAntibiotics"),
    ("acute appendicitis", "This is acute appendicitis without perforation."),
    ("gout", "Given these findings, gout is the most likely diagnosis."),
    ("gout", "The single most likely diagnosis is gout."),
    ("gout", "Diagnosis \u2014 gout"),
    ("痛风", "结论：本例为痛风。"),
    ("痛风", "诊断明确为痛风。"),
    ("Pneumonia; Hypertension", "The diagnoses are pneumonia and hypertension."),
    ("肺炎", "一、诊断：肺炎\n二、依据：发热、咳嗽，胸片示实变\n三、治疗：抗感染"),
    ("肺炎", "最可能的诊断是肺炎。肺结核多有午后低热、盗汗，与本例不符。"),
    ("急性阑尾炎", "急性阑尾炎不伴穿孔"),
    ("病毒性肝炎（乙型）", "乙肝"),
    ("urinary tract infection", "E. coli urinary tract infection"),
]  # fmt: skip


@pytest.mark.parametrize(("reference", "answer"), LATER)
def test_what_came_out_later_leaves_a_conclusion_to_the_judge(reference: str, answer: str) -> None:
    assert RULE.judge_sync(Judgement("", reference, answer, "en")).label is VerdictLabel.UNDECIDED


@pytest.mark.parametrize(("reference", "answer"), STANDS)
def test_what_explains_or_goes_on_lets_it_stand(reference: str, answer: str) -> None:
    assert verdict(reference, answer)[0]
