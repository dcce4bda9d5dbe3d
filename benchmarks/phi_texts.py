# ruff: noqa: E501  (a word list reads best as one piece)
"""Texts for `phi`: the marked corpus of ../shared/cases/phi, sentences with names of all of Faker's locales, known names
in the spellings that notes have, laboratory lines, and inputs that double."""

import json
import random
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from clinical_r1.errors import UserError
from clinical_r1.privacy.known import Known
from clinical_r1.text import without_accents

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
TEMPLATES = Path(__file__).with_name("phi_templates.yaml")
_MARK = re.compile(r"\{\{(\w+)\|(.*?)\}\}", re.DOTALL)


@dataclass(frozen=True)
class Marked:
    """A text and the (type, secret) pairs that must not survive in it."""

    text: str
    secrets: tuple[tuple[str, str], ...]
    known: Known = field(default_factory=Known)


def corpus() -> list[Marked]:
    """The handed sentences; empty where the shared folder is absent."""
    found = []
    for name in ("corpus_en.txt", "corpus_zh.txt"):
        for line in lines_of(name):
            text = line.partition("\t")[2].replace("\\n", "\n")
            found.append(Marked(_MARK.sub(lambda mark: mark[2], text), tuple(_MARK.findall(text))))
    return found


def lines_of(name: str) -> list[str]:
    """Lines of a file of the shared cases but for comments; none where it is absent."""
    path = SHARED / "cases" / "phi" / name
    if not path.is_file():
        return []
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip() and line[0] != "#"]


def _fakers(seed: int) -> dict[str, "object"]:
    try:
        from faker import Faker
        from faker.config import AVAILABLE_LOCALES
    except ImportError:
        raise UserError("measuring the PHI gate needs the package faker; install the extra `dev`") from None
    fakers = {}
    for locale in sorted(AVAILABLE_LOCALES):
        faker = Faker(locale)
        faker.seed_instance(seed)
        fakers[locale] = faker
    return fakers


def person(faker: "object", han: bool) -> tuple[str, str]:
    """(given name, surname) of a locale."""
    given, surname = str(faker.first_name()), str(faker.last_name())  # type: ignore[attr-defined]
    return re.sub(r"\s*[(\[].*", "", given).strip(), re.sub(r"\s*[(\[].*", "", surname).strip()


def named_sentences(count: int, seed: int) -> Iterator[Marked]:
    """Sentences in English and Chinese whose names come from every locale in turn."""
    templates = yaml.safe_load(TEMPLATES.read_text(encoding="utf-8"))
    rng, fakers = random.Random(seed), _fakers(seed)
    for index in range(count):
        locale = list(fakers)[index % len(fakers)]
        language = "zh" if locale.startswith("zh") else "en"
        template = rng.choice(templates[language]["free_name"])
        slot = re.findall(r"{(\w+)}", template)[0]
        given, surname = person(fakers[locale], language == "zh")
        whole = surname + given if language == "zh" else f"{given} {surname}"
        shown = {
            "first_name": given,
            "last_name": surname,
            "last_name_first": f"{surname}, {given}",
            "upper_name": whole.upper(),
            "initial_name": f"{given[0]}. {surname}",
        }.get(slot, whole)
        yield Marked(template.replace("{" + slot + "}", shown), (("name", shown),))


def known_sentences(count: int, seed: int) -> Iterator[Marked]:
    """Names that a structured field gave, in the spellings of notes."""
    rng, fakers = random.Random(seed + 1), _fakers(seed + 1)
    for index in range(count):
        locale = list(fakers)[index % len(fakers)]
        han = locale.startswith("zh")
        given, surname = person(fakers[locale], han)
        whole = surname + given if han else f"{given} {surname}"
        shown = whole if han else rng.choice(_spellings(given, surname))
        if min(len(given), len(surname)) < 3 and not han:
            shown = whole
        yield Marked(f"told {shown} about it", (("known", shown),), Known(names=[whole]))
    path = SHARED / "cases" / "records" / "known_names.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        row = json.loads(line)
        yield Marked(row["text"], (("known", row["must_not_remain"]),), Known(names=[row["name_field"]]))


def _spellings(given: str, surname: str) -> list[str]:
    whole = f"{given} {surname}"
    bare = without_accents(whole)
    half = re.split(r"[\s\-]", surname)[-1]
    return [
        whole.upper(),
        bare,
        unicodedata.normalize("NFD", whole),
        whole.replace("'", "’"),
        whole.replace("’", "'"),
        f"{surname}, {given}",
        half if len(half) > 3 else whole,
        whole.replace("ß", "ss"),
        surname.title(),
    ]


_ANALYTES = {
    "Na": (120, 160, 0), "K": (2.5, 7, 1), "Cl": (90, 115, 0), "Creatinine": (0.5, 6, 1), "Hemoglobin": (6, 17, 1), "TSH": (0.1, 20, 2), "Lipase": (20, 1500, 0), "pH": (7, 7.6, 2),
    "WBC": (2, 40, 1), "Ferritin": (4, 900, 0), "CA 19-9": (10, 4000, 0), "白细胞": (2, 40, 1), "血红蛋白": (60, 170, 0), "肌酐": (40, 600, 0), "血糖": (3, 30, 1), "淀粉酶": (20, 1500, 0), "脑钠肽": (10, 9000, 0),
}  # fmt: skip
_UNITS = ["", " mmol/L", " mg/dL", " g/dL", "U/L", " ng/mL", "×10^9/L", "μmol/L", " mEq/L", "g/L"]
_PHRASES = [
    "BP {a}/{b} mmHg, HR {a}, T {t} C, SpO2 {p}%", "fever of {f} F since yesterday", "Tc-99m scan, I-131 {a} mCi, F-18 FDG", "G{s}P{s} {y}-year-old at {w}+{s} weeks, fundal height {w} cm", "体温 {t}℃，脉搏 {a}次/分，血压 {a}/{b}mmHg",
    "孕{w}周，宫高{w}cm，胎心{a}次/分", "Visual acuity 20/{b} OD, strength {s}/5, murmur {s}/6", "EF {b}%, QTc {a}0 ms, FEV1 {t}%", "MMSE 2{s}/30, GCS 1{s}, NIHSS 1{s}", "heparin {a}0 units/h, {b}.{s} mcg/kg/min", "mass {t} x {s}.{s} x {s} cm, SUV {s}.{s}",
    "I/O {a}0/{b}0, weight {b} kg, height {a} cm", "ANA 1:{a}0, HLA-B*27:0{s}", "Apgar {s} and {s}, birth weight 3{a} g",
]  # fmt: skip


def laboratory_lines(count: int, seed: int) -> Iterator[str]:
    """Lines of values, ranges, vital signs, imaging and obstetrics in which nothing may change."""
    rng = random.Random(seed + 2)
    for index in range(count):
        if index % 3 == 0:
            yield rng.choice(_PHRASES).format(
                a=rng.randint(100, 190), b=rng.randint(40, 98), t=rng.randint(350, 410) / 10, p=rng.randint(85, 99),
                f=rng.randint(98, 105), s=rng.randint(1, 5), y=rng.randint(18, 44), w=rng.randint(20, 41),
            )  # fmt: skip
            continue
        parts = []
        for name in rng.sample(sorted(_ANALYTES), rng.randint(1, 4)):
            low, high, digits = _ANALYTES[name]
            value, first = rng.uniform(low, high), rng.uniform(low, high)
            ranges = [
                "",
                f" ({first:.{digits}f}-{high:.{digits}f})",
                f" [{low:.{digits}f}-{first:.{digits}f}]",
                f"（{low:.{digits}f}-{high:.{digits}f}）",
            ]
            parts.append(f"{name} {value:.{digits}f}{rng.choice(_UNITS)}{rng.choice(ranges)}")
        yield rng.choice([", ", "; ", "，", "\n"]).join(parts)


DOUBLED = [
    "0af3", "a", "A ", "Aa ", "1 ", "1.", "1-", "1/", "a.", "a-", "a@", "张伟", "患者张伟，", "在北京市朝阳区", "号1", "路", "签名：张 ", "九十", "年1月", "Dr ", "Mr. Zed ", "lives in ", "12 Zed ", "(1-2) ", "MRN: 1 ", "one ", "Aug 1 ", "/a", "K 5 ",
    "°1'", "Ж", "·张", "data:image/png;base64,AA", "http://a", "1:", " ", "\n", "_",
]  # fmt: skip
"""What recognisers are given twice as much of."""


def real_texts() -> dict[str, list[str]]:
    """Clinical texts without identifiers from ../shared/data, by set; empty where they are absent."""
    folder, sets = SHARED / "data", {}
    for name in ("DxBench_en", "DxBench_zh"):
        if (path := folder / f"{name}.json").is_file():
            comma = "，" if name.endswith("zh") else ", "
            sets[name] = [
                comma.join([row[0] for row in [*item["explicit_symptoms"], *item["implicit_symptoms"]]])
                + comma.join(["", *item["candidate_diseases"]])
                for item in json.loads(path.read_text(encoding="utf-8"))
            ]
    if (path := folder / "medqa_test_1273.jsonl").is_file():
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        sets["MedQA"] = [row["question"] + "\n" + "\n".join(row["options"].values()) for row in rows]
    if (path := folder / "icd10_zh_beijing_clinical_v601.tsv").is_file():
        rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
        sets["ICD-10 zh"] = [row[1].strip() for row in rows if len(row) > 1][::10]
    if (path := folder / "huatuogpt_o1_demo_198.json").is_file():
        keys = ("Open-ended Verifiable Question", "Ground-True Answer")
        sets["HuatuoGPT-o1"] = ["\n".join(row[key] for key in keys) for row in json.loads(path.read_text("utf-8"))]
    if (path := folder / "agentclinic_medqa.jsonl").is_file():
        cases = [json.loads(line)["OSCE_Examination"] for line in path.read_text("utf-8").splitlines() if line.strip()]
        sets["AgentClinic"] = ["\n".join(_strings(case)) for case in cases]
    return sets


def _strings(value: object) -> Iterator[str]:
    """Every text of a nested object."""
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _strings(inner)
