"""Groups of names that mean the same diagnosis, with the ICD-10 code of the group."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from clinical_r1.errors import UserError
from clinical_r1.verifier.icd import clean_code
from clinical_r1.verifier.normalise import normalise

OWN = Path(__file__).with_name("synonyms.tsv")


@dataclass(frozen=True)
class Synonyms:
    """Normalised name -> its groups, and the groups' codes. A short name may stand in several groups (PE, MS)."""

    groups: dict[str, frozenset[int]]
    codes: dict[int, str]

    def same(self, one: str, other: str) -> bool:
        """Do two normalised names share a group?"""
        return not self.groups.get(one, frozenset()).isdisjoint(self.groups.get(other, frozenset()))

    def code(self, name: str) -> str:
        """The code of a normalised name; empty where it has none, or more than one."""
        found = {self.codes[group] for group in self.groups.get(name, ()) if self.codes[group]}
        return found.pop() if len(found) == 1 else ""


@lru_cache(maxsize=8)
def load_synonyms(further: Path | None = None) -> Synonyms:
    """The project's own groups, and those of a user's file; raises UserError for a line that is none."""
    names: dict[str, set[int]] = {}
    codes: dict[int, str] = {}
    for path in (OWN, further) if further else (OWN,):
        if not path.is_file():
            raise UserError(f"{path}: no such file; `synonyms` names a file of groups such as `I21.9|heart attack|AMI`")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            code, *members = [part.strip() for part in line.split("|")]
            if not members or (code and not clean_code(code)):
                raise UserError(
                    f"{path}:{number}: not a synonym group; write an ICD-10 code (or nothing), |, and names"
                )
            group = len(codes)
            codes[group] = clean_code(code)
            for member in members:
                names.setdefault(normalise(member), set()).add(group)
    return Synonyms({name: frozenset(groups) for name, groups in names.items()}, codes)
