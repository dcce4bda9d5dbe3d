"""One step of the search is one call: which prompt, which seed, what the reply must look like.

Prompts are one Jinja file a task and language (prompts/), written natively in each.
"""

from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator

from clinical_r1.llm.client import Completion, LLMClient, Message
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.llm.prompts import Prompt, filled, version_of
from clinical_r1.llm.reply import CallFailed
from clinical_r1.reasoning import CLOSE, OPEN
from clinical_r1.schema import Attempt, Case, Language, Strategy, Usage
from clinical_r1.synthesis.config import SynthesisConfig, draw

FOLDER = Path(__file__).parent / "prompts"
TASKS = (*(strategy.value for strategy in Strategy), "natural", "response", "told")


def prompt_of(task: str, language: Language, **blocks: Any) -> Prompt:
    """The messages of one call; `case` is `Case.problem`."""
    return filled(FOLDER / language / f"{task}.md.j2", f"{task}-{language}", **blocks)


def prompt_versions() -> dict[str, str]:
    """All prompt versions, for the dataset card and the report."""
    return {
        f"{task}/{language}": version_of(FOLDER / language / f"{task}.md.j2", f"{task}-{language}")
        for language in ("en", "zh")
        for task in TASKS
    }


def _plain(value: Any) -> Any:
    """Models return steps as a list now and then; a thought never carries the tags that will frame it."""
    if isinstance(value, list):
        steps = (item.values() if isinstance(item, dict) else (item,) for item in value)
        value = "\n".join(str(part) for step in steps for part in step)
    if not isinstance(value, str):
        return value
    whole = value.encode("utf-8", "replace").decode()  # half a surrogate pair can be in a reply, but not in a file
    return whole.replace(OPEN, "").replace(CLOSE, "").strip()


def _not_blank(value: str) -> str:
    if not value:
        raise ValueError("is blank")
    return value


# Checked here and not by min_length: strict JSON schemas of some providers refuse that keyword.
Text = Annotated[str, BeforeValidator(_plain), AfterValidator(_not_blank)]


class AttemptReply(BaseModel):
    """Reply to an attempt; keys that nobody asked for are ignored."""

    reasoning: Text
    answer: Text


class NaturalReply(BaseModel):
    """Reply to the natural rewrite."""

    thinking: Text


class ResponseReply(BaseModel):
    """Reply to the request for the formal response."""

    response: Text


class ToldReply(BaseModel):
    """Reply to the question whether a thought was written by one who had been told the answer."""

    told: bool


ReplyT = TypeVar("ReplyT", bound=BaseModel)


class Account:
    """Whom the calls behind one trace are about, what they consumed, and the model that answered."""

    def __init__(self, subject: str) -> None:
        """For the current task: all metered calls that it makes, and tasks that it starts, count here.

        `subject` is the patient's hash, or the case id where there is none; the journal keeps a keyed hash of it.
        """
        self.subject = subject
        self.usage = Usage()
        self.model = ""
        _account.set(self)


_account: ContextVar[Account] = ContextVar("account")


class Metered:
    """An `LLMClient` whose calls are also counted on the current trace's account and tagged with its subject."""

    def __init__(self, client: LLMClient) -> None:
        self._client = client

    @property
    def endpoint(self) -> EndpointConfig:
        return self._client.endpoint

    async def chat(self, messages: list[Message], **settings: Any) -> Completion:
        """As `LLMClient.chat`; journal lines carry the subject, so that `forget` finds them."""
        account = _account.get()
        try:
            completion = await self._client.chat(messages, **{"subject": account.subject, **settings})
        except CallFailed as failure:
            account.usage = account.usage + failure.usage
            raise
        account.usage = account.usage + completion.usage
        return completion


class Writer:
    """Writes attempts and rewrites through one endpoint."""

    def __init__(self, client: Metered, config: SynthesisConfig) -> None:
        self._client = client
        self._config = config

    async def attempt(
        self, case: Case, strategy: Strategy, chain: Sequence[Attempt], sample: int, candidate: int = 0
    ) -> AttemptReply:
        """One more chain of thought; `guided` alone is shown the reference, all but the first the attempts so far."""
        blocks: dict[str, Any] = {"case": case.problem}
        if strategy is not Strategy.INITIAL:
            blocks["attempts"] = chain
        if strategy is Strategy.GUIDED:
            blocks["reference"] = case.reference
        prompt = prompt_of(strategy.value, case.language, **blocks)
        place = (case.id, sample, len(chain), candidate)
        return await self._ask(prompt, AttemptReply, place, self._config.temperature, self._config.max_tokens)

    async def natural(self, case: Case, chain: Sequence[Attempt], sample: int) -> str:
        """The whole chain as one stream of thought that ends in the last attempt's answer."""
        prompt = prompt_of("natural", case.language, case=case.problem, attempts=chain, answer=chain[-1].answer)
        return (await self._rewrite(prompt, NaturalReply, (case.id, sample, "natural", 0))).thinking

    async def response(self, case: Case, thinking: str, answer: str, sample: int, draft: int) -> str:
        prompt = prompt_of("response", case.language, case=case.problem, thinking=thinking, answer=answer)
        return (await self._rewrite(prompt, ResponseReply, (case.id, sample, "response", draft))).response

    async def told(self, case: Case, thinking: str, sample: int) -> bool:
        """Does the thought betray that its writer was told the answer? Neither case nor reference is shown: the
        question is about the thought alone."""
        prompt = prompt_of("told", case.language, thinking=thinking)
        reply = await self._ask(prompt, ToldReply, (case.id, sample, "told", 0), 0.0, self._config.max_tokens, False)
        return reply.told

    async def _rewrite(self, prompt: Prompt, reply: type[ReplyT], place: tuple[str, int, str, int]) -> ReplyT:
        return await self._ask(prompt, reply, place, self._config.rewrite_temperature, self._config.rewrite_max_tokens)

    async def _ask(
        self,
        prompt: Prompt,
        reply: type[ReplyT],
        place: tuple[str, int, int | str, int],
        temperature: float,
        max_tokens: int,
        writes: bool = True,
    ) -> ReplyT:
        """`writes`: the reply becomes part of the trace, whose synthesizer is then the model that gave it."""
        _, sample, _, candidate = place
        completion = await self._client.chat(
            prompt.messages,
            prompt_version=prompt.version,
            sample_index=sample * 64 + candidate,
            temperature=temperature,
            max_tokens=max_tokens,
            seed=draw("call", self._config.seed, *place),
            response_model=reply,
        )
        if writes:
            _account.get().model = completion.model
        assert isinstance(completion.parsed, reply)
        return completion.parsed
