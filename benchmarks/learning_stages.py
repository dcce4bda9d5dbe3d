"""What `benchmarks.learning` does for a seed: chains of stages, each done once and kept as a JSON file."""

import json
import random
import re
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clinical_r1.atomic import write_text
from clinical_r1.generation.chat import prompt_ids
from clinical_r1.generation.decoder import Decoder, Rollout, SamplingParams
from clinical_r1.generation.load import load_model
from clinical_r1.rewards import reward_table
from clinical_r1.runs.config import load_config
from clinical_r1.schema import RETRY_STRATEGIES, Case, Trace, TraceOutcome, VerdictLabel, read_jsonl, write_jsonl
from clinical_r1.simulator import teacher
from clinical_r1.simulator.world import WorldCase, best_answer, parse_question, record_of, sample_cases
from clinical_r1.training.base import make_base_model
from clinical_r1.training.deepspeed import join_group
from clinical_r1.training.ppo.algorithm import advantages_and_returns, explained_variance, masked_mean, value_loss
from clinical_r1.training.ppo.batch import WARMUP_STREAM, Batch, load_prompts, part, put
from clinical_r1.training.ppo.config import PPOConfig
from clinical_r1.training.ppo.engines import Critic, Engines, load_checkpoint
from clinical_r1.training.ppo.rollout import Collector, Timer
from clinical_r1.training.ppo.run import train_ppo
from clinical_r1.training.ppo.scoring import JudgeThread, Reader, Scorer
from clinical_r1.training.sft.run import train_sft
from clinical_r1.verifier.config import JudgeConfig, VerifierConfig
from clinical_r1.verifier.judgement import Judgement
from clinical_r1.verifier.verifier import build_verifier

SPARE_CASES = 4800
"""Cases a seed that no model is trained on and no accuracy is reported of."""
ANSWER_TOKENS = 24
"""The name of a disease takes fewer."""
RETRIES = 3
BATCH_SIZE, FIT_BATCHES, HELD_BATCHES = 256, 10, 8
"""The critic's ceiling: episodes sampled at once, and batches to fit and to judge: the noise of 2,048 held-out episodes
is about 0.01."""
LEARNING_RATE, MOST_EPOCHS, UPDATE_PARTS = 1e-3, 4, 2
"""Offline: falls linearly to a twentieth over the epochs; micro-batches an update."""


def run_chain(name: str, seed: int, work: Path, config_name: str, overrides: list[str], test_cases: int) -> None:
    """Data, base model and SFT; or a PPO run and the looks at its model; or one more epoch of SFT."""
    config = load_config(config_name, [f"sft.seed={seed}", f"ppo.seed={seed}", *overrides])
    folder = work / f"seed-{seed}"
    if name == "sft":
        _teach(config, folder, seed, test_cases)
    elif name == "more":
        once(folder / "more.json", lambda: one_more_epoch(config, folder))
    else:
        _reinforce(config, folder, name)


def once(path: Path, work: Callable[[], Any]) -> None:
    """A stage: unless its file says that it is done, work it out and write there what came of it, with its seconds."""
    if not path.is_file():
        started = time.monotonic()
        result = work()
        seconds = round(time.monotonic() - started, 1)
        result = result if isinstance(result, dict) else {}
        write_text(path, json.dumps(result | {"stage_seconds": seconds}) + "\n")
        print(f"stage {path.stem} {seconds:.0f} s", flush=True)


def _teach(config: Any, folder: Path, seed: int, test_cases: int) -> None:
    traces, base, out = folder / "traces.jsonl", folder / "base", folder / "sft"
    once(folder / "data.json", lambda: make_data(config, folder, seed, test_cases))
    once(folder / "bayes.json", lambda: {"accuracy": bayes_accuracy(folder)})
    tiny = config.base_model.tiny.model_copy(update={"seed": seed})
    once(folder / "base.json", lambda: make_base_model(tiny, [traces], base))
    once(folder / "sft.json", lambda: train_sft(config.sft, traces, base, out, folder / "sft-state"))
    once(folder / "look-sft.json", lambda: look(out / "model", folder / "test.jsonl", config))


def _reinforce(config: Any, folder: Path, name: str) -> None:
    """PPO with its critic, or GRPO with groups of four; the rule verifier pays, so that no endpoint is needed."""
    told = config.ppo.model_copy(update={"judge": JudgeConfig(), "algorithm": name})
    start, splits = folder / "sft" / "model", (folder / "rl.jsonl", folder / "validation.jsonl")
    out, state, test = folder / name, folder / f"{name}-state", folder / "test.jsonl"
    once(folder / f"{name}.json", lambda: train_ppo(told, start, *splits, out, state))
    once(folder / f"look-{name}.json", lambda: look(out / "model", test, config))
    if name == "ppo":
        once(folder / "look-at-once.json", lambda: answer_at_once(out / "model", test))
        once(folder / "ceiling.json", lambda: critic_ceiling(told, folder))


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


def teacher_traces(count: int, seed: int, careful: float | None) -> Iterator[Trace]:
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
            reference=case.reference, thinking=thinking, response=teacher.response(chart.language, case.reference),
            outcome=outcome, synthesizer="simulated-clinician",
        )  # fmt: skip


def _search(drawn: WorldCase, rng: random.Random, careful: float | None) -> tuple[str, TraceOutcome]:
    def care(usual: dict[teacher.Care, float]) -> teacher.Care:
        return teacher.draw_care(rng, teacher.with_careful(usual, careful))

    chart, reference = drawn.chart, drawn.reference
    first = teacher.attempt(chart, care(teacher.CARE_FIRST), rng)
    if first.answer == reference:
        return first.reasoning, TraceOutcome.DIRECT
    wrong = [first.answer]
    for _ in range(RETRIES):
        strategy = rng.choice(RETRY_STRATEGIES)
        again = teacher.retry(chart, strategy.value, first.reasoning, wrong, care(teacher.CARE_RETRY), rng)
        if again.answer == reference:
            return teacher.rewrite(chart.language, first.reasoning, again.reasoning), TraceOutcome.RECOVERED
        wrong.append(again.answer)
    return teacher.guided(chart, reference, rng).reasoning, TraceOutcome.GUIDED


def bayes_accuracy(folder: Path) -> float:
    """How often the most probable disease of the world is the truth on the very test cases."""
    right = []
    for case in read_jsonl(folder / "test.jsonl", Case):
        chart = parse_question(case.question)
        right.append(chart is not None and best_answer(chart).name(case.language) == case.reference)
    return statistics.fmean(right)


def _answers(
    folder: Path, cases: list[Case], openings: list[str], room: int, temperature: float
) -> tuple[Any, list[Rollout]]:
    """The model's tokenizer, and what it says to the cases behind these openings; greedy at temperature 0."""
    model, tokenizer = load_model(folder)
    prompts = [
        prompt_ids(tokenizer, case.prompt) + tokenizer(opening, add_special_tokens=False)["input_ids"]
        for case, opening in zip(cases, openings, strict=True)
    ]
    params = SamplingParams(room, temperature, 1.0, 0, (tokenizer.eos_token_id,), tokenizer.pad_token_id)
    return tokenizer, Decoder(model).generate(prompts, params)


def look(model_folder: Path, cases_path: Path, config: Any, temperature: float = 0.0) -> dict[str, float]:
    """Answers to the cases, greedy unless a temperature is given."""
    cases, verifier = read_jsonl(cases_path, Case), build_verifier(VerifierConfig())
    room = config.ppo.rollout.max_new_tokens
    tokenizer, rollouts = _answers(model_folder, cases, [""] * len(cases), room, temperature)
    reader = Reader(tokenizer)
    right, careful, tokens = [], [], []
    for case, rollout in zip(cases, rollouts, strict=True):
        parts, reasoning_tokens = reader.read(rollout.token_ids, rollout.finished)
        verdict = verifier.judge_sync(Judgement.of(case, parts.response))  # type: ignore[attr-defined]
        chart = parse_question(case.question)
        right.append(bool(parts.response) and verdict.label is VerdictLabel.CORRECT)
        careful.append(chart is not None and teacher.is_careful(chart, parts.thinking))
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
    cases, verifier = read_jsonl(cases_path, Case), build_verifier(VerifierConfig())
    begun = [teacher.response(case.language, "\0").split("\0")[0].rstrip() for case in cases]
    openings = [f"<think>\n</think>\n\n{opening}" for opening in begun]
    tokenizer, rollouts = _answers(model_folder, cases, openings, ANSWER_TOKENS, 0.0)
    right = []
    for case, opening, rollout in zip(cases, begun, rollouts, strict=True):
        name = re.split("[.。\n]", tokenizer.decode(rollout.token_ids, skip_special_tokens=True))[0]
        verdict = verifier.judge_sync(Judgement.of(case, f"{opening}{name}"))  # type: ignore[attr-defined]
        right.append(bool(name.strip()) and verdict.label is VerdictLabel.CORRECT)
    return {"n": len(cases), "accuracy": statistics.fmean(right)}


def one_more_epoch(config: Any, folder: Path) -> dict[str, float]:
    """What one epoch more at the learning rate that SFT ended with does to the accuracy on the spare cases.

    Also sampled at temperature 1: where a model checks in a quarter of its answers, greedy decoding is close to a tie
    and turns a small change of that share into a large one.
    """
    rate = config.sft.learning_rate * config.sft.final_learning_rate_share
    settled = {"epochs": 1.0, "learning_rate": rate, "schedule": "constant", "warmup_share": 0.0}
    before, out, cases = folder / "sft" / "model", folder / "sft-more", folder / "spare.jsonl"
    more = config.sft.model_copy(update=settled)
    train_sft(more, folder / "traces.jsonl", before, out, folder / "sft-more-state")

    def points(temperature: float) -> float:
        then, now = (look(m, cases, config, temperature)["accuracy"] for m in (before, out / "model"))
        return 100 * (now - then)

    return {
        "one_more_epoch_points": points(0.0),
        "one_more_epoch_sampled_points": points(1.0),
        "one_more_epoch_n": SPARE_CASES,
    }


class _Never:
    """In place of group.StopRequest, which would take SIGTERM for a request: there is no checkpoint to write here."""

    asked = False

    def anywhere(self) -> bool:
        return False


def critic_ceiling(config: PPOConfig, folder: Path) -> dict[str, Any]:
    """How much of the variance of whole returns a critic could explain: the run's critic against one fitted offline.

    Both are judged on held-out rollouts of the run's last policy (over all their tokens), on cases that nothing was
    trained on. The ceiling's critic is of the same class (the SFT model's body with a linear head), started anew and
    fitted to other rollouts of that policy over and over until it gets no better; its best epoch on the held-out
    rollouts counts, so the ceiling is a little too high rather than too low.

    Args:
        config: of the run.
        folder: with sft/model, ppo-state (the run's checkpoints) and spare.jsonl (cases that nothing was trained on).
    """
    join_group()
    engines = Engines(config, folder / "sft" / "model")
    state = load_checkpoint(engines, folder / "ppo-state")
    assert state is not None
    batches = _roll_out(config, engines, folder / "spare.jsonl", state["beta"])
    for batch in batches:
        batch.returns = advantages_and_returns(batch.rewards, batch.values, batch.mask, 1.0, 1.0)[1]
    fit, held = batches[:FIT_BATCHES], batches[FIT_BATCHES:]
    online = _explained([batch.values for batch in held], held)
    by_epoch = list(_fit_offline(folder / "sft" / "model", fit, held))
    return {"online": online, "ceiling": max(by_epoch), "offline_by_epoch": by_epoch}


def _roll_out(config: PPOConfig, engines: Any, cases: Path, beta: float) -> list[Batch]:
    """Batches of the last policy with the values of the run's critic; no case comes twice."""
    window = engines.policy.causal.config.max_position_embeddings
    prompts = load_prompts(cases, engines.tokenizer, window, config.rollout.max_new_tokens)
    total = FIT_BATCHES + HELD_BATCHES
    if len(prompts) < total * BATCH_SIZE:
        raise SystemExit(f"{cases}: {len(prompts)} cases; fit and held-out rollouts need {total * BATCH_SIZE}")
    config = config.model_copy(update={"batch_size": BATCH_SIZE})
    with JudgeThread(config.judge) as judge:
        scorer = Scorer(judge, Reader(engines.tokenizer), reward_table(config.reward_table), config.reasoning)
        decoder = Decoder(engines.policy.model, config.rollout.batch_tokens)
        collector = Collector(config, engines, decoder, scorer, prompts, _Never())  # type: ignore[arg-type]
        return [collector.collect(WARMUP_STREAM, 1 + n, beta, Timer()) for n in range(total)]


def _fit_offline(model_folder: Path, fit: list[Batch], held: list[Batch]) -> Iterator[float]:
    """Explained variance on the held-out rollouts after each epoch."""
    level = statistics.fmean(float(masked_mean(batch.returns, batch.mask)) for batch in fit)
    critic = Critic(load_model(model_folder)[0].base_model, level)
    optimizer = torch.optim.AdamW(critic.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    parts = [(batch, micro) for batch in fit for micro in batch.micro_batches]
    updates, done = MOST_EPOCHS * len(parts) / UPDATE_PARTS, 0
    for epoch in range(MOST_EPOCHS):
        random.Random(epoch).shuffle(parts)
        for start in range(0, len(parts), UPDATE_PARTS):
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * min(1.0, (done + 1) / 20) * max(0.05, 1 - done / updates)
            done += 1
            chosen = parts[start : start + UPDATE_PARTS]
            tokens = sum(float(micro.mask.sum()) for _, micro in chosen)
            for batch, micro in chosen:
                returns, mask = part(batch.returns, micro), part(batch.mask, micro)
                (value_loss(critic(micro), returns, returns, mask, None) / tokens).backward()
            torch.nn.utils.clip_grad_norm_(critic.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        values = [torch.zeros_like(batch.values) for batch in held]
        with torch.no_grad():
            for of_batch, batch in zip(values, held, strict=True):
                for micro in batch.micro_batches:
                    put(of_batch, micro, critic(micro))
        now = _explained(values, held)
        print(f"critic offline, epoch {epoch + 1}: explained variance {now:.4f}", flush=True)
        yield now


def _explained(values: list[Tensor], held: list[Batch]) -> float:
    """Over all held-out tokens together."""
    columns = values, [batch.returns for batch in held], [batch.mask for batch in held]
    return explained_variance(*(torch.cat([tensor.flatten() for tensor in column]) for column in columns))
