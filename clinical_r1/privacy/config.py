"""What the PHI gate can be told: a section of every configuration that reads records, and the key that it names.

With the key a patient's number in the source system becomes `p-` + 20 hex digits, redone by the key alone.
"""

import hashlib
import hmac
import os
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from clinical_r1.errors import UserError
from clinical_r1.settings import Names
from clinical_r1.strict import Strict
from clinical_r1.text import Language

DEFAULT_KEY_ENV = "CLINICAL_R1_PATIENT_KEY"


class PhiConfig(Strict):
    """The gate before any text leaves. Off is a stated choice."""

    policy: Literal["scrub", "off"] = "scrub"
    """scrub: identifiers are removed, doubtful records are kept back. off: text is left as it is, a stated choice."""
    off_because: Literal["", "synthetic", "public", "trusted_endpoints"] = ""
    """Required with policy off: the data are synthetic, public, or all endpoints are declared trusted."""
    key_env: str = DEFAULT_KEY_ENV
    """Environment variable with the secret behind patient hashes and date shifts."""
    key_file: str = ""
    """Or a file with that secret; wins over the variable."""
    shift_days: int = Field(default=365, ge=1, le=3650)
    """Dates of one patient move together by a keyed offset of 1..shift_days days back."""
    ner_models: Annotated[dict[Language, str], Names.FILES] = Field(default_factory=dict)
    """Language -> folder of a spaCy model for presidio-analyzer (extra `privacy`), supplied by the user: it finds names
    that no list and no cue tells; a model reads the notes of its language only. Empty: own recognisers alone."""
    ner_threshold: float = Field(default=0.6, ge=0, le=1)
    """Names found by the model with less confidence send the record to quarantine."""
    seconds_per_note: float = Field(default=60, ge=0)
    """A note that takes longer is rejected (0: no limit)."""
    names: list[str] = Field(default_factory=list)
    """Further names to scrub everywhere (staff, departments' nicknames)."""

    @model_validator(mode="after")
    def _stated(self) -> Self:
        if self.policy == "off" and not self.off_because:
            raise ValueError("phi.policy off needs phi.off_because: synthetic, public or trusted_endpoints")
        return self


SYNTHETIC_KEY = b"clinical-r1: synthetic and public data only"
"""The stated default key; refused where the data are real (phi.policy scrub)."""
_HASHED = re.compile(r"^p-[0-9a-f]{20}$")
_MIN_KEY_BYTES = 16


def load_key(config: PhiConfig) -> bytes | None:
    """The secret from file or environment; the default key for synthetic and public data; None for real data else."""
    if config.key_file:
        file = Path(config.key_file)
        if not file.is_file():
            raise UserError(f"{file}: no such key file; give phi.key_file or set {config.key_env}")
        key = file.read_bytes().strip()
    else:
        key = os.environ.get(config.key_env, "").encode()
    if key and len(key) < _MIN_KEY_BYTES:
        raise UserError(f"{config.key_file or config.key_env}: the patient key is shorter than {_MIN_KEY_BYTES} bytes")
    if not key and config.policy == "off" and config.off_because != "trusted_endpoints":
        return SYNTHETIC_KEY
    return key or None


def need_key(key: bytes | None, config: PhiConfig, place: str) -> bytes:
    """The key, or a UserError: real identifiers are never hashed with a public key."""
    if key is None:
        raise UserError(
            f"{place}: the record has a patient identifier but there is no key to hash it; set {config.key_env} "
            "(a secret of at least 16 bytes) or phi.key_file"
        )
    return key


def patient_hash(key: bytes, patient_id: str) -> str:
    """Keyed hash of a source identifier; a value that is such a hash already is kept."""
    return patient_id if _HASHED.match(patient_id) else "p-" + keyed(key, "patient", patient_id)[:20]


def hash_of(patient: str, config: PhiConfig) -> str:
    """The patient's hash: of an identifier of the source system (needs the key), or the hash itself as given."""
    return patient_hash(need_key(load_key(config), config, "--patient"), patient)


def keyed(key: bytes, purpose: str, value: str) -> str:
    """HMAC-SHA256 hex digest of `value`, separated by purpose."""
    return hmac.new(key, f"{purpose}\x1f{value}".encode(), hashlib.sha256).hexdigest()
