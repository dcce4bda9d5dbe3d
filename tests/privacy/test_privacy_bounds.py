"""No text holds the gate up: twice the input takes at most twice the time, and a note has a limit."""

import time
from collections.abc import Callable

import pytest

from clinical_r1.privacy.config import PhiConfig
from clinical_r1.privacy.gate import NoteTooSlowError, Record, open_gate, recognisers, time_limit
from clinical_r1.privacy.known import Known, KnownFinder
from clinical_r1.privacy.numbers import residue

# fmt: off
UNITS = ["0af3", "a", "A ", "Aa ", "1 ", "1.", "1-", "a.", "a@", "张伟", "在北京市朝阳区", "签名：张 ", "九十",
         "Mr. Zed ", "lives in ", "12 Zed ", "(1-2) ", "MRN: 1 ", "one ", "/a", "1:", " ", "_"]
# fmt: on
FINDERS: dict[str, Callable[[str], object]] = {
    **{name: (lambda text, find=find: list(find(text))) for name, find in recognisers(None).items()},
    "residue": residue,
    "known": lambda text: list(KnownFinder(Known(["Ana Li-Zed", "张伟"], ["11111112", "00af30"])).find(text)),
}


def cost(find: Callable[[str], object], text: str) -> float:
    begun = time.process_time()
    find(text)
    return time.process_time() - begun


@pytest.mark.parametrize("name", FINDERS)
def test_no_recogniser_is_superlinear(name: str) -> None:
    """A quadratic one took 13 s for 16 kB of hexadecimal digits; here eight times the input may take 24 times as long,
    where noise is below what a quadratic one (64 times) shows."""
    for unit in UNITS:
        small, large = unit * (2_000 // len(unit)), unit * (16_000 // len(unit))
        once = min(cost(FINDERS[name], small) for _ in range(2))
        # A busy machine makes a run dearer, never cheaper: one of three is enough.
        assert any(cost(FINDERS[name], large) < 24 * once + 0.2 for _ in range(3)), f"{name} on {unit!r}"


def test_a_note_has_a_time_limit() -> None:
    with pytest.raises(NoteTooSlowError), time_limit(0.05):
        while True:
            pass
    with time_limit(60):
        pass


def test_a_slow_note_is_an_error_that_holds_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*args: object, **kwargs: object) -> None:
        time.sleep(5)

    monkeypatch.setattr("clinical_r1.privacy.gate.scrub", slow)
    gate = open_gate(PhiConfig(seconds_per_note=0.05), b"k" * 16, set())
    with pytest.raises(NoteTooSlowError) as raised:
        gate.pass_through(Record("a:1", {"question": "the secret", "reference": "x"}))
    assert "secret" not in str(raised.value)


def test_every_text_of_a_case_is_looked_at() -> None:
    gate = open_gate(PhiConfig(), b"k" * 16, set())
    fields = {
        "question": "Mr. Voss coughs.",
        "reference": "Angina in Petra Voss",
        "references": ["Angina in Petra Voss"],
        "options": ["Voss", "Asthma"],
        "source": "notes of Petra Voss",
        "specialty": "Dr. Voss's clinic",
    }
    gated = gate.pass_through(Record("a:1", fields, known=Known(names=["Petra Voss"])))
    assert "Voss" not in str(gated.fields) and gated.fields["options"][1] == "Asthma" and not gated.doubts
