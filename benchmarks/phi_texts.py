"""Texts for `phi`: the marked corpus of ../shared/cases/phi, values and how people (or adversaries) disguise them,
names of all of Faker's locales, known names as notes have them, laboratory lines, real texts."""

import json
import random
import re
import string
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from clinical_r1.atomic import read_table
from clinical_r1.errors import UserError
from clinical_r1.privacy.known import Known
from clinical_r1.text import without_accents

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
TEMPLATES = read_table(Path(__file__).with_name("phi_templates.yaml"))
_MARK = re.compile(r"\{\{(\w+)\|(.*?)\}\}", re.DOTALL)
_WIDE = {ord(char): chr(ord(char) + 0xFEE0) for char in string.digits + string.ascii_letters + "-@.:/()"}
_CYRILLIC = str.maketrans("aeopcxyABEKMHOPCTX", "аеорсхуАВЕКМНОРСТХ")
_ARABIC = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")


@dataclass(frozen=True)
class Marked:
    """A text and the (type, secret) pairs that must not survive in it."""

    text: str
    secrets: tuple[tuple[str, str], ...]
    known: Known = field(default_factory=Known)


def corpus() -> list[Marked]:
    """The handed sentences; empty where the shared folder is absent."""
    lines = [*lines_of("corpus_en.txt"), *lines_of("corpus_zh.txt")]
    texts = [line.partition("\t")[2].replace("\\n", "\n") for line in lines]
    return [Marked(_MARK.sub(lambda mark: mark[2], text), tuple(_MARK.findall(text))) for text in texts]


def lines_of(name: str) -> list[str]:
    """Lines of a file of the shared cases but for comments; none where it is absent."""
    return [line for line in _lines(SHARED / "cases" / "phi" / name) if line[0] != "#"]


def _lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return [line for line in text.splitlines() if line.strip()]


def _faker(locale: str, seed: int) -> Any:
    try:
        from faker import Faker
    except ImportError:
        raise UserError("measuring the PHI gate needs the package faker; install the extra `dev`") from None
    faker = Faker(locale)
    faker.seed_instance(seed)
    return faker


class Values:
    """One language's values; reproducible by seed."""

    def __init__(self, language: str, seed: int) -> None:
        self._zh = language == "zh"
        self._fake = _faker("zh_CN" if self._zh else "en_US", seed)
        self._rng = random.Random(seed)

    def draw(self, slot: str) -> tuple[str, Known]:
        """A value for a slot, and what structured fields would tell of it (for names)."""
        if "name" in slot:
            return self._name(slot)
        own = {"date": self._date, "landline": self._landline, "old_age": lambda: str(self._rng.randint(90, 108))}
        if slot in own:
            return own[slot](), Known()
        if slot not in TEMPLATES["values"]:
            value = str(getattr(self._fake, TEMPLATES["faker"].get(slot, slot))())
            return value.replace("\n", ", "), Known()
        made = [re.sub(r"([A9])\{(\d+),?(\d*)\}|<(.*?)>", self._piece, form) for form in TEMPLATES["values"][slot]]
        return made[0] if len(made) == 1 else self._rng.choice(made), Known()

    def _piece(self, found: re.Match[str]) -> str:
        """`A{2}` is two letters, `9{7,8}` a number of seven or eight digits, `<a|b>` either, `<user_name>` Faker's."""
        if found[4]:
            return self._rng.choice(found[4].split("|")) if "|" in found[4] else str(getattr(self._fake, found[4])())
        if found[1] == "A":
            return "".join(self._rng.choice(string.ascii_uppercase) for _ in range(int(found[2])))
        return self._number(int(found[2]), int(found[3]))

    def _name(self, slot: str) -> tuple[str, Known]:
        first, last = self._fake.first_name(), self._fake.last_name()
        if not self._zh:
            return shown_as(slot, first, last, f"{first} {last}"), Known(names=[f"{first} {last}"])
        while slot == "given_name" and len(first) < 2:
            first = self._fake.first_name()
        return (first if slot == "given_name" else last + first), Known(names=[last + first])

    def _number(self, low: int, high: int) -> str:
        length = self._rng.randint(low, high)
        return str(self._rng.randint(1, 9)) + "".join(self._rng.choice(string.digits) for _ in range(length - 1))

    def _date(self) -> str:
        day: date = self._fake.date_between(date(1950, 1, 1), date(2024, 12, 31))
        forms = TEMPLATES["dates"]["zh" if self._zh else "en"]
        return self._rng.choice(forms).format(d=day, month=f"{day:%B}", mon=f"{day:%b}")

    def _landline(self) -> str:
        area = self._rng.choice(("010", "021", "0571", "0755", "028"))
        return f"{area}-{self._rng.randint(2, 8)}{self._number(7, 7) if len(area) == 3 else self._number(6, 6)}"


def shown_as(slot: str, given: str, surname: str, whole: str) -> str:
    """A name as a template's slot wants it."""
    forms = {
        "first_name": given,
        "last_name": surname,
        "last_name_first": f"{surname}, {given}",
        "upper_name": whole.upper(),
        "lower_name": whole.lower(),
        "initial_name": f"{given[0]}. {surname}",
    }
    return forms.get(slot, whole)


def disguise(value: str, style: str, slot: str, rng: random.Random) -> str:
    """The value as someone might type it; styles that make no sense for a slot leave it plain."""
    if style == "spaced":
        return _spaced(value, slot, rng)
    if style == "fullwidth":
        return value.translate(_WIDE)
    if style == "mixed":
        return value.translate(_ARABIC if rng.random() < 0.3 and slot != "address" else _CYRILLIC)
    return "\u200b".join(value) if style == "invisible" else value


def _spaced(value: str, slot: str, rng: random.Random) -> str:
    if slot in ("address", "url", "photo", "ipv6", "mac", "old_age"):
        return value
    if slot == "email":
        return value.replace("@", rng.choice((" @ ", " (at) ", "@ "))).replace(".", rng.choice((".", " . ")))
    if slot == "date":
        return re.sub("[-/年月]", r" \g<0> ", value)
    if "name" in slot:
        return " ".join(value) if any(c >= "\u3400" for c in value) else value.replace(" ", "  ")
    if slot == "plate":
        return " ".join(value.split())
    gap, size = rng.choice((" ", "-", " ", ".")), rng.choice((1, 4, 3, 2))
    return gap.join(value[i : i + size] for i in range(0, len(value), size))


def _people(count: int, seed: int) -> Iterator[tuple[bool, str, str, str]]:
    """(Chinese?, given name, surname, whole name) of `count` people, from every locale in turn."""
    from faker.config import AVAILABLE_LOCALES

    fakers = {locale: _faker(locale, seed) for locale in sorted(AVAILABLE_LOCALES)}
    for locale, faker in islice(cycle(fakers.items()), count):
        given, surname = (
            re.sub(r"\s*[(\[].*", "", str(make())).strip() for make in (faker.first_name, faker.last_name)
        )
        han = locale.startswith("zh")
        yield han, given, surname, surname + given if han else f"{given} {surname}"


def named_sentences(count: int, seed: int) -> Iterator[Marked]:
    """Sentences in English and Chinese whose names come from every locale in turn."""
    rng = random.Random(seed)
    for han, given, surname, whole in _people(count, seed):
        template = rng.choice(TEMPLATES["zh" if han else "en"]["free_name"])
        slot = re.findall(r"{(\w+)}", template)[0]
        shown = shown_as(slot, given, surname, whole)
        yield Marked(template.replace("{" + slot + "}", shown), (("name", shown),))


def known_sentences(count: int, seed: int) -> Iterator[Marked]:
    """Names that a structured field gave, in the spellings of notes."""
    rng = random.Random(seed + 1)
    for han, given, surname, whole in _people(count, seed + 1):
        shown = whole if han else rng.choice(_spellings(given, surname, whole))
        if min(len(given), len(surname)) < 3 and not han:
            shown = whole
        yield Marked(f"told {shown} about it", (("known", shown),), Known(names=[whole]))
    for row in map(json.loads, _lines(SHARED / "cases" / "records" / "known_names.jsonl")):
        yield Marked(row["text"], (("known", row["must_not_remain"]),), Known(names=[row["name_field"]]))


def _spellings(given: str, surname: str, whole: str) -> list[str]:
    half = re.split(r"[\s\-]", surname)[-1]
    return [
        whole.upper(),
        without_accents(whole),
        unicodedata.normalize("NFD", whole),
        whole.replace("'", "’"),
        whole.replace("’", "'"),
        f"{surname}, {given}",
        half if len(half) > 3 else whole,
        whole.replace("ß", "ss"),
        surname.title(),
    ]


def laboratory_lines(count: int, seed: int) -> Iterator[str]:
    """Lines of values, ranges, vital signs, imaging and obstetrics in which nothing may change."""
    rng, table = random.Random(seed + 2), TEMPLATES["laboratory"]
    for index in range(count):
        if index % 3 == 0:
            phrase = rng.choice(table["phrases"])
            drawn = {name: rng.randint(*limits) for name, limits in table["drawn"].items()}
            yield phrase.format(**(drawn | {"t": drawn["t"] / 10}))
            continue
        parts = []
        for name in rng.sample(sorted(table["analytes"]), rng.randint(1, 4)):
            low, high, digits = table["analytes"][name]
            drawn = (rng.uniform(low, high), rng.uniform(low, high), low, high)
            value, first, low, high = (f"{number:.{digits}f}" for number in drawn)
            ranges = ["", f" ({first}-{high})", f" [{low}-{first}]", f"（{low}-{high}）"]
            parts.append(f"{name} {value}{rng.choice(table['units'])}{rng.choice(ranges)}")
        yield rng.choice([", ", "; ", "，", "\n"]).join(parts)


def real_texts() -> dict[str, list[str]]:
    """Clinical texts without identifiers from ../shared/data, by set; empty where they are absent."""
    folder, sets = SHARED / "data", {}
    for name, comma in (("DxBench_en", ", "), ("DxBench_zh", "，")):
        if (path := folder / f"{name}.json").is_file():
            sets[name] = [
                comma.join([row[0] for row in [*item["explicit_symptoms"], *item["implicit_symptoms"]]])
                + comma.join(["", *item["candidate_diseases"]])
                for item in json.loads(path.read_text(encoding="utf-8"))
            ]
    if rows := [json.loads(line) for line in _lines(folder / "medqa_test_1273.jsonl")]:
        sets["MedQA"] = [row["question"] + "\n" + "\n".join(row["options"].values()) for row in rows]
    if cells := [line.split("\t") for line in _lines(folder / "icd10_zh_beijing_clinical_v601.tsv")]:
        sets["ICD-10 zh"] = [row[1].strip() for row in cells if len(row) > 1][::10]
    if (path := folder / "huatuogpt_o1_demo_198.json").is_file():
        keys = ("Open-ended Verifiable Question", "Ground-True Answer")
        sets["HuatuoGPT-o1"] = ["\n".join(row[key] for key in keys) for row in json.loads(path.read_text("utf-8"))]
    if rows := [json.loads(line)["OSCE_Examination"] for line in _lines(folder / "agentclinic_medqa.jsonl")]:
        sets["AgentClinic"] = ["\n".join(_strings(case)) for case in rows]
    return sets


def _strings(value: object) -> Iterator[str]:
    """Every text of a nested object."""
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _strings(inner)
