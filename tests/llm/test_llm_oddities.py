# ruff: noqa: E501  (a table of messages reads best a line each)
"""Replies and errors as endpoints of the world send them, each a kind: OpenAI, Azure, Anthropic, Bedrock, Gemini, xAI,
OpenRouter, LiteLLM, Groq, DeepSeek, Mistral, DashScope, Zhipu, vLLM, SGLang, TGI, llama.cpp, Ollama, LM Studio."""

import json
from typing import Any

import pytest
from aiohttp import web
from llm_server import Answer as Parsed
from llm_server import Start, attempt_messages, chat_reply

from clinical_r1.llm.client import LLMClient
from clinical_r1.llm.journal import open_journal
from clinical_r1.llm.reply import AttemptError, CallFailed, EndpointUnusable, error_of, read_reply
from clinical_r1.reasoning import Outcome
from clinical_r1.recognise import read

T, A = "It may be asthma.", "Final diagnosis: Pneumonia"


def body(message: dict[str, Any], finish: object = "stop", usage: object = None, **beside: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return json.dumps({"model": "m", "choices": [choice], "usage": usage, **beside}).encode()


def sse(*lines: object) -> bytes:
    return b"".join(
        line if isinstance(line, bytes) else b"data: " + json.dumps(line).encode() + b"\n\n" for line in lines
    )


def delta(**fields: str) -> dict[str, Any]:
    return {"choices": [{"delta": fields, "finish_reason": None}]}


THOUGHTS = {
    "deepseek": body({"reasoning_content": T, "content": A}),
    "vllm 0.12": body({"reasoning": T, "content": A, "reasoning_content": None, "tool_calls": []}),
    "openrouter": body({"reasoning": None, "content": A, "reasoning_details": [
        {"type": "reasoning.text", "text": T, "signature": "x"}, {"type": "reasoning.encrypted", "data": "zzz"}]}),
    "openrouter summary": body({"content": A, "reasoning_details": [{"type": "reasoning.summary", "summary": T}]}),
    "reasoning objects": body({"content": A, "reasoning": [{"type": "text", "text": T[:5]}, {"text": T[5:]}]}),
    "reasoning object": body({"content": A, "reasoning": {"content": T, "effort": "high"}}),
    "responses summary": body({"content": A, "reasoning": [{"summary": [{"type": "summary_text", "text": T}]}]}),
    "litellm anthropic": body({"content": A, "thinking_blocks": [{"type": "thinking", "thinking": T, "signature": "x"}]}),
    "mistral": body({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": T}]},
                                 {"type": "text", "text": A}]}),
    "anthropic parts": body({"content": [{"type": "thinking", "thinking": T}, {"type": "text", "text": A}]}, "end_turn"),
    "bedrock converse": body({"content": [{"reasoningContent": {"reasoningText": {"text": T, "signature": "x"}}},
                                          {"text": A}]}, "end_turn"),
    "bedrock gpt-oss": body({"content": f"<reasoning>{T}</reasoning>{A}"}),
    "parts with null": body({"reasoning_content": T, "content": [{"type": "text", "text": None},
                                                                 {"type": "text", "text": A}]}),
    "text in the choice": json.dumps({"choices": [{"text": f"<think>{T}</think>{A}", "finish_reason": "stop"}]}).encode(),
    "keep-alive blanks": b"\n\n   \n" + body({"reasoning_content": T, "content": A}),
    "streamed unasked": sse(delta(role="assistant", reasoning_content=T), delta(content=A), b"data: [DONE]\n"),
    "streamed with comments": sse(b": OPENROUTER PROCESSING\n\n", delta(reasoning=T), delta(content=A)),
    "streamed with events": sse(b"event: message\n", delta(thinking=T), delta(content=A)),
    "sglang finish object": body({"reasoning_content": T, "content": A}, {"type": "stop", "matched": 151645}),
    "tgi finish": body({"content": f"<think>\n{T}\n</think>\n\n{A}"}, "eos_token"),
    "no usage, no model": json.dumps({"choices": [{"message": {"content": f"[THINK]{T}[/THINK]{A}"}}]}).encode(),
}  # fmt: skip


@pytest.mark.parametrize("kind", THOUGHTS)
def test_thought_and_answer(kind: str) -> None:
    parts = read(read_reply(THOUGHTS[kind]).answer)
    assert (parts.thinking, parts.response, parts.outcome) == (T, A, Outcome.OK)


USAGES: dict[str, tuple[dict[str, Any], tuple[int, int, int | None]]] = {
    "openai": ({"prompt_tokens": 5, "completion_tokens": 50, "total_tokens": 55,
                "completion_tokens_details": {"reasoning_tokens": 40}}, (5, 50, 40)),
    "sglang": ({"prompt_tokens": 5, "completion_tokens": 50, "reasoning_tokens": 40}, (5, 50, 40)),
    "xai, beside": ({"prompt_tokens": 5, "completion_tokens": 50, "total_tokens": 95,
                     "completion_tokens_details": {"reasoning_tokens": 40}}, (5, 90, 40)),
    "beside, no total": ({"prompt_tokens": 5, "completion_tokens": 10,
                          "completion_tokens_details": {"reasoning_tokens": 40}}, (5, 50, 40)),
    "anthropic": ({"input_tokens": 5, "output_tokens": 50}, (5, 50, None)),
    "responses": ({"input_tokens": 5, "output_tokens": 50, "output_tokens_details": {"reasoning_tokens": 40}}, (5, 50, 40)),
    "null details": ({"prompt_tokens": 5, "completion_tokens": 50, "completion_tokens_details": None}, (5, 50, None)),
    "text numbers": ({"prompt_tokens": "5", "completion_tokens": 50.0}, (5, 50, None)),
}  # fmt: skip


@pytest.mark.parametrize("kind", USAGES)
def test_usage_wherever_it_stands(kind: str) -> None:
    usage, right = USAGES[kind]
    reply = read_reply(body({"content": A}, usage=usage))
    assert (reply.prompt_tokens, reply.completion_tokens, reply.reasoning_tokens) == right


def test_a_thought_counts_where_no_usage_is_stated() -> None:
    assert read_reply(body({"reasoning_content": T * 50, "content": A})).completion_tokens > 150


CUT = ["length", "MAX_TOKENS", "max-tokens", "FINISH_REASON_MAX_TOKENS", "max_output_tokens", {"type": "length", "length": 9},
       "model_context_window_exceeded"]  # fmt: skip
REFUSED = ["content_filter", "content-filter", "SAFETY", "RECITATION", "PROHIBITED_CONTENT", "refusal", "ERROR_TOXIC"]
BROKEN = ["error", "ERROR", "network_error", "abort", "insufficient_system_resource"]


@pytest.mark.parametrize("finish", [*CUT, *REFUSED, *BROKEN], ids=str)
def test_how_a_reply_ended(finish: object) -> None:
    if finish in BROKEN:
        with pytest.raises(AttemptError, match="interrupted") as broken:
            read_reply(body({"content": A}, finish))
        assert broken.value.retryable
        return
    reply = read_reply(body({"content": A}, finish))
    assert (reply.answer.cut, bool(reply.refused)) == (finish in CUT, finish in REFUSED)


AZURE_FILTER = {"error": {"code": "content_filter", "status": 400, "message": "The response was filtered due to the prompt",
                          "innererror": {"code": "ResponsibleAIPolicyViolation"}}}  # fmt: skip
RAW = json.dumps({"error": {"message": "Unsupported parameter: 'seed'"}})
ERRORS: list[tuple[str, int, object, str]] = [
    ("vllm before 0.10", 400, {"object": "error", "message": "This model's maximum context length is 4096 tokens. However,",
                               "type": "BadRequestError", "param": None, "code": 400}, "too_long"),
    ("vllm", 400, {"error": {"message": "'max_tokens' or 'max_completion_tokens' is too large: 8192. This model's maximum "
                             "context length is 4096", "type": "BadRequestError", "code": 400}}, "too_long"),
    ("sglang", 400, {"error": {"message": "The input (5000 tokens) is longer than the model's context length"}}, "too_long"),
    ("llama.cpp", 400, {"error": {"code": 400, "type": "exceed_context_size_error", "message":
                        "request (5000 tokens) exceeds the available context size (4096 tokens)"}}, "too_long"),
    ("tgi", 422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000",
                  "error_type": "validation"}, "too_long"),
    ("openai bound", 400, {"error": {"message": "max_tokens is too large: 9000. This model supports at most 4096 completion "
                           "tokens", "code": "invalid_value"}}, "too_long"),
    ("deepseek bound", 400, {"error": {"message": "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]",
                                       "type": "invalid_request_error"}}, "too_long"),
    ("anthropic", 400, {"type": "error", "error": {"type": "invalid_request_error", "message":
                        "prompt is too long: 210000 tokens > 200000 maximum"}}, "too_long"),
    ("bedrock", 400, {"message": "Input is too long for requested model."}, "too_long"),
    ("gemini", 400, [{"error": {"code": 400, "message": "The input token count (9) exceeds the maximum number of tokens "
                                "allowed (8).", "status": "INVALID_ARGUMENT"}}], "too_long"),
    ("dashscope", 400, {"code": "InvalidParameter", "message": "Range of input length should be [1, 30720]"}, "too_long"),
    ("groq", 413, {"error": {"message": "Request too large for model `x` on tokens per minute (TPM): Limit 6000",
                             "code": "rate_limit_exceeded"}}, "too_long"),
    ("azure filter", 400, AZURE_FILTER, "filtered"),
    ("openrouter moderation", 403, {"error": {"code": 403, "message": "x requires moderation on OpenAI. Your input was "
                                    "flagged for \"violence\"", "metadata": {"reasons": ["violence"]}}}, "filtered"),
    ("dashscope filter", 400, {"error": {"code": "data_inspection_failed", "message": "Input data may contain "
                                         "inappropriate content."}}, "filtered"),
    ("bedrock guardrail", 400, {"message": "Guardrail was enabled but input is blocked"}, "filtered"),
    ("openai quota", 429, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}, "402"),
    ("anthropic credit", 400, {"error": {"message": "Your credit balance is too low to access the API"}}, "402"),
    ("zhipu credit", 429, {"error": {"code": "1113", "message": "您的账户余额不足，请充值"}}, "402"),
    ("dashscope credit", 400, {"error": {"code": "Arrearage", "message": "Access denied, please make sure your account is "
                               "in good standing."}}, "402"),
    ("gemini key", 400, [{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}}], "401"),
    ("xai key", 400, {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: sk***."}, "401"),
    ("azure key", 401, {"statusCode": 401, "message": "Unauthorized. Access token is missing"}, "401"),
    ("deepseek model", 400, {"error": {"message": "Model Not Exist", "type": "invalid_request_error"}}, "404"),
    ("mistral model", 400, {"object": "error", "message": "Invalid model: x", "code": "1500"}, "404"),
    ("ollama model", 404, {"error": {"message": "model \"x\" not found, try pulling it first"}}, "404"),
    ("lm studio path", 200, {"error": "Unexpected endpoint or method. (POST /chat/completions)"}, "404"),
    ("200 with a limit", 200, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, "429"),
    ("200 with a number", 200, {"error": {"message": "busy", "code": 503}}, "503"),
    ("200 with a type", 200, {"error": {"message": "Overloaded", "type": "overloaded_error"}}, "529"),
    ("200 of nothing", 200, {"error": "upstream went away"}, "502"),
    ("apigee", 429, {"fault": {"faultstring": "Rate limit quota violation", "detail": {"errorcode": "x"}}}, "429"),
    ("cloudflare", 429, {"success": False, "errors": [{"code": 3040, "message": "Capacity temporarily exceeded"}]}, "429"),
    ("fastapi", 422, {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}, "seed"),
    ("spring", 400, {"error": "Bad Request", "message": "Unknown field: seed", "path": "/v1"}, "seed"),
    ("openrouter raw", 400, {"error": {"code": 400, "message": "Provider returned error",
                                       "metadata": {"raw": RAW, "provider_name": "Azure"}}}, "seed"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "status", "row", "means"), ERRORS, ids=[row[0] for row in ERRORS])
def test_what_an_error_means(kind: str, status: int, row: object, means: str) -> None:
    content = json.dumps(row).encode()
    if status == 200:
        with pytest.raises(AttemptError) as raised:
            read_reply(content)
        error = raised.value
    else:
        error = error_of(content, status)
    if means == "filtered":
        assert error.filtered
    elif means == "seed":
        assert "seed" in error.message and not error.filtered
    else:
        assert means in (error.reason, str(error.status)) and not error.filtered


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("Please retry after 20 seconds.", 20), ("Please try again in 6.5s.", 6.5), ("try again in 250ms", 0.25),
        ("Please try again in 2 minutes", 120), ("slow down", None),
    ],
)  # fmt: skip
def test_how_long_to_wait_is_read_from_the_words(words: str, seconds: float | None) -> None:
    assert error_of(json.dumps({"error": {"message": words}}).encode(), 429).wait == seconds
    if seconds == 20:
        details = [{"@type": "RetryInfo", "retryDelay": "20s"}]
        assert error_of(json.dumps([{"error": {"code": 429, "details": details}}]).encode(), 429).wait == 20


REFORMS = {
    "`temperature` and `top_p` cannot both be specified for this model. Please use only one.": (
        "top_p",
        {"temperature"},
    ),
    "`temperature` may only be set to 1 when thinking is enabled": ("temperature", {"top_p"}),
    "invalid temperature: only 1 is allowed for this model": ("temperature", {"top_p"}),
    "Malformed input request: #: extraneous key [top_k] is not permitted": ("top_k", {"temperature", "top_p"}),
    "Failed to compile grammar: unsupported schema": ("response_format", {"temperature", "seed"}),
    "Failed to generate JSON. Please adjust your prompt.": ("response_format", {"temperature", "seed"}),
}


@pytest.mark.parametrize("words", REFORMS)
async def test_what_is_refused_is_sent_otherwise(start: Start, words: str) -> None:
    field, kept = REFORMS[words]

    async def handler(request: web.Request) -> web.Response:
        asked = await request.json()
        refused = field in asked and (field != "top_p" or "temperature" in asked)
        assert kept <= set(asked)
        if refused:
            return web.json_response({"error": {"message": words}}, status=400)
        return chat_reply('{"reasoning": "r", "answer": "a"}')

    server = await start(handler)
    async with LLMClient(server.entry()) as client:
        completion = await client.chat(attempt_messages(), seed=1, response_model=Parsed)
    assert completion.parsed.answer == "a"


async def test_no_provider_takes_all_parameters(start: Start) -> None:
    async def handler(request: web.Request) -> web.Response:
        if "min_p" in await request.json():
            words = "No endpoints found that can handle the requested parameters."
            return web.json_response({"error": {"message": words, "code": 404}}, status=404)
        return chat_reply("fine")

    server = await start(handler)
    async with LLMClient(server.entry()) as client:
        assert (await client.chat(attempt_messages())).text == "fine"


@pytest.mark.parametrize(
    ("row", "status", "sentence"),
    [
        ({"error": {"message": "Your credit balance is too low"}}, 400, "quota is used up"),
        ([{"error": {"message": "API key not valid. Please pass a valid API key."}}], 400, "key is not accepted"),
        ({"error": "Unexpected endpoint or method. (POST /chat/completions)"}, 200, "correct base_url, model or query"),
    ],
)
async def test_what_no_call_can_mend_ends_the_run_in_one_sentence(start: Start, row, status, sentence) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response(row, status=status)

    server = await start(handler)
    async with LLMClient(server.entry()) as client:
        with pytest.raises(EndpointUnusable, match=sentence):
            await client.chat(attempt_messages())
        assert client.statistics.retries.total() == 0


async def test_a_run_that_goes_on_finds_out_again_what_is_refused(start: Start, tmp_path) -> None:
    async def handler(request: web.Request) -> web.Response:
        odd = "min_p" in await request.json()
        return web.json_response({"error": {"message": "Bad request"}}, status=400) if odd else chat_reply("fine")

    server = await start(handler)
    for sample in range(2):  # the second run finds the first call in the journal
        with open_journal(tmp_path) as journal:
            async with LLMClient(server.entry(), journal) as client:
                for asked in range(sample + 1):
                    assert (await client.chat(attempt_messages(), sample_index=asked)).text == "fine"


async def test_a_prompt_that_is_too_long_is_asked_once(start: Start) -> None:
    asked = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(1)
        return web.json_response({"error": {"message": "maximum context length is 9 tokens"}}, status=400)

    server = await start(handler)
    async with LLMClient(server.entry()) as client:
        with pytest.raises(CallFailed, match="too_long"):
            await client.chat(attempt_messages(), response_model=Parsed)
    assert len(asked) == 1


async def test_moderation_of_one_prompt_does_not_end_the_run(start: Start) -> None:
    async def handler(request: web.Request) -> web.Response:
        words = "x requires moderation. Your input was flagged"
        return web.json_response({"error": {"code": 403, "message": words}}, status=403)

    server = await start(handler)
    async with LLMClient(server.entry()) as client:
        with pytest.raises(CallFailed, match="content_filter"):
            await client.chat(attempt_messages())
