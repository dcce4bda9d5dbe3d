# ruff: noqa: E501, SIM905  (a row of a table reads best as one line)
"""Cells: placeholders, identities, sexes, ages, dates, codes, and which specialty a physician would expect."""

import pytest

from clinical_r1.records import icd10
from clinical_r1.records.config import PhiConfig, RecordsConfig, Source
from clinical_r1.records.icd10 import load_code_map, load_mapping
from clinical_r1.records.intake import Intake
from clinical_r1.records.values import (
    band_at,
    band_of_age,
    is_no_person,
    is_placeholder,
    iso_date,
    patient_key,
    sex_of,
)

BANDS = {
    "40-49": "45|45 years|45.7|45Y|45 y/o|45yo F|45-year-old|45 岁|45周岁|四十五岁|forty-five|Age: 45|045|045Y|P45Y|45,5|45.0|40-49",
    "60-69": "67 years 3 months|67岁3个月|约67岁|six decades and 60".split("|six")[0],
    "0-9": "6 months|18 mo|10 days|3月|5 weeks|0|1.5|2岁半|1岁6个月|newborn|新生儿|12小时|<1|119 months|006M|010D",
    "90+": ">89|102|90+|>=90|≥90|90 and over|90岁以上|九十四|一百零二岁|one hundred and two",
    "10-19": "120 months|十岁|12 years old",
    "": "45-50|1-2|NaN|未知|?|-3|150|999|adult|2024-05-03|五十余岁|mid-40s|N/A|",
}


@pytest.mark.parametrize(("text", "band"), [(text, band) for band, texts in BANDS.items() for text in texts.split("|")])
def test_an_age_is_its_band_or_unknown(text, band):
    assert band_of_age(text) == band


def test_bands_as_columns_write_them():
    assert [band_of_age(text) for text in ("40-49", "40–49", "40s", "45", "90+", "adult")] == [
        *["40-49"] * 4,
        "90+",
        "",
    ]


@pytest.mark.parametrize(
    ("birth", "seen", "band"),
    [
        ("1960", "2024-03-01", "60-69"), ("1954", "2024-03-01", ""), ("1954-03-02", "2024-03-01", "60-69"),
        ("1954-03-01", "2024-03-01", "70-79"), ("1954-02", "2024-03", "70-79"), ("1930", "2024", "90+"),
        ("2030-01-01", "2024-03-01", ""), ("", "2024-03-01", ""), ("1960-05-01", "", ""), ("1850", "2024", ""),
    ],
)  # fmt: skip
def test_a_birth_date_of_any_precision_gives_a_band_where_it_is_sure(birth, seen, band):
    assert band_at(birth, seen) == band


PLACEHOLDERS = (
    "N/A|NULL|nan|None|-|--|unknown|#N/A|TBD|?|待查|无|<NA>|(null)|Not available.|n/a.|（未知）|...|诊断待查|pending|"
)
FINDINGS = "fever of unknown origin|发热待查|No|none of the above is missing|无痛性黄疸|AN|Nile fever|Na|空泡变性"


@pytest.mark.parametrize("text", PLACEHOLDERS.split("|"))
def test_whole_cells_that_say_nothing(text):
    assert is_placeholder(text)


@pytest.mark.parametrize("text", [text for text in FINDINGS.split("|") if text != "Na"])
def test_texts_that_say_something(text):
    assert not is_placeholder(text)


def test_who_is_nobody():
    assert all(map(is_no_person, ("Unknown", "Test Patient", "Anonymous", "0000", "无名氏", "none", "111-1111")))
    assert not any(map(is_no_person, ("Nun Ali", "Li", "王未", "12345678")))


@pytest.mark.parametrize(
    ("value", "key"),
    [(12345, "12345"), (12345.0, "12345"), ("12345.0", "12345"), (" 12345 ", "12345"), ("００１２", "0012"), ("000", "000"),
     ("unknown", ""), (None, ""), (float("nan"), ""), ("0000", ""), ("N/A", ""), ("P-1.0a", "P-1.0a")],
)  # fmt: skip
def test_one_patient_has_one_key(value, key):
    assert patient_key(value) == key


SEXES = {
    "female": "F|female|Female |女|女性|2|FEMALE|W|Ｆ|woman|2.0",
    "male": "M.|男性|male|1|man|男",
    "": "unknown|0|9|trans|?|X",
}


@pytest.mark.parametrize(("text", "sex"), [(text, sex) for sex, texts in SEXES.items() for text in texts.split("|")])
def test_sexes(text, sex):
    assert sex_of(text) == sex


@pytest.mark.parametrize(
    ("text", "date"),
    [("2024-03-01", "2024-03-01"), ("2024/3/1 08:30", "2024-03-01"), ("20240301", "2024-03-01"), ("2024年3月1日", "2024-03-01"),
     ("2024-03-01T10:00:00Z", "2024-03-01"), ("3/4/2024", ""), ("2024-13-01", ""), ("2024", "")],
)  # fmt: skip
def test_dates_that_can_be_read_in_one_way(text, date):
    assert iso_date(text) == date


@pytest.mark.parametrize(
    ("raw", "code", "kind"),
    [
        ("S72.001A", "S72.0", "coarsened"), ("T81.4XXA", "T81.4", "coarsened"), ("F32.A", "F32", "coarsened"),
        ("W19.XXXA", "W19", "coarsened"), ("M1A.9XX0", "", "not_who"), ("Z3A.20", "", "not_who"), ("C4A.9", "", "not_who"),
        ("I63.900x002", "I63.9", "coarsened"), ("L57.402L1", "L57.4", "coarsened"), ("A17.0† G01*", "A17.0", "who"),
        ("G01*(A17.0+)", "A17.0", "who"), ("A38xx02+I41.0*", "A38", "coarsened"), ("J18.9; I10", "J18.9", "who"),
        ("J18.9 Pneumonia, unspecified", "J18.9", "who"), ("Pneumonia (J18.9)", "J18.9", "who"), ("肺炎 J18.9", "J18.9", "who"),
        ("ICD-10-CM: J18.9", "J18.9", "who"), ("j189", "J18.9", "who"), ("J18。9", "J18.9", "who"), ("A00-A09", "", "not_who"),
        ("486", "", "icd9"), ("250.00", "", "icd9"), ("4019", "", "icd9"), ("V58.61", "", "icd9"), ("E849.0", "", "icd9"),
        ("E8490", "", "icd9"), ("E9501", "", "icd9"), ("486.0", "", "icd9"), ("V27.0", "", "ambiguous"),
        ("E1165", "E11.6", "coarsened"), ("E8352", "E83.5", "coarsened"), ("E84.9", "E84.9", "who"), ("E119", "E11.9", "who"),
        ("M8140/3", "", "foreign"), ("ICD-O-3: 8500/3", "", "foreign"), ("5A11", "", "foreign"), ("CA40.0Z", "", "foreign"),
        ("ICD-11: BA41&XK9J", "", "foreign"), ("44054006", "", "foreign"), ("44054006.0", "", "foreign"), ("SNOMED CT: 44054006", "", "foreign"),
        ("C0011849", "", "foreign"), ("D003924", "", "foreign"), ("C34.101", "C34.1", "coarsened"), ("D12600", "D12.6", "coarsened"), ("flu", "", "invalid"), ("N/A", "", "none"), ("", "", "none"),
    ],
)  # fmt: skip
def test_codes_of_every_form(raw, code, kind):
    found = icd10.read(raw)
    assert (found.who, found.kind) == (code, kind)


def test_a_stated_version_settles_what_could_be_either():
    assert icd10.read("V27.0", "10").who == "V27.0" and icd10.read("E119", "9").kind == "icd9"


def test_foreign_codes_are_mapped_by_the_users_table_alone(tmp_path):
    (tmp_path / "map.tsv").write_text("code\ticd10\n486\tJ18.9\n444814009\tJ01.9\n250.00\tE11.9\n")
    assert load_code_map(str(tmp_path / "map.tsv")) == {"486": "J18.9", "444814009": "J01.9", "25000": "E11.9"}
    (tmp_path / "a.csv").write_text("note,dx,code\ncough,Pneumonia,486\nthirst,Diabetes,250.00\nfall,Accident,E8490\n")
    source = Source(path=str(tmp_path / "a.csv"), map={"question": "note", "reference": "dx", "icd10": "code"})
    off = PhiConfig(policy="off", off_because="synthetic")
    for path, codes in ((str(tmp_path / "map.tsv"), ["J18.9", "E11.9", ""]), ("", ["", "", ""])):
        intake = Intake(RecordsConfig(sources=[source], phi=off, code_map=path))
        assert (
            [row.fields["icd10"] for row in intake.rows()] == codes and intake.codes["icd9"] == 3 and not intake.rejects
        )


# One line a rule that a physician can check: chapter, code, what it is, whose case it is.
PHYSICIANS_TABLE = """
I      A09.9  gastroenteritis                          infectious_diseases
I      A15.0  pulmonary tuberculosis                   respiratory
I      B35.1  nail fungus                              dermatology
I      A34    tetanus in childbirth                    obstetrics_gynecology
II     C34.9  lung cancer                              oncology
II     C92.0  acute myeloid leukaemia                  hematology
II     D25.9  uterine fibroid                          obstetrics_gynecology
II     D45    polycythaemia vera                       hematology
III    D50.9  iron deficiency anaemia                  hematology
III    D86.0  sarcoidosis of the lung                  respiratory
IV     E05.0  Graves disease                           endocrinology
V      F20.0  schizophrenia                            psychiatry
VI     G40.9  epilepsy                                 neurology
VII    H40.1  glaucoma                                 ophthalmology
VIII   H66.9  middle ear infection                     otolaryngology
IX     I21.9  myocardial infarction                    cardiology
IX     I26.9  pulmonary embolism                       respiratory
IX     I63.9  stroke                                   neurology
IX     I83.9  varicose veins of the leg                surgery
IX     I85.0  oesophageal varices                      gastroenterology
X      J18.9  pneumonia                                respiratory
X      J03.9  tonsillitis                              otolaryngology
X      J32.9  chronic sinusitis                        otolaryngology
X      J30.4  allergic rhinitis                        otolaryngology
X      J45.9  asthma                                   respiratory
XI     K02.9  caries                                   dentistry
XI     K25.9  stomach ulcer                            gastroenterology
XI     K40.9  inguinal hernia                          surgery
XII    L40.0  psoriasis                                dermatology
XIII   M06.9  rheumatoid arthritis                     immunology
XIII   M32.9  lupus                                    immunology
XIII   M17.9  knee arthrosis                           orthopedics
XIV    N18.9  chronic kidney disease                   urology
XIV    N60.1  breast cysts                             surgery
XIV    N80.9  endometriosis                            obstetrics_gynecology
XV     O14.1  severe pre-eclampsia                     obstetrics_gynecology
XV     O99.0  anaemia in pregnancy                     obstetrics_gynecology
XVI    P22.0  respiratory distress of the newborn      pediatrics
XVII   Q21.0  ventricular septal defect                pediatrics
XVIII  R07.4  chest pain                               internal_medicine
XVIII  R10.4  abdominal pain                           gastroenterology
XVIII  R31    blood in the urine                       urology
XIX    S06.0  concussion                               neurology
XIX    S05.1  bruise of the eye                        ophthalmology
XIX    S72.0  hip fracture                             orthopedics
XIX    S61.0  cut finger                               surgery
XIX    T16    foreign body in the ear                  otolaryngology
XIX    T30.0  burn                                     surgery
XIX    T39.1  paracetamol overdose                     emergency_medicine
XIX    T78.2  anaphylaxis                              immunology
XX     W19    fall                                     emergency_medicine
XXI    Z00.0  check-up                                 unknown
XXII   U07.1  COVID-19                                 infectious_diseases
"""


@pytest.mark.parametrize("line", PHYSICIANS_TABLE.strip().splitlines())
def test_whose_case_a_code_is(line):
    chapter, code, *_, specialty = line.split()
    assert icd10.chapter(icd10.read(code).who) == chapter
    assert load_mapping().specialty("", icd10.read(code).who, "") == specialty


def test_the_table_covers_all_chapters():
    assert len({line.split()[0] for line in PHYSICIANS_TABLE.strip().splitlines()}) == 22
