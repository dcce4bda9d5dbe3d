"""The specialty of a case by a stated mapping (specialty.yaml), which a user may replace."""

from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import Field, ValidationError

from clinical_r1.errors import Strict, UserError
from clinical_r1.schema import first_problem


class CodeRange(Strict):
    """Categories `A15-A16` (both ends included) that belong to one specialty."""

    range: str = Field(pattern=r"^[A-Z]\d\d-[A-Z]\d\d$")
    specialty: str


class MappingFile(Strict):
    """Form of specialty.yaml."""

    icd10: list[CodeRange] = Field(default_factory=list)
    aliases: dict[str, str] = Field(default_factory=dict)


@dataclass
class SpecialtyMapping:
    """Decides in the order: the row's own word, ICD-10 code, department."""

    ranges: list[tuple[str, str, str]]
    aliases: dict[str, str]

    def specialty(self, given: str, icd10: str, department: str) -> str:
        """`given` and `department` are free words; `icd10` is a normalised code or ""."""
        if given and given != "unknown":
            return self.aliases.get(given.casefold(), given)
        if icd10:
            for low, high, name in self.ranges:
                if low <= icd10[:3] <= high:
                    return name
        return self.aliases.get(department.strip().casefold(), "unknown")


def load_mapping(path: str = "") -> SpecialtyMapping:
    """The shipped mapping, or the user's; a malformed file is a UserError."""
    file = Path(path) if path else Path(__file__).with_name("specialty.yaml")
    if not file.is_file():
        raise UserError(
            f"{file}: no such file; give a specialty mapping in the form of clinical_r1/records/specialty.yaml"
        )
    try:
        data = MappingFile.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except yaml.YAMLError:
        raise UserError(f"{file}: malformed YAML; correct the specialty mapping") from None
    except ValidationError as error:
        raise UserError(f"{file}: not a specialty mapping: {first_problem(error)}") from None
    return SpecialtyMapping(
        ranges=[(*_ends(entry.range), entry.specialty) for entry in data.icd10],
        aliases={word.casefold(): name for word, name in data.aliases.items()},
    )


def _ends(text: str) -> tuple[str, str]:
    low, high = text.split("-")
    return low, high
