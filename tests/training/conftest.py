import random
from pathlib import Path

import pytest

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
