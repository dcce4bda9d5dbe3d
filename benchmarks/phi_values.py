"""Values for `measure`: Faker and plain random numbers, and the ways in which people (or adversaries) disguise them."""

import random
import string
from datetime import date

from clinical_r1.errors import UserError
from clinical_r1.privacy.known import Known

_WIDE = {ord(char): chr(ord(char) + 0xFEE0) for char in string.digits + string.ascii_letters + "-@.:/()"}
_CYRILLIC = str.maketrans("aeopcxyABEKMHOPCTX", "аеорсхуАВЕКМНОРСТХ")
_ARABIC = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")
_MONTHS = "January February March April May June July August September October November December".split()  # noqa: SIM905


class Values:
    """One language's values; reproducible by seed."""

    def __init__(self, language: str, seed: int) -> None:
        try:
            from faker import Faker
        except ImportError:
            raise UserError("measuring the PHI gate needs the package faker; install the extra `dev`") from None
        self._zh = language == "zh"
        self._fake = Faker("zh_CN" if self._zh else "en_US")
        self._fake.seed_instance(seed)
        self._rng = random.Random(seed)

    def draw(self, slot: str) -> tuple[str, Known]:
        """A value for a slot, and what structured fields would tell of it (for names)."""
        if "name" in slot:
            return self._name(slot)
        make = getattr(self, f"_{slot}", None)
        value = make() if make else str(getattr(self._fake, slot)())
        return value.replace("\n", ", "), Known()

    def _name(self, slot: str) -> tuple[str, Known]:
        first, last = self._fake.first_name(), self._fake.last_name()
        if self._zh:
            while slot == "given_name" and len(first) < 2:
                first = self._fake.first_name()
            return (first if slot == "given_name" else last + first), Known(names=[last + first])
        shown = {
            "first_name": first,
            "last_name": last,
            "last_name_first": f"{last}, {first}",
            "upper_name": f"{first} {last}".upper(),
            "lower_name": f"{first} {last}".lower(),
            "initial_name": f"{first[0]}. {last}",
        }
        return shown.get(slot, f"{first} {last}"), Known(names=[f"{first} {last}"])

    def _number(self, low: int, high: int) -> str:
        length = self._rng.randint(low, high)
        return str(self._rng.randint(1, 9)) + "".join(self._rng.choice(string.digits) for _ in range(length - 1))

    def _letters(self, count: int) -> str:
        return "".join(self._rng.choice(string.ascii_uppercase) for _ in range(count))

    def _date(self) -> str:
        day: date = self._fake.date_between(date(1950, 1, 1), date(2024, 12, 31))
        if self._zh:
            forms = [f"{day.year}年{day.month}月{day.day}日", f"{day:%Y-%m-%d}", f"{day:%Y/%m/%d}", f"{day:%Y.%m.%d}"]
            return self._rng.choice([*forms, f"{day.year}年{day.month:02d}月{day.day:02d}日"])
        month = _MONTHS[day.month - 1]
        forms = [
            f"{day:%m/%d/%Y}",
            f"{day:%Y-%m-%d}",
            f"{month} {day.day}, {day.year}",
            f"{day.day} {month[:3]} {day.year}",
        ]
        return self._rng.choice([*forms, f"{day:%m-%d-%Y}", f"{day:%m/%d/%y}", f"{month[:3]} {day.day}, {day.year}"])

    def _old_age(self) -> str:
        return str(self._rng.randint(90, 108))

    def _phone(self) -> str:
        return self._fake.phone_number()

    def _landline(self) -> str:
        area = self._rng.choice(("010", "021", "0571", "0755", "028"))
        return f"{area}-{self._rng.randint(2, 8)}{self._number(7, 7) if len(area) == 3 else self._number(6, 6)}"

    def _resident_id(self) -> str:
        return self._fake.ssn()

    def _mrn(self) -> str:
        return self._rng.choice(
            (self._number(7, 10), "0" + self._number(6, 8), f"{self._letters(1)}{self._number(7, 8)}")
        )

    def _accession(self) -> str:
        return self._rng.choice((f"{self._letters(2)}{self._number(6, 8)}", self._number(8, 10)))

    def _plan(self) -> str:
        return self._rng.choice((f"{self._letters(3)}{self._number(9, 9)}", self._number(9, 12)))

    def _account(self) -> str:
        return self._number(8, 12)

    def _card(self) -> str:
        return self._fake.credit_card_number()

    def _license(self) -> str:
        return self._rng.choice((f"{self._letters(1)}{self._number(7, 8)}", self._number(9, 12)))

    def _dea(self) -> str:
        return f"{self._letters(2)}{self._number(7, 7)}"

    def _passport(self) -> str:
        return f"{self._letters(1)}{self._number(8, 8)}"

    def _plate(self) -> str:
        return self._fake.license_plate()

    def _serial(self) -> str:
        return self._rng.choice((f"{self._letters(3)}{self._number(6, 8)}", self._number(8, 12)))

    def _biometric(self) -> str:
        return f"{self._letters(2)}{self._number(8, 12)}"

    def _photo(self) -> str:
        return f"{self._fake.user_name()}_{self._number(3, 5)}.{self._rng.choice(('jpg', 'png', 'dcm'))}"

    def _wechat(self) -> str:
        return f"{self._fake.user_name()}_{self._number(3, 4)}"

    def _other_id(self) -> str:
        return f"{self._letters(2)}-{self._number(6, 8)}"

    def _mac(self) -> str:
        return self._fake.mac_address()


def disguise(value: str, style: str, slot: str, rng: random.Random) -> str:
    """The value as someone might type it; styles that make no sense for a slot leave it plain."""
    if style == "spaced":
        return _spaced(value, slot, rng)
    if style == "fullwidth":
        return value.translate(_WIDE)
    if style == "mixed":
        return value.translate(_ARABIC if rng.random() < 0.3 and slot not in ("address",) else _CYRILLIC)
    if style == "invisible":
        return "\u200b".join(value)
    return value


def _spaced(value: str, slot: str, rng: random.Random) -> str:
    if slot in ("address", "url", "photo", "ipv6", "mac", "old_age"):
        return value
    if slot == "email":
        return value.replace("@", rng.choice((" @ ", " (at) ", "@ "))).replace(".", rng.choice((".", " . ")))
    if slot == "date":
        return value.replace("-", " - ").replace("/", " / ").replace("年", " 年 ").replace("月", " 月 ")
    if "name" in slot:
        return " ".join(value) if any(c >= "\u3400" for c in value) else value.replace(" ", "  ")
    if slot == "plate":
        return " ".join(value.split())
    gap = rng.choice((" ", "-", " ", "."))
    size = rng.choice((1, 4, 3, 2))
    return gap.join(value[i : i + size] for i in range(0, len(value), size))
