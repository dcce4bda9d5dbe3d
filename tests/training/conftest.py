import os
import random
from pathlib import Path

import pytest
from ppo_fixtures import THOUGHTS, cases, completion

from clinical_r1.schema import Trace, TraceOutcome, write_jsonl

FINDINGS = {
    "fever": "Pneumonia",
    "dysuria": "Cystitis",
    "headache": "Migraine",
    "polyuria": "Diabetes",
    "rash": "Measles",
}


def make_traces(path: Path, count: int, seed: int = 0) -> Path:
    generator = random.Random(seed)
    rows = []
    for index in range(count):
        seen = generator.sample(sorted(FINDINGS), generator.randint(1, 4))
        thinking = " Also, ".join(f"{finding} suggests {FINDINGS[finding]}." for finding in seen)
        rows.append(
            Trace(
                case_id=f"case-{index}",
                language="en",
                question=f"Case {index}: a patient has {', '.join(seen)}. What is the diagnosis?",
                reference=FINDINGS[seen[0]],
                thinking=f"{thinking} So {FINDINGS[seen[0]]}.",
                response=f"The most likely diagnosis is {FINDINGS[seen[0]]}.",
                outcome=TraceOutcome.DIRECT,
            )
        )
    write_jsonl(path, rows)
    return path


@pytest.fixture(scope="session")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_traces(tmp_path_factory.mktemp("traces") / "traces.jsonl", 40)


@pytest.fixture(scope="session")
def base_model(traces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from clinical_r1.training.base import TinyModelConfig, make_base_model

    folder = tmp_path_factory.mktemp("base") / "model"
    make_base_model(TinyModelConfig(hidden_size=32, layers=2, vocab_size=360, window=256), [traces], folder)
    return folder


@pytest.fixture(scope="module")
def group_of_one() -> None:
    """DeepSpeed wants a process group, also of one; a model of a few thousand weights wants one thread."""
    import torch

    from clinical_r1.training.deepspeed import join_group

    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    join_group()


@pytest.fixture(scope="session")
def splits(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("splits")
    write_jsonl(folder / "rl.jsonl", cases(40, seed=1))
    write_jsonl(folder / "validation.jsonl", cases(16, seed=2))
    return {"cases": folder / "rl.jsonl", "validation": folder / "validation.jsonl"}


@pytest.fixture(scope="session")
def sft_model(splits, tmp_path_factory) -> Path:
    """SFT in a few seconds: the format is learnt, a diagnosis is a guess."""
    import torch

    from clinical_r1.generation.chat import prompt_ids
    from clinical_r1.generation.load import load_model, save_model
    from clinical_r1.training.base import TinyModelConfig, make_base_model

    folder = tmp_path_factory.mktemp("sft") / "model"
    rng = random.Random(3)
    rows = [{"question": c.prompt, "thinking": t.format(f="a", d=c.reference), "response": c.reference}
            for c in cases(40, 1) for t in THOUGHTS[:2]]  # fmt: skip
    write_jsonl(folder.parent / "corpus.jsonl", rows)
    shape = TinyModelConfig(hidden_size=32, layers=2, vocab_size=420, window=192, init_std=0.1, seed=1)
    make_base_model(shape, [folder.parent / "corpus.jsonl"], folder)
    model, tokenizer = load_model(folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(90):
        texts = [(prompt_ids(tokenizer, c.prompt), completion(tokenizer, c, rng)) for c in cases(16, rng.random())]
        longest = max(len(p) + len(c) for p, c in texts)
        ids = torch.tensor([p + c + [tokenizer.pad_token_id] * (longest - len(p) - len(c)) for p, c in texts])
        labels = torch.tensor([[-100] * len(p) + c + [-100] * (longest - len(p) - len(c)) for p, c in texts])
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return save_model(model, tokenizer, folder)
