"""The gateway's OpenAPI document: openapi.yaml, with the models that check requests."""

from pathlib import Path
from typing import Any

import yaml

from serving.gateway.config import Limits
from serving.gateway.fields import DROPPED, NEUTRAL
from serving.gateway.request import ChatRequest


def document(limits: Limits) -> dict[str, Any]:
    """OpenAPI 3.1 as a plain dict."""
    found: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    del found["x-refused"]  # its anchor has served
    request = _request(limits)
    found["components"]["schemas"] |= {**request.pop("$defs"), "ChatRequest": request}
    return found


def _request(limits: Limits) -> dict[str, Any]:
    """The request model's own schema, and the fields that are taken where they say nothing."""
    schema = ChatRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    properties = schema["properties"]
    properties["messages"]["maxItems"] = limits.messages
    properties |= {name: {"description": "Accepted and dropped"} for name in DROPPED}
    properties |= {name: {"enum": [None, *values]} for name, values in NEUTRAL.items()}
    return schema
