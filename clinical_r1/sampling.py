"""How answers are drawn, owned by us from training to service: every request carries every value.

What a request leaves out is filled in by whoever serves: vLLM takes it from the model's generation_config.json
(Qwen2.5-Instruct: T .7, top_p .8, top_k 20, repetition_penalty 1.05), so that a model is judged greedy and served
otherwise, or an RL ratio is taken between two different policies.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

NEUTRAL: dict[str, float | int] = {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
"""Request fields that change nothing: the model's own distribution."""
UNUSUAL = ("top_k", "min_p", "repetition_penalty")
"""Those that are not in OpenAI's protocol; an endpoint that refuses them has no such thing to fill in."""


class Sampling(BaseModel):
    """One way of drawing answers; the defaults change nothing but pick the likeliest token."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = Field(default=0.0, ge=0)
    """0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling; 1 is off."""
    top_k: int = Field(default=-1, ge=-1)
    """Tokens to choose among; -1 is off."""
    min_p: float = Field(default=0.0, ge=0, le=1)
    """Least probability as a share of the likeliest token's; 0 is off."""
    repetition_penalty: float = Field(default=1.0, gt=0)
    """1 is off."""
    stop: tuple[str, ...] = ()
    """Strings that end an answer."""
    max_tokens: int = Field(default=1024, ge=1)
    """Room for thought and answer."""

    def fields(self) -> dict[str, Any]:
        return self.model_dump(exclude={"stop"}) | ({"stop": list(self.stop)} if self.stop else {})

    def told(self) -> str:
        how = "greedy" if self.temperature == 0 else f"temperature {self.temperature:g}"
        others = [f"{name} {value:g}" for name in NEUTRAL if (value := getattr(self, name)) != NEUTRAL[name]]
        return ", ".join([how, *others, f"at most {self.max_tokens} tokens"])


def differences(evaluated: Sampling, served: dict[str, Any]) -> list[str]:
    """How what is served (fields of a request, or of a generation_config.json) differs from what was evaluated."""
    found = []
    for name in ("temperature", *NEUTRAL):
        ours, theirs = getattr(evaluated, name), served.get(name)
        if theirs is not None and theirs != ours and not (name == "top_k" and theirs in (0, -1) and ours in (0, -1)):
            found.append(f"{name}: evaluated with {ours:g}, served with {theirs:g}")
    return found
