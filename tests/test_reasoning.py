"""The one truth about <think>: outcomes, every cut of every tag, and properties over generated outputs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical_r1.reasoning import (
    CLOSE,
    OPEN,
    Outcome,
    Split,
    Splitter,
    conclusion_line,
    count_reasoning_tokens,
    render,
    split,
    with_conclusion,
)

TABLE = [
    # output, opened by the template, thinking, response, outcome
    ("<think>\na\n</think>\n\nb", False, "a", "b", Outcome.OK),
    ("  <think>a</think>b", False, "a", "b", Outcome.OK),
    ("a\n</think>\n\nb", True, "a", "b", Outcome.OK),
    ("<think>a < b <thin > </thinking></think>b", False, "a < b <thin > </thinking>", "b", Outcome.OK),
    ("b", False, "", "b", Outcome.NO_THINK),
    ("2 < 3 <b>x</b>", False, "", "2 < 3 <b>x</b>", Outcome.NO_THINK),
    ("<THINK>a</THINK>b", False, "", "<THINK>a</THINK>b", Outcome.NO_THINK),
    ("<think>\n\n</think>\n\nb", False, "", "b", Outcome.EMPTY_THINK),
    ("</think>b", True, "", "b", Outcome.EMPTY_THINK),
    ("<think>a", False, "a", "", Outcome.UNCLOSED),
    ("<think>a</thin", False, "a</thin", "", Outcome.UNCLOSED),
    ("a", True, "a", "", Outcome.UNCLOSED),
    ("<think>a</think>b<think>c", False, "ac", "b", Outcome.UNCLOSED),
    ("<think>a</think>\n", False, "a", "", Outcome.NO_ANSWER),
    ("", False, "", "", Outcome.NO_ANSWER),
    (" \n", False, "", "", Outcome.NO_ANSWER),
    ("<think></think>", False, "", "", Outcome.NO_ANSWER),
    ("x<think>a</think>b", False, "a", "xb", Outcome.MULTIPLE),
    ("<think>a</think>b</think>c", False, "a", "bc", Outcome.MULTIPLE),
    ("<think>a<think>b</think>c", False, "ab", "c", Outcome.MULTIPLE),
    ("<think>a</think><think>b</think>c", False, "ab", "c", Outcome.MULTIPLE),
    ("</think>b", False, "", "b", Outcome.MULTIPLE),
    ("<think>体温 39°</think>流感🤒", False, "体温 39°", "流感🤒", Outcome.OK),
]


@pytest.mark.parametrize(("text", "opened", "thinking", "response", "outcome"), TABLE)
def test_table_under_every_cut(text: str, opened: bool, thinking: str, response: str, outcome: Outcome) -> None:
    expected = Split(thinking, response, outcome)
    assert split(text, opened) == expected
    data = text.encode()
    # Every pair of byte positions cuts every tag and every character at every place.
    for first in range(len(data) + 1):
        for second in range(first, len(data) + 1):
            splitter = Splitter(opened)
            pieces = [
                p for part in (data[:first], data[first:second], data[second:]) for p in splitter.feed_bytes(part)
            ]
            rest, got = splitter.finish()
            assert got == expected
            joined = {part: "".join(t for p, t in (*pieces, *rest) if p == part) for part in ("thinking", "answer")}
            assert joined == {"thinking": thinking, "answer": response}


def test_an_aborted_output_keeps_its_parts() -> None:
    assert split("<think>a</think>b", aborted=True) == Split("a", "b", Outcome.ABORTED)


def test_render_is_read_back() -> None:
    assert split(render(" a\n", "b ")) == Split("a", "b", Outcome.OK)


def test_bytes_that_end_inside_a_character() -> None:
    splitter = Splitter()
    splitter.feed_bytes("<think>流".encode()[:-1])
    assert splitter.finish()[1] == Split("�", "", Outcome.UNCLOSED)


outputs = st.lists(
    st.one_of(
        st.sampled_from([OPEN, CLOSE, "<", "</", "<thi", "think>", " ", "\n", "\n\n", "é", "流感", "🤒", "a", "b c"]),
        st.text(max_size=6),
    ),
    max_size=12,
).map("".join)


@given(outputs, st.booleans(), st.data())
@settings(max_examples=1000, deadline=None)
def test_no_portioning_changes_anything(text: str, opened: bool, data: st.DataObject) -> None:
    whole = split(text, opened)
    raw = text.encode("utf-8", "replace")
    if raw.decode() != text:
        return
    reference = Splitter(opened)
    reference.feed(text)
    reference.finish()
    for _ in range(5):
        cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
        splitter = Splitter(opened)
        pieces = []
        for start, stop in zip([0, *cuts], [*cuts, len(raw)], strict=True):
            pieces += splitter.feed_bytes(raw[start:stop])
        rest, got = splitter.finish()
        pieces += rest
        assert got == whole
        assert "".join(t for p, t in pieces if p == "thinking") == whole.thinking
        assert "".join(t for p, t in pieces if p == "answer") == whole.response
        assert splitter.thought_spans == reference.thought_spans
        assert splitter.tag_spans == reference.tag_spans


@given(outputs, st.booleans())
@settings(max_examples=1000, deadline=None)
def test_spans_cover_the_text_and_carry_the_parts(text: str, opened: bool) -> None:
    splitter = Splitter(opened)
    splitter.feed(text)
    result = splitter.finish()[1]
    assert all(text[a:b] in (OPEN, CLOSE) for a, b in splitter.tag_spans)
    thoughts = "".join(text[a:b] for a, b in splitter.thought_spans)
    assert [c for c in thoughts if not c.isspace()] == [c for c in result.thinking if not c.isspace()]
    edges = [at for span in splitter.thought_spans for at in span]
    assert edges == sorted(edges)
    assert result.thinking == result.thinking.strip() or result.outcome is Outcome.MULTIPLE


@given(st.lists(st.sampled_from([1, 2, 10, 11]), max_size=20), st.booleans())
@settings(max_examples=300, deadline=None)
def test_token_count_is_what_lies_between_the_tags(ids: list[int], opened: bool) -> None:
    names = {1: OPEN, 2: CLOSE, 10: "x", 11: "y"}
    splitter = Splitter(opened)
    splitter.feed("".join(names[i] for i in ids))
    splitter.finish()
    spans = splitter.thought_spans
    assert count_reasoning_tokens(ids, 1, 2, opened) == sum(b - a for a, b in spans)


@pytest.mark.parametrize(
    ("response", "conclusion"),
    [
        ("Fever and crackles.\n\nFinal diagnosis: Pneumonia", "Pneumonia"),
        ("**Final diagnosis:** Pneumonia", "Pneumonia"),
        ("**Final Diagnosis: Pneumonia**", "Pneumonia"),
        ("**Final diagnosis**: **Pneumonia**", "Pneumonia"),
        ("### Final diagnosis: Pneumonia\n\nBecause of the crackles.", "Pneumonia"),
        ("### Final Diagnosis\n\nPneumonia\n\nBecause of the crackles.", "Pneumonia"),
        ("> final answer: C", "C"),
        ("- Final answer：C. Aspirin", "C. Aspirin"),
        ("Final diagnosis: Gout\nNo, rather:\nFinal diagnosis: Pneumonia", "Pneumonia"),
        ("Final diagnosis:\n1. Pneumonia\n2. Gout\n\nBecause.", "1. Pneumonia\n2. Gout"),
        ("分析如下。\n\n最终诊断：肺炎", "肺炎"),
        ("**最终诊断：**肺炎", "肺炎"),
        ("最終診斷: 肺炎", "肺炎"),
        ("最终答案：C", "C"),
        ("## 最终诊断\n肺炎", "肺炎"),
        ("The final diagnosis is pneumonia.", None),
        ("Our final diagnosis: Pneumonia", None),
        ("Final diagnosis:", None),
        ("", None),
    ],
)
def test_the_conclusion_line(response: str, conclusion: str | None) -> None:
    assert conclusion_line(response) == conclusion


def test_the_conclusion_is_written_once_as_the_last_line() -> None:
    written = with_conclusion("Crackles.\n", "Pneumonia", "en")
    assert written == "Crackles.\n\nFinal diagnosis: Pneumonia"
    assert with_conclusion(written, "Pneumonia", "en") == written
    assert with_conclusion("分析。\n**最终诊断：痛风**", "肺炎", "zh") == "分析。\n\n最终诊断：肺炎"
    assert with_conclusion("", "C", "en", "answer") == "Final answer: C"
    assert with_conclusion("理由。", "C", "zh", "answer").endswith("\n\n最终答案：C")


@settings(max_examples=200)
@given(
    st.text(), st.from_regex(r"[A-Za-z\u4e00-\u9fff][A-Za-z0-9\u4e00-\u9fff ]{0,20}[a-z\u4e00-\u9fff]", fullmatch=True)
)
def test_what_is_written_as_conclusion_is_read_as_conclusion(response: str, conclusion: str) -> None:
    for language in ("en", "zh"):
        written = with_conclusion(response, conclusion, language)
        assert conclusion_line(written) == " ".join(conclusion.split())
