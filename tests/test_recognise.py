"""Dialects of thinking: whoever marks a thought in whatever way, the same thought and the same answer are read."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical_r1.dialects import AUTO, DIALECTS
from clinical_r1.reasoning import Outcome, Split, Splitter, split
from clinical_r1.recognise import CUT, FILTERED, Answer, Reader, of_template, read, recognise

THOUGHTS = ("Fever for a week; a {rash} too. K <3.5, so?\n\n**Malaria** or dengue?", "发热一周，皮疹。\n\n考虑疟疾？")
ANSWERS = ("Dengue fever.\n\n## Plan\n- fluids", "最终诊断：登革热")

FORMS = {
    "think": "<think>\n{t}\n</think>\n\n{a}",
    "capitals": "<THINK>{t}</THINK>{a}",
    "thinking": "<thinking>\n{t}</thinking>\n{a}",
    "thought": "<thought>{t}</thought>{a}",
    "reasoning": "<reasoning>\n{t}\n</reasoning>\n<answer>\n{a}\n</answer>",
    "seed": "<seed:think>{t}</seed:think>{a}",
    "magistral": "[THINK]{t}[/THINK]{a}",
    "kimi": "◁think▷{t}◁/think▷{a}",
    "openthinker": "<|begin_of_thought|>\n{t}\n<|end_of_thought|>\n<|begin_of_solution|>\n{a}\n<|end_of_solution|>",
    "cohere": "<|START_THINKING|>{t}<|END_THINKING|><|START_RESPONSE|>{a}<|END_RESPONSE|>",
    "opened": "{t}\n</think>\n\n{a}",
    "opened_thought": "{t}</thought>{a}",
    "headings": "## Thinking\n\n{t}\n\n## Final Response\n\n{a}",
    "headings_bold": "**Thinking:**\n{t}\n**Final Answer:**\n{a}",
    "headings_zh": "### 思考过程\n{t}\n### 最终回答\n{a}",
    "headings_crlf": "## Thinking\r\n\r\n{t}\r\n\r\n## Final Response\r\n\r\n{a}",
    "brackets_zh": "【思考】{t}【回答】{a}",
    "granite": "Here is my thought process: {t}\n\nHere is my response: {a}",
    "harmony": "<|channel|>analysis<|message|>{t}<|end|><|start|>assistant<|channel|>final<|message|>{a}<|return|>",
    "harmony_bare": "analysis{t}assistantfinal{a}",
    "medgemma": "<unused94>thought\n{t}<unused95>{a}",
    "medgemma_opened": "{t}<unused95>{a}",
    "apertus": "<|inner_prefix|>{t}<|inner_suffix|>{a}",
    "headings_in_brackets": "【思考过程】\n{t}\n\n【最终答案】\n{a}",
    "end_left_in": "<think>{t}</think>{a}<|im_end|>\n<|endoftext|>",
    "eos_left_in": "{t}</think>{a}</s>",
    "harmony_constrained": "<|channel|>analysis<|message|>{t}<|end|><|start|>assistant<|channel|>final "
    "<|constrain|>json<|message|>{a}<|return|>",
    "byte_order_mark": "\ufeff\u200b<think>{t}</think>{a}",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("thought", "answer"), list(zip(THOUGHTS, ANSWERS, strict=True)))
def test_one_answer_in_every_dialect(form: str, thought: str, answer: str) -> None:
    text = FORMS[form].format(t=thought, a=answer)
    assert read(Answer(text)) == Split(thought, answer, Outcome.OK)
    assert Reader("x").read(Answer("\n " + text)).thinking == thought


def test_a_thought_in_a_field_of_its_own() -> None:
    assert read(Answer("Dengue.", " hm \n")) == Split("hm", "Dengue.", Outcome.OK)
    assert read(Answer("<think>hm</think>Dengue.", "hm")) == Split("hm", "Dengue.", Outcome.OK)
    assert read(Answer("Dengue.", "\n\n")).outcome is Outcome.EMPTY_THINK
    assert read(Answer("", "hm", finish_reason="length")) == Split("hm", "", Outcome.UNCLOSED)
    assert read(Answer("", "hm", finish_reason="stop")) == Split("hm", "", Outcome.NO_ANSWER)


def test_a_thought_whose_text_is_kept_back_is_one_all_the_same() -> None:
    assert read(Answer("Dengue.", reasoning_tokens=55)) == Split("", "Dengue.", Outcome.OK)
    assert read(Answer("Dengue.", reasoning_tokens=0)).outcome is Outcome.NO_THINK
    assert read(Answer("", finish_reason="length", reasoning_tokens=900)).outcome is Outcome.UNCLOSED


UNKNOWN = [
    "<scratchpad>fever; rash</scratchpad>Dengue.",
    "fever; rash</scratchpad>\nDengue.",
    "[[REASONING]]fever[[/REASONING]]Dengue.",
    "<|thought|>fever<|reply|>Dengue.",
    "Thought: fever and rash.\nAnswer: dengue",
    "**Thinking process:** fever\n\nDengue.",
    "思考：发热，皮疹。\n答案：登革热",
    "## Thinking\nfever\n## Wrap-up\nDengue",
    "<inner_monologue>\nfever\n</inner_monologue>\n\nDengue.",
    "<plan>ask for travel</plan><answer>Dengue</answer>",
    "&lt;think&gt;fever&lt;/think&gt;Dengue.",
    "＜think＞发热＜/think＞登革热",
    "Thinking...\nfever\n...done thinking.\n\nDengue.",
    "*Thinking...*\nfever\n\nDengue.",
    "```thinking\nfever\n```\nDengue.",
    "<details><summary>Thought for 3 seconds</summary>fever</details>\nDengue.",
    '<details type="reasoning" done="true">\n<summary>3 s</summary>\n> fever\n</details>\nDengue.',
]


@pytest.mark.parametrize("text", UNKNOWN)
def test_an_unknown_form_is_said_and_never_an_answer(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert read(Answer(text)) == Split("", "", Outcome.UNKNOWN_FORM)
    reader = Reader("endpoint e")
    assert reader.read(Answer(text)).outcome is Outcome.UNKNOWN_FORM
    assert reader.read(Answer(text)).outcome is Outcome.UNKNOWN_FORM
    assert capsys.readouterr().err.count("unknown_form") == 1
    assert Reader("e", "none").read(Answer(text)) == Split("", text, Outcome.NO_THINK), "who knows better may set it"


@pytest.mark.parametrize(
    "text",
    [
        "Dengue fever.",
        "**Reasoning:** fever, rash.\n\n**Final diagnosis:** dengue",
        "## Analysis\nfever\n\n## Diagnosis\ndengue",
        "Thinking about the rash, this is dengue.",
        "Analysis of the findings: dengue.",
        "K+ <3.5 and Na >140: <b>hypokalaemia</b>; see [1] and [the note](x)",
        "<p>Dengue</p>\n<br/>fluids",
        "<diagnosis>Dengue</diagnosis>",
        "<details><summary>Plan</summary>fluids</details>Dengue",
        "```json\n{}\n```",
        '{"reasoning": "a <3 b", "answer": "dengue"}',
        "[Note] dengue",
        "登革热（依据：发热、皮疹）",
    ],
)
def test_plain_answers_are_not_taken_for_thoughts(text: str) -> None:
    assert read(Answer(text)) == Split("", text, Outcome.NO_THINK)


@pytest.mark.parametrize("reason", FILTERED)
def test_a_refusal_is_no_answer(reason: str) -> None:
    assert read(Answer("<think>\nShe has cou", finish_reason=reason)).outcome is Outcome.REFUSED
    assert read(Answer("I cannot help", refusal=True)) == Split("", "", Outcome.REFUSED)


@pytest.mark.parametrize("finish", CUT)
def test_a_cut_thought_that_the_prompt_opened(finish: str) -> None:
    """Without any mark it looks like an answer: the endpoint's other answers, or a probe, tell."""
    reader = Reader("e")
    cut = Answer("fever; could be", finish_reason=finish)
    assert reader.doubtful(cut, reader.read(cut).outcome)
    reader.read(Answer("fever.</think>Dengue."))
    assert reader.dialect is DIALECTS["opened"]
    assert reader.read(cut) == Split("fever; could be", "", Outcome.UNCLOSED)
    whole = Answer("Dengue.", finish_reason="stop")
    assert reader.read(whole).outcome is Outcome.NO_THINK, "the found dialect explains cut answers only"


def test_a_set_dialect_is_taken_as_said() -> None:
    assert Reader("e", "opened").read(Answer("fever")).outcome is Outcome.UNCLOSED
    assert Reader("e", "think").read(Answer("<thinking>a</thinking>b")).outcome is Outcome.NO_THINK
    assert Reader("e", "headings").told() == "e: thoughts are in dialect `headings` (as set)"


@pytest.mark.parametrize(
    ("prompt", "template", "tags", "name", "opened"),
    [
        ("<|User|>?<|Assistant|><think>\n", "...", True, "opened", True),
        ("<|im_start|>assistant\n<thought>", "...", False, "opened", True),
        ("<|im_start|>assistant\n", "{{ x }}", True, "think", False),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", "{{ x }}", True, "think", False),
        ("<|start|>assistant", "{{ '<|channel|>final<|message|>' }}", False, "channels", False),
        ("<start_of_turn>model\n", "{{ '<unused94>' }}", False, "gemma", False),
    ],
)
def test_a_chat_template_tells(prompt: str, template: str, tags: bool, name: str, opened: bool) -> None:
    found = of_template(prompt, template, tags)
    assert found is not None and (found.name, found.opened) == (name, opened)


def test_a_template_that_says_nothing_leaves_it_to_the_answers() -> None:
    assert of_template("<|assistant|>\n", "{{ messages }}", has_tags=False) is None


pieces = st.sampled_from(["fever", " ", "\n", "<", "## Thinking\n", "## Final Response\n", "<think>", "</think>",
                          "<|end|>", "<unused94>", "thought\n", "<unused95>", "analysis", "发热"])  # fmt: skip


@given(st.lists(pieces, max_size=10).map("".join), st.sampled_from(sorted(DIALECTS)), st.data())
@settings(max_examples=600, deadline=None)
def test_no_portioning_changes_anything_in_any_dialect(text: str, name: str, data: st.DataObject) -> None:
    whole = split(text, dialect=DIALECTS[name])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    splitter = Splitter(dialect=DIALECTS[name])
    said = []
    for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True):
        said += splitter.feed(text[start:stop])
    rest, got = splitter.finish()
    assert got == whole
    assert "".join(t for p, t in [*said, *rest] if p == "answer") == whole.response


@given(st.text(max_size=200))
@settings(max_examples=500, deadline=None)
def test_any_text_is_read_as_something(text: str) -> None:
    assert isinstance(read(Answer(text)), Split)
    recognise(text, cut=True)
    assert AUTO not in DIALECTS
