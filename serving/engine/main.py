"""Serve a checkpoint from a CPU: `python -m serving.engine --model DIR --port 8000` (bare engine),
and `serve(...)`, which puts the gateway and its chat page in front (`clinical-r1 serve MODEL --open`).
"""

import argparse
import asyncio
import re
import sys
import time
from pathlib import Path

from aiohttp import web

from clinical_r1.baseline import FILE_NAME as BASELINE_FILE
from clinical_r1.errors import UserError
from clinical_r1.folders import check_model_folder
from clinical_r1.generation.chat import end_ids
from clinical_r1.generation.load import load_model
from serving.engine.answer import Served
from serving.engine.api import build_app
from serving.engine.scheduler import Scheduler
from serving.gateway.config import INTENDED_USE, GatewayConfig


def load_served(model: Path, name: str = "", max_batch: int = 16, context: int = 0) -> Served:
    """Load weights and tokenizer; `context` 0 means what the model's config says.

    Raises:
        UserError: the folder is no model.
    """
    check_model_folder(model)
    if not (model / "tokenizer.json").is_file():
        raise UserError(f"{model} is no model folder: tokenizer.json missing; save it with a fast tokenizer")
    from tokenizers import Tokenizer

    from clinical_r1.generation.decoder import Decoder

    torch_model, template = load_model(model, device="cpu", dtype="float32")
    eos = sorted(end_ids(template, torch_model))
    if not eos:
        raise UserError(f"{model}: no end-of-answer token; set eos_token_id in generation_config.json")
    decoder = Decoder(torch_model)
    return Served(
        name=name or model.resolve().name,
        tokenizer=Tokenizer.from_file(str(model / "tokenizer.json")),
        template=template,
        context=context or min(decoder.window, 8192),
        scheduler=Scheduler(decoder, eos, template.pad_token_id, max_batch=max_batch),
        started=int(time.time()),
    )


async def listen(app: web.Application, host: str, port: int) -> tuple[web.AppRunner, int]:
    """Start an app; returns its runner and the port it got (port 0 asks for a free one)."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=5.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
    except OSError as problem:
        await runner.cleanup()
        raise UserError(f"{host}:{port}: cannot listen ({problem.strerror}); choose another --port") from None
    return runner, runner.addresses[0][1]


def main(argv: list[str] | None = None) -> int:
    """The bare engine; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m serving.engine", description="CPU model server")
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--name", default="", help="model id to announce; default: the folder's name")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--max-batch", type=int, default=16)
    parser.add_argument("--context", type=int, default=0, help="tokens of prompt plus answer; 0: the model's own")
    given = parser.parse_args(argv)

    async def run(served: Served) -> None:
        from serving.gateway.server import until_signal

        runner, port = await listen(build_app(served), given.host, given.port)
        print(f"engine for {served.name} at http://{given.host}:{port}/v1", flush=True)
        await until_signal()
        await runner.cleanup()

    try:
        asyncio.run(run(load_served(given.model, given.name, given.max_batch, given.context)))
    except UserError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


def serve(model: Path, host: str, port: int, open_browser: bool) -> None:
    """Serve `model` until Ctrl-C: OpenAI protocol, chat page, metrics. The engine has a loopback port of its own, the
    gateway with the chat page is in front of it.

    Raises:
        UserError: `model` is no model folder, or the port is taken.
    """
    from serving.gateway.server import run_gateway

    if host not in ("127.0.0.1", "localhost", "::1"):
        print(f"warning: {host} is reachable from outside, and `serve` asks nobody for a key", file=sys.stderr)
    served, baseline = load_served(model), model / BASELINE_FILE
    settings = {
        "host": host,
        "port": port,
        "auth": "none",
        "model_name": served.name,
        # A folder name as a metric label.
        "model_version": re.sub(r"[^A-Za-z0-9._-]", "-", served.name).lstrip("._-")[:80] or "model",
        "tokenizer": model / "tokenizer.json",
        "baseline": baseline if baseline.is_file() else None,
        "audit_file": "",
        "chat_page": True,
        "timeouts": {"settle": 0.0, "drain": 5.0},
    }

    def announce(bound: int) -> None:
        page = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{bound}/"
        print(f"{served.name} is served at {page}v1 (OpenAI protocol), chat page {page}, metrics {page}metrics")
        print(f"Intended use: {INTENDED_USE}. Ctrl-C ends it.", flush=True)
        if open_browser:
            import webbrowser

            webbrowser.open(page)

    async def run() -> None:
        runner, engine_port = await listen(build_app(served), "127.0.0.1", 0)
        upstream = f"http://127.0.0.1:{engine_port}"
        try:
            await run_gateway(GatewayConfig.model_validate(settings | {"upstream": upstream}), announce)
        finally:
            await runner.cleanup()

    asyncio.run(run())
