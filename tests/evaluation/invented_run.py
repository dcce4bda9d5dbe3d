"""Invented cases, traces and predictions for the tests of evaluation; no real record, no model."""

import json
import random
from pathlib import Path

from clinical_r1.reasoning import Outcome, render
from clinical_r1.schema import (
    Attempt,
    Case,
    Prediction,
    Strategy,
    Trace,
    TraceOutcome,
    Verdict,
    VerdictLabel,
    write_jsonl,
)

DISEASES = {
    "respiratory": [("Pneumonia", "肺炎", "J18.9"), ("Asthma", "支气管哮喘", "J45.9")],
    "gastroenterology": [("Acute appendicitis", "急性阑尾炎", "K35.8"), ("Gastric ulcer", "胃溃疡", "K25.9")],
    "urology": [("Ureteric stone", "输尿管结石", "N20.1"), ("Cystitis", "膀胱炎", "N30.9")],
    "cardiology": [("Pericarditis", "心包炎", "I30.9"), ("Heart failure", "心力衰竭", "I50.9")],
    "immunology": [("Rheumatoid arthritis", "类风湿关节炎", "M06.9"), ("Systemic lupus", "系统性红斑狼疮", "M32.9")],
    "neurology": [("Migraine", "偏头痛", "G43.9"), ("Bell's palsy", "面神经麻痹", "G51.0")],
    "endocrinology": [("Graves disease", "毒性弥漫性甲状腺肿", "E05.0"), ("Addison disease", "艾迪生病", "E27.1")],
}  # fmt: skip

ACCOUNTS = {
    "read": 1020,
    "malformed": 3,
    "reject_reasons": {"reference: empty": 3},
    "limited": 0,
    "dropped": {"leak": 12},
    "leaks": 12,
    "quarantined": 5,
    "unused": 0,
    "icd10": {"checked": 1000, "icd9": 4},
    "lost": {"Observation (cancelled)": 7},
    "phi": {"policy": "scrub", "off_because": "", "scrubbed": {"date": 40}, "quarantine_reasons": {"name": 5}},
    "sources": [
        {"name": "ward", "format": "csv", "read": 1020, "kept": 1000, "quarantined": 5, "limited": 0, "terms": "",
         "unverified": False, "sha256": "0" * 64, "rejected": {"leak": 12, "malformed": 3}},
    ],
}  # fmt: skip
"""What the records step of the invented run says became of its rows."""


def make_cases(count: int, seed: int = 0, patients: int = 0) -> list[Case]:
    """`count` cases; with `patients` that many patients share them."""
    rng = random.Random(seed)
    cases = []
    for index in range(count):
        specialty = list(DISEASES)[index % len(DISEASES)]
        english, chinese, code = rng.choice(DISEASES[specialty])
        language = ("en", "zh")[index // len(DISEASES) % 2]
        age, sex = rng.randint(20, 88), rng.choice(("female", "male"))
        english_text = (
            f"A {age}-year-old {sex} patient comes with complaint {index}. What is the most likely diagnosis?"
        )
        chinese_text = f"患者，{'女' if sex == 'female' else '男'}，{age}岁，主诉{index}。最可能的诊断是什么？"
        cases.append(
            Case(
                language=language,
                question=english_text if language == "en" else chinese_text,
                reference=english if language == "en" else chinese,
                specialty=specialty,
                icd10=code,
                source="invented",
                patient=f"p{rng.randrange(patients)}" if patients else f"p{index}",
                sex=sex,
                age_band=f"{age // 10 * 10}-{age // 10 * 10 + 9}",
            )
        )
    return cases


def make_prediction(
    case: Case, right: bool | None, tokens: int = 60, sample: int = 0, independent: bool | None = None
) -> Prediction:
    """A well-formed prediction with a verdict; None is a failed judgement."""
    answer = case.reference if right else "Common cold"
    thinking = " ".join(["weigh"] * tokens)
    second = right if independent is None else independent
    return Prediction(
        case_id=case.id,
        sample=sample,
        output=render(thinking, answer),
        thinking=thinking,
        response=answer,
        outcome=Outcome.OK,
        reasoning_tokens=tokens,
        answer_tokens=3,
        verdict=Verdict(label=label(right), judge="llm:test"),
        independent=Verdict(label=label(second), judge="rule"),
    )


def label(right: bool | None) -> VerdictLabel:
    if right is None:
        return VerdictLabel.INVALID
    return VerdictLabel.CORRECT if right else VerdictLabel.INCORRECT


def make_predictions(cases: list[Case], accuracy: float, seed: int, tokens: int = 60) -> list[Prediction]:
    """Predictions that are right with the given probability; case difficulty is shared between seeds."""
    rng = random.Random(seed)
    rows = []
    for case in cases:
        difficulty = random.Random(case.id).random()
        right = 0.5 * difficulty + 0.5 * rng.random() < accuracy
        rows.append(make_prediction(case, right, max(1, int(rng.gauss(tokens, tokens / 4)))))
    return rows


def make_trace(case: Case, retries: int) -> Trace:
    """An accepted trace after some wrong attempts."""
    wrong, good = (Verdict(label=label(value), judge="llm:test") for value in (False, True))
    strategies = [Strategy.INITIAL, Strategy.NEW_PATHS, Strategy.BACKTRACKING, Strategy.CORRECTIONS]
    attempts = [
        Attempt(
            strategy=strategies[index],
            reasoning="Weigh each finding in turn." if case.language == "en" else "逐一权衡每项所见。",
            answer=case.reference if index == retries else "Common cold",
            verdict=good if index == retries else wrong,
        )
        for index in range(retries + 1)
    ]
    hmm = ("Hmm, fever and cough. " if case.language == "en" else "嗯，发热、咳嗽。") * 6
    return Trace(
        case_id=case.id,
        language=case.language,
        specialty=case.specialty,
        question=case.question,
        reference=case.reference,
        thinking=hmm,
        response=case.reference,
        attempts=attempts,
        outcome=TraceOutcome.RECOVERED if retries else TraceOutcome.DIRECT,
    )


def write_run(folder: Path, cases: list[Case], sft: list[Prediction], ppo: list[Prediction]) -> dict[str, Path]:
    """The folders that the steps of a training run leave."""
    paths = {name: folder / name for name in ("records", "traces", "sft", "ppo", "sft_predictions", "ppo_predictions")}
    for path in paths.values():
        path.mkdir(parents=True)
    write_jsonl(paths["records"] / "test.jsonl", cases)
    splits = {"sft": 1500, "rl": 600, "validation": 200, "test": len(cases)}
    _write(paths["records"] / "report.json", {"cases": sum(splits.values()), "splits": splits, **ACCOUNTS})
    write_jsonl(paths["traces"] / "traces.jsonl", [make_trace(case, i % 4) for i, case in enumerate(cases[:40])])
    outcomes = {"direct": 900, "recovered": 400, "guided": 100, "rejected": 100}
    _write(paths["traces"] / "report.json", {"traces": 1400, "cases": 1500, "outcomes": outcomes})
    _write(paths["sft"] / "config.json", {"epochs": 3, "learning_rate": 2e-3, "batch_size": 16})
    _write(
        paths["ppo"] / "config.json",
        {"learning_rate": 5e-4, "reward_table": "paper", "batch_size": 64, "kl_beta": 0.03, "clip": 0.2},
    )
    rng = random.Random(5)
    write_jsonl(
        paths["sft"] / "metrics.jsonl",
        [{"step": 5 * i, "train/loss": 4 / (1 + i / 8) + rng.random() / 9} for i in range(90)],
    )
    rows = [
        {"step": i, "train/reward": 0.5 + i / 250 + rng.random() / 9, "train/kl": i / 250, "train/reasoning_tokens": 60}
        | ({"validation/accuracy": 0.55 + i / 400} if i % 10 == 0 else {})
        for i in range(51)
    ]  # fmt: skip
    write_jsonl(paths["ppo"] / "metrics.jsonl", rows)
    write_jsonl(paths["sft_predictions"] / "predictions.jsonl", sft)
    write_jsonl(paths["ppo_predictions"] / "predictions.jsonl", ppo)
    for index, (name, path) in enumerate(paths.items()):
        _write(path / "step.json", {"step": name, "seconds": 10.5 * (index + 1), "metrics": {}})
    return paths


def _write(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
