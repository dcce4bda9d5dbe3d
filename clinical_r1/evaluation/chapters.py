"""Chapters of WHO ICD-10 by their first category."""

_STARTS = (
    ("A00", "I"), ("C00", "II"), ("D50", "III"), ("E00", "IV"), ("F00", "V"), ("G00", "VI"), ("H00", "VII"),
    ("H60", "VIII"), ("I00", "IX"), ("J00", "X"), ("K00", "XI"), ("L00", "XII"), ("M00", "XIII"), ("N00", "XIV"),
    ("O00", "XV"), ("P00", "XVI"), ("Q00", "XVII"), ("R00", "XVIII"), ("S00", "XIX"), ("U00", "XXII"), ("V00", "XX"),
    ("Z00", "XXI"),
)  # fmt: skip


def chapter(icd10: str) -> str:
    """WHO ICD-10 chapter (roman numeral) of a code; "unknown" where there is none."""
    category = icd10.strip().upper()[:3]
    if len(category) < 3 or not category[0].isalpha() or not category[1].isdigit():
        return "unknown"
    found = "unknown"
    for start, name in _STARTS:
        if category >= start:
            found = name
    return found
