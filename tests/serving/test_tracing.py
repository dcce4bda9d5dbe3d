"""Traces: the client's context reaches the engine; our spans bear the GenAI names and no text."""

import subprocess
import sys
from typing import Any

import pytest
from gateway_fixture import PATIENCE, running
from scripted_engine import Script, ScriptedEngine

from clinical_r1.errors import UserError
from serving.gateway.tracing import Tracing, incoming

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Listening(ScriptedEngine):
    """Keeps the headers of the requests that it got."""

    def __init__(self) -> None:
        super().__init__()
        self.headers: list[Any] = []

    async def chat(self, request: Any) -> Any:
        if "X-Request-Id" in request.headers:  # no probe
            self.headers.append(request.headers)
        return await super().chat(request)

    async def completions(self, request: Any) -> Any:
        if "X-Request-Id" in request.headers:  # no probe
            self.headers.append(request.headers)
        return await super().completions(request)


@pytest.fixture
def spans() -> Any:
    """(a provider, its finished spans)."""
    trace = pytest.importorskip("opentelemetry.sdk.trace")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), trace.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider, exporter


@pytest.mark.parametrize(
    ("headers", "handed"),
    [
        ({"traceparent": PARENT, "tracestate": "a=b,c=d"}, {"traceparent": PARENT, "tracestate": "a=b,c=d"}),
        ({"traceparent": PARENT}, {"traceparent": PARENT}),
        ({"tracestate": "a=b"}, {}),
        ({"traceparent": PARENT.upper()}, {}),
        ({"traceparent": "00-" + "0" * 32 + "-b7ad6b7169203331-01"}, {}),
        ({"traceparent": "ff" + PARENT[2:]}, {}),
        ({"traceparent": PARENT + "\nX: y"}, {}),
        ({"traceparent": "the patient is Ms Li"}, {}),
        ({"traceparent": PARENT, "tracestate": "x" * 600}, {"traceparent": PARENT}),
    ],
)
def test_only_a_context_that_can_be_is_taken(headers: dict[str, str], handed: dict[str, str]) -> None:
    assert incoming(headers) == handed


async def test_without_the_sdk_the_context_is_handed_on() -> None:
    async with running(engine := Listening()) as r:
        r.session.headers["traceparent"] = PARENT
        await r.unary()
        await r.stream()
        assert [headers.get("traceparent") for headers in engine.headers] == [PARENT, PARENT]
        del r.session.headers["traceparent"]
        await r.unary()
        assert "traceparent" not in engine.headers[-1]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_span_a_request_between_client_and_engine(spans: Any, stream: bool) -> None:
    provider, exporter = spans
    async with running(engine := Listening()) as r:
        r.listener.gateway.tracing = Tracing(provider)
        r.session.headers["traceparent"] = PARENT
        more: dict[str, Any] = {"temperature": 0.5, "max_tokens": 50, "seed": 3}
        await (r.stream(**more) if stream else r.unary(**more))
        await r.settled()
        (span,) = exporter.get_finished_spans()
        assert span.name == "chat engine-model" and span.kind.name == "SERVER"
        assert f"{span.context.trace_id:032x}" in PARENT and f"{span.parent.span_id:016x}" in PARENT
        assert engine.headers[0]["traceparent"] == f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"
        told = dict(span.attributes)
        assert told["gen_ai.operation.name"] == "chat" and told["gen_ai.request.model"] == "engine-model"
        assert (told["gen_ai.request.temperature"], told["gen_ai.request.max_tokens"]) == (0.5, 50)
        assert told["gen_ai.response.finish_reasons"] == ("stop",) and told["clinical_r1.outcomes"] == ("ok",)
        assert told["gen_ai.usage.reasoning.output_tokens"] == len("\nweigh it\n")
        assert told["gen_ai.usage.input_tokens"] == 5 and told["gen_ai.usage.output_tokens"] > 10
        assert ("gen_ai.response.time_to_first_chunk" in told) == stream
        assert "Fever" not in str(told) and "Flu" not in str(told)
        assert span.start_time < span.end_time


async def test_a_span_of_its_own_where_there_is_no_context_and_of_failures(spans: Any) -> None:
    provider, exporter = spans
    async with running(engine := Listening()) as r:
        r.listener.gateway.tracing = Tracing(provider)
        engine.script = Script(status=500)
        await r.unary()
        engine.script = Script(texts=["<think>\nweigh it very well\n</think>\n\nFlu."])
        await r.unary(thinking_token_budget=4)
        await r.settled()
        failed, cut = exporter.get_finished_spans()
        assert failed.parent is None and failed.status.status_code.name == "ERROR"
        assert failed.attributes["error.type"] == "engine"
        assert cut.attributes["clinical_r1.outcomes"] == ("cut_thought",)
        # Both requests to the engine belong to one trace.
        assert engine.headers[-1]["traceparent"] == engine.headers[-2]["traceparent"]


def test_nothing_of_the_sdk_is_loaded_where_it_is_off() -> None:
    code = "import sys, serving.gateway.app; print([m for m in sys.modules if m.startswith('opentelemetry')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout.strip() == "[]"


def test_one_sentence_where_the_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(UserError, match=r"tracing: .* not installed; pip install 'clinical-r1\[serving,tracing\]'"):
        Tracing.exporting()


def test_the_exporter_is_made_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "ours")
    tracing = Tracing.exporting()
    assert tracing._provider.resource.attributes["service.name"] == "ours"
    tracing.close()
