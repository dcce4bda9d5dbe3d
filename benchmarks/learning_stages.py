"""What `benchmarks.learning` does for a seed: chains of stages, each done once and kept as a JSON file."""

import json
import random
import re
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from clinical_r1.atomic import write_text
from clinical_r1.schema import RETRY_STRATEGIES, Case, Strategy, Trace, TraceOutcome, read_jsonl, write_jsonl
from clinical_r1.simulator.teacher import (
    CARE_FIRST,
    CARE_RETRY,
    attempt,
    draw_care,
    guided,
    response,
    retry,
    rewrite,
    with_careful,
)
from clinical_r1.simulator.world import WorldCase, record_of, sample_cases
from clinical_r1.training.ppo.config import PPOConfig
from clinical_r1.verifier.config import JudgeConfig

CHAINS = ("sft", "ppo", "grpo", "more")
"""What one process does of a seed; the others need the first. `more` is one more epoch of SFT."""
SPARE_CASES = 4800
"""Cases a seed that no model is trained on and no accuracy is reported of."""
ANSWER_TOKENS = 24
"""The name of a disease takes fewer."""


def run_chain(name: str, seed: int, work: Path, config_name: str, overrides: list[str], test_cases: int) -> None:
    """Data, base model and SFT; or a PPO run and the looks at its model; or one more epoch of SFT."""
    config, folder = settings(config_name, overrides, seed), work / f"seed-{seed}"
    if name == "sft":
        _teach(config, folder, seed, test_cases)
    elif name == "more":
        once(folder / "more.json", lambda: one_more_epoch(config, folder))
    else:
        _reinforce(config, folder, name)


def settings(name: str, overrides: list[str], seed: int) -> Any:
    """The shipped run configuration with this seed."""
    from clinical_r1.runs.config import load_config

    return load_config(name, [f"sft.seed={seed}", f"ppo.seed={seed}", *overrides])


def _teach(config: Any, folder: Path, seed: int, test_cases: int) -> None:
    from clinical_r1.training.sft.run import train_sft
    from clinical_r1.training.tiny import make_base_model

    traces, base, out = folder / "traces.jsonl", folder / "base", folder / "sft"
    once(folder / "data.json", lambda: make_data(config, folder, seed, test_cases))
    once(folder / "bayes.json", lambda: {"accuracy": bayes_accuracy(folder)})
    tiny = config.base_model.tiny.model_copy(update={"seed": seed})
    once(folder / "base.json", lambda: make_base_model(tiny, [traces], base))
    once(folder / "sft.json", lambda: train_sft(config.sft, traces, base, out, folder / "sft-state"))
    once(folder / "look-sft.json", lambda: look(out / "model", folder / "test.jsonl", config))


def _reinforce(config: Any, folder: Path, name: str) -> None:
    from benchmarks.critic_ceiling import critic_ceiling
    from clinical_r1.training.ppo.run import train_ppo

    ppo, out, state = variants(config.ppo)[name], folder / name, folder / f"{name}-state"
    start, splits = folder / "sft" / "model", (folder / "rl.jsonl", folder / "validation.jsonl")
    once(folder / f"{name}.json", lambda: train_ppo(ppo, start, *splits, out, state))
    test = folder / "test.jsonl"
    once(folder / f"look-{name}.json", lambda: look(out / "model", test, config))
    if name == "ppo":
        once(folder / "look-at-once.json", lambda: answer_at_once(out / "model", test))
        once(folder / "ceiling.json", lambda: critic_ceiling(ppo, folder))


def variants(config: PPOConfig) -> dict[str, PPOConfig]:
    """PPO with its critic, GRPO with groups of four; the rule verifier pays, so that no endpoint is needed."""
    ruled = config.model_copy(update={"judge": JudgeConfig()})
    return {"ppo": ruled, "grpo": ruled.model_copy(update={"algorithm": "grpo"})}


def make_data(config: Any, folder: Path, seed: int, test_cases: int) -> dict[str, int]:
    """Disjoint draws of the world in the sizes of the configuration."""
    counts = config.records.splits.counts
    seen: set[str] = set()

    def draw(count: int, stream: int) -> list[Case]:
        fresh: list[Case] = []
        for drawn in sample_cases(2 * count + 1000, 1000 * (seed + 1) + stream):
            case = record_of(drawn)
            if case.id not in seen and len(fresh) < count:
                seen.add(case.id)
                fresh.append(case)
        return fresh

    wanted = {"test": test_cases, "rl": counts["rl"], "validation": counts["validation"]}
    sizes = {
        name: write_jsonl(folder / f"{name}.jsonl", draw(count, stream))
        for stream, (name, count) in enumerate(wanted.items(), start=1)
    }
    careful = config.simulator.endpoint.world_care
    drawn = teacher_traces(counts["sft"] + 1000, 1000 * (seed + 1) + 4, careful)
    traces = [t for _, t in zip(range(counts["sft"]), (t for t in drawn if t.case_id not in seen), strict=False)]
    seen |= {trace.case_id for trace in traces}
    spare = write_jsonl(folder / "spare.jsonl", draw(SPARE_CASES, 5))
    return sizes | {"traces": write_jsonl(folder / "traces.jsonl", traces), "spare": spare}


def bayes_accuracy(folder: Path) -> float:
    """How often the most probable disease of the world is the truth on the very test cases."""
    from clinical_r1.simulator.world import best_answer, parse_question

    right = []
    for case in read_jsonl(folder / "test.jsonl", Case):
        chart = parse_question(case.question)
        right.append(chart is not None and best_answer(chart).name(case.language) == case.reference)
    return statistics.fmean(right)


def look(model_folder: Path, cases_path: Path, config: Any, temperature: float = 0.0) -> dict[str, float]:
    """Answers to the cases, greedy unless a temperature is given."""
    from clinical_r1.generation.chat import prompt_ids
    from clinical_r1.generation.decoder import Decoder, SamplingParams
    from clinical_r1.generation.load import load_model
    from clinical_r1.schema import VerdictLabel
    from clinical_r1.simulator.teacher import is_careful
    from clinical_r1.simulator.world import parse_question
    from clinical_r1.training.ppo.scoring import Reader, judgement
    from clinical_r1.verifier.config import VerifierConfig
    from clinical_r1.verifier.verifier import build_verifier

    model, tokenizer = load_model(model_folder)
    cases = read_jsonl(cases_path, Case)
    reader, verifier = Reader(tokenizer), build_verifier(VerifierConfig())
    prompts = [prompt_ids(tokenizer, case.prompt) for case in cases]
    params = SamplingParams(
        config.ppo.rollout.max_new_tokens, temperature, 1.0, 0, (tokenizer.eos_token_id,), tokenizer.pad_token_id
    )
    right, careful, tokens = [], [], []
    for case, rollout in zip(cases, Decoder(model).generate(prompts, params), strict=True):
        parts, reasoning_tokens = reader.read(rollout.token_ids, rollout.finished)
        verdict = verifier.judge_sync(judgement(case, parts.response))  # type: ignore[attr-defined]
        chart = parse_question(case.question)
        right.append(bool(parts.response) and verdict.label is VerdictLabel.CORRECT)
        careful.append(chart is not None and is_careful(chart, parts.thinking))
        tokens.append(reasoning_tokens)
    within = [r for r, c in zip(right, careful, strict=True) if c]
    return {
        "n": len(cases),
        "accuracy": statistics.fmean(right),
        "careful": statistics.fmean(careful),
        "within_careful": statistics.fmean(within) if within else 0.0,
        "reasoning_tokens": statistics.fmean(tokens),
    }


def answer_at_once(model_folder: Path, cases_path: Path) -> dict[str, float]:
    """Accuracy without thinking: the thought is forced empty, the answer begun, and what stands up to its first stop
    counts. After an empty thought alone some models simply open another one."""
    from clinical_r1.generation.chat import prompt_ids
    from clinical_r1.generation.decoder import Decoder, SamplingParams
    from clinical_r1.generation.load import load_model
    from clinical_r1.schema import VerdictLabel
    from clinical_r1.simulator.teacher import response
    from clinical_r1.training.ppo.scoring import judgement
    from clinical_r1.verifier.config import VerifierConfig
    from clinical_r1.verifier.verifier import build_verifier

    model, tokenizer = load_model(model_folder)
    cases, verifier = read_jsonl(cases_path, Case), build_verifier(VerifierConfig())
    openings = [response(case.language, "\0").split("\0")[0].rstrip() for case in cases]
    prompts = [
        prompt_ids(tokenizer, case.prompt)
        + tokenizer(f"<think>\n</think>\n\n{opening}", add_special_tokens=False)["input_ids"]
        for case, opening in zip(cases, openings, strict=True)
    ]
    params = SamplingParams(ANSWER_TOKENS, 0.0, 1.0, 0, (tokenizer.eos_token_id,), tokenizer.pad_token_id)
    right = []
    for case, opening, rollout in zip(cases, openings, Decoder(model).generate(prompts, params), strict=True):
        name = re.split("[.。\n]", tokenizer.decode(rollout.token_ids, skip_special_tokens=True))[0]
        verdict = verifier.judge_sync(judgement(case, f"{opening}{name}"))  # type: ignore[attr-defined]
        right.append(bool(name.strip()) and verdict.label is VerdictLabel.CORRECT)
    return {"n": len(cases), "accuracy": statistics.fmean(right)}


def one_more_epoch(config: Any, folder: Path) -> dict[str, float]:
    """What one epoch more at the learning rate that SFT ended with does to the accuracy on the spare cases.

    Also sampled at temperature 1: where a model checks in a quarter of its answers, greedy decoding is close to a tie
    and turns a small change of that share into a large one.
    """
    from clinical_r1.training.sft.run import train_sft

    settled = {
        "epochs": 1.0,
        "learning_rate": config.sft.learning_rate * config.sft.final_learning_rate_share,
        "schedule": "constant",
        "warmup_share": 0.0,
    }
    more = config.sft.model_copy(update=settled)
    before, out, cases = folder / "sft" / "model", folder / "sft-more", folder / "spare.jsonl"
    train_sft(more, folder / "traces.jsonl", before, out, folder / "sft-more-state")

    def points(temperature: float) -> float:
        looks = [look(m, cases, config, temperature=temperature)["accuracy"] for m in (before, out / "model")]
        return 100 * (looks[1] - looks[0])

    return {
        "one_more_epoch_points": points(0.0),
        "one_more_epoch_sampled_points": points(1.0),
        "one_more_epoch_n": SPARE_CASES,
    }


def once(path: Path, work: Callable[[], Any]) -> dict[str, Any]:
    """The result of a stage: from its file where it is done, else worked out and written there, with its seconds."""
    if not path.is_file():
        started = time.monotonic()
        result = work()
        seconds = round(time.monotonic() - started, 1)
        result = result if isinstance(result, dict) else {}
        write_text(path, json.dumps(result | {"stage_seconds": seconds}) + "\n")
        print(f"stage {path.stem} {seconds:.0f} s", flush=True)
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return stored


RETRIES = 3


def teacher_traces(count: int, seed: int, careful: float | None = None) -> Iterator[Trace]:
    """One accepted trace for each of `count` cases drawn by seed; `careful`: share of careful tries, None = its own.

    The simulated teacher without the endpoint in between, with the strategies and the rule of synthesis: a bench that
    needs thousands of traces for each of several seeds calls it here.
    """
    rng = random.Random(seed)
    for drawn in sample_cases(count, seed):
        case, chart = record_of(drawn), drawn.chart
        thinking, outcome = _search(drawn, rng, careful)
        yield Trace(
            case_id=case.id, language=chart.language, specialty=case.specialty, question=case.prompt,
            reference=case.reference, thinking=thinking, response=response(chart.language, case.reference),
            outcome=outcome, synthesizer="simulated-clinician",
        )  # fmt: skip


def _search(drawn: WorldCase, rng: random.Random, careful: float | None) -> tuple[str, TraceOutcome]:
    chart, reference = drawn.chart, drawn.reference
    first = attempt(chart, draw_care(rng, with_careful(CARE_FIRST, careful)), rng)
    if first.answer == reference:
        return first.reasoning, TraceOutcome.DIRECT
    wrong = [first.answer]
    for _ in range(RETRIES):
        strategy: Strategy = rng.choice(RETRY_STRATEGIES)
        care = draw_care(rng, with_careful(CARE_RETRY, careful))
        again = retry(chart, strategy.value, first.reasoning, wrong, care, rng)
        if again.answer == reference:
            return rewrite(chart.language, first.reasoning, again.reasoning), TraceOutcome.RECOVERED
        wrong.append(again.answer)
    return guided(chart, reference, rng).reasoning, TraceOutcome.GUIDED
