"""Kinds of identifiers that notes hold, each in its own words, and of clinical text in which nothing may change."""

import re
from pathlib import Path

import pytest
import yaml

from clinical_r1 import privacy
from clinical_r1.privacy.dates import shifter
from clinical_r1.privacy.gate import scrub
from clinical_r1.privacy.known import Known, KnownFinder

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
    ("姓名：李小明（Okonkwo）因咳嗽入院。", "Okonkwo"),
    ("患者 李小明 (Adaeze) 昨日发热。", "Adaeze"),
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
    ("科主任：张三丰", "张三丰"),
    ("录入：刘芳 校对：周敏", "周敏"),
    ("带教老师：赵云飞", "赵云飞"),
    ("张建国：我最近咳嗽。\n医生：多久了？", "张建国"),
    ("病患張偉強，男，訴頭痛三天。", "張偉強"),
    ("主治醫師：劉志遠", "劉志遠"),
    ("KOWALSKI: I have had this pain for a week.", "KOWALSKI"),
    ("Doctor: Any fever?\nNneka: Where do you mean?", "Nneka"),
    ("Speaker 2 (Oyelaran): My arm is numb.", "Oyelaran"),
    ("dictated: JQS/tkl", "JQS"),
    ("D: 3/4/21 T: 3/5/21 MTS", "MTS"),
    ("Dictated by: RW  Typed by: kl", "kl"),
    ("“Call me Pip”, he said.", "Pip"),
    ("Dr. 太郎 鈴木 performed the colonoscopy without complication.", "鈴木"),
    ("On arrival John was diaphoretic and clutching her chest.", "John"),
    ("Marta G. is a 34 y/o nurse.", "Marta"),
    ("J.R. is a 55-year-old man.", "J.R"),
    ("患者李雷23岁。", "李雷"),
    ("Kovalenko, Dmytro M 44 admitted", "Dmytro"),
    ("患者“老周”自述无不适。", "老周"),
    ("护工张姐协助翻身。", "张姐协"),
    ("Vosgerau, Ilvija | 02/08/1957 | M | Bay 3", "Ilvija"),
    ("Name: Kuźmicz, Bożydar   Sex: M", "Bożydar"),
    ("Name ZUBIRI, NEKANE  Acc 4", "NEKANE"),
    ("Told RN Okwuosa at shift change.", "Okwuosa"),
    ("Imran al-Dossary vomited.", "Dossary"),
    ("Seen by Dr. med. dent. Thiemo Rauscher.", "Thiemo"),
    ("Odhran is a 6-year-old boy with stridor.", "Odhran"),
    ("The infant, Saoirse, fed well.", "Saoirse"),
    ("cheers Yevgeny, will call", "Yevgeny"),
    ("Pham Quoc Bao has ascites.", "Quoc"),
    ("Message for Ludka: repeat the INR.", "Ludka"),
    ("Ulvi Karimov c/o ankle pain", "Karimov"),
    ("Anselm (older brother) agreed.", "Anselm"),
    ("Her nanny Zdenka saw the fit.", "Zdenka"),
    ("Asked Councillor Mbatha to call.", "Mbatha"),
    ("姓名：陶理（Dao Thanh Ly）", "Thanh"),
    ("昨夜小孙护士换药。", "小孙"),
    ("阿珍阿姨推轮椅。", "阿珍"),
    ("值班护士小何已报告。", "小何"),
    ("已请示沈教授。", "沈"),
    ("主治：卢志强", "卢志强"),
    ("患儿圆圆，男，2岁，咳嗽。", "圆圆"),
    ("琪琪奶奶代诉发热。", "琪琪"),
    ("唐丽萍主治医师查房。", "唐丽萍"),
    ("系郭长江之女。", "郭长江"),
    ("7床田桂兰今日出院。", "田桂兰"),
    ("田桂兰您好，报告已出。", "田桂兰"),
    ("Deputy Szymanek brought him in.", "Szymanek"),
    ("Dict: R. Voss  Trans: qv  04/02/24", "qv"),
    ("夜班小郝巡视病房。", "小郝"),
    ("护士何晓玲给药。", "何晓玲"),
    ("受检者：谭志明  卡号", "谭志明"),
    ("冯小刚同学晕倒。", "冯小刚"),
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
    ("住臺北市大安區忠孝東路四段12號5樓。", "四段"),
    ("民國110年3月5日入院。", "110"),
    ("He lives at 77 Rue des Lilas, Lyon.", "Lilas"),
    ("Lindenstraße 5, 10115 Berlin", "Linden"),
    ("Calle Mayor 12, 28013 Madrid", "Mayor"),
    ("于三月初五来诊。", "初五"),
    ("3.12出院。", "3.12"),
    ("06/05入院。", "06/05"),
    ("D/C 4/3, follow-up Mar-04.", "Mar-04"),
    ("D/C 4/3, follow-up Mar-04.", "4/3"),
    ("出生：1955.3.6，女。", "19"),
    ("55年3月6日生，农民。", "月"),
    ("jane dot doe at gmail dot com", "jane"),
    ("去年8月15日摔倒。", "8月15"),
    ("Follow up 12 June or 19/6.", "19/6"),
    ("She moved from Tulsa to Boise in 2015.", "Boise"),
    ("Works at Tesco in Luton.", "Luton"),
    ("Appointment 12.06. at 9 am", "12.06"),
    ("就诊于北京协和医院。", "协和"),
    ("He is the mayor of Lindholm.", "Lindholm"),
    ("Fell at Harrods, Knightsbridge.", "Knightsbridge"),
    ("Lives with her uncle in Ludlow.", "Ludlow"),
    ("Moved to St. Anne's Hospital in Ghent.", "Ghent"),
    ("He came over from Puebla in spring.", "Puebla"),
    ("She emigrated from Port Moresby.", "Moresby"),
    ("A retired miner from Merthyr.", "Merthyr"),
    ("Brought by Sergeant Hale of Lothian Police.", "Lothian"),
    ("Her employer, Osprey Freight, was told.", "Osprey"),
    ("Stoker at Vickers & Armstrong.", "Vickers"),
    ("Resides at 9c Quayside, Whitby.", "Quayside"),
    ("Sent to Flat 2, 14 Dalry Brae, Perth PH1 5TX.", "Dalry"),
    ("Klinikum Großhadern sent the slides.", "Großhadern"),
    ("Call her son (0541 622 17 40).", "622"),
    ("Insurer: Humana Gold H771 4402 19", "4402"),
    ("床号：21", "21"),
    ("On Tuesday 12 March 2024 she fell.", "Tuesday"),
    ("Next dose due 14.05.", "14.05"),
    ("4/17拆线。", "4/17"),
    ("Logged in as rvance2 to view.", "rvance2"),
    ("救护车从湖北荆门转来。", "荆门"),
    ("就职于宏远汽车城。", "宏远"),
    ("RTC 5/17 with the nurse.", "5/17"),
    ("58F, from Tartous.", "Tartous"),
    ("wohnhaft in Passau", "Passau"),
    ("cc Heathfield Practice", "Heathfield"),
    ("长清区人民法院委托鉴定。", "长清"),
    ("送检单位：昌平区中医医院", "昌平"),
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
    "診斷：慢性阻塞性肺疾病；體溫36.8℃，脈搏80次/分，白細胞11.2；予美羅培南，阿卡波糖；何首烏15g。",
    "医生：多久了？\n患者：三天。\n医生：好的。",
    "Apgar评分9-10-10分，Apgar 8-9-10, Apgar scores were 7/9/10; ribs 7-8-10, 5/8/12 cm, 3-0-10 Vicryl, 2/4/12 months.",
    "Tongue pale with a thin coat; qi deficiency (气虚), yin deficiency (阴虚), jaundice 黄疸, and phlegm-heat.",
    "Heart: I hear no murmur.\nPlan: You may go home.\nWeber: No lateralization. RR/min 18, WBC/hpf 5",
    "Place NG tube 16 Fr. Via Foley drained 300 ml. Started on 5.5 mg.",
    "Asked the doctor\nToe pain, red. Told nurse\nCall light in reach.",
    "主任：同意目前治疗方案。记录：病情平稳。白细胞3.12，位于左肺上叶，予于外院治疗。",
    "Stage IV, CA 19-9 610; FIGO II, CA-125 71; NSTEMI, MI type 1; Hunt & Hess 2.",
    "Found down at home; worked in Oncology; Keppra is a good choice; Jevtana is an agent. Van Buren sounds to 20 Fr.",
    "RN aware, NP swab negative, PC 1 g given; Child-Pugh B; head of bed 30 degrees; room air 95%.",
    "主治：风寒感冒。护理：一级护理。麻醉：全麻。上级医院就诊。由急诊转入，从右侧转至左侧。",
    "Tanner IV breasts and Tanner III hair, St. George's Respiratory Questionnaire; WBC/mm3 4,100; Twins, Suspected.",
    "Cigna denied Ozempic; the Group Practice was told; 7 M, from birth; driver fatigue; 58F, from home.",
    "好好妈妈照顾，宝宝妈妈喂养；从湖北返回；当地县人民医院；报高值，系高危人群；应答切题。",
    "慢慢爸爸能扶着走路；患儿频频呕吐；2/3就诊者发热；大黄9g后下，阿胶12g烊化；床旁超声，床头抬高30度。",
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
    ("陈晓明", "病患陳曉明訴頭痛", "陳曉明"),
    ("陳曉明", "晓明今日好转", "晓明"),
    ("欧阳修文", "修文今日好转", "修文"),
    ("Vanessa van Loon", "Van Loon was seen", "Van Loon"),
    ("Owen O'Garvey", "the O'Garveys came", "Garvey"),
    ("Quistorp, Hanna B.", "seen by quistorph", "quistorp"),
    ("Quistorp, Hanna B.", "seen by HQuistorp", "Quistorp"),
    ("田芳（田小芳）", "田小芳头痛，田芳", "芳"),
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


@pytest.mark.parametrize("table", sorted(Path(privacy.__file__).parent.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_pattern_and_word_list_is_used(table: Path) -> None:
    rows = yaml.safe_load(table.read_text(encoding="utf-8"))
    code = "".join(path.read_text(encoding="utf-8") for path in table.parent.glob("*.py"))
    named = set(re.findall(r'"([a-z_]+)"', code))
    held = set(re.findall(r"@(\w+)@", table.read_text(encoding="utf-8")))
    assert set(rows.get("parts", ())) <= held
    assert {name for section in ("rules", "each", "words") for name in rows.get(section, ())} <= named
