"""Kinds of identifiers that notes hold, each in its own words, and of clinical text in which nothing may change."""

import pytest

from clinical_r1.privacy.dates import shifter
from clinical_r1.privacy.known import Known, KnownFinder
from clinical_r1.privacy.scrub import scrub

NOBODY = KnownFinder(Known())

NAMES = [
    ("Mr. Čapek slept well.", "Čapek"),
    ("Patient name: Ødegård", "Ødegård"),
    ("病人Petra Nováková要求出院。", "Nováková"),
    ("Her husband Sizwe called the ambulance.", "Sizwe"),
    ("Reviewed with Faith; she will think about it.", "Faith"),
    ("Nurse Finch gave the first dose.", "Finch"),
    ("The parents (Dale and Ivy) agreed.", "Ivy"),
    ("Chinonso Eze-Okeke was admitted with a sickle crisis.", "Eze"),
    ("LI, Guozhen was seen in clinic.", "Guozhen"),
    ("per karen (dtr) eats little", "karen"),
    ("P. Karapetyan is improving.", "Karapetyan"),
    ("-- pwalters 0640", "pwalters"),
    ("Dictated by: TMarchetti/ls", "TMarchetti"),
    ("Addison was discharged on Friday.", "Addison"),
    ("Her aunt calls her “Pippa”.", "Pippa"),
    ("We asked whether Eoghan had eaten.", "Eoghan"),
    ("Seen with her son Ярослав today.", "Ярослав"),
    ("患者高洁，女，31岁，咳嗽两天。", "高洁"),
    ("第一助手：陆建华", "陆建华"),
    ("护士小郑发现输液管脱落。", "小郑"),
    ("患儿乳名球球，足月。", "球球"),
    ("家属签名：沈 国 强", "沈 国"),
    ("东方建国因腹痛半天入院。", "东方"),
    ("张李若涵，男，6岁，皮疹。", "若涵"),
    ("患者图尔荪古丽，维吾尔族，头晕。", "图尔荪古丽"),
    ("次仁旺姆，藏族，双膝疼痛。", "次仁旺姆"),
    ("安康同志既往体健。", "安康"),
    ("Matthias van der Meer takes ramipril.", "Matthias"),
    ("Gustav von Lindenfels denies pain.", "Lindenfels"),
    ("Ada María Pérez de la Torre presents with fever.", "Ada"),
    ("Kowalewicz denies pain.", "Kowalewicz"),
    ("Went home with Jack and Lucy.", "Jack"),
    ("Seen with her daughter Aisling in clinic.", "Aisling"),
    ("Thank you for seeing Babajide.", "Babajide"),
    ("Author: kmills07", "kmills07"),
    ("Referred by Åsa Ångström, GP.", "Ångström"),
    ("签名：李静／王磊", "王磊"),
    ("术者：赵刚、郑强；麻醉师：孙丽", "郑强"),
    ("由赵敏、李雷陪同入院。", "李雷"),
    ("同事老李送来。", "老李"),
    ("其妻陳秀明代述病史。", "陳秀明"),
    ("已告知患者马云杰手术风险。", "马云杰"),
    ("护士长胡敏宣教。", "胡敏"),
    ("女儿小雪陪诊。", "小雪"),
]


@pytest.mark.parametrize(("text", "secret"), NAMES)
def test_names_go_by_what_stands_around_them(text: str, secret: str) -> None:
    assert secret not in scrub(text, NOBODY, shifter(200)).text


STRUCTURED = [
    ("LMP 19/6, regular.", "19/6"),
    ("Stent 4/'17.", "'17"),
    ("Fell on Boxing Day 2017.", "Boxing"),
    ("Well until August the 2nd.", "2nd"),
    ("Seen again 9 Feb with fever.", "9 Feb"),
    ("Planned for 2022-07.", "2022-07"),
    ("入院时间：07-21 18:05", "07-21"),
    ("农历腊月廿三出现头晕。", "廿三"),
    ("18年4月查出肾结石。", "4月"),
    ("民国二十九年生人。", "二十九"),
    ("She is 92 and sews.", "92"),
    ("93 F transferred from rehab.", "93"),
    ("Mrs K, 97, was alone.", "97"),
    ("高寿九十七岁。", "九十七"),
    ("Dial 1-800-555-NURS now.", "NURS"),
    ("Ring two oh two, five five five, one one nine nine.", "five five"),
    ("分机6612。", "6612"),
    ("Lives on Cedar Avenue.", "Cedar"),
    ("Postcode LS6 3QB.", "LS6"),
    ("Resident of Oakfield Manor Care Home.", "Oakfield"),
    ("She moved here from Nairobi.", "Nairobi"),
    ("工作单位：永安纺织厂。", "永安"),
    ("在海尔青岛厂区打工。", "海尔"),
    ("Reg GF18 WXY left the road.", "GF18"),
    ("Red Toyota (KLM-2201) hit a tree.", "KLM"),
    ("Found at 48°51'24\"N 2°21'03\"E.", "48°"),
    ("Saved under /scans/rossi_maria/a1.nii.gz", "rossi"),
    ("见王五_超声.pdf。", "王五"),
    ("write to p_lee AT mail.org", "p_lee"),
    ("抖音@海边的风发布视频。", "海边"),
    ("Last four of social 1188.", "1188"),
    ("HKID B654321(0)", "654321"),
    ("He is the mayor of Lindholm.", "Lindholm"),
]


@pytest.mark.parametrize(("text", "secret"), STRUCTURED)
def test_identifiers_go_in_the_forms_of_notes(text: str, secret: str) -> None:
    assert secret not in scrub(text, NOBODY, shifter(200)).text.replace("90+", "")


def test_what_follows_a_date_in_a_list_of_dates_is_a_date() -> None:
    left = scrub("Seen on 3/14 and again 3/21, 3/28; lives at 9 Elm Grove, Bristol BS6 5QA.", NOBODY, shifter(200)).text
    assert not {"3/21", "3/28", "Bristol"} & set(left.replace(",", " ").replace(";", " ").split())


CLEAN = [
    "fever of 103 F and rigors; Tmax 101 F, HR 98",
    "Tc-99m MDP uptake, I-131 100 mCi, F-18 FDG",
    "G3P1 31-year-old at 36+2 weeks, fundal height 34 cm",
    "Na 141 (135-145), K 3.1 (3.5-5.0), Cl 99 (98-107), HCO3 27 (22-29)",
    "TSH 0.02 (0.4-4.0) fT4 3.1 (0.8-1.8)",
    "BMP: 141 / 3.1 / 99 / 27 / 12 / 0.8 / 118",
    "BP 98/60 -> 104/66, weight 97 kg, sat 94% on room air",
    "Dukes C, pT3N1M0, 3/14 nodes positive, strength 4/5, acuity 20/40",
    "Sjögren syndrome, Ménière disease, Köbner phenomenon; Blatchford score 6",
    "Apixaban, Eliquis, Keytruda and Humira were continued.",
    "The Community Hospital has no MRI. Will repeat labs in May.",
    "体格检查：T 37.9℃，P 102次/分，BP 98/62mmHg",
    "美罗培南、阿卡波糖、利福平、华法林；宫口开2cm；散在湿罗音；ST段抬高；谢谢。",
    "白细胞11.2×10^9/L（4.0-10.0），血钾3.1mmol/L（3.5-5.3）",
    "当地医院予对症治疗，外院CT未见异常，由门诊收入院。",
    "患者安静，高热不退，时有谵妄；何首乌15g，白术10g，金银花9g。",
    "患者家属同意手术并签字；住院医师查房。",
    "Facial palsy House-Brackmann IV; Hinchey II; Mallampati III; Schatzker VI.",
    "Café au lait spots; van der Woude syndrome; Cornelia de Lange syndrome; Torsades de pointes.",
    "Strength 3/5, 4/5 and 5/5; murmur 2/6 and 3/6; pain 3/10 and again 4/10.",
    "女儿小产一次，儿子小头畸形，妻子小三阳；父亲高血压，母亲糖尿病；告知患者马上手术。",
]


@pytest.mark.parametrize("text", CLEAN)
def test_clinical_text_is_not_touched(text: str) -> None:
    found = scrub(text, NOBODY, shifter(200))
    assert found.text == text and not found.doubts


KNOWN = [
    ("Anna Lindt-Maurer", "told Maurer about it", "Maurer"),
    ("Niamh O'Dowd", "told O’Dowd about it", "Dowd"),
    ("Jörg Weiß", "WEISS and Joerg were told", "WEISS"),
    ("Renée Piñón", "told Pin\u0303o\u0301n about it", "Pin\u0303"),
    ("Renée Piñón", "Renee came with Pinon", "Pinon"),
    ("艾力·买买提", "艾力腹痛两天", "艾力"),
    ("欧阳修文", "修文今日好转", "修文"),
    ("Vanessa van Loon", "Van Loon was seen", "Van Loon"),
    ("Rebecca Stone", "Becky felt faint; r stone signed", "Becky"),
]


@pytest.mark.parametrize(("name", "text", "secret"), KNOWN)
def test_known_names_go_folded_and_in_parts(name: str, text: str, secret: str) -> None:
    assert secret not in scrub(text, KnownFinder(Known(names=[name])), None).text


@pytest.mark.parametrize(
    ("known", "text"),
    [
        (Known(["Unknown"], ["none", "N/A"]), "Cause unknown; allergies: none. Cough."),
        (Known(["Test Patient"], ["0000"]), "The patient took a test. Patient coughs."),
        (Known(["待查"], ["无"]), "发热待查，无咳嗽。"),
        (Known(["Li Na"], []), "Na is 128 mmol/L; Li was stopped."),
        (Known(["Rash Green"], ["2024", "120/80", "fever"]), "Fever and rash since 2024; BP 120/80; green sputum."),
    ],
)
def test_placeholders_and_values_are_never_scrubbed_as_known(known: Known, text: str) -> None:
    assert scrub(text, KnownFinder(known), None).text == text
