"""Traces: `traceparent` is taken and handed to the engine; with the extra `tracing`, a span of ours lies between.

Spans bear OpenTelemetry's GenAI names and no text: numbers, names of models, outcomes. Where they go say the SDK's own
environment variables (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, ...).
"""

import os
import re
import time
from collections.abc import Mapping
from typing import Any

from clinical_r1.errors import UserError
from serving.gateway.exchange import Exchange, Trace

PARENT, STATE = "traceparent", "tracestate"
_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_STATE = re.compile(r"[!-~ ]{1,512}")
REQUESTED = {
    "max_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "seed": "gen_ai.request.seed",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
}


def incoming(headers: Mapping[str, str]) -> dict[str, str]:
    """The W3C trace context of a request; empty where there is none that can be (a malformed one starts anew)."""
    parent, state = headers.get(PARENT, ""), headers.get(STATE, "")
    if not _PARENT.fullmatch(parent):
        return {}
    return {PARENT: parent, STATE: state} if _STATE.fullmatch(state) else {PARENT: parent}


class Tracing:
    """Makes the spans of the gateway, or, without a provider, hands the client's context on."""

    def __init__(self, provider: Any = None) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("clinical_r1.gateway") if provider else None

    @classmethod
    def exporting(cls) -> "Tracing":
        """To the collector that the environment names. Raises UserError without the extra."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError:
            raise UserError(
                "tracing: the OpenTelemetry SDK is not installed; pip install 'clinical-r1[serving,tracing]'"
            ) from None
        if "service.name=" not in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
            os.environ.setdefault("OTEL_SERVICE_NAME", "clinical-r1-gateway")
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider)

    def begin(self, headers: Mapping[str, str], exchange: Exchange) -> Trace:
        """Open the trace of a request that is sent to the engine."""
        given = incoming(headers)
        if self._tracer is None:
            return Trace(given)
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        propagator, asked = TraceContextTextMapPropagator(), exchange.asked
        attributes = {name: asked.forward[key] for key, name in REQUESTED.items() if key in asked.forward}
        attributes |= {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "clinical-r1",
            "gen_ai.request.model": asked.forward["model"],
            "gen_ai.request.stream": asked.stream,
            "gen_ai.request.choice.count": asked.n,
            "clinical_r1.model_version": exchange.metrics.model_version,
            "clinical_r1.language": asked.language,
        }
        if asked.budget is not None:
            attributes["clinical_r1.thinking_budget"] = asked.budget
        span = self._tracer.start_span(
            f"chat {asked.forward['model']}",
            context=propagator.extract(given),
            kind=SpanKind.SERVER,
            attributes=attributes,
            start_time=time.time_ns() - int((time.perf_counter() - exchange.arrived) * 1e9),
        )
        carried: dict[str, str] = {}
        propagator.inject(carried, set_span_in_context(span))
        return Trace(carried, span)

    def close(self) -> None:
        """Send what is left. Blocks; call it in a thread."""
        if self._provider:
            self._provider.shutdown()
