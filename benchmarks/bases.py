"""Any base model: for each architecture, does SFT teach the tags, does PPO step, ZeRO-3 run, the export load?

    python -m benchmarks.bases [--only llama3 smollm2] [--skip-smollm2]

Tiny random models in the shapes of real ones (bases.yaml), which show that the code takes the shape, and
SmolLM2-135M-Instruct, a real pre-trained one, which shows that a model learns:

- `teaches_tags`: adapters and all weights, on 60 traces; the first greedy token opens the thought in >= 18 of 20
  prompts that were not trained on (SmolLM2: adapters on 24 traces)
- `ppo_step`: one step of PPO from that model: KL finite, the first update's ratio 1, sampler and trainer agree
- `zero3_two_processes`: the same step under ZeRO-3 on two processes
- `export_loads`: transformers loads what was saved, whole, with every end token; the same prompt has the same tokens

The last line is one JSON object: the four for each, and `all`.
"""

import argparse
import json
import math
import random
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clinical_r1.atomic import read_table
from clinical_r1.charts import read_metrics
from clinical_r1.errors import UserError
from clinical_r1.schema import Case, Trace, TraceOutcome, write_jsonl
from clinical_r1.training.base import SMOLLM2, smollm2_folder
from clinical_r1.training.ppo.config import PPOConfig
from clinical_r1.training.ppo.run import train_ppo
from clinical_r1.training.sft.config import SFTConfig
from clinical_r1.training.sft.run import train_sft

FINDINGS = {"fever": "Pneumonia", "dysuria": "Cystitis", "headache": "Migraine", "polyuria": "Diabetes"}
HELD_OUT, ENOUGH = 20, 18
OPENED = "r1-distill"
"""Its template opens the thought itself: there is no tag to teach."""
WHOLE_RATES = {"cohere": 3e-2}
"""Rates for all weights besides 1e-2: Cohere's logits are a sixteenth of the product, which small weights have to make
up for (at 1e-2 as many steps leave the loss at 3.4)."""
WORDS = (
    "A patient has fever, cough, dysuria, headache, thirst and a rash. What is the diagnosis? Okay, fever suggests "
    "pneumonia. So cystitis, migraine, diabetes or measles fits best. The most likely diagnosis is pneumonia.\n"
    "Final diagnosis: pneumonia user assistant model system 0123456789 case year old 患者 发热 咳嗽 肺炎 诊断 "
)
WINDOW, HIDDEN = 256, 32


@dataclass(frozen=True)
class Base:
    """What is particular to one family: a row of bases.yaml, which says what its columns are."""

    config: str
    markers: list[str]
    eos: str
    template: str = ""
    ends: list[str] = field(default_factory=list)
    bos: str = ""
    pad: str = ""
    tied: bool = True
    plain: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)


TABLE = read_table(Path(__file__).with_suffix(".yaml"))
BASES = {name: Base(**row) for name, row in TABLE["bases"].items()}


def make_base(name: str, folder: Path) -> Path:
    """Write the folder of one of BASES, as its publisher would."""
    import torch
    import transformers

    from clinical_r1.generation.load import quieten

    quieten()
    base = BASES[name]
    tokenizer = _tokenizer(base)
    ends = [tokenizer.convert_tokens_to_ids(token) for token in (base.eos, *base.ends)]
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": HIDDEN, "intermediate_size": 2 * HIDDEN, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": HIDDEN // 4, "max_position_embeddings": WINDOW,
        "tie_word_embeddings": base.tied, "initializer_range": 0.2, "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": ends[0] if len(ends) == 1 else ends, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = getattr(transformers, base.config)(**shape | base.options)
        model: Any = transformers.AutoModelForCausalLM.from_config(config)
    model.generation_config.eos_token_id = shape["eos_token_id"]
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(base: Base) -> Any:
    """A byte-level BPE tokenizer with the family's markers, which begins texts with BOS where the family's does."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    trained.train_from_iterator([WORDS], trainer)
    trained.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in base.markers])
    trained.add_tokens([AddedToken(text, special=False, normalized=False) for text in base.plain])
    if base.bos:
        begins = [(base.bos, trained.token_to_id(base.bos))]
        trained.post_processor = processors.TemplateProcessing(
            single=f"{base.bos} $A", pair=f"{base.bos} $A $B", special_tokens=begins
        )
    known = {"bos_token": base.bos, "eos_token": base.eos, "pad_token": base.pad}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained, model_max_length=WINDOW, **{name: text for name, text in known.items() if text}
    )
    if base.template:
        tokenizer.chat_template = base.template
    return tokenizer


def main() -> None:
    """Every base in turn; a failure is a false and its reason on the console."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[name for name in BASES if name != OPENED] + [SMOLLM2])
    parser.add_argument("--skip-smollm2", action="store_true")
    arguments = parser.parse_args()
    found: dict[str, dict[str, bool]] = {}
    for name in arguments.only:
        if name == SMOLLM2 and arguments.skip_smollm2:
            continue
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            found[name] = look(name, Path(folder))
            print(f"{name:12} {time.monotonic() - began:5.0f} s  {found[name]}", flush=True)
    print(json.dumps({"bases": found, "all": all(all(one.values()) for one in found.values())}))


def look(name: str, root: Path) -> dict[str, bool]:
    """The four answers for one base."""
    real = name == SMOLLM2
    try:
        base = smollm2_folder() if real else make_base(name, root / name)
    except UserError as error:
        print(f"{name}: {error}")
        return {"available": False}
    write_jsonl(root / "traces.jsonl", traces(24 if real else 60, 0))
    write_jsonl(root / "rl.jsonl", cases(8, 1))
    write_jsonl(root / "validation.jsonl", cases(3, 2))
    shared: dict[str, Any] = {"batch_size": 8, "checkpoint_steps": 10**6, "eval_share": 0.0, "tensorboard": False}
    shared["epochs"] = 6 if real else 16
    kinds = {
        "adapters": {"lora": {"rank": 8, "alpha": 16}, "learning_rate": 5e-3 if real else 1e-2},
        "whole": {"learning_rate": 5e-4 if real else WHOLE_RATES.get(name, 1e-2)},
    }
    results = {"teaches_tags": True}
    for kind, settings in kinds.items():
        out = root / kind
        train_sft(SFTConfig(**shared | settings), root / "traces.jsonl", base, out, root / f"{kind}.state")
        taught = opened(out / "model")
        print(f"{name}: {kind}: {taught} of {HELD_OUT} begin with the thought", flush=True)
        results["teaches_tags"] &= taught >= ENOUGH
        shutil.rmtree(root / f"{kind}.state", ignore_errors=True)
    start = root / "adapters" / "model"
    results["ppo_step"] = step(root, start, 1, 1, real)
    results["zero3_two_processes"] = step(root, start, 2, 3, real)
    results["export_loads"] = loads(start) and loads(root / "ppo-1" / "model")
    return results


def cases(count: int, seed: int) -> list[Case]:
    """Cases of a tiny world: one finding, one disease."""
    generator = random.Random(seed)
    rows = []
    for index in range(count):
        finding, disease = generator.choice(sorted(FINDINGS.items()))
        question = f"A {generator.randrange(20, 90)} year old patient has {finding}. What is the diagnosis?"
        rows.append(Case(id=f"case-{seed}-{index}", language="en", question=question, reference=disease, specialty="x"))
    return rows


def traces(count: int, seed: int) -> list[Trace]:
    """What a careful teacher would say of such cases."""
    finding_of = {disease: finding for finding, disease in FINDINGS.items()}
    return [
        Trace(
            case_id=case.id, language="en", question=case.prompt, reference=case.reference,
            thinking=f"Okay, {finding_of[case.reference]} suggests {case.reference}.",
            response=f"Final diagnosis: {case.reference}", outcome=TraceOutcome.DIRECT,
        )
        for case in cases(count, seed)
    ]  # fmt: skip


def opened(model_folder: Path) -> int:
    """In how many of the held-out prompts the first greedy token opens the thought."""
    from clinical_r1.generation.chat import end_ids, prompt_ids, think_ids
    from clinical_r1.generation.decoder import Decoder, SamplingParams
    from clinical_r1.generation.load import load_model

    model, tokenizer = load_model(model_folder)
    params = SamplingParams(1, 0.0, eos_token_ids=end_ids(tokenizer, model), pad_token_id=tokenizer.pad_token_id)
    first = Decoder(model).generate([prompt_ids(tokenizer, case.prompt) for case in cases(HELD_OUT, 9)], params)
    return sum(rollout.token_ids[0] == think_ids(tokenizer)[0] for rollout in first)


def step(root: Path, model: Path, processes: int, stage: int, real: bool) -> bool:
    """One step of PPO; False, with the reason on the console, where it fails or its numbers are off."""
    small: dict[str, Any] = {"lora": {"rank": 4, "alpha": 8}} if real else {}
    config = PPOConfig.model_validate(
        {
            "steps": 1, "batch_size": 4, "micro_batch_size": 2, "minibatches": 1, "epochs": 1, "warmup_steps": 0,
            "learning_rate": 1e-5, "rollout": {"max_new_tokens": 24}, "probe": {"every": 0, "cases": 3},
            "critic": {"warmup_batches": 1, "warmup_epochs": 1}, "keep": "last", "processes": processes,
            "reasoning": {"min_reasoning_tokens": 1}, "deepspeed": {"stage": stage},
        } | small
    )  # fmt: skip
    out = root / f"ppo-{processes}"
    try:
        train_ppo(config, model, root / "rl.jsonl", root / "validation.jsonl", out, root / f"ppo-{processes}.state")
    except UserError as error:
        print(f"ppo on {processes} processes: {error}")
        return False
    row = next(row for row in read_metrics(out / "metrics.jsonl") if "train/kl" in row)
    finite = all(math.isfinite(value) for value in row.values())
    return finite and row["train/sampler_gap"] < 1e-3 and row.get("train/approx_kl", 0) < 1e-6


def loads(folder: Path) -> bool:
    """Whether transformers alone reads a folder as it was meant."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from clinical_r1.generation.chat import end_ids, prompt_ids
    from clinical_r1.generation.load import load_model

    ours, tokenizer = load_model(folder)
    theirs, loading = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    asked = [{"role": "user", "content": "Fever?"}]
    ids = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        asked, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    told = theirs.generation_config.eos_token_id
    ends = set(told if isinstance(told, list) else [told])
    whole = not loading["missing_keys"] and not loading["unexpected_keys"]
    return whole and ids == prompt_ids(tokenizer, "Fever?") and set(end_ids(tokenizer, ours)) <= ends


if __name__ == "__main__":
    main()
