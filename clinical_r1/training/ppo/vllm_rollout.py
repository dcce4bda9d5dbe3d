"""Rollouts by a vLLM server that gets the actor's weights before every batch.

`rollout.vllm_python` lets the step start one (clinical_r1.training.vllm_server). Else start the server on the folder of
the SFT model, on a volume that it shares with the trainer at the same path::

    VLLM_SERVER_DEV_MODE=1 python -m vllm.entrypoints.openai.api_server --model SFT_MODEL \\
        --logprobs-mode processed_logprobs --generation-config vllm

(the development mode opens /collective_rpc, so keep the port inside of the cluster; `processed_logprobs` are those at
the sampling temperature). Its kernels round differently from the trainer's: the trainer recomputes all
log-probabilities and weighs each token by the truncated ratio of the two (`importance_weights`); a run that is off by
more than `rollout.MOST_GAP` stops.
"""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError
from clinical_r1.generation.decoder import Rollout, SamplingParams, row_seeds
from clinical_r1.training.group import barrier, rank
from clinical_r1.training.ppo.config import RolloutConfig
from clinical_r1.training.ppo.engines import Engines, write_model
from clinical_r1.training.vllm_server import weights_folder

WAITS = (1.0, 4.0, 15.0)
"""Seconds before a failed request is tried again; its seed is its own, so what it draws is the same."""
CONCURRENCY = 256
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=1800)


class VLLMSampler:
    """The face of a generation.Decoder over HTTP."""

    def __init__(self, config: RolloutConfig, engines: Engines, state_dir: Path) -> None:
        self.url, self.engines = config.vllm_url.rstrip("/"), engines
        self.folder = weights_folder(state_dir) / "model"
        self._model = ""

    def refresh(self) -> None:
        """Write the actor's weights to the shared folder and have the server load them. Collective."""
        write_model(self.engines, self.folder)
        if rank() == 0:
            untie(self.folder)
            asyncio.run(self._reload())
        barrier()

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        on_token: Any = None,
        seeds: Sequence[int] | None = None,
    ) -> list[Rollout]:
        """One completion a prompt, in order; `on_token` hears of each as it ends (the server is not interrupted)."""
        streams = list(seeds) if seeds is not None else row_seeds(params.seed, len(prompts))
        return asyncio.run(self._generate(prompts, params, streams, on_token))

    async def _reload(self) -> None:
        root = self.url.removesuffix("/v1")
        call = {"method": "reload_weights", "kwargs": {"weights_path": str(self.folder)}}
        async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
            await _ask(session, "POST", f"{root}/collective_rpc", json=call)
            await _ask(session, "POST", f"{root}/reset_prefix_cache")

    async def _generate(
        self, prompts: Sequence[Sequence[int]], params: SamplingParams, seeds: list[int], on_token: Any
    ) -> list[Rollout]:
        gate = asyncio.Semaphore(CONCURRENCY)
        async with aiohttp.ClientSession(timeout=TIMEOUT, connector=aiohttp.TCPConnector(limit=CONCURRENCY)) as session:
            if not self._model:
                self._model = (await _ask(session, "GET", f"{self.url}/models"))["data"][0]["id"]

            async def one(index: int, prompt: Sequence[int], seed: int) -> Rollout:
                request = {
                    "model": self._model, "prompt": list(prompt), "max_tokens": params.max_new_tokens,
                    "temperature": params.temperature, "top_p": params.top_p, "top_k": params.top_k,
                    "min_p": params.min_p, "repetition_penalty": params.repetition_penalty, "seed": seed & (2**63 - 1),
                    "stop_token_ids": list(params.eos_token_ids), "logprobs": 1, "return_token_ids": True,
                }  # fmt: skip
                async with gate:
                    reply = await _ask(session, "POST", f"{self.url}/completions", json=request)
                rollout = read_choice(reply["choices"][0], params.eos_token_ids)
                for token in rollout.token_ids if on_token else ():
                    on_token(index, token)
                return rollout

            return list(await asyncio.gather(*map(one, range(len(prompts)), prompts, seeds)))


async def _ask(session: aiohttp.ClientSession, method: str, url: str, **body: Any) -> Any:
    """One request, tried again where the server does not answer or is at fault itself; what it answered, if anything.

    Raises UserError where it is not there, lacks the route or refuses.
    """
    waits = list(WAITS)
    while True:
        try:
            async with session.request(method, url, **body) as response:
                if response.status == 404:
                    raise UserError(f"{url}: the server has no such route; start it with VLLM_SERVER_DEV_MODE=1")
                if response.status < 400:
                    return await response.json(content_type=None) if (await response.read()) else None
                if not waits or (response.status < 500 and response.status != 429):
                    raise UserError(f"{url}: the server answered HTTP {response.status}; its log says why")
        except (aiohttp.ClientError, TimeoutError) as error:
            if not waits:
                raise UserError(
                    f"{url}: no answer ({type(error).__name__}); is the vLLM server of vllm_url up?"
                ) from None
        await asyncio.sleep(waits.pop(0))


def read_choice(choice: dict[str, Any], ends: tuple[int, ...]) -> Rollout:
    """One choice of a /completions reply with token ids and log-probabilities."""
    tokens = choice.get("token_ids")
    logprobs = (choice.get("logprobs") or {}).get("token_logprobs")
    if not tokens or not logprobs or len(tokens) != len(logprobs):
        raise UserError("the vLLM server returned no token ids with log-probabilities; use a version of 0.11 or later")
    return Rollout(list(tokens), [float(value) for value in logprobs], tokens[-1] in ends)


EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
WHOLE, BODY, HEAD_FILE = "model.safetensors", "model-body.safetensors", "model-head.safetensors"
INDEX = "model.safetensors.index.json"


def untie(folder: Path) -> None:
    """Store the embeddings as output head too, and say in config.json that they are not tied.

    `folder` is one that `save_model` wrote. Nothing is done where they are not tied, or are named otherwise than
    Qwen2's (a server that then keeps its old head is found by `rollout.check_sampler`).
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    whole, index = folder / WHOLE, folder / INDEX
    if whole.is_file():
        with safe_open(whole, "pt") as file:
            weight_map = dict.fromkeys(file.keys(), BODY)
    else:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    if not config.get("tie_word_embeddings") or EMBEDDING not in weight_map:
        return
    if whole.is_file():  # beside an index it would be taken for the whole model
        whole.rename(folder / BODY)
    with safe_open(folder / weight_map[EMBEDDING], "pt") as file:
        save_file({HEAD: file.get_tensor(EMBEDDING)}, folder / HEAD_FILE, metadata={"format": "pt"})
    write_text(index, json.dumps({"metadata": {}, "weight_map": weight_map | {HEAD: HEAD_FILE}}, indent=2) + "\n")
    write_text(folder / "config.json", json.dumps(config | {"tie_word_embeddings": False}, indent=2) + "\n")
