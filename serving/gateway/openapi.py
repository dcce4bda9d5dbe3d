"""The gateway's OpenAPI document, made from the models that check requests."""

from typing import Any

from serving.gateway.config import Limits
from serving.gateway.request import DROPPED, NEUTRAL, ChatRequest

_SCHEMAS = "#/components/schemas/"
_ERROR = {"$ref": _SCHEMAS + "Error"}


def document(limits: Limits) -> dict[str, Any]:
    """OpenAPI 3.1 as a plain dict."""
    request = _request(limits)
    bearer: list[dict[str, list[str]]] = [{"bearer": []}]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ClinicalGPT-R1 gateway",
            "version": "1",
            "description": "Research and clinician decision support; not a medical device, no autonomous diagnosis.",
        },
        "paths": {
            "/v1/chat/completions": {
                "post": {
                    "operationId": "chat",
                    "security": bearer,
                    "requestBody": {"required": True, "content": _json({"$ref": _SCHEMAS + "ChatRequest"})},
                    "responses": {
                        "200": {
                            "description": "A completion, or a stream of chunks",
                            "content": {
                                **_json({"$ref": _SCHEMAS + "Completion"}),
                                "text/event-stream": {
                                    "schema": {"type": "object", "properties": {"data": {"type": "string"}}}
                                },
                            },
                        },
                        **_errors(400, 401, 404, 408, 413, 415, 429, 502, 503, 504),
                    },
                }
            },
            "/v1/models": {
                "get": {
                    "operationId": "models",
                    "security": bearer,
                    "responses": {
                        "200": {"description": "What is served", "content": _json({"type": "object"})},
                        **_errors(401, 503),
                    },
                }
            },
            "/health": {"get": _plain("health", "application/json", 200, 503)},
            "/healthz/live": {"get": _plain("live", "application/json", 200)},
            "/healthz/ready": {"get": _plain("ready", "application/json", 200, 503)},
            "/metrics": {"get": _plain("metrics", "text/plain", 200)},
            "/metrics/engine": {
                "get": {
                    "operationId": "engineMetrics",
                    "responses": {
                        "200": {"description": "The engine's metrics", "content": {"text/plain": {}}},
                        **_errors(502),
                    },
                }
            },
        },
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                **request.pop("$defs"),
                "ChatRequest": request,
                "Error": _error_schema(),
                "Completion": _completion(),
            },
        },
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _errors(*statuses: int) -> dict[str, Any]:
    return {str(status): {"description": "Refused", "content": _json(_ERROR)} for status in statuses}


def _plain(name: str, kind: str, *statuses: int) -> dict[str, Any]:
    responses = {str(status): {"description": name, "content": {kind: {}}} for status in statuses}
    return {"operationId": name, "responses": responses}


def _request(limits: Limits) -> dict[str, Any]:
    """The request model's own schema, and the fields that are taken where they say nothing."""
    schema = ChatRequest.model_json_schema(ref_template=_SCHEMAS + "{model}")
    properties = schema["properties"]
    properties["messages"]["maxItems"] = limits.messages
    properties |= {name: {"description": "Accepted and dropped"} for name in DROPPED}
    properties |= {name: {"enum": [None, *values]} for name, values in NEUTRAL.items()}
    return schema


def _error_schema() -> dict[str, Any]:
    text = {"type": ["string", "null"]}
    fields = {"message": {"type": "string"}, "type": {"type": "string"}, "param": text, "code": text}
    return {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "object", "required": list(fields), "properties": fields}},
    }


def _completion() -> dict[str, Any]:
    nullable = {"type": ["string", "null"]}
    message = {
        "type": "object",
        "required": ["role", "content", "reasoning_content", "reasoning"],
        "properties": {
            "role": {"const": "assistant"},
            "content": {"type": "string"},
            "reasoning_content": nullable,
            "reasoning": nullable,
        },
    }
    details = {"type": "object", "properties": {"reasoning_tokens": {"type": "integer", "minimum": 0}}}
    return {
        "type": "object",
        "required": ["choices", "usage"],
        "properties": {
            "choices": {"type": "array", "items": {"type": "object", "properties": {"message": message}}},
            "usage": {"type": ["object", "null"], "properties": {"completion_tokens_details": details}},
        },
    }
