import json
from pathlib import Path

import pytest

QUESTIONS = [
    "A 63-year-old man has had fever of 38.5 °C, cough and rusty sputum for 3 days. What is the diagnosis?",
    "患者，女，35岁，反复上腹痛2个月，伴反酸、嗳气。最可能的诊断是什么？",
    "A 20-year-old woman has dysuria, frequency and 120/80 mmHg. What is the diagnosis?",
]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "cases.jsonl"
    rows = [
        {"question": q, "thinking": "Hmm, fever and cough. Wait, 1234.", "response": "Pneumonia."} for q in QUESTIONS
    ]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def folder(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from clinical_r1.training.base import TinyModelConfig, make_base_model

    out = tmp_path_factory.mktemp("model") / "tiny"
    make_base_model(TinyModelConfig(hidden_size=32, layers=2, vocab_size=400, window=256, init_std=0.3), [corpus], out)
    return out


@pytest.fixture(scope="session")
def loaded(folder: Path):
    from clinical_r1.generation.load import load_model

    return load_model(folder)
