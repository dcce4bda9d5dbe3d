"""One step of the search is one call: which prompt, which seed, what the reply must look like."""

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Annotated, Any, Protocol, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from clinical_r1.llm.client import Completion, LLMClient, Message
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.llm.prompts import Prompt
from clinical_r1.llm.reply import CallFailed
from clinical_r1.reasoning import CLOSE, OPEN
from clinical_r1.schema import Attempt, Case, Strategy, Usage
from clinical_r1.synthesis import prompts
from clinical_r1.synthesis.choices import draw
from clinical_r1.synthesis.config import SynthesisConfig


def _plain(value: Any) -> Any:
    """Models return steps as a list now and then; a thought never carries the tags that will frame it."""
    if isinstance(value, list):
        value = "\n".join(_step(item) for item in value)
    if not isinstance(value, str):
        return value
    whole = value.encode("utf-8", "replace").decode()  # half a surrogate pair can be in a reply, but not in a file
    return whole.replace(OPEN, "").replace(CLOSE, "").strip()


def _step(item: Any) -> str:
    return "\n".join(str(part) for part in item.values()) if isinstance(item, dict) else str(item)


def _not_blank(value: str) -> str:
    if not value:
        raise ValueError("is blank")
    return value


# Checked here and not by min_length: strict JSON schemas of some providers refuse that keyword.
Text = Annotated[str, BeforeValidator(_plain), AfterValidator(_not_blank)]


class AttemptReply(BaseModel):
    """Reply to an attempt; keys that nobody asked for are ignored."""

    model_config = ConfigDict(extra="ignore")
    reasoning: Text
    answer: Text


class NaturalReply(BaseModel):
    """Reply to the natural rewrite."""

    model_config = ConfigDict(extra="ignore")
    thinking: Text


class ResponseReply(BaseModel):
    """Reply to the request for the formal response."""

    model_config = ConfigDict(extra="ignore")
    response: Text


class ToldReply(BaseModel):
    """Reply to the question whether a thought was written by one who had been told the answer."""

    model_config = ConfigDict(extra="ignore")
    told: bool


ReplyT = TypeVar("ReplyT", bound=BaseModel)


class Account:
    """Whom the calls behind one trace are about, what they consumed, and the model that answered."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.usage = Usage()
        self.model = ""


_account: ContextVar[Account | None] = ContextVar("account", default=None)


def open_account(subject: str) -> Account:
    """Start counting for the current task: all metered calls that it makes, and tasks that it starts, count here.

    `subject` is the patient's hash, or the case id where there is none; the journal keeps a keyed hash of it.
    """
    account = Account(subject)
    _account.set(account)
    return account


class ChatClient(Protocol):
    """The one method of `LLMClient` that synthesis and verifier use."""

    async def chat(self, messages: list[Message], **settings: Any) -> Completion: ...


class Metered:
    """An `LLMClient` whose calls are also counted on the current trace's account and tagged with its subject."""

    def __init__(self, client: LLMClient) -> None:
        self._client = client

    @property
    def endpoint(self) -> EndpointConfig:
        """The endpoint behind it."""
        return self._client.endpoint

    async def chat(self, messages: list[Message], **settings: Any) -> Completion:
        """As `LLMClient.chat`; journal lines carry the subject, so that `forget` finds them."""
        account = _account.get()
        if account is None:
            return await self._client.chat(messages, **settings)
        try:
            completion = await self._client.chat(messages, **{"subject": account.subject, **settings})
        except CallFailed as failure:
            account.usage = account.usage + failure.usage
            raise
        account.usage = account.usage + completion.usage
        return completion


class Writer:
    """Writes attempts and rewrites through one endpoint."""

    def __init__(self, client: ChatClient, config: SynthesisConfig) -> None:
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
        prompt = prompts.render(strategy.value, case.language, **blocks)
        place = (case.id, sample, len(chain), candidate)
        return await self._ask(prompt, AttemptReply, place, self._config.temperature, self._config.max_tokens)

    async def natural(self, case: Case, chain: Sequence[Attempt], sample: int) -> str:
        """The whole chain as one stream of thought that ends in the last attempt's answer."""
        prompt = prompts.render("natural", case.language, case=case.problem, attempts=chain, answer=chain[-1].answer)
        place = (case.id, sample, "natural", 0)
        reply = await self._ask(prompt, NaturalReply, place, *self._rewriting)
        return reply.thinking

    async def response(self, case: Case, thinking: str, answer: str, sample: int, draft: int) -> str:
        """The formal reply that follows the thinking."""
        prompt = prompts.render("response", case.language, case=case.problem, thinking=thinking, answer=answer)
        reply = await self._ask(prompt, ResponseReply, (case.id, sample, "response", draft), *self._rewriting)
        return reply.response

    async def told(self, case: Case, thinking: str, sample: int) -> bool:
        """Does the thought betray that its writer was told the answer? Neither case nor reference is shown: the
        question is about the thought alone."""
        prompt = prompts.render("told", case.language, thinking=thinking)
        reply = await self._ask(prompt, ToldReply, (case.id, sample, "told", 0), 0.0, self._config.max_tokens, False)
        return reply.told

    @property
    def _rewriting(self) -> tuple[float, int]:
        return self._config.rewrite_temperature, self._config.rewrite_max_tokens

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
        if writes and (account := _account.get()) is not None:
            account.model = completion.model
        assert isinstance(completion.parsed, reply)
        return completion.parsed
