"""Which cases belong to a patient: the first step of `clinical-r1 forget --patient`."""

from pathlib import Path

from clinical_r1.records.config import PhiConfig
from clinical_r1.records.identity import load_key, need_key, patient_hash
from clinical_r1.schema import SPLITS, Case, iter_jsonl


def hash_of(patient: str, config: PhiConfig) -> str:
    """The patient's hash: of an identifier of the source system (needs the key), or the hash itself as given."""
    return patient_hash(need_key(load_key(config), config, "--patient"), patient)


def cases_of_patient(records: Path, patient: str) -> dict[str, list[str]]:
    """Case ids by split in a folder that `prepare` wrote, for a patient hash; empty lists where there are none."""
    return {
        name: [case.id for case in iter_jsonl(records / f"{name}.jsonl", Case) if case.patient == patient]
        for name in SPLITS
    }
