"""The promotion gate as a step: evaluate the rival and the forgetting benchmark, decide, and let a person approve."""

import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from clinical_r1.atomic import write_text
from clinical_r1.baseline import read_baseline, write_baseline
from clinical_r1.errors import UserError
from clinical_r1.evaluation.benchmarks import bias_of, load_benchmark
from clinical_r1.evaluation.config import EvaluationConfig
from clinical_r1.evaluation.inputs import PREDICTIONS, Evaluated, read_cases, read_config, read_evaluated, sample_of
from clinical_r1.evaluation.promotion.gate import GateInputs, write_gate, write_result
from clinical_r1.evaluation.promotion.policy import DEFAULT_POLICY, GateConfig, Policy, read_policy
from clinical_r1.evaluation.run import evaluate_cases
from clinical_r1.folders import check_model_folder
from clinical_r1.objectstore.manifest import GATE, Gate, approve, check_bound, folder_weights
from clinical_r1.schema import Case, Prediction, read_json, read_jsonl
from clinical_r1.verifier.config import JudgeConfig


def check_gate_files(config: GateConfig) -> None:
    """Raise UserError where a file that the gate reads at the end is missing or wrong; a run asks before it trains."""
    checks: list[tuple[str, Path | None, Callable[[Path], object]]] = [
        ("policy", config.policy or DEFAULT_POLICY, read_policy),
        ("incumbent", config.incumbent, check_model_folder),
        ("forgetting", config.forgetting, partial(load_benchmark, "medqa")),
    ]
    for setting, path, check in checks:
        try:
            if path is not None:
                check(path)
        except UserError as error:
            raise UserError(f"gate.{setting}: {error}") from None


def run_gate(
    config: GateConfig,
    evaluation: EvaluationConfig,
    models: tuple[Path, Path],
    predictions: Path,
    cases: Path,
    out_dir: Path,
    state_dir: Path,
) -> Gate:
    """Decide on a candidate that was evaluated on `cases` (its predictions.jsonl lies in the folder `predictions`).

    `models` are the folders of base model and candidate. The incumbent, or the base model where there is none, answers
    the same cases (some of them, where the config says so); base and candidate answer the forgetting benchmark. Writes
    gate.json, gate.html, reasoning_baseline.json, and the evaluations behind them in folders.
    """
    base, candidate = models
    policy = read_policy(config.policy or DEFAULT_POLICY)
    test = read_cases(cases)
    compared = sample_of(test, config.cases, evaluation.seed)
    wanted = {case.id for case in compared}
    rival_name = "model in use" if config.incumbent else "base model"

    def answers(name: str, model: Path, rows: list[Case], settings: EvaluationConfig, kind: str) -> list[Prediction]:
        folder = Path(out_dir) / f"{name.replace(' ', '-')}-{kind}"
        named = settings.model_copy(update={"model_name": name, "benchmark": kind})
        evaluate_cases(named, model, rows, cases, folder, state_dir)
        return read_jsonl(folder / PREDICTIONS, Prediction)

    weights = folder_weights(candidate)
    judged = read_config(predictions)
    if judged.weights:
        check_bound(f"the evaluation in {predictions}", judged.weights, weights, str(candidate))
    probe, source = _forgetting_cases(config, test, evaluation.seed)
    # Choices need no judge of meaning: the rules decide, and nothing leaves.
    simple = evaluation.model_copy(update={"reward_judge": JudgeConfig(), "independent_judge": None})
    inputs = GateInputs(
        cases=compared,
        candidate=[row for row in read_jsonl(predictions / PREDICTIONS, Prediction) if row.case_id in wanted],
        rival=answers(rival_name, config.incumbent or base, compared, evaluation, "test"),
        names=(rival_name, "candidate"),
        incumbent=config.incumbent is not None,
        forgetting_cases=probe,
        forgetting_source=source,
        forgetting_candidate=answers("candidate", candidate, probe, simple, "forgetting"),
        forgetting_base=answers("base model", base, probe, simple, "forgetting"),
        decoding=evaluation.decoding,
        weights=weights,
        benchmark=f"test split, {len(compared):,} of {len(test):,} cases",
    )
    return write_gate(inputs, policy, out_dir)


def _forgetting_cases(config: GateConfig, test: list[Case], seed: int) -> tuple[list[Case], str]:
    """What is asked, and what has to be said of it where it is no benchmark."""
    if config.forgetting is not None:
        return sample_of(load_benchmark("medqa", config.forgetting), config.forgetting_cases, seed), ""
    probe = multiple_choice(sample_of(test, config.forgetting_cases, seed), seed=seed)
    less = (config.forgetting_cases or len(test)) - len(probe)
    left = f", {less:,} without a second diagnosis in their language left out" if less > 0 else ""
    return probe, (
        f"asked of the test cases as multiple choice{left}, since gate.forgetting names no benchmark: it says nothing "
        "of general knowledge"
    )


def bias_between(a: Evaluated, b: Evaluated, ancestors: Sequence[str] = ()) -> str:
    """Why comparing two evaluations would mislead (a difficulty filter by one of them or an ancestor); "" if not."""
    known = [*ancestors, *a.config.ancestors, *b.config.ancestors]
    return bias_of(a.benchmark or b.benchmark, [a.name, b.name, a.config.identity, b.config.identity], known)


def decide_on_folders(
    candidate: Path,
    rival: Path,
    forgetting: tuple[Path, Path] | None,
    incumbent: bool,
    policy: Policy,
    out_dir: Path,
    ancestors: Sequence[str] = (),
) -> Gate:
    """The gate on finished evaluations; `forgetting` are those of candidate and base model. Raises UserError for a
    benchmark that one of the two, or one of their `ancestors`, filtered."""
    new, old = read_evaluated(candidate), read_evaluated(rival)
    asked: dict[str, Any] = {}
    if forgetting:
        own, base = (read_evaluated(folder) for folder in forgetting)
        if old.name != new.name and (base.name == new.name or (not incumbent and own.name == old.name)):
            raise UserError(
                f"--forgetting: {own.name} stands before {base.name}; give the candidate's evaluation first, then the "
                "base model's"
            )
        asked = {
            "forgetting_cases": own.cases,
            "forgetting_candidate": own.predictions,
            "forgetting_base": base.predictions,
        }
    inputs = GateInputs(
        cases=new.cases,
        candidate=new.predictions,
        rival=old.predictions,
        names=(old.name, new.name),
        incumbent=incumbent,
        decoding=new.config.decoding,
        weights=new.config.weights,
        benchmark=new.config.benchmark,
        biased=bias_between(new, old, ancestors),
        **asked,
    )
    return write_gate(inputs, policy, out_dir)


def read_gate(folder: Path) -> Gate:
    """gate.json of a folder; UserError where there is none."""
    absent = "no decision here; run `clinical-r1 gate decide` or a pipeline with a gate first"
    return read_json(Path(folder) / GATE, Gate, absent, "decide again", "a gate's decision")


def approve_folder(
    folder: Path, by: str, reason: str, model: Path | None, override_hold: bool = False, override_refusal: bool = False
) -> Gate:
    """Record a person's approval in gate.json and gate.html and, where a model folder is given, in a gate.json with the
    reasoning baseline beside its weights. Raises UserError where the decision is about another model."""
    gate = read_gate(folder)
    result = approve(gate.candidate, gate, by, reason, override_hold, override_refusal)
    baseline = read_baseline(Path(folder))
    if model is not None:
        check_bound(str(Path(folder) / GATE), gate.weights, folder_weights(model), str(model))
        write_baseline(baseline, model)
        write_text(Path(model) / GATE, result.model_dump_json(indent=1) + "\n")
    write_result(result, baseline, Path(folder))
    return result


def multiple_choice(cases: Sequence[Case], choices: int = 5, seed: int = 0) -> list[Case]:
    """Each case with its reference among other cases' diagnoses (same language, same specialty first) as choices.

    Cases whose language holds one diagnosis only have nothing to choose from and are left out. Raises UserError where
    that is all of them.
    """
    names = sorted({(case.language, case.specialty, case.reference) for case in cases if case.references})
    asked = []
    for case in cases:
        others = [(specialty, name) for language, specialty, name in names
                  if language == case.language and name != case.reference]  # fmt: skip
        if case.references and others:
            rng = random.Random(f"{seed}:{case.id}")
            rng.shuffle(others)
            others.sort(key=lambda other: other[0] != case.specialty)
            options = [case.reference, *dict.fromkeys(name for _, name in others)][:choices]
            rng.shuffle(options)
            # A letter is right or wrong: nobody grades it by the case's rubric.
            asked.append(case.model_copy(update={"id": f"{case.id}-choice", "options": options, "rubric": []}))
    if not asked:
        raise UserError(
            "gate.forgetting: the test cases hold fewer than two different diagnoses of a language, so no probe can be "
            "made of them; give a benchmark in MedQA's form"
        )
    return asked
