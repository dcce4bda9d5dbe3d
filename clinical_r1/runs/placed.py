"""Where and how a run's steps run: what each of these parameters may be, and the fix, for all three doors.

They are no part of a configuration; a wrong one would meet its end in a pod that nobody can make, or after training.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from clinical_r1.errors import UserError

ARMS_AT_ONCE = 2
"""Arms of an experiment that are trained and evaluated at a time."""
_NAME = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
_OBJECT = (_NAME, "write the name of an object in the namespace: small letters, digits, dashes and dots")
_CPU = (r"(?!0+(\.0+)?m?$)([0-9]+(\.[0-9]+)?|[0-9]+m)", "write processors above 0, such as 500m or 4")
_BYTES = (
    r"(?!0+(\.0+)?[A-Za-z])[0-9]+(\.[0-9]+)?[kMGTPE]i?",
    "write a quantity above 0 with its unit, such as 512Mi or 32Gi",
)
RULES: dict[str, tuple[str, str]] = {
    "deploy": ("none|dark|replicas", "write none, dark or replicas"),
    "model_name": (r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", "write small letters, digits and dashes, at most 63"),
    "models_uri": (r"(s3://[a-z0-9][a-z0-9.-]*/[^\s?#]+|/\S+)?", "write s3://BUCKET/models, or leave it empty"),
    "image": (r"[^\s@]+(@sha256:[0-9a-f]{64})?", "write an image with its tag or digest, without spaces"),
    "accelerator": (r"([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", "write a resource, as nvidia.com/gpu"),
    "accelerators": ("[0-9]{1,4}", "write a whole number, 0 for none"),
    "cpu": _CPU,
    "data_cpu": _CPU,
    "memory": _BYTES,
    "data_memory": _BYTES,
    "storage_size": (f"({_BYTES[0]})?", _BYTES[1] + ", or leave it empty"),
    "storage_class": (f"({_NAME})?", _OBJECT[1].replace(" in the namespace", "") + ", or leave it empty"),
    **dict.fromkeys(("claim", "image_pull_secret", "store_secret", "endpoint_secret", "patient_secret"), _OBJECT),
    **dict.fromkeys(("client_key_secret", "ca_config_map"), _OBJECT),
}
"""Parameter -> (what the whole of its text has to match, the fix)."""
_LABEL = r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_TAINT = {"key", "operator", "value", "effect", "tolerationSeconds"}
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute", "")


def check_placed(given: Mapping[str, Any]) -> None:
    """Raise UserError for a parameter that no cluster could do anything with; other parameters are left alone."""
    for name, value in given.items():
        if problem := _problem(name, value):
            raise UserError(f"parameter {name}: {value}: {problem}")


def _problem(name: str, value: Any) -> str:
    if name in RULES:
        pattern, fix = RULES[name]
        good = isinstance(value, str) and len(value) <= 253 and bool(re.fullmatch(pattern, value, re.ASCII))
        return "" if good else fix
    if name == "nodes":
        return "" if float(value).is_integer() and 1 <= value <= 1024 else "write a whole number from 1 to 1024"
    if name == "deadline_hours":
        return "" if math.isfinite(value) and value > 0 else "write a number of hours above 0"
    if name == "node_selector":
        good = all(
            re.fullmatch(_LABEL, key) and isinstance(one, str) and re.fullmatch(f"({_LABEL})?", one)
            for key, one in value.items()
        )
        return "" if good else 'write labels of nodes as JSON, such as {"gpu": "h100"}'
    if name == "tolerations":
        good = all(isinstance(one, Mapping) and _tolerates(one) for one in value)
        return "" if good else 'write taints as a JSON list, such as [{"key": "gpu", "operator": "Exists"}]'
    return ""


def _tolerates(one: Mapping[str, Any]) -> bool:
    known = one.keys() <= _TAINT and one.get("effect", "") in _EFFECTS
    known &= all(isinstance(told, (int, float) if key == "tolerationSeconds" else str) for key, told in one.items())
    exists = one.get("operator", "Equal") == "Exists"
    return known and (exists or (one.get("operator", "Equal") == "Equal" and bool(one.get("key"))))
