"""Garbage from the engine raises one thing; counting by each method."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_engine import CLOSE_ID, OPEN_ID

from clinical_r1.errors import UserError
from serving.gateway.counting import Count, IdCounter, TokenizerCounter, share_gap
from serving.gateway.observer import AnswerObserver, Thinks, reconcile
from serving.gateway.rewrite import BadAnswerError, StreamRewriter, splice, unary
from serving.gateway.upstream import EventReader

THINKS = Thinks(tag_ids=(OPEN_ID, CLOSE_ID))


@given(st.binary(max_size=200), st.integers(1, 50))
@settings(max_examples=300, deadline=None)
def test_garbage_events_raise_one_thing(data: bytes, step: int) -> None:
    rewriter = StreamRewriter([AnswerObserver(THINKS)])
    reader = EventReader()
    for at in range(0, len(data), step):
        for event in reader.feed(data[at : at + step]):
            try:
                rewriter.event(event, 1.0)
            except BadAnswerError:
                return


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "delta", "index", "content", "token_ids", "usage"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(json_values)
@settings(max_examples=500, deadline=None)
def test_odd_json_raises_one_thing(value: Any) -> None:
    for call in (
        lambda: StreamRewriter([AnswerObserver(THINKS)]).event(json.dumps(value).encode(), 1.0),
        lambda: unary(json.dumps(value).encode(), [AnswerObserver(THINKS)], 1.0),
    ):
        try:
            call()
        except BadAnswerError:
            continue


@given(st.lists(st.text(alphabet="ab\n:", max_size=10), max_size=6), st.integers(1, 9), st.booleans())
@settings(max_examples=200, deadline=None)
def test_event_reader_does_not_care_about_cuts(lines: list[str], step: int, crlf: bool) -> None:
    wanted = [json.dumps(line).encode() for line in lines]
    end = b"\r\n" if crlf else b"\n"
    raw = b"".join(b": comment" + end + b"event: x" + end + b"data: " + data + end + end for data in wanted)
    reader = EventReader()
    got = [event for at in range(0, len(raw), step) for event in reader.feed(raw[at : at + step])]
    assert got == wanted


def test_splice_touches_nothing_inside_strings() -> None:
    raw = json.dumps({"choices": [{"delta": {"content": 'x,"token_ids":[1]"content":"y'}, "token_ids": [1, 2]}]})
    raw = raw.replace(", ", ",").replace(": ", ":")
    out = json.loads(splice(raw.encode(), thinking=True) or b"")
    assert out["choices"][0]["delta"] == dict.fromkeys(
        ("reasoning_content", "reasoning"), 'x,"token_ids":[1]"content":"y'
    )


@pytest.mark.parametrize(
    "text",
    [
        "<think>\nfever and cough, 体温\n</think>\n\nLobar pneumonia. 肺炎",
        "<think>fever</think>x",
        "cough",
        "<think>体温🤒",
    ],
)
def test_tags_of_several_tokens_by_ids_and_by_text(tokenizer_file: Path, text: str) -> None:
    from tokenizers import Tokenizer

    counter = TokenizerCounter(tokenizer_file)
    assert counter.tag_ids() is None
    encoding = Tokenizer.from_file(str(tokenizer_file)).encode(text)
    by_ids, by_text = AnswerObserver(Thinks(tokenizer=counter)), AnswerObserver(Thinks(tokenizer=counter))
    for observer in (by_ids, by_text):
        observer.text(text, 1.0)
        observer.finish(1.0)
    by_ids.ids([*encoding.ids, 0])
    exact, again = by_ids.count(), by_text.count()
    assert exact and again
    assert (exact.method, again.method) == ("token_ids_and_tokenizer", "retokenized")
    assert exact.reasoning == again.reasoning
    assert exact.total == len(encoding.ids) + 1
    body = text[text.find(">") + 1 : text.find("</")] if "</" in text else text[7:]
    if text.startswith("<think>"):
        plain = len(Tokenizer.from_file(str(tokenizer_file)).encode(body).ids)
        assert abs(exact.reasoning - plain) <= 2
    else:
        assert exact.reasoning == 0


def test_half_characters_count_once_each(tokenizer_file: Path) -> None:
    """An engine that cuts a character sends U+FFFD for one token; encoded again it would be three."""
    counter = TokenizerCounter(tokenizer_file)
    assert counter.encoded("ab��c", [(2, 4)], []).reasoning == 2
    assert counter.encoded("ab��c", [(2, 4)], []).total == counter.encoded("abc", [], []).total + 2


def test_ids_of_another_tokenizer_fall_back_to_the_text(tokenizer_file: Path) -> None:
    observer = AnswerObserver(Thinks(tokenizer=TokenizerCounter(tokenizer_file)))
    observer.text("<think>fever</think>x", 1.0)
    observer.ids([5])
    observer.finish(1.0)
    count = observer.count()
    assert count
    assert count.method == "retokenized"


def test_single_token_tags_are_found_and_a_wrong_file_is_named(tmp_path: Path, model_folder: Path) -> None:
    counter = TokenizerCounter(model_folder / "tokenizer.json")
    ids = counter.tag_ids()
    assert ids is not None
    assert IdCounter(*ids, opened=False).count().total == 0
    (tmp_path / "tokenizer.json").write_text("{}")
    for path in (tmp_path / "none.json", tmp_path / "tokenizer.json"):
        with pytest.raises(UserError, match=r"\.json"):
            TokenizerCounter(path)


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 50), st.integers(0, 2)), min_size=1, max_size=4),
    st.integers(-20, 20),
)
@settings(max_examples=500, deadline=None)
def test_a_gap_to_the_engines_count_is_shared_out_whole(parts: list[tuple[int, int, int]], gap: int) -> None:
    counts = [Count(r, a, r + a + tags, "retokenized") for r, a, tags in parts]
    stated = sum(count.total for count in counts) + gap
    after = share_gap(counts, stated)
    weight = sum(r + a for r, a, _ in parts)
    assert sum(c.reasoning + c.answer for c in after) == (max(0, weight + gap) if weight else 0)
    assert [c.total for c in after] == [c.total for c in counts]
    for count, corrected in zip(counts, after, strict=True):
        assert abs(corrected.reasoning - count.reasoning) <= abs(gap)
        assert corrected.reasoning == 0 or count.reasoning > 0


@pytest.mark.parametrize(("finish", "stops", "expected"), [("stop", False, 1), ("length", False, 0), ("stop", True, 0)])
def test_the_end_token_counts_where_there_was_one(
    tokenizer_file: Path, finish: str, stops: bool, expected: int
) -> None:
    counter = TokenizerCounter(tokenizer_file)
    observer = AnswerObserver(Thinks(tokenizer=counter, stops=stops))
    observer.text("<think>fever</think>x", 1.0)
    observer.finish_reason = finish
    observer.finish(1.0)
    count, plain = observer.count(), counter.encoded("<think>fever</think>x", [(7, 12)], [(0, 7), (12, 20)])
    assert count
    assert (count.total - plain.total, count.answer - plain.answer) == (expected, expected)
    reconcile([observer], plain.total + 3)
    corrected = observer.count()
    assert corrected
    assert (corrected.reasoning > count.reasoning) == (not stops)
