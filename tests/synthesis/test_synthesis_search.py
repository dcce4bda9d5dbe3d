"""The search itself, with a scripted writer and verifier: what is asked in which order, and what never leaks."""

from typing import Any

import pytest

from clinical_r1.llm.client import Completion
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.llm.reply import CallFailed, parse_reply
from clinical_r1.schema import Case, Strategy, Trace, TraceOutcome, Usage, Verdict, VerdictLabel
from clinical_r1.synthesis.config import SynthesisConfig
from clinical_r1.synthesis.filters import FilterConfig
from clinical_r1.synthesis.search import Search, choose_strategy
from clinical_r1.synthesis.writer import AttemptReply, Metered, Writer
from clinical_r1.verifier.judgement import Judgement

RIGHT = "Pulmonary embolism"
CASE = Case(language="en", question="A 40-year-old woman with sudden dyspnea. Diagnosis?", reference=RIGHT)
ENDPOINT = EndpointConfig(name="scripted", base_url="http://127.0.0.1:1/v1", model="none", trusted=True)


class Scripted:
    """Answers attempts from a list; a value that is an exception is raised."""

    def __init__(self, answers: list[Any]) -> None:
        self.answers = answers
        self.tasks: list[str] = []
        self.prompts: list[str] = []
        self.seeds: list[int] = []

    async def chat(self, messages: list[dict[str, str]], **settings: Any) -> Completion:
        task = messages[0]["content"].splitlines()[0].removeprefix("# Task: ")
        self.tasks.append(task)
        self.prompts.append("\n".join(message["content"] for message in messages))
        self.seeds.append(settings["seed"])
        assert settings["subject"] == CASE.id
        if task == "natural":
            reply = {"thinking": f"Hmm, sudden dyspnea. Wait, {RIGHT} fits."}
        elif task == "response":
            reply = {"response": self._next() if len(self.answers) else f"The diagnosis is {RIGHT}."}
        else:
            reply = {"reasoning": f"reasoning of step {len(self.tasks)}", "answer": self._next()}
        parsed = settings["response_model"].model_validate(reply)
        return Completion("", parsed, "model-7", Usage(calls=1, prompt_tokens=10), False, "stop")

    def _next(self) -> str:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Examined(Scripted):
    """Answers the one question about told answers."""

    def __init__(self, told: Any) -> None:
        super().__init__([])
        self.told = told

    async def chat(self, messages: list[dict[str, str]], **settings: Any) -> Completion:
        assert messages[0]["content"].startswith("# Task: told")
        self.prompts.append(messages[1]["content"])
        if isinstance(self.told, Exception):
            raise self.told
        parsed = settings["response_model"].model_validate({"told": self.told})
        return Completion("", parsed, "judge-3", Usage(calls=1), False, "stop")


class Exact:
    """Correct where the reference is in the answer; `fail` judgements fail first."""

    name = "exact"

    def __init__(self, fail: int = 0) -> None:
        self.fail = fail
        self.items: list[Judgement] = []

    async def judge(self, item: Judgement) -> Verdict:
        self.items.append(item)
        self.fail -= 1
        if self.fail >= 0:
            return Verdict(label=VerdictLabel.INVALID, judge="exact", reason="timeout")
        right = item.reference in item.answer
        return Verdict(label=VerdictLabel.CORRECT if right else VerdictLabel.INCORRECT, judge="exact")


async def run(answers: list[Any], fail: int = 0, **settings: Any) -> tuple[Trace, Scripted, Exact]:
    config = SynthesisConfig(synthesizer=ENDPOINT, **settings)
    scripted, verifier = Scripted(answers), Exact(fail)
    trace = await Search(Writer(Metered(scripted), config), verifier, config).trace(CASE, 0)  # type: ignore[arg-type]
    return trace, scripted, verifier


async def test_right_at_once_is_direct_and_costs_three_calls() -> None:
    trace, scripted, _ = await run([RIGHT])
    assert trace.outcome is TraceOutcome.DIRECT
    assert scripted.tasks == ["initial", "natural", "response"]
    assert trace.usage.calls == 3
    assert trace.synthesizer == "scripted / model-7"


async def test_failures_are_retried_then_guided_and_flagged() -> None:
    trace, scripted, _ = await run(["a", "b", "c", "d", RIGHT])
    assert trace.outcome is TraceOutcome.GUIDED
    assert len(trace.attempts) == 5
    assert trace.attempts[-1].strategy is Strategy.GUIDED
    assert scripted.tasks[0] == "initial"
    assert scripted.tasks[4:] == ["guided", "natural", "response"]


async def test_recovered_by_a_strategy_and_the_chain_so_far_is_shown() -> None:
    trace, scripted, _ = await run(["a", "b", RIGHT])
    assert trace.outcome is TraceOutcome.RECOVERED
    assert "reasoning of step 1" in scripted.prompts[2]
    assert "reasoning of step 2" in scripted.prompts[2]


async def test_reference_is_in_no_prompt_before_guided_and_judges_see_no_reasoning() -> None:
    _, scripted, verifier = await run(["a", "b", "c", "d", RIGHT])
    assert not any(RIGHT in prompt for prompt in scripted.prompts[:4])
    assert RIGHT in scripted.prompts[4]
    assert not any("reasoning of step" in item.answer for item in verifier.items)


async def test_without_guidance_a_failed_case_is_rejected() -> None:
    trace, _, _ = await run(["a", "b", "c", "d"], guided=False)
    assert (trace.outcome, trace.reason) == (TraceOutcome.REJECTED, "all_attempts_failed")
    assert len(trace.attempts) == 4


async def test_guided_answer_is_verified_too() -> None:
    trace, _, _ = await run(["a", "b", "c", "d", "e"])
    assert trace.reason == "guided_not_verified"


async def test_response_that_states_another_answer_is_drafted_again_then_rejected() -> None:
    trace, scripted, _ = await run([RIGHT, "It is asthma.", f"It is {RIGHT}."])
    assert trace.outcome is TraceOutcome.DIRECT
    assert scripted.tasks.count("response") == 2
    assert len(set(scripted.seeds)) == len(scripted.seeds)
    trace, _, _ = await run([RIGHT, "It is asthma.", "It is asthma."])
    assert trace.reason == "response_not_verified"


async def test_failed_call_rejects_with_its_reason_and_what_it_cost() -> None:
    trace, _, _ = await run(["a", CallFailed("http_500", 7, Usage(calls=2))])
    assert trace.reason == "call_failed:http_500"
    assert trace.usage.calls == 3


async def test_failed_judgement_is_asked_again_and_is_no_verdict() -> None:
    trace, scripted, _ = await run([RIGHT], fail=1)
    assert trace.outcome is TraceOutcome.DIRECT
    trace, scripted, _ = await run([RIGHT], fail=2)
    assert trace.reason == "judge_invalid:timeout"
    assert scripted.tasks == ["initial"]


async def test_best_of_keeps_a_verified_candidate_and_survives_a_failed_one() -> None:
    trace, scripted, _ = await run(["a", CallFailed("timeout", 1), RIGHT], best_of=3)
    assert trace.outcome is TraceOutcome.DIRECT
    assert len(trace.attempts) == 1
    assert len(set(scripted.seeds[:3])) == 3


@pytest.mark.parametrize("policy", ["random", "round_robin"])
def test_backtracking_needs_a_step_to_return_to(policy: Any) -> None:
    config = SynthesisConfig(synthesizer=ENDPOINT, policy=policy)
    chosen = {so_far: {choose_strategy(config, so_far, f"case-{n}", 0) for n in range(200)} for so_far in (1, 2)}
    assert Strategy.BACKTRACKING not in chosen[1]
    assert chosen[2] == set(config.strategies)


def test_choices_depend_on_seed_case_sample_and_attempt_alone() -> None:
    config, other = (SynthesisConfig(synthesizer=ENDPOINT, seed=seed) for seed in (1, 2))
    first = [choose_strategy(config, 2, f"case-{n}", 0) for n in range(50)]
    assert first == [choose_strategy(config, 2, f"case-{n}", 0) for n in range(50)]
    assert first != [choose_strategy(other, 2, f"case-{n}", 0) for n in range(50)]
    assert first != [choose_strategy(config, 2, f"case-{n}", 1) for n in range(50)]


def test_round_robin_takes_every_strategy_in_turn() -> None:
    strategies = [Strategy.NEW_PATHS, Strategy.VERIFICATION, Strategy.CORRECTIONS]
    config = SynthesisConfig(synthesizer=ENDPOINT, strategies=strategies, policy="round_robin")
    for number in range(20):
        taken = {choose_strategy(config, so_far, f"case-{number}", 0) for so_far in (1, 2, 3)}
        assert taken == set(strategies)


def test_config_refuses_what_cannot_work() -> None:
    with pytest.raises(ValueError, match="backtracking alone"):
        SynthesisConfig(synthesizer=ENDPOINT, strategies=[Strategy.BACKTRACKING])
    with pytest.raises(ValueError, match="not a retry strategy"):
        SynthesisConfig(synthesizer=ENDPOINT, strategies=[Strategy.GUIDED])
    with pytest.raises(ValueError, match="not below count"):
        SynthesisConfig.model_validate({"synthesizer": ENDPOINT, "shard": {"index": 2, "count": 2}})


@pytest.mark.parametrize(
    ("reply", "reasoning"),
    [
        ('{"reasoning": [{"step": "one"}, {"step": "two"}], "answer": "gout"}', "one\ntwo"),
        ('{"reasoning": "<think>one</think>", "answer": "gout", "confidence": 1}', "one"),
        ('{"reasoning": "half a pair: \\ud83d", "answer": "gout"}', "half a pair: ?"),
    ],
)
def test_replies_are_taken_as_models_send_them(reply: str, reasoning: str) -> None:
    parsed = parse_reply(reply, AttemptReply)
    assert parsed is not None
    assert parsed.reasoning == reasoning


@pytest.mark.parametrize("reply", ['{"reasoning": " ", "answer": "gout"}', '{"reasoning": "one"}', '{"reasoning": "o'])
def test_blank_or_incomplete_replies_are_none(reply: str) -> None:
    assert parse_reply(reply, AttemptReply) is None


async def examined(answers: list[Any], told: Any, **filters: bool) -> tuple[Trace, Examined]:
    config = SynthesisConfig(synthesizer=ENDPOINT, filters=FilterConfig(**filters))
    judge = Examined(told)
    examiner = Writer(Metered(judge), config)  # type: ignore[arg-type]
    writer = Writer(Metered(Scripted(answers)), config)  # type: ignore[arg-type]
    return await Search(writer, Exact(), config, examiner).trace(CASE, 0), judge


GUIDED = ["a", "b", "c", "d", RIGHT]


@pytest.mark.parametrize("answers", [GUIDED, ["a", RIGHT]])
async def test_the_judge_is_asked_whether_a_guided_or_recovered_thought_was_told(answers: list[Any]) -> None:
    trace, judge = await examined(answers[:], told=True)
    assert (trace.outcome, trace.reason) == (TraceOutcome.REJECTED, "filter:hindsight_by_judge")
    assert len(judge.prompts) == 1
    assert CASE.question not in judge.prompts[0]
    trace, _ = await examined(answers[:], told=False)
    assert trace.accepted
    assert trace.synthesizer == "scripted / model-7"


async def test_the_judge_is_not_asked_about_direct_traces_or_where_that_is_switched_off() -> None:
    assert (await examined([RIGHT], told=True))[1].prompts == []
    for off in ({"hindsight": False}, {"ask_about_hindsight": False}):
        trace, judge = await examined(GUIDED[:], told=True, **off)
        assert trace.accepted
        assert judge.prompts == []


async def test_a_judge_that_cannot_say_leaves_no_unexamined_trace() -> None:
    trace, _ = await examined(GUIDED[:], told=CallFailed("unparseable", 4, Usage(calls=4)))
    assert trace.reason == "call_failed:unparseable"


async def test_a_verified_response_ends_with_its_conclusion_line() -> None:
    """Where the draft has none the verified answer becomes it; one that is not last, or decorated, is put in form."""
    line = f"Final diagnosis: {RIGHT}"
    for draft in (
        f"It is {RIGHT}.",
        f"**Final diagnosis:** {RIGHT}",
        f"{line}\n\nSee a doctor.",
        f"It fits.\n\n{line}",
    ):
        trace, scripted, _ = await run([RIGHT, draft])
        assert trace.response.splitlines()[-1] == line
        assert scripted.tasks.count("response") == 1
    assert trace.response == f"It fits.\n\n{line}"
    assert trace.question == CASE.prompt
    assert not any("End your reply" in prompt for prompt in scripted.prompts)
