"""ICD-10, specialty, duplicates, contamination and leakage."""

import json

import pytest

from clinical_r1.containment import ContainmentIndex, shingle_array, tokens
from clinical_r1.errors import UserError
from clinical_r1.records import icd10
from clinical_r1.records.config import ContaminationConfig, PhiConfig, RecordsConfig, Source
from clinical_r1.records.icd10 import load_mapping
from clinical_r1.records.policies import Boilerplate, leaks, mask, near_duplicates
from clinical_r1.records.run import prepare, read_cases

OFF = PhiConfig(policy="off", off_because="synthetic")


@pytest.mark.parametrize(
    ("raw", "code", "chapter"),
    [
        ("J45.901", "J45.9", "X"),
        ("I10.x00", "I10", "IX"),
        ("A33xx01", "A33", "I"),
        ("A38xx02+I41.0*", "A38", "I"),
        ("j189", "J18.9", "X"),
        ("Ｅ１１．９", "E11.9", "IV"),
        ("E11.65", "E11.6", "IV"),
        ("J99.9", "J99", "X"),
        ("XYZ", "", ""),
        ("J", "", ""),
        ("I", "", ""),
    ],
)
def test_icd10_codes_in_who_form(raw, code, chapter):
    assert icd10.read(raw).who == code and icd10.chapter(icd10.read(raw).who) == chapter


def test_specialty_order_is_given_then_code_then_department(tmp_path):
    mapping = load_mapping()
    assert mapping.specialty("心内科", "J18.9", "") == "cardiology"
    assert mapping.specialty("", "I63.9", "Surgery") == "neurology"
    assert mapping.specialty("", "", "皮肤性病科") == "dermatology"
    assert mapping.specialty("", "", "Department of Odd Things") == "unknown"
    own = tmp_path / "own.yaml"
    own.write_text("icd10: [{range: I00-I99, specialty: heart}]\naliases: {Herz: heart}\n")
    assert load_mapping(str(own)).specialty("", "I63.9", "") == "heart"
    own.write_text("icd10: [{range: everything, specialty: x}]\n")
    with pytest.raises(UserError, match=r"own.yaml: not a specialty mapping: icd10.0.range"):
        load_mapping(str(own))


STORY = (
    "A {age}-year-old farmer came to clinic after three weeks of drenching night sweats, a dry cough that woke him, "
    "and weight loss of six kilograms. He keeps goats, drinks raw milk and had swollen knees last spring."
)


def pairs_of(texts, blocks, threshold, min_shingles):
    arrays, common = [shingle_array(tokens(text), 4) for text in texts], Boilerplate()
    for array in arrays:
        common.add(array)
    return near_duplicates(arrays.__getitem__, blocks, common, threshold, min_shingles)


def test_near_duplicates_by_containment_not_by_a_shared_phrase():
    texts = [
        STORY.format(age=41),
        STORY.format(age=42) + " He is worried.",
        "Another man came to clinic after three weeks of drenching night sweats but has pleural fluid, alcohol use and "
        "fever with chills that began suddenly while he was travelling home from work on a crowded train.",
    ]
    assert pairs_of(texts, ["b"] * 3, threshold=0.85, min_shingles=8) == [(1, 0)]
    assert pairs_of(texts, ["b", "c", "b"], threshold=0.85, min_shingles=8) == []


def test_boilerplate_makes_no_duplicates():
    form = (
        "Form 12. Reason for presentation as recorded at the front desk of the clinic on arrival today: {}. Sign below."
    )
    texts = [form.format(f"sign{i} sign{i * 7} mark{i * 3} mark{i * 11} item{i}") for i in range(60)]
    assert pairs_of(texts, ["b"] * 60, threshold=0.8, min_shingles=4) == []


def test_contamination_by_containment():
    filler = " ".join(f"word{i}" for i in range(60))
    index = ContainmentIndex([STORY.format(age=41)], ngram=8, min_shingles=8)
    assert index.highest(STORY.format(age=41).upper()) == 1.0
    assert index.highest(filler + " " + STORY.format(age=77)) > 0.8
    assert 0 < index.highest("after three weeks of drenching night sweats, a dry cough that woke him. " + filler) < 0.5


@pytest.mark.parametrize(
    ("question", "reference", "leak"),
    [
        ("Suspected lung carcinoma.", "Lung cancer", True),
        ("急性心肌梗塞溶栓后。", "急性心肌梗死", True),
        ("糖尿病視網膜病變三年。", "糖尿病视网膜病变", True),
        ("Cancer of unknown site, lung clear.", "Lung cancer", False),
        ("He was told it was Lupus nephritis.", "lupus nephritis", True),
        ("history of chronic-obstructive pulmonary  disease", "Chronic obstructive pulmonary disease", True),
        ("known PID since 2019", "Pelvic inflammatory disease (PID)", True),
        ("rapid pulse", "PID", False),
        ("asthmatic wheeze", "asthma", False),
        ("外院诊断为急性阑尾炎。", "急性阑尾炎", True),
        ("右下腹痛", "急性阑尾炎", False),
        ("sodium 95%", "95%", False),
        ("known COPD, smoker", "Chronic obstructive pulmonary disease", True),
        ("既往房颤病史", "心房颤动", True),
        ("heart attack last year", "Myocardial infarction", True),
        ("diabetes mellitus type 2 for years", "Type 2 diabetes mellitus", True),
        ("cancer of the lung in 2019", "Lung cancer", True),
        ("sinusitis, acute", "Acute sinusitis", True),
        ("chest pain and a fast heart rate", "Heart failure", False),
        ("No pneumonia seen", "Pneumonia", True),
    ],
)
def test_leakage(question, reference, leak):
    assert bool(leaks(question, [reference])) is leak
    if leak:
        assert not leaks(mask(question, [reference], "en"), [reference])


def test_every_component_of_a_list_counts():
    found = mask("反复上腹痛，外院诊断慢性胃炎，有高血压病史。", ["胃溃疡", "慢性胃炎", "高血压"], "zh")
    assert found == "反复上腹痛，外院诊断【略】，有【略】史。"


def cases(count=40):
    return [
        {
            "language": "en",
            "question": f"sign {i} with mark {i * 7}, likely flu{'' if i else ' or Gout'}",
            "reference": "gout",
        }
        for i in range(count)
    ]


@pytest.mark.parametrize(("policy", "count"), [("drop", 39), ("mask", 40), ("keep", 40)])
def test_leakage_policies(tmp_path, policy, count):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(case) + "\n" for case in cases()))
    config = RecordsConfig(sources=[Source(path=str(tmp_path / "a.jsonl"))], phi=OFF, leakage=policy)
    config.dedup.near = "off"
    report = prepare(config, tmp_path / "out")
    assert report.cases == count and report.leaks == 1
    written = "".join((tmp_path / f"out/{name}.jsonl").read_text() for name in report.splits)
    assert ("Gout" in written) is (policy == "keep") and ("[withheld]" in written) is (policy == "mask")


def test_duplicates_and_contaminated_cases_are_named(tmp_path):
    rows = [
        *cases(30)[1:],
        cases(30)[5],
        {"language": "en", "question": STORY.format(age=41), "reference": "brucellosis"},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bench = {"language": "en", "question": STORY.format(age=41) + " Next step?", "reference": "serology"}
    (tmp_path / "bench.jsonl").write_text(json.dumps(bench) + "\n")
    config = RecordsConfig(
        sources=[Source(path=str(tmp_path / "a.jsonl"))],
        phi=OFF,
        contamination=ContaminationConfig(benchmarks=[Source(path=str(tmp_path / "bench.jsonl"))]),
    )
    config.dedup.near = "off"
    report = prepare(config, tmp_path / "out")
    rejects = [json.loads(line) for line in (tmp_path / "out/rejects.jsonl").read_text().splitlines()]
    assert report.dropped == {"duplicate": 1, "contaminated": 1}
    assert [(r["kind"], r["line"]) for r in rejects] == [("duplicate", 30), ("contaminated", 31)]
    assert len(read_cases(config)) == report.cases == 29


def test_a_row_without_patient_among_others_is_dropped(tmp_path):
    rows = [{**case, "patient": f"P{i}"} for i, case in enumerate(cases(31)[1:])]
    del rows[3]["patient"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = RecordsConfig(sources=[Source(path=str(tmp_path / "a.jsonl"))], phi=OFF)
    config.dedup.near = "off"
    assert prepare(config, tmp_path / "out").dropped == {"ungrouped": 1}


def test_an_unknown_code_is_a_reject_or_cleared(tmp_path):
    rows = [{**case, "icd10": "J18.9"} for case in cases(30)[1:]] + [{**cases(1)[0], "question": "q", "icd10": "lungs"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = RecordsConfig(sources=[Source(path=str(tmp_path / "a.jsonl"))], phi=OFF)
    config.dedup.near = "off"
    assert prepare(config, tmp_path / "out").malformed == 1
    report = prepare(config.model_copy(update={"icd10_invalid": "clear"}), tmp_path / "out2")
    assert report.malformed == 0 and report.icd10 == {"checked": 30, "cleared": 1}
