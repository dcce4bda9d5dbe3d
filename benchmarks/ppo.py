"""Our PPO against TRL 1.12's PPOTrainer, and our rollout against HF generate, on this machine's CPU.

    python -m benchmarks.ppo [--steps 10] [--rounds 3] [--threads 2] [--work build/bench/ppo]

Both train the same model (0.9M parameters, taught the format of the simulated world for `--teach` steps) on the same
prompts with the same verifier: batch 64, micro-batch 16, 2 mini-batches, 1 epoch, float32, a full separate critic,
completions of up to 160 tokens at temperature 1, a learning rate too small to change their length. Runs alternate; the
first step of each is left out. `phases` are seconds a step; ours updates its critic (`value`) beside the next rollout,
so they are more than a step together. TRL lives in an environment of its own that this command makes: its own trl, on
the torch and transformers of this one. The last line is one JSON object.
"""

import argparse
import json
import os
import site
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from clinical_r1.atomic import write_text
from clinical_r1.schema import read_jsonl, write_jsonl
from clinical_r1.training.launcher import ENVIRONMENT

BATCH, MICRO, MINI, NEW_TOKENS, LEARNING_RATE = 64, 16, 2, 160, 1e-6
TRL = "trl==1.12.0"


def main() -> None:
    """Command line; `--child` is one measurement in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--teach", type=int, default=400, help="plain training steps that give the model its format")
    parser.add_argument("--work", type=Path, default=Path("build/bench/ppo"))
    parser.add_argument("--child", choices=["ours", "rollout", "model"], default=None)
    options = parser.parse_args()
    if options.child:
        child = {"ours": run_ours, "rollout": run_rollout, "model": make_model}[options.child]
        print(json.dumps(child(options.work, options.steps, options.teach)))
        return
    work: Path = options.work
    if not (work / "model" / "config.json").is_file():
        measure("model", options)
    python = trl_environment(work)
    ours, trl = [], []
    for number in range(options.rounds):
        ours.append(measure("ours", options))
        trl.append(measure_trl(python, options))
        print(f"round {number + 1}: ours {ours[-1]['samples_per_s']:.1f}, TRL {trl[-1]['samples_per_s']:.1f} samples/s")
    rollout = measure("rollout", options)
    mine, theirs = (statistics.median(run["samples_per_s"] for run in runs) for runs in (ours, trl))
    result = {
        "samples_per_s_ratio": round(mine / theirs, 2),
        "samples_per_s": round(mine, 1),
        "trl_samples_per_s": round(theirs, 1),
        "rollout_ratio": round(rollout["own"] / rollout["hf"], 2),
        "rollout_tokens_per_s": round(rollout["own"]),
        "hf_tokens_per_s": round(rollout["hf"]),
        "phases": ours[-1]["phases"],
        "mean_length": round(ours[-1]["mean_length"], 1),
        "trl_mean_length": round(trl[-1]["mean_length"], 1),
        "threads": options.threads,
    }
    print(json.dumps(result))


def measure(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """One measurement in a fresh process; its last line is the result."""
    command = [sys.executable, "-m", "benchmarks.ppo", "--child", kind, "--work", str(options.work)]
    return _run([*command, "--steps", str(options.steps), "--teach", str(options.teach)], options.threads)


def measure_trl(python: Path, options: argparse.Namespace) -> dict[str, Any]:
    """TRL's trainer in its own environment."""
    script = Path(__file__).with_name("trl_ppo_baseline.py")
    sizes = [BATCH, MICRO, MINI, NEW_TOKENS]
    return _run([str(python), str(script), str(options.work), str(options.steps), *map(str, sizes)], options.threads)


def _run(command: list[str], threads: int) -> dict[str, Any]:
    calm = ENVIRONMENT | {"OMP_NUM_THREADS": str(threads)}
    offline = {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env=os.environ | calm | offline, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def trl_environment(work: Path) -> Path:
    """A virtual environment with TRL 1.12, before this environment's packages on the path; made once."""
    folder = (work / "trl").resolve()
    python = folder / "bin" / "python"
    ready = folder / ".ready"
    if ready.is_file():
        return python
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--no-deps", TRL], check=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    lines = [f"import site; site.addsitedir({path!r})" for path in site.getsitepackages()]
    write_text(packages / "shared.pth", "\n".join(lines) + "\n")
    write_text(ready, TRL + "\n")
    return python


def make_model(work: Path, _steps: int, teach: int) -> dict[str, Any]:
    """A tiny model that answers in the world's format, and the cases."""
    import torch

    from benchmarks.teacher_traces import as_case, teacher_traces
    from clinical_r1.generation.chat import completion_ids, prompt_ids
    from clinical_r1.generation.load import load_model, save_model
    from clinical_r1.simulator.world import sample_cases
    from clinical_r1.training.tiny import TinyModelConfig, make_base_model

    write_jsonl(work / "rl.jsonl", (as_case(drawn) for drawn in sample_cases(1024, 1)))
    write_jsonl(work / "validation.jsonl", (as_case(drawn) for drawn in sample_cases(16, 2)))
    write_jsonl(work / "traces.jsonl", teacher_traces(2000, 3))
    from clinical_r1.schema import Trace

    make_base_model(TinyModelConfig(vocab_size=1600), [work / "traces.jsonl"], work / "base")
    model, tokenizer = load_model(work / "base")
    rows = [
        (prompt_ids(tokenizer, t.question), completion_ids(tokenizer, t.thinking, t.response))
        for t in read_jsonl(work / "traces.jsonl", Trace)
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    for step in range(teach):
        batch = [rows[(step * 8 + index) % len(rows)] for index in range(8)]
        longest = max(len(p) + len(c) for p, c in batch)
        ids = torch.tensor([p + c + [tokenizer.pad_token_id] * (longest - len(p) - len(c)) for p, c in batch])
        labels = torch.tensor([[-100] * len(p) + c + [-100] * (longest - len(p) - len(c)) for p, c in batch])
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    save_model(model, tokenizer, work / "model")
    return {"loss": float(loss)}


def run_ours(work: Path, steps: int, _teach: int) -> dict[str, Any]:
    """Steps of our trainer under two DeepSpeed engines."""
    import shutil

    from clinical_r1.training.metrics import read_metrics
    from clinical_r1.training.ppo.config import PPOConfig
    from clinical_r1.training.ppo.run import train_ppo

    config = PPOConfig.model_validate(
        {
            "steps": steps, "batch_size": BATCH, "micro_batch_size": MICRO, "minibatches": MINI, "epochs": 1,
            "learning_rate": LEARNING_RATE, "warmup_steps": 0, "save_every": 10_000, "keep": "last",
            "rollout": {"max_new_tokens": NEW_TOKENS}, "probe": {"every": 0, "cases": 1},
            "critic": {"learning_rate": LEARNING_RATE, "warmup_batches": 0}, "deepspeed": {"stage": 1},
        }
    )  # fmt: skip
    shutil.rmtree(work / "state", ignore_errors=True)
    train_ppo(config, work / "model", work / "rl.jsonl", work / "validation.jsonl", work / "out", work / "state")
    rows = [row for row in read_metrics(work / "out" / "metrics.jsonl") if "time/step" in row][1:]
    phases = ("rollout", "forward", "verify", "policy", "value")
    seconds = sum(row["time/step"] for row in rows)
    return {
        "samples_per_s": BATCH * len(rows) / seconds,
        "mean_length": sum(row["train/length"] for row in rows) / len(rows),
        "phases": {name: round(sum(row[f"time/{name}"] for row in rows) / len(rows), 3) for name in phases},
    }


def run_rollout(work: Path, steps: int, _teach: int) -> dict[str, float]:
    """Tokens per second of our decoder and of HF generate, alternating; medians."""
    import torch
    from transformers import GenerationConfig

    from clinical_r1.generation.chat import prompt_ids
    from clinical_r1.generation.decoder import build_decoder
    from clinical_r1.generation.load import load_model
    from clinical_r1.generation.sampling import SamplingParams
    from clinical_r1.schema import Case

    model, tokenizer = load_model(work / "model")
    prompts = [prompt_ids(tokenizer, case.prompt) for case in read_jsonl(work / "rl.jsonl", Case)[:BATCH]]
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    decoder = build_decoder(model)
    generation = GenerationConfig(
        max_new_tokens=NEW_TOKENS, do_sample=True, top_k=0, top_p=1.0, eos_token_id=end, pad_token_id=pad
    )
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(prompt)) + prompt for prompt in prompts])
    real = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    speeds: dict[str, list[float]] = {"own": [], "hf": []}
    for number in range(steps + 1):
        start = time.perf_counter()
        rollouts = decoder.generate(prompts, SamplingParams(NEW_TOKENS, 1.0, 1.0, number, (end,), pad))
        speeds["own"].append(sum(len(r.token_ids) for r in rollouts) / (time.perf_counter() - start))
        start = time.perf_counter()
        with torch.no_grad():
            out = model.generate(input_ids=ids, attention_mask=real, generation_config=generation)[:, longest:]
        seconds = time.perf_counter() - start
        tokens = sum(row.index(end) + 1 if end in row else len(row) for row in out.tolist())
        speeds["hf"].append(tokens / seconds)
    return {name: statistics.median(values[1:]) for name, values in speeds.items()}


if __name__ == "__main__":
    main()
