"""Whom `clinical-r1 forget --patient` means."""

from clinical_r1.records.config import PhiConfig
from clinical_r1.records.identity import load_key, need_key, patient_hash


def hash_of(patient: str, config: PhiConfig) -> str:
    """The patient's hash: of an identifier of the source system (needs the key), or the hash itself as given."""
    return patient_hash(need_key(load_key(config), config, "--patient"), patient)
