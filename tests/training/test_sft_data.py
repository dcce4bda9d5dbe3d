import pytest

from clinical_r1.errors import UserError
from clinical_r1.generation.load import load_tokenizer
from clinical_r1.schema import Trace, TraceOutcome, read_jsonl, write_jsonl
from clinical_r1.training.sft.data import IGNORED, EpochOrder, hold_out, read_examples


@pytest.fixture(scope="module")
def tokenizer(base_model):
    return load_tokenizer(base_model)


def test_loss_covers_the_completion_and_its_end_of_turn_only(traces, tokenizer):
    examples = read_examples(traces, tokenizer, 256)[0]
    assert len(examples) == 40
    for example, trace in zip(examples, read_jsonl(traces, Trace), strict=True):
        trained = [token for token, label in zip(example.input_ids, example.labels, strict=True) if label != IGNORED]
        assert tokenizer.decode(trained) == f"<think>\n{trace.thinking}\n</think>\n\n{trace.response}<|im_end|>"
        assert example.labels[-1] == tokenizer.eos_token_id
        assert len(trained) == example.completion_length
        prompt = tokenizer.decode(example.input_ids[: example.prompt_length])
        assert prompt == f"<|im_start|>user\n{trace.question}<|im_end|>\n<|im_start|>assistant\n"


def test_traces_without_a_conclusion_line_are_told(traces, tokenizer, tmp_path, capsys):
    rows = read_jsonl(traces, Trace)[:4]
    rows[0].response += "\n\nFinal diagnosis: asthma"
    write_jsonl(tmp_path / "t.jsonl", rows)
    read_examples(tmp_path / "t.jsonl", tokenizer, 256)
    assert "3 of 4 traces have no conclusion line" in capsys.readouterr().err
    write_jsonl(tmp_path / "t.jsonl", rows[:1])
    read_examples(tmp_path / "t.jsonl", tokenizer, 256)
    assert capsys.readouterr().err == ""


def test_too_long_examples_are_refused_with_their_cases(traces, tokenizer):
    with pytest.raises(UserError, match=r"longer than max_length 60 \(longest \d+ tokens; cases case-\d+,.*to drop"):
        read_examples(traces, tokenizer, 60)


def test_too_long_examples_are_left_out_and_counted_but_not_all(traces, tokenizer):
    whole = read_examples(traces, tokenizer, 256)[0]
    middle = sorted(len(example.input_ids) for example in whole)[len(whole) // 2]
    left, dropped = read_examples(traces, tokenizer, middle, "drop")
    assert len(left) + dropped["dropped_long"] == len(whole) and dropped["dropped_long"] > 0
    with pytest.raises(UserError, match="longer than max_length 9 "):
        read_examples(traces, tokenizer, 9, "drop")


def test_rejected_traces_do_not_train_and_marked_ones_are_refused(traces, tokenizer, tmp_path):
    rows = read_jsonl(traces, Trace)[:3]
    rows[0].outcome = TraceOutcome.REJECTED
    write_jsonl(tmp_path / "t.jsonl", rows)
    assert [example.case_id for example in read_examples(tmp_path / "t.jsonl", tokenizer, 256)[0]] == [
        "case-1",
        "case-2",
    ]
    rows[1].response = "It is </think> asthma."
    rows[2].thinking = "<|im_end|>"
    write_jsonl(tmp_path / "t.jsonl", rows)
    with pytest.raises(UserError, match=r"2 accepted traces .* \(cases case-1, case-2\)"):
        read_examples(tmp_path / "t.jsonl", tokenizer, 256)
    write_jsonl(tmp_path / "t.jsonl", [*rows, *read_jsonl(traces, Trace)[3:5]])
    left, dropped = read_examples(tmp_path / "t.jsonl", tokenizer, 256, "drop")
    assert [example.case_id for example in left] == ["case-3", "case-4"]
    assert dropped == {"dropped_long": 0, "dropped_marked": 2}
    write_jsonl(tmp_path / "t.jsonl", rows[:1])
    with pytest.raises(UserError, match="no accepted trace"):
        read_examples(tmp_path / "t.jsonl", tokenizer, 256)


def test_hold_out_keeps_the_traces_of_a_case_together(traces, tokenizer):
    examples = read_examples(traces, tokenizer, 256)[0] * 2
    train, held = hold_out(examples, 0.2, 5)
    assert len(train) + len(held) == 80 and 0 < len({example.case_id for example in held}) <= 5
    assert not {example.case_id for example in train} & {example.case_id for example in held}
    assert hold_out(examples, 0.2, 5)[1] == held
    assert hold_out(examples, 0.0, 5) == (examples, [])


@pytest.mark.parametrize("group", [True, False])
def test_the_order_is_a_function_of_seed_and_epoch(group):
    lengths = [17 * index % 101 for index in range(203)]
    order = EpochOrder(lengths, 8, group, seed=3)
    first = list(order)
    order.set_epoch(1)
    second = list(order)
    order.set_epoch(0)
    assert list(order) == first != second
    assert len(first) == len(order) == 208 and set(first) == set(range(203))


def test_grouped_batches_need_less_padding():
    lengths = [17 * index % 101 + 1 for index in range(512)]

    def padding(group: bool) -> int:
        order = list(EpochOrder(lengths, 8, group, seed=0))
        batches = [[lengths[index] for index in order[start : start + 8]] for start in range(0, len(order), 8)]
        return sum(8 * max(batch) - sum(batch) for batch in batches)

    assert padding(True) < padding(False) / 4
