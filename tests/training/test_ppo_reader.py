"""PPO reads the completions of whatever model it starts from; an unknown form is no result, not an answer."""

import pytest

from clinical_r1.reasoning import Outcome
from clinical_r1.rewards import NO_RESULT
from clinical_r1.training.base import train_tokenizer
from clinical_r1.training.ppo.scoring import Reader

THOUGHT, ANSWER = "Cough and fever; it might be asthma.", "Final diagnosis: Pneumonia"
OTHERS = {
    "headings": "## Thinking\n\n{t}\n\n## Final Response\n\n{a}",
    "phrases": "Here is my thought process:\n{t}\n\nHere is my response:\n{a}",
    "channels_bare": "analysis{t}assistantfinal{a}",
    "seed": "<seed:think>{t}</seed:think>{a}",
}


def plain(tokenizer):
    """The tokenizer of a model that knows no think tags."""
    import json

    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["added_tokens"] = [one for one in state["added_tokens"] if "think" not in one["content"]]
    made = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)), eos_token="<|im_end|>")
    made.chat_template = tokenizer.chat_template
    return made


@pytest.fixture(scope="module")
def ours():
    return train_tokenizer([THOUGHT, ANSWER] * 5, 400)


def read(tokenizer, text: str, finished: bool = True):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return Reader(tokenizer).read(ids, finished)


@pytest.mark.parametrize("form", OTHERS)
def test_other_dialects(ours, form) -> None:
    tokenizer = plain(ours)
    parts, tokens = read(tokenizer, OTHERS[form].format(t=THOUGHT, a=ANSWER))
    assert (parts.thinking, parts.response, parts.outcome) == (THOUGHT, ANSWER, Outcome.OK)
    assert tokens == len(tokenizer(THOUGHT, add_special_tokens=False)["input_ids"])


def test_our_own_tags_count_letter_for_letter(ours) -> None:
    parts, tokens = read(ours, f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}")
    assert parts.outcome is Outcome.OK and tokens > 5
    assert read(ours, f"<THINK>{THOUGHT}</THINK>{ANSWER}")[0].outcome is Outcome.NO_THINK
    assert read(ours, f"<think>{THOUGHT}", finished=False)[0].outcome is Outcome.UNCLOSED
    cut = f"<think>{THOUGHT}</think>{ANSWER}"  # behind its thought a cut answer is what there is of it
    assert read(ours, cut, finished=False) == read(ours, cut)


@pytest.mark.parametrize(
    "text", ["<think>a", "<think>a</think>", "<think>a</think>b", "b", "", "<think>a</think><think>"]
)
@pytest.mark.parametrize("finished", [True, False])
def test_the_same_reading_as_evaluation(ours, text, finished) -> None:
    from clinical_r1.generation.chat import CompletionReader

    ids = ours(text, add_special_tokens=False)["input_ids"]
    evaluation = CompletionReader(ours, "evaluated").read(ids, "stop" if finished else "length")
    assert read(ours, text, finished) == evaluation[1:]


def test_a_thought_that_the_template_opens(ours) -> None:
    import copy

    opened = copy.deepcopy(ours)
    opened.chat_template = opened.chat_template.replace("assistant\n'", "assistant\n<think>\n'")
    parts, tokens = read(opened, f"{THOUGHT}\n</think>\n\n{ANSWER}")
    assert (parts.thinking, parts.response, parts.outcome) == (THOUGHT, ANSWER, Outcome.OK) and tokens > 5
    assert read(opened, THOUGHT, finished=False)[0].outcome is Outcome.UNCLOSED


def test_an_unknown_form_is_no_result(ours) -> None:
    outcome = read(plain(ours), f"<ponder>{THOUGHT}</ponder> {ANSWER}")[0].outcome
    assert outcome is Outcome.UNKNOWN_FORM and outcome in NO_RESULT
