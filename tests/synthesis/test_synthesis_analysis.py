"""Chain analysis: measures that mean what they say, effects with the right sign, a report that stands alone."""

import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clinical_r1.errors import UserError
from clinical_r1.schema import Attempt, Strategy, Trace, TraceOutcome, Verdict, VerdictLabel, write_jsonl
from clinical_r1.synthesis.analysis import (
    Row,
    analyse,
    compare,
    findings,
    first_mention,
    lexical_diversity,
    ungrounded_findings,
)
from clinical_r1.synthesis.text import self_corrections, transitions, units
from pipelines.cli.main import app

THOUGHTS = {
    "en": [
        "Okay, fever and cough come first",
        "Also, the rash is new",
        "Hmm, maybe it is the lungs",
        "The dose is fine",
    ],
    "zh": ["好的，先看发热和咳嗽", "另外，皮疹是新出现的", "嗯，可能是肺部的问题", "剂量没有问题"],
}


def trace(
    case: int, language: str = "en", length: int = 4, waits: int = 0, guided: bool = False, seed: int = 0
) -> Trace:
    rng = random.Random(f"{case}-{seed}")
    stop, answer = (". ", "pneumonia") if language == "en" else ("。", "肺炎")
    parts = [rng.choice(THOUGHTS[language]) for _ in range(length + rng.randrange(3))]
    parts += ["Wait, check that again" if language == "en" else "等等，再核对一下"] * waits
    parts.append(f"So {answer}" if language == "en" else f"所以是{answer}")
    verdict = Verdict(label=VerdictLabel.CORRECT, judge="x")
    strategy = Strategy.GUIDED if guided else Strategy.INITIAL
    return Trace(
        case_id=f"case-{case}",
        language=language,  # type: ignore[arg-type]
        question="A man with fever and cough." if language == "en" else "男性，发热、咳嗽。",
        reference=answer,
        thinking=stop.join(parts) + stop.strip(),
        response=answer,
        attempts=[Attempt(strategy=strategy, reasoning="r", answer=answer, verdict=verdict)],
        outcome=TraceOutcome.GUIDED if guided else TraceOutcome.DIRECT,
    )


def row(rows: list[Row], name: str) -> Row:
    return next(r for r in rows if r.name == name)


def test_units_count_words_and_characters() -> None:
    assert len(units("A 3.5 cm mass, patient's own.")) == 6
    assert len(units("体温38.5℃，咳嗽。")) == 5


@pytest.mark.parametrize(
    ("language", "text", "words", "turns"),
    [
        (
            "en",
            "Hmm, fever. Also cough. Wait, let me check that again. So pneumonia, also.",
            {"hmm", "also", "wait"},
            2,
        ),
        ("zh", "嗯，发热。另外有咳嗽。等等，不对，重新看。所以是肺炎。", {"嗯", "另外", "等等", "所以"}, 3),
    ],
)
def test_small_words_of_thinking(language: str, text: str, words: set[str], turns: int) -> None:
    assert words <= set(transitions(text, language))  # type: ignore[arg-type]
    assert self_corrections(text, language) == turns  # type: ignore[arg-type]


def test_findings_are_known_by_several_names_in_both_languages() -> None:
    assert findings("Short of breath? No: shortness of breath and dyspnoea.") == findings("呼吸困难")
    assert ungrounded_findings(trace(0).model_copy(update={"thinking": "fever, cough, jaundice"})) == 1
    assert ungrounded_findings(trace(0, "zh").model_copy(update={"thinking": "发热、黄疸、呕吐"})) == 2


def test_first_mention_is_a_position_or_none() -> None:
    assert first_mention(trace(1)) == 1.0
    early = trace(1).model_copy(update={"thinking": "Pneumonia at once. Fever. Cough. Done."})
    assert first_mention(early) == 0.0
    assert first_mention(trace(1).model_copy(update={"thinking": "Fever. Cough."})) is None
    chain = trace(1).model_copy(update={"thinking": "Pain. A heart attack? ECG. Done."})
    chain.attempts[-1] = chain.attempts[-1].model_copy(update={"answer": "Acute myocardial infarction"})
    assert first_mention(chain) == pytest.approx(1 / 3)


def test_lexical_diversity_does_not_depend_on_length() -> None:
    words = [f"w{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(60)]
    short = trace(0).model_copy(update={"thinking": " ".join(words)})
    long = trace(0).model_copy(update={"thinking": " ".join(words * 5)})
    assert lexical_diversity(short) == lexical_diversity(long) == 1.0


@pytest.mark.parametrize("language", ["en", "zh"])
def test_effects_have_sign_interval_and_significance(language: str) -> None:
    a = [trace(n, language) for n in range(120)]
    b = [trace(n, language, length=7, waits=n % 3, guided=n % 3 == 0, seed=1) for n in range(120)]
    section = compare(a, b, ("a", "b")).sections[0]
    assert section.shared_cases == 120
    for name in ("thinking_units", "self_corrections", "guided"):
        measured = row(section.rows, name)
        assert measured.effect is not None
        assert measured.effect > 0.5
        assert measured.effect_interval is not None
        assert 0 < measured.effect_interval[0] < measured.effect < measured.effect_interval[1]
        assert measured.p_holm < 0.001
    assert row(section.rows, "guided").difference == pytest.approx(1 / 3, abs=0.01)
    assert section.strategies["guided"][0] == 0


def test_datasets_that_do_not_differ_show_no_effect() -> None:
    a = [trace(n) for n in range(150)]
    b = [trace(n, seed=1) for n in range(150, 300)]
    for measured in compare(a, b, ("a", "b")).sections[0].rows:
        assert measured.effect_interval is not None
        assert measured.effect_interval[0] <= 0 <= measured.effect_interval[1]
        assert measured.p_holm > 0.05


def test_languages_are_compared_apart_and_across_only_with_a_warning(tmp_path: Path) -> None:
    mixed = [trace(n, "en" if n % 2 else "zh") for n in range(40)]
    assert [section.title for section in compare(mixed, mixed, ("a", "b")).sections] == ["English", "Chinese"]
    across = compare([trace(n) for n in range(20)], [trace(n, "zh") for n in range(20)], ("a", "b")).sections
    assert across[0].across_languages


def test_report_stands_alone_and_holds_no_record_text(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_jsonl(tmp_path / name / "traces.jsonl", [trace(n, seed=len(name)) for n in range(30)])
    arguments = [str(tmp_path / name / "traces.jsonl") for name in ("one", "two")]
    done = CliRunner().invoke(app, ["chains", *arguments, "--out", str(tmp_path / "report")])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "report/chains.html").read_text()
    assert "one (A) and two (B)" in page
    assert "<svg" in page
    assert "://" not in page
    assert "A man with fever" not in page
    first = (tmp_path / "report/chains.json").read_text()
    analyse(tmp_path / "one/traces.jsonl", tmp_path / "two/traces.jsonl", tmp_path / "report")
    assert (tmp_path / "report/chains.json").read_text() == first


def test_wrong_input(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no accepted traces"):
        compare([], [trace(1)], ("a", "b"))
    with pytest.raises(UserError, match="no such file"):
        analyse(tmp_path / "a.jsonl", tmp_path / "b.jsonl", tmp_path)
