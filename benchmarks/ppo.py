"""PPO of a real model: our step against TRL 1.12's PPOTrainer, our rollout against HF generate, a slow judge's cost.

    python -m benchmarks.ppo [--steps 3] [--tokens 32] [--rollout-rounds 2] [--threads 2] [--work build/bench/ppo]

SmolLM2-135M-Instruct answers the shortest of the 198 problems of HuatuoGPT-o1's demo set (../shared/data); float32,
all weights, a full critic, batches of 8 in micro-batches of 4, one update a step, a tiny learning rate. Each run is a
process of its own; the first step of each is left out, and the rest of the step is its wall time.

- `samples_per_s_ratio`: episodes a second of ours over TRL's, in an environment of its own that this command makes.
  Both are paid by a coin that the answer's text decides: a model of this size is right too seldom to learn from. TRL
  wants its reward as a model on tokens, so its coin is dressed as one.
- `rollout_ratio`: tokens a second over HF generate's with the same prompts, at batch 16 and 64; the lower of the two
- `judge_overlap`: our step with a judge that takes a second a call over the same step with a judge that takes none
- `vllm_tokens_per_s`: vLLM's CPU build on the same prompts, where another bench has installed it

The last line is one JSON object.
"""

import argparse
import copy
import itertools
import json
import os
import shutil
import site
import statistics
import subprocess
import sys
import time
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.gateway_load.parties import CACHE
from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError
from clinical_r1.schema import Case, read_jsonl, write_jsonl
from clinical_r1.simulator.beside import SimulatorConfig, arguments_of, simulated_endpoint
from clinical_r1.training.base import smollm2_folder
from clinical_r1.training.launcher import ENVIRONMENT

PROBLEMS = Path(__file__).parents[1] / "../shared/data/huatuogpt_o1_demo_198.json"
BATCH, MICRO, LEARNING_RATE = 8, 4, 1e-7
ROLLOUTS = (16, 64)
TRL = "trl==1.12.0"
VLLM_SECONDS = 300
VLLM = """
import json, sys, time
from vllm import LLM, SamplingParams
told = json.loads(sys.stdin.read())
llm = LLM(told["model"], dtype="float32", enforce_eager=True, max_model_len=512, disable_log_stats=True)
params = SamplingParams(temperature=1.0, max_tokens=told["tokens"], stop_token_ids=told["ends"], seed=0)
for rows in told["rows"]:
    begun = time.perf_counter()
    out = llm.generate([{"prompt_token_ids": p} for p in told["prompts"][:rows]], params, use_tqdm=False)
    made = sum(len(one.outputs[0].token_ids) for one in out)
    print("SPEED", made / (time.perf_counter() - begun), flush=True)
"""


def main() -> None:
    """Command line; `--child` is one measurement in a process of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=32, help="longest answer")
    parser.add_argument("--rollout-rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--work", type=Path, default=Path("build/bench/ppo"))
    parser.add_argument("--child", choices=["ours", "rollout", "trl"], help=argparse.SUPPRESS)
    parser.add_argument("--judge", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        children = {"ours": run_ours, "rollout": run_rollout, "trl": run_trl}
        print(json.dumps(children[options.child](options)))
        return
    try:
        if not PROBLEMS.is_file():
            raise UserError("../shared/data/huatuogpt_o1_demo_198.json is not beside the repository")
        smollm2_folder()
    except UserError as error:
        print(json.dumps({"skipped": str(error)}))
        return
    options.work.mkdir(parents=True, exist_ok=True)
    write_cases(options.work)
    ours = measure_ours(options, latency_ms=0)
    trl = measure("trl", options, python=trl_environment(options.work))
    print(f"TRL: {trl['seconds']:.1f} s a step", flush=True)
    slow = measure_ours(options, latency_ms=1000)
    rollout = measure("rollout", options)
    speeds = {name: BATCH / run["seconds"] for name, run in (("ours", ours), ("trl", trl))}
    result = {
        "samples_per_s_ratio": round(speeds["ours"] / speeds["trl"], 2),
        "rollout_ratio": min(round(rollout["own"][rows] / rollout["hf"][rows], 2) for rows in rollout["own"]),
        "judge_overlap": round(slow["seconds"] / ours["seconds"], 2),
        "samples_per_s": {name: round(speed, 3) for name, speed in speeds.items()},
        "tokens_per_s": {name: {rows: round(one, 1) for rows, one in of.items()} for name, of in rollout.items()},
        "vllm_tokens_per_s": measure_vllm(options),
        "phases": ours["phases"],
        "phases_slow_judge": slow["phases"],
        "mean_length": {"ours": round(ours["mean_length"], 1), "trl": round(trl["mean_length"], 1)},
        "load": round(os.getloadavg()[0], 1),
        "threads": options.threads,
    }
    print(json.dumps(result))


def write_cases(work: Path) -> None:
    """The shortest problems as cases: as many as the largest rollout has rows."""
    rows = json.loads(PROBLEMS.read_text(encoding="utf-8"))
    rows.sort(key=lambda row: len(row["Question"]))
    cases = [
        Case(
            id=f"demo-{index}", language="en", specialty="general",
            question=row["Question"], reference=row["Ground-True Answer"],
        )
        for index, row in enumerate(rows[: max(ROLLOUTS)])
    ]  # fmt: skip
    write_jsonl(work / "rl.jsonl", cases)
    write_jsonl(work / "validation.jsonl", cases[:1])


def measure_ours(options: argparse.Namespace, latency_ms: float) -> dict[str, Any]:
    """Our steps, judged by the simulated judge; half of its verdicts are turned around, so that rewards differ."""
    endpoint = SimulatorConfig(latency_ms=latency_ms, judge_error=0.5)
    with simulated_endpoint(arguments_of(endpoint), options.work / "judge.log", options.work / "judge.json") as url:
        found = measure("ours", options, url)
    print(f"ours, a judge of {latency_ms:g} ms: {found['seconds']:.1f} s a step", flush=True)
    return found


def measure(kind: str, options: argparse.Namespace, judge: str = "", python: Path | None = None) -> dict[str, Any]:
    """One measurement in a fresh process, of another environment's python where one is given; its last line is the
    result."""
    command = [str(python or sys.executable), "-m", "benchmarks.ppo", "--child", kind, "--work", str(options.work)]
    command += ["--judge", judge, "--steps", str(options.steps), "--tokens", str(options.tokens)]
    command += ["--rollout-rounds", str(options.rollout_rounds)]
    calm = ENVIRONMENT | {"OMP_NUM_THREADS": str(options.threads), "PYTHONSAFEPATH": ""}  # `benchmarks`: from here
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


def run_ours(options: argparse.Namespace) -> dict[str, Any]:
    """Steps of our trainer under two DeepSpeed engines, as the pipeline starts it."""
    from clinical_r1.charts import read_metrics
    from clinical_r1.training.ppo.config import PPOConfig
    from clinical_r1.training.ppo.run import train_ppo

    endpoint = {
        "name": "simulated", "base_url": options.judge, "model": SimulatorConfig().model, "terms": "train",
        "data_region": "loopback", "trusted": True, "max_concurrency": 64,
    }  # fmt: skip
    config = PPOConfig.model_validate(
        {
            "steps": options.steps, "batch_size": BATCH, "micro_batch_size": MICRO, "minibatches": 1, "epochs": 1,
            "learning_rate": LEARNING_RATE, "warmup_steps": 0, "save_every": 10_000, "keep": "last",
            "rollout": {"max_new_tokens": options.tokens}, "probe": {"every": 0, "cases": 1},
            "critic": {"learning_rate": LEARNING_RATE, "warmup_batches": 0}, "judge_probe": {"calls": 0},
            "judge": {"verifier": {"kind": "llm"}, "endpoint": endpoint}, "deepspeed": {"stage": 1},
        }
    )  # fmt: skip
    work, state = options.work, options.work / "state"
    for stale in (state, state.with_name("state.calls")):
        shutil.rmtree(stale, ignore_errors=True)
    train_ppo(config, smollm2_folder(), work / "rl.jsonl", work / "validation.jsonl", work / "out", state)
    rows = [row for row in read_metrics(work / "out" / "metrics.jsonl") if "time/step" in row][1:]
    if not all(row["train/updated"] for row in rows):
        raise SystemExit("a step had no difference in rewards and updated nothing; its time says nothing")
    shutil.rmtree(state, ignore_errors=True)  # some gigabytes
    phases = ("rollout", "forward", "verify", "policy", "value")
    return {
        "seconds": statistics.median(row["time/step"] for row in rows),
        "mean_length": statistics.mean(row["train/length"] for row in rows),
        "phases": {name: round(statistics.median(row[f"time/{name}"] for row in rows), 2) for name in phases},
    }


def run_trl(options: argparse.Namespace) -> dict[str, Any]:
    """TRL's PPOTrainer on the same model and prompts; in TRL's environment."""
    import torch
    import trl.experimental.ppo.ppo_trainer as trainer_module
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    from clinical_r1.generation.load import load_model

    class CoinAsModel(torch.nn.Module):
        """The five-line interface that TRL's get_reward asks of a reward model; it pays half of the texts."""

        base_model_prefix = "body"

        def __init__(self, prompts: set[tuple[int, ...]]) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
            self.prompts, self.lengths = prompts, []

        def body(self, input_ids: Any, attention_mask: Any, **_: Any) -> SimpleNamespace:
            self.rows = [ids[mask.bool()].tolist() for ids, mask in zip(input_ids, attention_mask, strict=True)]
            return SimpleNamespace(hidden_states=[input_ids[..., None].float()])

        def score(self, hidden: Any) -> Any:
            scores = []
            for row in self.rows:
                completion = row[next(n for n in range(1, len(row)) if tuple(row[:n]) in self.prompts) :]
                self.lengths.append(len(completion))
                scores.append(float(zlib.crc32(str(completion).encode()) % 2))
            return torch.tensor(scores)[:, None, None].expand(-1, hidden.shape[1], 1).clone()

    torch.manual_seed(0)
    folder = smollm2_folder()
    policy, tokenizer = load_model(folder)
    tokenizer.padding_side = "left"
    value = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=torch.float32)
    value.score.weight.data.zero_()
    prompts = questions(options.work, tokenizer)
    data = Dataset.from_list([{"input_ids": prompt} for prompt in prompts])
    settings = PPOConfig(
        output_dir=str(options.work / "trl-out"), per_device_train_batch_size=MICRO,
        gradient_accumulation_steps=BATCH // MICRO, num_mini_batches=1, num_ppo_epochs=1,
        total_episodes=options.steps * BATCH, response_length=options.tokens, stop_token="eos", temperature=1.0,
        kl_coef=0.03, cliprange=0.2, learning_rate=LEARNING_RATE, local_rollout_forward_batch_size=BATCH,
        num_sample_generations=0, report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False,
        save_strategy="no", logging_steps=1, lr_scheduler_type="constant",
    )  # fmt: skip
    starts: list[float] = []
    generate = trainer_module.batch_generation

    def timed(*args: Any, **kwargs: Any) -> Any:
        starts.append(time.perf_counter())
        return generate(*args, **kwargs)

    trainer_module.batch_generation = timed
    # TRL masks padding by its token, which for this model is a marker inside of the prompts as well.
    coin = CoinAsModel({tuple(token for token in prompt if token != tokenizer.pad_token_id) for prompt in prompts})
    PPOTrainer(
        args=settings, processing_class=tokenizer, model=policy, ref_model=copy.deepcopy(policy), reward_model=coin,
        train_dataset=data, value_model=value, eval_dataset=data.select(range(MICRO)),
    ).train()  # fmt: skip
    starts.append(time.perf_counter())
    seconds = [after - before for before, after in itertools.pairwise(starts[1:])]
    return {"seconds": statistics.median(seconds), "mean_length": statistics.mean(coin.lengths[BATCH:])}


def run_rollout(options: argparse.Namespace) -> dict[str, dict[int, float]]:
    """Tokens a second by batch size of our decoder and of HF generate, in turns; the best of each."""
    import torch
    from transformers import GenerationConfig

    from clinical_r1.generation.chat import end_ids
    from clinical_r1.generation.decoder import Decoder, SamplingParams
    from clinical_r1.generation.load import load_model

    model, tokenizer = load_model(smollm2_folder())
    everyone = questions(options.work, tokenizer)
    ends, pad = end_ids(tokenizer, model), tokenizer.pad_token_id
    decoder = Decoder(model)
    how = GenerationConfig(
        max_new_tokens=options.tokens, do_sample=True, top_k=0, top_p=1.0, eos_token_id=list(ends), pad_token_id=pad
    )
    best: dict[str, dict[int, float]] = {"own": {}, "hf": {}}
    for rows in ROLLOUTS:
        prompts = everyone[:rows]
        longest = max(map(len, prompts))
        ids = torch.tensor([[pad] * (longest - len(prompt)) + prompt for prompt in prompts])
        real = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        for number in range(options.rollout_rounds):
            start = time.perf_counter()
            rollouts = decoder.generate(prompts, SamplingParams(options.tokens, 1.0, 1.0, number, ends, pad))
            speed = sum(len(one.token_ids) for one in rollouts) / (time.perf_counter() - start)
            best["own"][rows] = max(best["own"].get(rows, 0.0), speed)
            start = time.perf_counter()
            with torch.no_grad():
                out = model.generate(input_ids=ids, attention_mask=real, generation_config=how)[:, longest:]
            seconds = time.perf_counter() - start
            made = sum(
                next((at + 1 for at, token in enumerate(row) if token in ends), len(row)) for row in out.tolist()
            )
            best["hf"][rows] = max(best["hf"].get(rows, 0.0), made / seconds)
    return best


def questions(work: Path, tokenizer: Any) -> list[list[int]]:
    """The prompts' tokens."""
    from clinical_r1.generation.chat import prompt_ids

    return [prompt_ids(tokenizer, case.prompt) for case in read_jsonl(work / "rl.jsonl", Case)]


def measure_vllm(options: argparse.Namespace) -> dict[str, float] | None:
    """Tokens a second by batch size of vLLM's CPU build; None where none is installed or it does not start."""
    from clinical_r1.generation.load import load_tokenizer

    installed = [CACHE / name / "bin" / "python" for name in ("bench-vllm", "bench-kserve")]
    python = next(filter(Path.exists, installed), None)
    if python is None:
        return None
    tokenizer = load_tokenizer(smollm2_folder())
    told = {
        "model": str(smollm2_folder()), "tokens": options.tokens, "ends": [tokenizer.eos_token_id], "rows": ROLLOUTS,
        "prompts": questions(options.work, tokenizer),
    }  # fmt: skip
    quiet = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(
            [str(python), "-c", VLLM], input=json.dumps(told), env=os.environ | quiet, capture_output=True, text=True,
            timeout=VLLM_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        print(f"vLLM did not answer in {VLLM_SECONDS} s", flush=True)
        return None
    speeds = [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("SPEED")]
    if done.returncode or len(speeds) != len(ROLLOUTS):
        print(f"vLLM did not run: {(done.stderr.strip().splitlines() or ['no message'])[-1]}", flush=True)
        return None
    return {str(rows): round(speed, 1) for rows, speed in zip(ROLLOUTS, speeds, strict=True)}


if __name__ == "__main__":
    main()
