"""The vLLM sampler's side of the protocol, against a server of ours that answers as vLLM's documentation says."""

import asyncio
import json
import shutil
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from aiohttp import web
from safetensors.torch import load_file, save_file

from clinical_r1.errors import UserError
from clinical_r1.generation.decoder import SamplingParams
from clinical_r1.generation.load import load_model
from clinical_r1.training.ppo import vllm_rollout
from clinical_r1.training.ppo.batch import Batch, Episode
from clinical_r1.training.ppo.config import RolloutConfig
from clinical_r1.training.ppo.rollout import check_sampler
from clinical_r1.training.ppo.vllm_rollout import VLLMSampler, read_choice, untie
from clinical_r1.training.vllm_server import vllm_server


class Server:
    """A loopback server that keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict]] = []
        self.failures: list[int] = []
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.port = asyncio.run_coroutine_threadsafe(self._start(), self.loop).result()

    async def _start(self) -> int:
        app = web.Application()
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/{path:.*}", self._answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner.addresses[0][1]

    async def _models(self, _request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "tiny"}]})

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else {}
        self.asked.append((request.path, body))
        if self.failures:
            return web.Response(status=self.failures.pop(0))
        if request.path != "/v1/completions":
            return web.Response()
        tokens = [*body["prompt"][:2], 3]
        choice = {"token_ids": tokens, "logprobs": {"token_logprobs": [-1.0] * 3}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice]})


def sampler_of(url: str) -> VLLMSampler:
    """Without engines: these tests do not reach for weights."""
    return VLLMSampler(RolloutConfig(engine="vllm", vllm_url=url), None, Path("."))  # type: ignore[arg-type]


def test_completions_by_token_ids_in_order():
    server = Server()
    sampler = sampler_of(f"http://127.0.0.1:{server.port}/v1")
    rollouts = sampler.generate([[5, 6], [7, 8, 9]], SamplingParams(8, 1.0, 1.0, 0, (3,)), seeds=[2**64 - 1, 4])
    assert [r.token_ids for r in rollouts] == [[5, 6, 3], [7, 8, 3]]
    assert all(r.finished and len(r.logprobs) == 3 for r in rollouts)
    asked = {tuple(body["prompt"]): body for _, body in server.asked}
    assert asked[5, 6]["seed"] == 2**63 - 1
    assert asked[7, 8, 9]["stop_token_ids"] == [3]
    asyncio.run(sampler._reload())
    assert [path for path, _ in server.asked[-2:]] == ["/collective_rpc", "/reset_prefix_cache"]
    assert server.asked[-2][1]["method"] == "reload_weights"


def test_a_failed_request_is_tried_again_with_its_own_seed(monkeypatch):
    monkeypatch.setattr(vllm_rollout, "WAITS", (0.0, 0.0))
    server = Server()
    server.failures = [503, 500]
    sampler = sampler_of(f"http://127.0.0.1:{server.port}/v1")
    assert [r.token_ids for r in sampler.generate([[5, 6]], SamplingParams(8), seeds=[7])] == [[5, 6, 3]]
    assert [body["seed"] for _, body in server.asked] == [7, 7, 7]
    server.failures = [503, 503, 503]
    with pytest.raises(UserError, match="answered HTTP 503"):
        sampler.generate([[5, 6]], SamplingParams(8), seeds=[7])


VLLM = """
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(json.dumps(sys.argv).encode())
HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


def test_a_step_starts_a_server_of_its_own_and_ends_it(tmp_path):
    """By the options; a program of ours stands where vLLM's interpreter would."""
    python = tmp_path / "python"
    (tmp_path / "server.py").write_text(VLLM)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path}/server.py "$@"\n')
    python.chmod(0o700)
    with vllm_server(str(python), ["--dtype", "float32"], tmp_path / "model", tmp_path / "log") as url:
        with urllib.request.urlopen(f"{url}/models") as answer:
            asked = json.load(answer)
        assert asked[asked.index("--model") + 1] == str(tmp_path / "model") and asked[-2:] == ["--dtype", "float32"]
        assert "processed_logprobs" in asked
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{url}/models", timeout=2)
    python.write_text("#!/bin/sh\nexit 3\n")
    for program, said in (
        (str(python), r"ended with code 3; its log is .*log"),
        ("/nowhere/python", "no such program"),
    ):
        with (
            pytest.raises(UserError, match=said),
            vllm_server(program, [], tmp_path / "model", tmp_path / "log"),
        ):
            pass


def test_a_server_that_is_not_there_is_one_sentence(monkeypatch):
    monkeypatch.setattr(vllm_rollout, "WAITS", (0.0,))
    sampler = sampler_of("http://127.0.0.1:9/v1")
    with pytest.raises(UserError, match="is the vLLM server of vllm_url up"):
        sampler.generate([[1]], SamplingParams(4))


def test_a_reply_without_token_ids_is_refused():
    with pytest.raises(UserError, match="no token ids"):
        read_choice({"text": "x"}, (3,))


@pytest.mark.parametrize("shards", ["5GB", "20KB"])
def test_an_untied_model_says_the_same_with_a_head_of_its_own(base_model, tmp_path, shards):
    (tied, tokenizer), ids = load_model(base_model), torch.arange(40)[None]
    tied.save_pretrained(tmp_path, max_shard_size=shards)
    tokenizer.save_pretrained(tmp_path)
    untie(tmp_path)
    untied = load_model(tmp_path)[0]
    head, embeddings = untied.get_output_embeddings().weight, untied.get_input_embeddings().weight
    assert head.data_ptr() != embeddings.data_ptr() and torch.equal(head, embeddings)
    assert torch.equal(untied(ids).logits, tied(ids).logits)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    untie(tmp_path)  # nothing to do
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_another_layout_is_left_as_it_is(base_model, tmp_path):
    shutil.copytree(base_model, tmp_path / "model")
    save_file({"transformer.wte.weight": torch.zeros(2, 2)}, tmp_path / "model" / "model.safetensors")
    before = {path: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    untie(tmp_path / "model")
    assert {path: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before


def test_the_server_gets_a_head_of_its_own(base_model, tmp_path):
    server = Server()
    model, tokenizer = load_model(base_model)
    engines: Any = SimpleNamespace(policy=SimpleNamespace(model=model, causal=model), tokenizer=tokenizer)
    config = RolloutConfig(engine="vllm", vllm_url=f"http://127.0.0.1:{server.port}/v1")
    VLLMSampler(config, engines, tmp_path).refresh()
    folder = tmp_path / "rollout-weights" / "model"
    assert load_file(folder / "model-head.safetensors").keys() == {"lm_head.weight"}
    assert server.asked[0][1]["kwargs"] == {"weights_path": str(folder)}


def test_a_server_with_other_weights_ends_the_run():
    rollouts = [Episode(0, [1, 2], [3, 4], [-0.5, -0.5], True), Episode(1, [1], [5], [-0.5], True)]
    batch = Batch(rollouts, 2, 0)
    batch.old = batch.sampled + 0.05 * batch.mask
    check_sampler(batch, "vllm")
    for off, said in ((0.2, r"0\.20"), (float("nan"), "nan")):
        batch.old = batch.sampled - off * batch.mask
        with pytest.raises(UserError, match=rf"off by {said} nats a token"):
            check_sampler(batch, "vllm")
