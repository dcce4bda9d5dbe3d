"""How a structured reply is asked for, from the strictest form that an endpoint takes to none at all."""

from functools import lru_cache
from typing import Any, Literal

from pydantic import BaseModel

Mode = Literal["schema", "object", "text"]
_WEAKER: dict[Mode, Mode] = {"schema": "object", "object": "text", "text": "text"}
_HINTS = ("response_format", "json_schema", "json schema", "json_object", "json mode", "structured output", "guided",
          "grammar", "json_validate_failed", "generate json")  # fmt: skip


class JsonMode:
    """Remembers, per client, which form the endpoint accepts."""

    def __init__(self, mode: Mode = "schema") -> None:
        self.mode: Mode = mode
        self._first: Mode = mode

    def fields(self, response_model: type[BaseModel] | None) -> dict[str, Any]:
        """Request fields for a reply of the given shape; none for free text."""
        if response_model is None or self.mode == "text":
            return {}
        if self.mode == "object":
            return {"response_format": {"type": "json_object"}}
        return {"response_format": _schema_format(response_model)}

    def refused(self, status: int, message: str, tried: Mode) -> bool:
        """Did the endpoint refuse the form `tried`? If so fall back to the next weaker one; True means: try again."""
        if tried == "text" or status not in (400, 404, 415, 422, 500, 501):
            return False
        if not any(hint in message.lower() for hint in _HINTS):
            return False
        if self.mode == tried:
            self.mode = _WEAKER[tried]
        return True

    def weaken(self, tried: Mode) -> bool:
        """Go to the next weaker form than `tried`; False where there is none (then back to where it began)."""
        if tried == "text":
            self.mode = self._first
            return False
        if self.mode == tried:
            self.mode = _WEAKER[tried]
        return True


@lru_cache(maxsize=64)
def _schema_format(response_model: type[BaseModel]) -> dict[str, Any]:
    schema = response_model.model_json_schema()
    _close(schema)
    return {"type": "json_schema", "json_schema": {"name": response_model.__name__, "schema": schema, "strict": True}}


def _close(schema: dict[str, Any]) -> None:
    """Strict mode wants every object closed and every key required."""
    if schema.get("type") == "object":
        schema["additionalProperties"] = False
        schema["required"] = list(schema.get("properties", {}))
    for value in schema.values():
        for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            if isinstance(part, dict):
                _close(part)
    schema.pop("description", None)
