"""What clients may send to the engine: the fields of vLLM's dialect that it honours."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Message(BaseModel):
    """One turn of the conversation."""

    model_config = ConfigDict(extra="ignore")
    role: str
    content: str | list[dict[str, Any]]

    def text(self) -> str:
        """The content as plain text (text parts joined)."""
        if isinstance(self.content, str):
            return self.content
        return "".join(str(part.get("text", "")) for part in self.content if part.get("type") == "text")


class StreamOptions(BaseModel):
    """OpenAI's stream_options."""

    model_config = ConfigDict(extra="ignore")
    include_usage: bool = False


class Request(BaseModel):
    """The fields of a chat completion (`messages`) or a plain one (`prompt`) that the engine honours; others are
    ignored, as vLLM does."""

    model_config = ConfigDict(extra="ignore")
    messages: list[Message] = Field(default_factory=list)
    model: str = ""
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=-1, ge=-1)
    min_p: float = Field(default=0.0, ge=0, le=1)
    repetition_penalty: float = Field(default=1.0, gt=0)
    n: int = Field(default=1, ge=1, le=16)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    stream: bool = False
    prompt: str | list[int] = ""
    """Of a plain completion: what to go on from, as text or token ids."""
    stream_options: StreamOptions | None = None
    return_token_ids: bool = False

    def stops(self) -> list[str]:
        """The stop strings as a list."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])


class TokenizeRequest(BaseModel):
    """vLLM's tokenize request: a prompt, or messages."""

    model_config = ConfigDict(extra="ignore")
    prompt: str = ""
    messages: list[Message] = Field(default_factory=list)
