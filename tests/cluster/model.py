"""A model for these tests in seconds: it has learned one answer by heart, with a thought before it or without."""

import itertools
from pathlib import Path
from typing import Any

from clinical_r1.generation.chat import completion_ids, prompt_ids
from clinical_r1.generation.load import load_model, save_model
from clinical_r1.schema import Case, write_jsonl
from clinical_r1.training.base import TinyModelConfig, make_base_model

PROMPT = "A made-up patient has fever, cough and chest pain. Which disease is most likely?"
_QUESTIONS = (
    PROMPT,
    "A made-up patient has fever, cough and a stiff neck. Which disease is most likely?",
    "A made-up patient has a headache and double vision. Which disease is most likely?",
    "A made-up patient has a rash and joint pain. What would you test first?",
    "虚构的患者发热、咳嗽。最可能是什么病？",
)
_THOUGHT = (
    "The patient has fever, so I think of an infection first. Cough and chest pain point to the lungs. Hmm, it could "
    "be a pulmonary embolism as well, but fever and cough together speak for pneumonia. Let me check the other side: a "
    "dry cough without fever would be unusual for it. Also, the pain comes with each breath, which fits the pleura. "
    "So the most likely disease is pneumonia, and an X-ray of the chest would show it."
)
MOST_SLIPS = 0.005
"""Share of its answers in which the model may leave the text that it has learned."""
_ANSWER = "The most likely disease is pneumonia. An X-ray of the chest would confirm it."


def learned_cases(count: int, numbered: bool = False) -> list[Case]:
    """Made-up cases: the questions that the model has learned, again and again, or each of its own."""
    rows = itertools.islice(itertools.cycle(_QUESTIONS), count)
    questions = [f"Case {number}: {question}" if numbered else question for number, question in enumerate(rows)]
    return [Case(language="en", question=q, reference="pneumonia", specialty="respiratory") for q in questions]


def make_model(folder: Path, thinks: bool, steps: int = 700) -> Path:
    """Train a tiny model from scratch until it says its answer; raises AssertionError where it does not."""
    import torch

    cases = folder.with_suffix(".cases.jsonl")
    write_jsonl(cases, learned_cases(40, numbered=True))
    make_base_model(TinyModelConfig(hidden_size=64, layers=2, vocab_size=400, init_std=0.05), [cases], folder)
    model, tokenizer = load_model(folder)
    # Asked as people ask, and as a rollout's probes ask.
    asked = [*_QUESTIONS[:2], *(case.prompt for case in learned_cases(len(_QUESTIONS)))]
    rows = [_row(tokenizer, question, _THOUGHT if thinks else "") for question in asked]
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row, _ in rows])
    labels = torch.tensor([row + [-100] * (width - len(row)) for _, row in rows])
    longest = int((labels != -100).sum(dim=1).max())
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0)
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    slip = 1.0
    for _ in range(steps):
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        slower.step()
        # By heart: the engine draws every token at temperature 1 for a model that nobody has evaluated.
        slip = loss.item() * longest
        if slip < MOST_SLIPS:
            break
    assert slip < MOST_SLIPS, f"the model has not learned its answer: it slips in {slip:.2%} of its answers"
    save_model(model.eval(), tokenizer, folder)
    return folder


def _row(tokenizer: Any, question: str, thought: str) -> tuple[list[int], list[int]]:
    """Tokens of prompt and answer, and the labels: -100 where nothing is to be learned."""
    asked, answer = prompt_ids(tokenizer, question), completion_ids(tokenizer, thought, _ANSWER)
    return asked + answer, [-100] * len(asked) + answer
