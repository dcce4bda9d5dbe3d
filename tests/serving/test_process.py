"""The gateway as a process: no torch in it, one sentence for wrong settings, a drain on SIGTERM."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from gateway_fixture import ASK, PATIENCE
from scripted_engine import Script, ScriptedEngine

ROOT = Path(__file__).parents[2]


def test_the_gateway_imports_neither_torch_nor_kfp() -> None:
    heavy = ("torch", "kfp", "transformers", "numpy")
    code = f"import sys, serving.gateway.__main__; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--config", "absent.yaml"], "absent.yaml"),
        ([], "keys_file"),
        (["--auth", "none", "--port", "99999"], "port"),
        (["--keys-file", "absent.keys"], "absent.keys"),
        (["--auth", "none", "--model-version", "has spaces"], "model_version"),
    ],
)
def test_wrong_settings_are_one_sentence(arguments: list[str], names: str) -> None:
    command = [sys.executable, "-m", "serving.gateway", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert names in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


async def test_sigterm_lets_a_stream_finish() -> None:
    engine = ScriptedEngine()
    await engine.server.start_server()
    engine.script = Script(delay=0.05)
    command = [sys.executable, "-c", RUN, engine.url]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert process.stdout
    port = int(await process.stdout.readline())
    base = f"http://127.0.0.1:{port}"
    async with aiohttp.ClientSession() as session:
        while (await session.get(f"{base}/healthz/ready")).status != 200:  # a slow machine may miss the first probe
            await asyncio.sleep(0.1)
        body = {**ASK, "stream": True}
        async with session.post(f"{base}/v1/chat/completions", json=body) as response:
            await response.content.readline()
            process.send_signal(signal.SIGTERM)
            rest = (await response.read()).decode()
    assert rest.endswith("data: [DONE]\n\n")
    assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
    audit = (await process.stdout.read()).decode().splitlines()
    assert json.loads(audit[0])["outcomes"] == ["ok"]
    await engine.server.close()


RUN = """
import sys
from serving.gateway.config import GatewayConfig, Timeouts
from serving.gateway.server import run, run_gateway

config = GatewayConfig(port=0, auth="none", upstream=sys.argv[1], timeouts=Timeouts(settle=0.1, drain=120))
run(lambda: run_gateway(config, lambda port: print(port, flush=True)))
"""
