"""SFT of a real model: our trainer, as shipped, against a plain TRL SFTTrainer on the same data, batch and dtype.

    python -m benchmarks.sft [--limit 16] [--repeats 2]

The shortest of the 198 traces of HuatuoGPT-o1's demo set (../shared/data) train SmolLM2-135M-Instruct for one epoch in
batches of 8 on a CPU; tokens are real ones, padding excluded, and time is that of the optimizer steps. Each run has a
process of its own, and the two take turns:

- `trl`:  trl.SFTTrainer with its own defaults, the same tokens and labels, AdamW, learning rate and batch
- `ours`: `train_sft`'s process as the pipeline starts it

`tokens_ratio` = tokens/s of ours over trl (best repeats), `rss_ratio` = peak memory of ours over trl (least of each).
The last line is one JSON object.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clinical_r1.errors import UserError
from clinical_r1.schema import Trace, TraceOutcome, write_jsonl
from clinical_r1.training.base import smollm2_folder
from clinical_r1.training.launcher import ENVIRONMENT
from clinical_r1.training.sft.config import SFTConfig, SFTJob

PROBLEMS = Path(__file__).parents[1] / "../shared/data/huatuogpt_o1_demo_198.json"
VARIANTS = ("trl", "ours")
BATCH, LEARNING_RATE = 8, 1e-4


def main() -> None:
    """Make the data and the model, run the variants in turns, print the ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--limit", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--worker", nargs=2, metavar=("VARIANT", "JOB"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(*arguments.worker)
        return
    if not PROBLEMS.is_file():
        print(json.dumps({"skipped": "../shared/data/huatuogpt_o1_demo_198.json is not beside the repository"}))
        return
    try:
        base = smollm2_folder()
    except UserError as error:
        print(json.dumps({"skipped": str(error)}))
        return
    found: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_jsonl(root / "traces.jsonl", real_traces(arguments.limit))
        for repeat in range(arguments.repeats):
            for variant in VARIANTS:
                one = measure(variant, root, base, root / f"{variant}-{repeat}")
                told = f"{one['tokens_per_s']:7.1f} tokens/s, {one['gib']:.2f} GiB"
                print(f"{variant:5} run {repeat + 1}: {told}", flush=True)
                found[variant].append(one)
    rate = {variant: max(one["tokens_per_s"] for one in runs) for variant, runs in found.items()}
    memory = {variant: min(one["gib"] for one in runs) for variant, runs in found.items()}
    result = {
        "tokens_ratio": round(rate["ours"] / rate["trl"], 3),
        "rss_ratio": round(memory["ours"] / memory["trl"], 3),
        "tokens_per_s": {variant: round(value, 1) for variant, value in rate.items()},
        "peak_gib": {variant: round(value, 2) for variant, value in memory.items()},
        "traces": arguments.limit,
        "cores": os.cpu_count(),
    }
    print(json.dumps(result))


def real_traces(limit: int) -> Iterator[Trace]:
    """The shortest of the demo set as accepted traces, about 400 to 600 tokens each."""
    rows = json.loads(PROBLEMS.read_text(encoding="utf-8"))
    rows.sort(key=lambda row: len(row["Complex_CoT"] + row["Response"]))
    for index, row in enumerate(rows[:limit]):
        told = {"question": row["Question"], "thinking": row["Complex_CoT"], "response": row["Response"]}
        told |= {"case_id": f"demo-{index}", "language": "en", "reference": row["Ground-True Answer"]}
        yield Trace.model_validate(told | {"outcome": TraceOutcome.DIRECT})


def measure(variant: str, root: Path, base: Path, place: Path) -> dict[str, float]:
    """Tokens a second and peak memory of one run in a fresh process."""
    settings = {"epochs": 1, "batch_size": BATCH, "learning_rate": LEARNING_RATE, "eval_share": 0.0}
    files = {"traces": root / "traces.jsonl", "out_dir": place / "out", "state_dir": place / "state"}
    config = SFTConfig.model_validate(settings | {"checkpoint_steps": 10**9, "tensorboard": False})
    job = SFTJob(config=config, base_model=base, **files)
    (root / "job.json").write_text(job.model_dump_json(), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.sft", "--worker", variant, str(root / "job.json")]
    here = {"PYTHONSAFEPATH": ""}  # `benchmarks` is found in the folder that this is called from
    environment = ENVIRONMENT | os.environ | here | {"OMP_NUM_THREADS": str(os.cpu_count() or 1)}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    found: dict[str, float] = json.loads((root / "job.result.json").read_text(encoding="utf-8"))
    return found


def work(variant: str, job_path: str) -> None:
    """One run in this process."""
    job = SFTJob.model_validate_json(Path(job_path).read_text(encoding="utf-8"))
    if variant == "trl":
        rate = plain(job)
    else:
        from clinical_r1.training.group import trainee
        from clinical_r1.training.sft.main import train

        with trainee() as stop:
            train(job, stop)
        rate = json.loads((job.state_dir / "result.json").read_text(encoding="utf-8"))["tokens_per_s"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    told = json.dumps({"tokens_per_s": rate, "gib": peak})
    Path(job_path).with_name("job.result.json").write_text(told, encoding="utf-8")


def plain(job: SFTJob) -> float:
    """trl.SFTTrainer on the same tokens; tokens a second of its optimizer steps."""
    from transformers import AutoModelForCausalLM, TrainerCallback
    from trl import SFTConfig as TrlConfig
    from trl import SFTTrainer

    from clinical_r1.generation.chat import prepare_tokenizer
    from clinical_r1.generation.load import load_tokenizer
    from clinical_r1.training.sft.build import to_dataset
    from clinical_r1.training.sft.data import read_examples

    tokenizer = load_tokenizer(job.base_model)
    prepare_tokenizer(tokenizer)
    examples, _ = read_examples(job.traces, tokenizer, max_length=10**9)
    model: Any = AutoModelForCausalLM.from_pretrained(job.base_model, dtype="float32")
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    clock = {"seconds": 0.0, "begun": 0.0}

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            clock["begun"] = time.monotonic()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock["seconds"] += time.monotonic() - clock["begun"]

    arguments = TrlConfig(
        output_dir=str(job.state_dir), num_train_epochs=1, per_device_train_batch_size=BATCH, use_cpu=True,
        learning_rate=LEARNING_RATE, bf16=False, max_length=None, gradient_checkpointing=False, save_strategy="no",
        report_to=[], dataset_kwargs={"skip_prepare_dataset": True}, disable_tqdm=True,
    )  # fmt: skip
    trainer = SFTTrainer(
        model=model, args=arguments, train_dataset=to_dataset(examples), processing_class=tokenizer, callbacks=[Clock()]
    )
    trainer.train()
    return sum(len(example.input_ids) for example in examples) / clock["seconds"]


if __name__ == "__main__":
    main()
