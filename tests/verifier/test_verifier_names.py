"""Names: which mean the same disease, which add fitting detail, which are surely another, where a text names one."""

import pytest

from clinical_r1.errors import UserError
from clinical_r1.verifier.names import Names, load_names, names_in, same_disease
from clinical_r1.verifier.normalise import normalise

NAMES = Names()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("AMI", "急性心肌梗死"),
        ("Polycystic Ovary Syndrome (PCOS)", "PCOS"),
        ("Type II diabetes", "T2DM"),
        ("糖尿病2型", "２型糖尿病"),
        ("II型糖尿病", "2型糖尿病"),
        ("慢性乙肝", "慢性乙型病毒性肝炎"),
        ("干燥综合症", "干燥综合征"),
        ("慢性心功能不全", "慢性心衰"),
        ("oesophageal carcinoma", "cancer of the esophagus"),
        ("fracture of the distal radius", "Distal radius fractures"),
        ("Guillain-Barré syndrome", "guillain barre syndrome"),
    ],
)
def test_one_disease_by_two_names(one: str, other: str) -> None:
    assert same_disease(one, other) and same_disease(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Hepatitis A", "Hepatitis"),
        ("Vitamin A deficiency", "Vitamin deficiency"),
        ("all", "Acute Lymphoblastic Leukemia (ALL)"),
        ("Anemia", "Anemia (iron deficiency)"),
        ("Unstable angina", "Angina pectoris"),
        ("Pneumonia", "Community-acquired pneumonia"),
        ("左侧输尿管结石", "右侧输尿管结石"),
        ("infarction due to dissection", "dissection due to infarction"),
        ("", "gout"),
    ],
)
def test_two_diseases(one: str, other: str) -> None:
    assert not same_disease(one, other)


def test_detail_is_more_than_the_reference_and_never_less() -> None:
    assert NAMES.match("left distal ureteral stone", "Ureteral calculi") == "detail"
    assert NAMES.match("Ureteral calculi", "left distal ureteral stone") == ""
    assert NAMES.match("左侧输尿管下段结石", "输尿管结石") == "detail"
    assert NAMES.match("输尿管结石", "左侧输尿管下段结石") == ""
    assert NAMES.match("grade 3 hypertension", "grade 1 hypertension") == ""


def test_only_a_known_name_of_another_category_is_surely_another_disease() -> None:
    assert NAMES.differs("acute appendicitis", "pneumonia")
    assert NAMES.differs("急性阑尾炎", "肺炎")
    assert not NAMES.differs("zebra fever", "pneumonia"), "not a known name"
    assert not NAMES.differs("bronchopneumonia", "lobar pneumonia", "J18.1"), "the same category"
    assert not NAMES.differs("alcoholic cirrhosis", "cirrhosis"), "names that share a word may be parent and child"


def test_places_of_names() -> None:
    text = "After the heart attack (AMI) no further 心肌梗死 was seen; all is well."
    assert [text[start:end] for start, end in names_in(text, "Myocardial infarction")] == [
        "heart attack",
        "AMI",
        "心肌梗死",
    ]
    assert names_in("all is well", "Acute Lymphoblastic Leukemia (ALL)") == []
    assert names_in("pneumonias; pneumoniae", "Pneumonia") == [(0, 10)]
    assert names_in("text", "") == []


def test_a_terminology_of_the_house(tmp_path) -> None:
    path = tmp_path / "terms.tsv"
    path.write_text("code\tname\nJ18.903\t甲型条纹热\nJ18.903\t斑马热\nK35.900\t条纹腹\n", encoding="utf-8")
    house = Names(load_names(None, path))
    assert house.match("斑马热", "甲型条纹热") == "icd10" and not NAMES.match("斑马热", "甲型条纹热")
    assert house.differs("条纹腹", "斑马热")
    path.write_text("J18.903\t甲\nno code\t乙\n", encoding="utf-8")
    load_names.cache_clear()
    with pytest.raises(UserError, match=r"terms\.tsv:2: not a term"):
        load_names(None, path)
    with pytest.raises(UserError, match="no such file"):
        load_names(None, tmp_path / "absent.tsv")
    path.write_bytes("J18.903\tZebra\nJ18.903\t斑马热\n".encode("gb18030"))
    load_names.cache_clear()
    with pytest.raises(UserError, match=r"terms\.tsv:2: not UTF-8"):
        load_names(None, path)


def test_every_shipped_group_is_one_disease_to_the_names() -> None:
    table = load_names()
    for group, members in table.written.items():
        first = members[0]
        for member in members[1:]:
            assert NAMES.match(member, first), (group, first, member)


def test_spelling_is_idempotent() -> None:
    for name in ("慢性乙肝", "糖尿病2型", "高血压病三级", "乙型病毒性肝炎", "Ureteral calculi", "肾功能衰竭"):
        assert normalise(normalise(name)) == normalise(name)
