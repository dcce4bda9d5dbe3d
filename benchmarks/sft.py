"""SFT throughput on real traces: as shipped against a loop like HuatuoGPT-o1's, ZeRO-2 against plain torch.

    python -m benchmarks.sft [--limit 198] [--epochs 1] [--repeats 2]

The 198 traces of HuatuoGPT-o1's demo set (../shared/data) train a tiny Qwen2 made from scratch; tokens are real ones,
padding excluded, and time is that of the optimizer steps. Five runs, each in a process of its own, taken in turns:

- `script`:  a loop as HuatuoGPT-o1's, on transformers and torch alone: batches in arrival order, each padded to its
             longest, the model's own loss and its logits' accuracy
- `pairs`:   the same with its published sizes: a batch of 16 in 8 accumulated pairs, each padded to its longest
- `arrival`: our trainer with that collate and nothing else changed, plain torch
- `plain`:   our trainer with its own order and micro-batches, plain torch
- `zero2`:   the same under DeepSpeed ZeRO-2, as shipped

All have the environment (threads, allocator) of a run that the launcher starts; the first two have transformers' own
code for the model, and no gradient checkpointing (its script has it on).

`tokens_ratio` = tokens/s of zero2 over script (best repeats), `pairs_ratio` = over pairs, `collate_ratio` = of plain
over arrival (what the order alone is worth), `zero2_overhead` = step time of zero2 over plain. The last line is one
JSON object.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from clinical_r1.schema import Trace, TraceOutcome, write_jsonl
from clinical_r1.training.launcher import ENVIRONMENT
from clinical_r1.training.sft.config import SFTConfig, SFTJob
from clinical_r1.training.sft.data import IGNORED, EpochOrder, read_examples
from clinical_r1.training.tiny import TinyModelConfig, make_base_model

PROBLEMS = Path(__file__).parents[1] / "../shared/data/huatuogpt_o1_demo_198.json"
VARIANTS = ("script", "pairs", "arrival", "plain", "zero2")


def main() -> None:
    """Make the data and the model, run the variants in turns, print the ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--limit", type=int, default=198)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--worker", nargs=2, metavar=("VARIANT", "JOB"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(*arguments.worker)
        return
    if not PROBLEMS.is_file():
        print(json.dumps({"skipped": "../shared/data/huatuogpt_o1_demo_198.json is not beside the repository"}))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_jsonl(root / "traces.jsonl", real_traces(arguments.limit))
        tiny = TinyModelConfig(
            hidden_size=arguments.hidden, layers=arguments.layers, vocab_size=4_000, window=4_096, max_lines=200
        )
        make_base_model(tiny, [root / "traces.jsonl"], root / "base")
        best = dict.fromkeys(VARIANTS, 0.0)
        for repeat in range(arguments.repeats):
            for variant in VARIANTS:
                rate = measure(variant, root, repeat, arguments.epochs, arguments.batch)
                print(f"{variant:8} run {repeat + 1}: {rate:8,.0f} tokens/s", flush=True)
                best[variant] = max(best[variant], rate)
    result = {
        "tokens_ratio": round(best["zero2"] / best["script"], 3),
        "pairs_ratio": round(best["zero2"] / best["pairs"], 3),
        "collate_ratio": round(best["plain"] / best["arrival"], 3),
        "zero2_overhead": round(best["plain"] / best["zero2"], 3),
        "tokens_per_s": {variant: round(rate) for variant, rate in best.items()},
        "traces": arguments.limit,
        "cores": os.cpu_count(),
    }
    print(json.dumps(result))


def real_traces(limit: int) -> Iterator[Trace]:
    """The demo set as accepted traces."""
    for index, row in enumerate(json.loads(PROBLEMS.read_text(encoding="utf-8"))[:limit]):
        yield Trace(
            case_id=f"demo-{index}",
            language="en",
            question=row["Question"],
            reference=row["Ground-True Answer"],
            thinking=row["Complex_CoT"],
            response=row["Response"],
            outcome=TraceOutcome.DIRECT,
        )


def measure(variant: str, root: Path, repeat: int, epochs: float, batch: int) -> float:
    """Tokens a second of one run in a fresh process."""
    config = SFTConfig(
        epochs=epochs, batch_size=batch, learning_rate=1e-3, eval_share=0.0, checkpoint_steps=10**9, tensorboard=False
    )
    if variant == "arrival":
        config = config.model_copy(update={"micro_batch_size": batch})
    if variant != "zero2":
        config = config.model_copy(update={"deepspeed": None})
    place = root / f"{variant}-{repeat}"
    job = SFTJob(
        config=config,
        traces=root / "traces.jsonl",
        base_model=root / "base",
        out_dir=place / "out",
        state_dir=place / "state",
    )
    (root / "job.json").write_text(job.model_dump_json(), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.sft", "--worker", variant, str(root / "job.json")]
    environment = os.environ | ENVIRONMENT | {"OMP_NUM_THREADS": str(os.cpu_count() or 1)}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return float(json.loads((place / "state" / "result.json").read_text(encoding="utf-8"))["tokens_per_s"])


def work(variant: str, job_path: str) -> None:
    """One run in this process."""
    from clinical_r1.training.sft import build
    from clinical_r1.training.sft.main import train
    from clinical_r1.training.trainee import trainee

    job = SFTJob.model_validate_json(Path(job_path).read_text(encoding="utf-8"))
    if variant in ("script", "pairs"):
        script(job, job.config.batch_size if variant == "script" else 2)
        return
    if variant == "arrival":
        build.EpochOrder = ArrivalOrder  # type: ignore[misc]
    with trainee() as stop:
        train(job, stop)


class ArrivalOrder(EpochOrder):
    """Examples as they come in the file."""

    def __iter__(self) -> Iterator[int]:
        return iter([index % len(self.lengths) for index in range(len(self))])


def script(job: SFTJob, micro: int) -> None:
    """A plain training loop: right-padded batches without a mask, the model's loss, AdamW, accuracy from the logits.

    `micro`: examples that go through the model at once; a batch's are accumulated.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from clinical_r1.generation.chat import prepare_tokenizer
    from clinical_r1.generation.load import load_tokenizer

    tokenizer = load_tokenizer(job.base_model)
    prepare_tokenizer(tokenizer)
    examples, _ = read_examples(job.traces, tokenizer, max_length=10**9)
    model = AutoModelForCausalLM.from_pretrained(job.base_model, dtype=torch.float32).train()
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=job.config.learning_rate, fused=True)
    batches = list(ArrivalOrder([len(example.input_ids) for example in examples], job.config.batch_size, False, 0))
    tokens, seconds, size = 0, 0.0, job.config.batch_size
    for start in range(0, round(len(batches) * job.config.epochs), size):
        chosen = [examples[index] for index in batches[start % len(batches) :][:size]]
        began = time.monotonic()
        for first in range(0, size, micro):
            part = chosen[first : first + micro]
            longest = max(len(example.input_ids) for example in part)
            padding = [longest - len(example.input_ids) for example in part]
            ids = torch.tensor([e.input_ids + [tokenizer.eos_token_id] * n for e, n in zip(part, padding, strict=True)])
            labels = torch.tensor([e.labels + [IGNORED] * n for e, n in zip(part, padding, strict=True)])
            output = model(input_ids=ids, labels=labels, use_cache=False)
            with torch.no_grad():
                right = output.logits[:, :-1].argmax(-1) == labels[:, 1:]
                float(right.sum() / (labels[:, 1:] != IGNORED).sum())
            (output.loss * micro / size).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), job.config.gradient_clipping)
        optimizer.step()
        optimizer.zero_grad()
        seconds += time.monotonic() - began
        tokens += sum(len(example.input_ids) for example in chosen)
    job.state_dir.mkdir(parents=True)
    (job.state_dir / "result.json").write_text(json.dumps({"tokens_per_s": tokens / seconds}), encoding="utf-8")


if __name__ == "__main__":
    main()
