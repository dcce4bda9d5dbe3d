"""Preference pairs out of verdicts that are there, and what training on them does to a tiny model."""

import json
import random
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from clinical_r1.charts import read_metrics, series
from clinical_r1.errors import UserError
from clinical_r1.generation.load import load_tokenizer
from clinical_r1.schema import Attempt, Case, Strategy, Trace, TraceOutcome, Verdict, VerdictLabel, write_jsonl
from clinical_r1.training.group import StopRequest
from clinical_r1.training.sft.config import DPOConfig, SFTConfig, SFTJob
from clinical_r1.training.sft.data import read_pairs
from clinical_r1.training.sft.main import train
from tests.training.conftest import FINDINGS


def attempt(disease: str, label: VerdictLabel, strategy: Strategy = Strategy.INITIAL) -> Attempt:
    verdict = Verdict(label=label, judge="test")
    return Attempt(strategy=strategy, reasoning=f"It suggests {disease}.", answer=disease, verdict=verdict)


def trace(number: int, finding: str, *attempts: Attempt, outcome: TraceOutcome = TraceOutcome.RECOVERED) -> Trace:
    return Trace(
        case_id=f"case-{number}", language="en", question=f"Case {number}: {finding}. What is the diagnosis?",
        references=[FINDINGS[finding]], thinking="t", response="r", attempts=list(attempts), outcome=outcome,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Traces of 40 cases, each with a wrong attempt (always the same disease) and a right one."""
    rng, rows = random.Random(0), []
    for number in range(40):
        finding = rng.choice(sorted(FINDINGS))
        wrong = "Influenza"  # never right
        right = attempt(FINDINGS[finding], VerdictLabel.CORRECT, Strategy.CORRECTIONS)
        rows.append(trace(number, finding, attempt(wrong, VerdictLabel.INCORRECT), right))
    write_jsonl(tmp_path / "traces.jsonl", rows)
    return tmp_path


def test_pairs_are_of_one_case_and_differ_in_the_verdict(base_model, tmp_path):
    wrong, right = attempt("Measles", VerdictLabel.INCORRECT), attempt("Pneumonia", VerdictLabel.CORRECT)
    guided = attempt("Pneumonia", VerdictLabel.CORRECT, Strategy.GUIDED)
    unsure = attempt("Cystitis", VerdictLabel.UNDECIDED)
    kept = [trace(0, "fever", wrong, right), trace(1, "fever", wrong, guided), trace(2, "fever", unsure, right)]
    write_jsonl(tmp_path / "traces.jsonl", kept)
    refused = [trace(3, "fever", right, outcome=TraceOutcome.REJECTED), trace(3, "fever", wrong)]
    write_jsonl(tmp_path / "rejected.jsonl", refused)
    write_jsonl(tmp_path / "rl.jsonl", [Case(id="case-9", language="en", question="Rash?", reference="Measles")])
    said = {"case_id": "case-9", "thinking": "Hm.", "step": 1}
    rows = [said | {"verdict": v, "response": f"Final diagnosis: {v}"} for v in ("correct", "incorrect", "undecided")]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = load_tokenizer(base_model)

    def found(**told):
        config = DPOConfig(min_pairs=1, **told)
        pairs = read_pairs(tmp_path / "traces.jsonl", config, tokenizer, 256)[0]
        return {p.case_id: (tokenizer.decode(p.chosen), tokenizer.decode(p.rejected)) for p in pairs}

    pairs = found()
    assert pairs.keys() == {"case-0", "case-3"}
    assert "Final diagnosis: Pneumonia" in pairs["case-0"][0] and "Final diagnosis: Measles" in pairs["case-0"][1]
    more = found(completions=[str(tmp_path / "samples.jsonl")], cases=str(tmp_path / "rl.jsonl"))
    assert more.keys() == {"case-0", "case-3", "case-9"} and "Final diagnosis: correct" in more["case-9"][0]
    with pytest.raises(UserError, match=r"2 cases have a right and a wrong answer .*min_pairs is 3"):
        read_pairs(tmp_path / "traces.jsonl", DPOConfig(min_pairs=3), tokenizer, 256)
    (tmp_path / "samples.jsonl").write_text('{"train/loss": 1.0}\n')
    with pytest.raises(UserError, match=r"samples\.jsonl: not the samples.jsonl of an RL run"):
        found(completions=[str(tmp_path / "samples.jsonl")], cases=str(tmp_path / "rl.jsonl"))


def test_too_few_pairs_are_refused_before_sft_is_paid(folder, base_model, tmp_path):
    config = SFTConfig(dpo=DPOConfig(min_pairs=41))
    job = SFTJob(
        config=config, traces=folder / "traces.jsonl", base_model=base_model, out_dir=tmp_path / "out",
        state_dir=tmp_path / "state",
    )  # fmt: skip
    with pytest.raises(UserError, match=r"40 cases have a right and a wrong answer"):
        train(job, StopRequest())
    assert not job.state_dir.exists()


def test_the_loss_falls_the_margin_grows_and_a_resumed_run_ends_alike(folder, base_model):
    settings = {
        "dpo": DPOConfig(), "epochs": 4, "batch_size": 8, "learning_rate": 5e-4, "warmup_share": 0, "deepspeed": None,
        "checkpoint_steps": 4, "log_steps": 1, "eval_share": 0.1, "samples": 2, "tensorboard": False,
    }  # fmt: skip
    job = SFTJob(
        config=SFTConfig.model_validate(settings), traces=folder / "traces.jsonl", base_model=base_model,
        out_dir=folder / "out", state_dir=folder / "state", preferences=True,
    )  # fmt: skip
    train(job, StopRequest())
    rows = read_metrics(folder / "out" / "metrics.jsonl")
    losses, margins = series(rows, "train/loss")[1], series(rows, "train/margin")[1]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3) and losses[-1] < 0.6
    assert margins[0] == pytest.approx(0, abs=1e-4) and margins[-1] > margins[2] + 0.2
    assert series(rows, "train/preferred")[1][-1] > 0.9 and series(rows, "eval/margin")[1][-1] > 0
    result = json.loads((folder / "state" / "result.json").read_text())
    assert result["preferred"] > 0.9 and result["margin"] > 0.2
    before = load_file(folder / "out" / "model" / "model.safetensors")
    steps = sorted((folder / "state" / "checkpoints").iterdir(), key=lambda path: int(path.name.split("-")[1]))
    shutil.rmtree(steps[-1])  # its reference is still the model that it began with
    train(job, StopRequest())
    after = load_file(folder / "out" / "model" / "model.safetensors")
    assert max(float((before[name] - after[name]).abs().max()) for name in before) < 1e-6
