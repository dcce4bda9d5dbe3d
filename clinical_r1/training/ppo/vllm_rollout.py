"""Rollouts by a vLLM server that gets the actor's weights before every batch.

Start the server on the folder of the SFT model, on a volume that it shares with the trainer at the same path::

    VLLM_SERVER_DEV_MODE=1 python -m vllm.entrypoints.openai.api_server --model SFT_MODEL \\
        --logprobs-mode processed_logprobs --generation-config vllm

(the development mode opens /collective_rpc, so keep the port inside of the cluster; `processed_logprobs` are those at
the sampling temperature). Its kernels round differently from the trainer's: the trainer recomputes all
log-probabilities and weighs each token by the truncated ratio of the two (`importance_weights`); a run that is off by
more than `rollout.MOST_GAP` stops.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from clinical_r1.errors import UserError
from clinical_r1.generation.sampling import Rollout, SamplingParams, row_seeds
from clinical_r1.sampling import NEUTRAL
from clinical_r1.training.ppo.config import RolloutConfig
from clinical_r1.training.ppo.engines import Engines, rank, world_size
from clinical_r1.training.ppo.saving import write_model
from clinical_r1.training.ppo.untied import untie

WEIGHTS_FOLDER = "rollout-weights"
CONCURRENCY = 256
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=1800)


class VLLMSampler:
    """The face of a generation.Decoder over HTTP."""

    def __init__(self, config: RolloutConfig, engines: Engines, state_dir: Path) -> None:
        self.url = config.vllm_url.rstrip("/")
        self.engines = engines
        self.folder = state_dir / WEIGHTS_FOLDER
        self._model = ""

    def refresh(self) -> None:
        """Write the actor's weights to the shared folder and have the server load them. Collective."""
        write_model(self.engines, self.folder)
        if rank() == 0:
            untie(self.folder)
            asyncio.run(self._reload())
        if world_size() > 1:
            import torch.distributed as dist

            dist.barrier()

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        on_token: Any = None,
        seeds: Sequence[int] | None = None,
    ) -> list[Rollout]:
        """One completion a prompt, in order; `on_token` is not called (the server is not interrupted)."""
        streams = list(seeds) if seeds is not None else row_seeds(params.seed, len(prompts))
        return asyncio.run(self._generate(prompts, params, streams))

    async def _reload(self) -> None:
        root = self.url.removesuffix("/v1")
        call = {"method": "reload_weights", "kwargs": {"weights_path": str(self.folder)}}
        async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
            await self._post(session, f"{root}/collective_rpc", call)
            await self._post(session, f"{root}/reset_prefix_cache", None)

    async def _generate(
        self, prompts: Sequence[Sequence[int]], params: SamplingParams, seeds: list[int]
    ) -> list[Rollout]:
        gate = asyncio.Semaphore(CONCURRENCY)
        async with aiohttp.ClientSession(timeout=TIMEOUT, connector=aiohttp.TCPConnector(limit=CONCURRENCY)) as session:
            if not self._model:
                self._model = (await self._get(session, f"{self.url}/models"))["data"][0]["id"]

            async def one(prompt: Sequence[int], seed: int) -> Rollout:
                request = {
                    **NEUTRAL, "model": self._model, "prompt": list(prompt), "max_tokens": params.max_new_tokens,
                    "temperature": params.temperature, "top_p": params.top_p, "seed": seed & (2**63 - 1),
                    "stop_token_ids": list(params.eos_token_ids), "logprobs": 1, "return_token_ids": True,
                }  # fmt: skip
                async with gate:
                    reply = await self._post(session, f"{self.url}/completions", request)
                return read_choice(reply["choices"][0], params.eos_token_ids)

            return list(await asyncio.gather(*map(one, prompts, seeds)))

    async def _post(self, session: aiohttp.ClientSession, url: str, body: Any) -> Any:
        try:
            async with session.post(url, json=body) as response:
                return await self._read(response, url)
        except aiohttp.ClientError as error:
            raise UserError(f"{url}: no answer ({type(error).__name__}); is the vLLM server of vllm_url up?") from None

    async def _get(self, session: aiohttp.ClientSession, url: str) -> Any:
        try:
            async with session.get(url) as response:
                return await self._read(response, url)
        except aiohttp.ClientError as error:
            raise UserError(f"{url}: no answer ({type(error).__name__}); is the vLLM server of vllm_url up?") from None

    async def _read(self, response: aiohttp.ClientResponse, url: str) -> Any:
        if response.status == 404:
            raise UserError(f"{url}: the server has no such route; start it with VLLM_SERVER_DEV_MODE=1")
        if response.status >= 400:
            raise UserError(f"{url}: the server answered HTTP {response.status}; its log says why")
        return await response.json(content_type=None) if (await response.read()) else None


def read_choice(choice: dict[str, Any], ends: tuple[int, ...]) -> Rollout:
    """One choice of a /completions reply with token ids and log-probabilities."""
    tokens = choice.get("token_ids")
    logprobs = (choice.get("logprobs") or {}).get("token_logprobs")
    if not tokens or not logprobs or len(tokens) != len(logprobs):
        raise UserError("the vLLM server returned no token ids with log-probabilities; use a version of 0.11 or later")
    finished = tokens[-1] in ends
    return Rollout(list(tokens), [float(value) for value in logprobs], finished)
