"""Unary and streamed answers agree, whatever the model says and however engine and network cut it."""

import json
import random
from itertools import product
from typing import Any

from gateway_fixture import joined, running
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_engine import CLOSE_ID, OPEN_ID, Script, tokenize

from clinical_r1.reasoning import CLOSE, OPEN, REASONED, count_reasoning_tokens, render, split
from clinical_r1.recognise import Answer
from clinical_r1.recognise import read as read_answer
from serving.gateway.observer import AnswerObserver, Thinks
from serving.gateway.rewrite import StreamRewriter, reasoning_total, unary, with_details
from serving.gateway.upstream import EventReader

EXAMPLES = 1300
"""Times 8 ways to say it: more than 10,000 cases."""
PARTS = [OPEN, CLOSE, "<", "</thi", " ", "\n\n", "流感", "🤒", 'say "content":"x"', '\\"', "a"]
outputs = st.lists(st.one_of(st.sampled_from(PARTS), st.text(max_size=5)), max_size=10).map(
    lambda parts: "".join(parts).encode("utf-8", "ignore").decode()
)


def stream_events(texts: list[str], sizes: list[int], compact: bool, ids: bool) -> list[bytes]:
    """The events of a stream; the answers take turns."""
    columns = []
    for index, text in enumerate(texts):
        tokens, rows, at, turn = tokenize(text), [], 0, 0
        rows.append({"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None})
        while at < len(tokens):
            size = sizes[turn % len(sizes)]
            part = tokens[at : at + size]
            row: dict[str, Any] = {"index": index, "delta": {"content": "".join(t for t, _ in part)}}
            row["finish_reason"] = None
            if ids:
                row["token_ids"] = [i for _, i in part]
            rows.append(row)
            at, turn = at + size, turn + 1
        rows.append({"index": index, "delta": {}, "finish_reason": "stop"})
        columns.append(rows)
    ordered = [c[r] for r in range(max(map(len, columns))) for c in columns if r < len(c)]
    separators = (",", ":") if compact else (", ", ": ")
    chunks = [json.dumps({"id": "x", "choices": [row]}, ensure_ascii=compact, separators=separators) for row in ordered]
    return [chunk.encode() for chunk in chunks] + [b"[DONE]"]


def whole(texts: list[str], thinks: Thinks, ids: bool) -> tuple[list[dict[str, Any]], list[AnswerObserver]]:
    """The messages of the unary answer, and what was observed."""
    answers = [AnswerObserver(thinks) for _ in texts]
    choices = [
        {
            "index": index,
            "message": {"content": text},
            "finish_reason": "stop",
            "token_ids": [token for _, token in tokenize(text)] if ids else None,
        }
        for index, text in enumerate(texts)
    ]
    body, _, _ = unary(json.dumps({"id": "x", "choices": choices}).encode(), answers, 1.0)
    return [choice["message"] for choice in json.loads(body)["choices"]], answers


def read(out: bytes, n: int) -> list[dict[str, str]]:
    """What a client of the stream puts together."""
    seen = [{"reasoning_content": "", "reasoning": "", "content": ""} for _ in range(n)]
    for event in EventReader().feed(out):
        for choice in json.loads(event)["choices"]:
            assert "token_ids" not in choice
            for name, part in choice["delta"].items():
                if name != "role":
                    seen[choice["index"]][name] += part
    return seen


def agree(texts: list[str], sizes: list[int], compact: bool, ids: bool, opened: bool) -> None:
    thinks = Thinks(opened, tag_ids=(OPEN_ID, CLOSE_ID))
    messages, unary_answers = whole(texts, thinks, ids)
    answers = [AnswerObserver(thinks) for _ in texts]
    rewriter = StreamRewriter(answers)
    seen = read(b"".join(rewriter.event(event, 1.0) for event in stream_events(texts, sizes, compact, ids)), len(texts))
    for index, text in enumerate(texts):
        expected, message = split(text, opened), messages[index]
        assert seen[index]["content"] == message["content"] == expected.response
        assert seen[index]["reasoning"] == (message["reasoning"] or "") == expected.thinking
        assert seen[index]["reasoning"] == seen[index]["reasoning_content"]
        assert answers[index].outcome == unary_answers[index].outcome == expected.outcome
        count = unary_answers[index].count()
        assert answers[index].count() == count
        if ids and text:
            token_ids = [token for _, token in tokenize(text)]
            assert count
            assert count.reasoning == count_reasoning_tokens(token_ids, OPEN_ID, CLOSE_ID, opened)
            assert count.total == len(token_ids)


@given(st.lists(outputs, min_size=1, max_size=3), st.lists(st.integers(1, 5), min_size=1, max_size=4))
@settings(max_examples=EXAMPLES, deadline=None)
def test_unary_equals_stream(texts: list[str], sizes: list[int]) -> None:
    for compact, ids, opened in product((True, False), repeat=3):
        agree(texts, sizes, compact, ids, opened)


WRITTEN = [
    ["<think>\n体温🤒 x\n</think>\n\n流感 🤧"],
    ["</think>", "<think>", "<think></think>"],
    ["体温</think>流感", "<think>a<think>b</think>c</think>"],
]


def test_every_cut_of_the_text() -> None:
    """Each text in two pieces at every character, and in pieces of every size: tags are cut everywhere."""
    for texts in WRITTEN:
        for size in range(1, max(map(len, texts)) + 1):
            for ids, opened in product((True, False), repeat=2):
                agree(texts, [size], True, ids, opened)
                agree(texts, [size, 1000], True, ids, opened)


def test_every_cut_of_the_bytes() -> None:
    """The engine's stream in two network packets, cut at every byte: within tags, characters, JSON and line ends."""
    for texts, end, compact in product(WRITTEN, (b"\n\n", b"\r\n\r\n"), (True, False)):
        raw = b"".join(b"data: " + event + end for event in stream_events(texts, [3], compact, True))
        results = set()
        for at in range(len(raw)):
            answers = [AnswerObserver(Thinks(tag_ids=(OPEN_ID, CLOSE_ID))) for _ in texts]
            reader, rewriter = EventReader(), StreamRewriter(answers)
            out = b"".join(rewriter.event(e, 1.0) for part in (raw[:at], raw[at:]) for e in reader.feed(part))
            assert rewriter.done
            results.add((out, tuple(answer.outcome for answer in answers)))
        assert len(results) == 1
        assert [part["content"] for part in read(out, len(texts))] == [split(text).response for text in texts]


async def test_unary_equals_stream_over_sockets() -> None:
    """The same through real connections: n > 1, odd packets, whatever the parts."""
    dice, cases = random.Random(0), 150
    async with running() as r:
        for _ in range(cases):
            texts = ["".join(dice.choices(PARTS, k=dice.randrange(9))) for _ in range(dice.randint(1, 3))]
            r.engine.script = Script(texts=texts, chunk=dice.randint(1, 5), cut=dice.choice([0, 0, 1, 7, 61]))
            status, body = await r.unary(n=len(texts))
            assert status == 200
            chunks = await r.stream(n=len(texts), stream_options={"include_usage": True})
            assert chunks[-1]["usage"] == body["usage"]
            for choice in body["choices"]:
                said = choice["message"]
                assert joined(chunks, choice["index"])[:2] == (said["reasoning"] or "", said["content"])
                expected = split(texts[choice["index"]])
                assert (said["reasoning"] or "", said["content"]) == (expected.thinking, expected.response)
        ended = await r.sample("clinical_r1_answers_total")
        assert ended == await r.sample("clinical_r1_answers_started_total") >= 2 * cases


def test_an_empty_thought_is_not_told_as_one_that_is_kept_back() -> None:
    """Read through the gateway, a model that has stopped thinking does not look as if it thought in secret."""
    texts = [render("", "It is gout."), render("The toe is red.", "It is gout.")]
    thinks = Thinks(False, tag_ids=(OPEN_ID, CLOSE_ID))
    for text, thinks_at_all in zip(texts, (False, True), strict=True):
        _, answers = whole([text], thinks, True)
        told = with_details({"prompt_tokens": 9, "completion_tokens": 9}, reasoning_total(answers))
        assert told and bool(told["completion_tokens_details"]["reasoning_tokens"]) is thinks_at_all
        tokens = told["completion_tokens_details"]["reasoning_tokens"]
        answer = Answer("It is gout.", answers[0].split.thinking or None, "stop", tokens)
        assert (read_answer(answer).outcome in REASONED) is thinks_at_all
