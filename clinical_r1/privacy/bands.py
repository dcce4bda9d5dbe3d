"""Age bands: ten years wide, 90 and over in one (Safe Harbor)."""

import re


def age_band(age: int) -> str:
    """Ten-year band; 90 and over is one band."""
    return "90+" if age >= 90 else f"{age // 10 * 10}-{age // 10 * 10 + 9}"


def safe_age_band(text: str) -> str:
    """A band as given; a bare age becomes its band; anything that starts at 90 or more is folded."""
    match = re.match(r"\s*(\d{1,3})", text)
    if not match:
        return ""
    return age_band(int(match.group(1))) if text.strip().isdigit() or int(match.group(1)) >= 90 else text.strip()[:8]
