"""Does PPO make the model more accurate because it reasons more carefully? Five seeds of the simulated world.

    python -m benchmarks.learning [--seeds 5] [--cases 1000] [--config demo] [--work build/bench/learning]

For each seed: fresh traces, SFT, PPO with the critic, PPO without one (same prompts, lambda and budget), all with the
settings of the shipped configuration; then on unseen cases (greedy, rule verifier) the accuracy of each, the share of
careful traces, reasoning length, and accuracy with the thought forced empty. The critic is held against its ceiling:
the same critic fitted offline to convergence on other rollouts of the final policy, both judged on held-out rollouts.
Finished stages are kept in --work and not repeated. The last line is one JSON object.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clinical_r1.atomic import write_text
from clinical_r1.schema import Case, read_jsonl, write_jsonl
from clinical_r1.training.ppo.config import CriticConfig, JudgeConfig, PPOConfig

FIT_BATCHES, HELD_BATCHES, MOST_EPOCHS, PATIENCE = 24, 12, 12, 2
STUDENT_T = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36}
"""Two-sided 95% quantiles of Student's t for a mean of n seeds."""


def main() -> None:
    """Command line; `--ceiling SEED` is one measurement in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--config", default="demo")
    parser.add_argument("--work", type=Path, default=Path("build/bench/learning"))
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--ceiling", type=int, default=None, metavar="SEED")
    options = parser.parse_args()
    for name, value in {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}.items():
        os.environ.setdefault(name, value)
    if options.ceiling is not None:
        print(json.dumps(critic_ceiling(options, options.ceiling)))
        return
    rows = [run_seed(options, seed) for seed in range(options.seeds)]
    print(json.dumps(summary(rows)))


def run_seed(options: argparse.Namespace, seed: int) -> dict[str, float]:
    """All stages of one seed; prints its line."""
    from clinical_r1.training.ppo.run import train_ppo
    from clinical_r1.training.sft.run import train_sft
    from clinical_r1.training.tiny import make_base_model

    config, folder = settings(options, seed), options.work / f"seed-{seed}"
    _once(folder / "data.json", lambda: make_data(config, folder, seed, options.cases))
    base = folder / "base"
    tiny = config.base_model.tiny.model_copy(update={"seed": seed})
    _once(folder / "base.json", lambda: make_base_model(tiny, [folder / "traces.jsonl"], base))
    sft = folder / "sft"
    _once(
        folder / "sft.json",
        lambda: train_sft(config.sft, folder / "traces.jsonl", base, sft, folder / "sft-state"),
    )
    splits = (folder / "rl.jsonl", folder / "validation.jsonl")
    for name, ppo in variants(config.ppo).items():
        out, state = folder / name, folder / f"{name}-state"
        _once(folder / f"{name}.json", lambda p=ppo, o=out, s=state: train_ppo(p, sft / "model", *splits, o, s))
    looks = {
        name: _once(folder / f"look-{name}.json", lambda n=name: look(folder / n / "model", folder, config, False))
        for name in ("sft", "ppo", "ppo-no-critic")
    }
    plain = _once(folder / "look-suppressed.json", lambda: look(folder / "ppo" / "model", folder, config, True))
    ceiling = _once(folder / "ceiling.json", lambda: _ceiling_process(options, seed))
    bayes = _once(folder / "bayes.json", lambda: {"accuracy": bayes_accuracy(folder)})["accuracy"]
    before, after = looks["sft"], looks["ppo"]
    row = {
        "seed": seed,
        "n": before["n"],
        "bayes": bayes,
        "sft": before["accuracy"],
        "ppo": after["accuracy"],
        "no_critic": looks["ppo-no-critic"]["accuracy"],
        "gap_closed": (after["accuracy"] - before["accuracy"]) / (bayes - before["accuracy"]),
        "length_ratio": after["reasoning_tokens"] / max(before["reasoning_tokens"], 1e-9),
        "careful_before": before["careful"],
        "careful_after": after["careful"],
        "within_careful_before": before["within_careful"],
        "within_careful_after": after["within_careful"],
        "no_thinking_accuracy": plain["accuracy"],
        "explained_variance": ceiling["online"],
        "ev_of_ceiling": ceiling["online"] / ceiling["ceiling"] if ceiling["ceiling"] > 0 else 0.0,
    }
    print("seed " + "  ".join(f"{key} {value:.3f}" if key != "seed" else str(value) for key, value in row.items()))
    return row


def settings(options: argparse.Namespace, seed: int) -> Any:
    """The shipped run configuration with this seed."""
    from pipelines.config import load_config

    return load_config(options.config, [f"sft.seed={seed}", f"ppo.seed={seed}", *options.overrides])


def variants(config: PPOConfig) -> dict[str, PPOConfig]:
    """With and without a critic; the rule verifier pays, so that no endpoint is needed."""
    ruled = config.model_copy(update={"judge": JudgeConfig()})
    without = ruled.model_copy(update={"critic": CriticConfig(kind="none")})
    return {"ppo": ruled, "ppo-no-critic": without}


def make_data(config: Any, folder: Path, seed: int, test_cases: int) -> dict[str, int]:
    """Disjoint draws of the world in the sizes of the configuration."""
    from benchmarks.teacher_traces import as_case, teacher_traces
    from clinical_r1.simulator.world import sample_cases

    counts = config.records.splits.counts
    seen: set[str] = set()

    def draw(count: int, stream: int) -> list[Case]:
        fresh: list[Case] = []
        for drawn in sample_cases(2 * count + 1000, 1000 * (seed + 1) + stream):
            case = as_case(drawn)
            if case.id not in seen and len(fresh) < count:
                seen.add(case.id)
                fresh.append(case)
        return fresh

    test = draw(test_cases, 1)
    sizes = {"test": write_jsonl(folder / "test.jsonl", test)}
    sizes["rl"] = write_jsonl(folder / "rl.jsonl", draw(counts["rl"], 2))
    sizes["validation"] = write_jsonl(folder / "validation.jsonl", draw(counts["validation"], 3))
    traces = (t for t in teacher_traces(counts["sft"] + 1000, 1000 * (seed + 1) + 4) if t.case_id not in seen)
    wanted = [trace for _, trace in zip(range(counts["sft"]), traces, strict=False)]
    return sizes | {"traces": write_jsonl(folder / "traces.jsonl", wanted)}


def look(model_folder: Path, folder: Path, config: Any, suppressed: bool) -> dict[str, float]:
    """Greedy answers to the test cases; `suppressed` forces an empty thought."""
    from clinical_r1.generation.chat import prompt_ids
    from clinical_r1.generation.decoder import build_decoder
    from clinical_r1.generation.load import load_model
    from clinical_r1.generation.sampling import SamplingParams
    from clinical_r1.schema import VerdictLabel
    from clinical_r1.simulator.teacher import is_careful
    from clinical_r1.simulator.world import parse_question
    from clinical_r1.training.ppo.scoring import Reader, judgement
    from clinical_r1.verifier.config import VerifierConfig
    from clinical_r1.verifier.verifier import build_verifier

    model, tokenizer = load_model(model_folder)
    cases = read_jsonl(folder / "test.jsonl", Case)
    reader, verifier = Reader(tokenizer), build_verifier(VerifierConfig())
    forced = tokenizer("<think>\n</think>\n\n", add_special_tokens=False)["input_ids"] if suppressed else []
    prompts = [prompt_ids(tokenizer, case.question) + forced for case in cases]
    params = SamplingParams(
        config.ppo.rollout.max_new_tokens, 0.0, 1.0, 0, (tokenizer.eos_token_id,), tokenizer.pad_token_id
    )
    right, careful, tokens = [], [], []
    for case, rollout in zip(cases, build_decoder(model).generate(prompts, params), strict=True):
        parts, reasoning_tokens = reader.read(forced + rollout.token_ids, rollout.finished)
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


def bayes_accuracy(folder: Path) -> float:
    """How often the most probable disease of the world is the truth on the very test cases."""
    from clinical_r1.simulator.world import best_answer, parse_question

    right = []
    for case in read_jsonl(folder / "test.jsonl", Case):
        chart = parse_question(case.question)
        right.append(chart is not None and best_answer(chart).name(case.language) == case.reference)
    return statistics.fmean(right)


def critic_ceiling(options: argparse.Namespace, seed: int) -> dict[str, float]:
    """Explained variance on held-out rollouts of the final policy: the run's critic, and the same one fitted on."""
    import copy

    import torch

    from clinical_r1.generation.decoder import build_decoder
    from clinical_r1.rewards import reward_table
    from clinical_r1.training.deepspeed import init_process_group, prepare_environment
    from clinical_r1.training.ppo.algorithm import advantages_and_returns, explained_variance
    from clinical_r1.training.ppo.batch import Batch, put
    from clinical_r1.training.ppo.data import WARMUP_STREAM, load_prompts
    from clinical_r1.training.ppo.engines import build_engines, set_learning_rate
    from clinical_r1.training.ppo.learn import Learner
    from clinical_r1.training.ppo.rollout import Collector, Timer
    from clinical_r1.training.ppo.saving import load_checkpoint
    from clinical_r1.training.ppo.scoring import JudgeThread, Reader, Scorer
    from clinical_r1.training.trainee import StopRequest

    prepare_environment()
    init_process_group()
    folder = options.work / f"seed-{seed}"
    config = variants(settings(options, seed).ppo)["ppo"]
    fit_settings = config.critic.model_copy(update={"clip": None, "target_lambda": 1.0})
    config = config.model_copy(update={"critic": fit_settings})
    engines = build_engines(config, folder / "sft" / "model")
    state = load_checkpoint(engines, folder / "ppo-state")
    assert state is not None
    assert engines.critic is not None
    critic = engines.critic
    window = engines.policy.causal.config.max_position_embeddings
    new_tokens = config.rollout.max_new_tokens
    # Cases that the policy was not trained on, so that neither critic has seen their answers.
    write_jsonl(folder / "ceiling.jsonl", _unseen(folder, seed))
    prompts = load_prompts(folder / "ceiling.jsonl", engines.tokenizer, window, new_tokens)
    with JudgeThread(config.judge) as judge:
        scorer = Scorer(judge, Reader(engines.tokenizer), reward_table(config.reward_table), config.reasoning)
        decoder = build_decoder(engines.policy.model, config.rollout.batch_tokens)
        collector = Collector(config, engines, decoder, scorer, prompts, StopRequest())
        total = FIT_BATCHES + HELD_BATCHES
        batches = [collector.collect(WARMUP_STREAM, 1 + n, state["beta"], Timer()) for n in range(total)]
    fit, held = batches[:FIT_BATCHES], batches[FIT_BATCHES:]

    @torch.no_grad()
    def pooled() -> float:
        columns: list[list[torch.Tensor]] = [[], [], []]
        for batch in held:
            fresh: Batch = copy.copy(batch)
            fresh.values = torch.zeros_like(batch.values)
            critic.eval()
            for micro in batch.micro_batches:
                put(fresh.values, micro, critic(micro))
            returns = advantages_and_returns(batch.rewards, fresh.values, batch.mask, 1.0, 1.0)[1]
            for column, tensor in zip(columns, (fresh.values, returns, batch.mask), strict=True):
                column.append(tensor.flatten())
        return explained_variance(*(torch.cat(column) for column in columns))

    online = best = pooled()
    learner, waited = Learner(config, engines), 0
    for epoch in range(MOST_EPOCHS):
        set_learning_rate(critic, config.critic.learning_rate * (1 - epoch / MOST_EPOCHS))
        for number, batch in enumerate(fit):
            learner.value(batch, WARMUP_STREAM, 10_000 + epoch * FIT_BATCHES + number, 1)
        now = pooled()
        waited = 0 if now > best else waited + 1
        best = max(best, now)
        if waited >= PATIENCE:
            break
    return {"online": online, "ceiling": best}


def _unseen(folder: Path, seed: int) -> list[Case]:
    from benchmarks.teacher_traces import as_case
    from clinical_r1.simulator.world import sample_cases

    seen = {case.id for name in ("rl", "validation", "test") for case in read_jsonl(folder / f"{name}.jsonl", Case)}
    drawn = (as_case(case) for case in sample_cases(4000, 1000 * (seed + 1) + 5))
    return [case for case in drawn if case.id not in seen]


def summary(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Means over seeds; intervals are Student's t over the seeds."""

    def mean(key: str) -> float:
        return statistics.fmean(row[key] for row in rows)

    closed_low = _interval([row["gap_closed"] for row in rows])[0]
    effects = [row["ppo"] - row["no_critic"] for row in rows]
    gains = [100 * (row["ppo"] - row["sft"]) for row in rows]
    result: dict[str, Any] = {
        "gap_closed": mean("gap_closed"),
        "gap_closed_low": closed_low,
        "gain_points": statistics.fmean(gains),
        "sft_accuracy": mean("sft"),
        "ppo_accuracy": mean("ppo"),
        "bayes": mean("bayes"),
    }
    names = ("length_ratio", "careful_before", "careful_after", "within_careful_before", "within_careful_after")
    result |= {name: mean(name) for name in (*names, "no_thinking_accuracy", "explained_variance", "ev_of_ceiling")}
    low, high = _interval(effects)
    result |= {"critic_effect": statistics.fmean(effects), "critic_effect_low": low, "critic_effect_high": high}

    def rounded(numbers: dict[str, float]) -> dict[str, float | None]:
        return {key: round(value, 4) if math.isfinite(value) else None for key, value in numbers.items()}

    by_seed = [rounded(row) for row in rows]
    return rounded(result) | {"seeds": len(rows), "n": rows[0]["n"], "by_seed": by_seed}


def _interval(values: list[float]) -> tuple[float, float]:
    """95% interval of a mean; that of one value is unknown (NaN)."""
    if len(values) < 2:
        return math.nan, math.nan
    quantile = STUDENT_T.get(len(values), 2.0)
    half = quantile * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values) - half, statistics.fmean(values) + half


def _ceiling_process(options: argparse.Namespace, seed: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.learning", "--ceiling", str(seed), "--work", str(options.work)]
    command += ["--config", options.config, *(part for text in options.overrides for part in ("--set", text))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the critic's ceiling of seed {seed} failed:\n{done.stderr[-3000:]}")
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _once(path: Path, work: Callable[[], Any]) -> dict[str, Any]:
    """The result of a stage: from its file where it is done, else worked out and written there."""
    if not path.is_file():
        print(f"{path.parent.name}: {path.stem}", flush=True)
        write_text(path, json.dumps(work()) + "\n")
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return stored


if __name__ == "__main__":
    main()
