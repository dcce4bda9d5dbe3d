"""An evaluation in the forms of other people's tools: a log of inspect_ai, and results of lm-evaluation-harness.

Both hold the cases' text, so they are for whoever may see it. A share that the rules left partly undecided goes out as
a lower bound under that name, never as an accuracy, and an answer without a verdict has no score.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clinical_r1 import __version__
from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError
from clinical_r1.evaluation.inputs import METRICS, Evaluated, read_evaluated
from clinical_r1.evaluation.measure.metrics import Accuracy, Metrics
from clinical_r1.schema import Case, Prediction, Verdict, read_json, write_jsonl

if TYPE_CHECKING:
    from inspect_ai.log import EvalSample
    from inspect_ai.scorer import Score


def export(folder: Path, form: Literal["inspect", "lm-eval"], out: Path) -> list[Path]:
    """Write a finished evaluation in another tool's form; returns the files."""
    done = read_evaluated(folder)
    fix = "run the evaluation again"
    metrics = read_json(Path(folder) / METRICS, Metrics, f"cannot be read; {fix}", fix)
    out.mkdir(parents=True, exist_ok=True)
    return {"inspect": write_inspect, "lm-eval": write_lm_eval}[form](done, metrics, out)


def _shares(metrics: Metrics) -> Iterator[tuple[str, Accuracy, str, float]]:
    """The scorers that graded something, each with its share, what that is (`accuracy`, or `lower_bound` where answers
    are undecided) and its standard error: from the bootstrap's interval where patients or samples repeat."""
    graded = (None if metrics.points_alone else metrics.overall), metrics.overall.independent
    for judge, share in zip(("reward_judge", "independent_judge"), graded, strict=True):
        if share is not None:
            error = math.sqrt(share.share * (1 - share.share) / max(1, share.n - share.unscored - 1))
            if share.cluster_low is not None and share.cluster_high is not None:
                error = (share.cluster_high - share.cluster_low) / (2 * 1.96)
            yield judge, share, share.kind.replace(" ", "_"), error


def write_inspect(done: Evaluated, metrics: Metrics, out: Path) -> list[Path]:
    """OUT/BENCHMARK.eval, which `inspect view` and `read_eval_log` open. Needs inspect_ai."""
    try:
        from inspect_ai import log, model
    except ImportError:
        raise UserError("--as inspect needs inspect_ai: pip install 'clinical-r1[inspect]'") from None
    cases = {case.id: case for case in done.cases}
    name, now = done.config.benchmark or "cases", datetime.now(UTC).isoformat(timespec="seconds")
    drawn = metrics.decoding.model_dump(mode="json") if metrics.decoding else {}
    scores = [
        log.EvalScore(
            name=judge, scorer=judge, scored_samples=share.n - share.unscored, unscored_samples=share.unscored,
            metrics={m: log.EvalMetric(name=m, value=v) for m, v in ((kind, share.share), ("stderr", error))},
            metadata={"interval_95": list(share.interval), "undecided": share.undecided},
        )
        for judge, share, kind, error in _shares(metrics)
    ]  # fmt: skip
    if rubric := metrics.rubric:
        value = {"mean": log.EvalMetric(name="mean", value=rubric.mean)}
        scores.append(log.EvalScore(name="rubric", scorer="rubric", scored_samples=rubric.n, metrics=value,
                                    unscored_samples=rubric.unscored,
                                    metadata={"interval_95": [rubric.low, rubric.high]}))  # fmt: skip
    spec = log.EvalSpec(
        created=now, task=name, model=done.name, config=log.EvalConfig(epochs=done.config.samples),
        dataset=log.EvalDataset(name=name, samples=len(cases), sample_ids=list(cases)),
        model_generate_config=model.GenerateConfig(
            **{name: drawn.get(name) for name in ("temperature", "top_p", "max_tokens")}
        ),
        packages={"clinical-r1": __version__},
        metadata={"weights_sha256": metrics.weights, "notes": metrics.notes, "decoding": drawn,
                  "prompt": done.config.prompt, "outcomes": metrics.outcomes},
    )  # fmt: skip
    samples = [_inspect_sample(cases[row.case_id], row, done.name) for row in done.predictions]
    results = log.EvalResults(total_samples=len(samples), completed_samples=len(samples), scores=scores)
    path = out / f"{name}.eval"
    log.write_eval_log(
        log.EvalLog(status="success", eval=spec, results=results, samples=samples), str(path), format="eval"
    )
    path.chmod(0o600)
    return [path]


def _inspect_sample(case: Case, row: Prediction, model_name: str) -> "EvalSample":
    from inspect_ai import log, model
    from inspect_ai.scorer import Score

    said = {"user": model.ChatMessageUser, "assistant": model.ChatMessageAssistant, "system": model.ChatMessageSystem}
    asked = [said[turn.role](content=turn.content) for turn in case.turns]
    asked.append(model.ChatMessageUser(content=case.problem))
    content = [*([model.ContentReasoning(reasoning=row.thinking)] if row.thinking else []),
               model.ContentText(text=row.response)]  # fmt: skip
    output = model.ModelOutput.from_content(model_name, content)
    verdicts = {"reward_judge": row.verdict, "independent_judge": row.independent}
    scores = {judge: _inspect_score(verdict, row.response) for judge, verdict in verdicts.items() if verdict}
    if row.rubric is not None:
        share = row.rubric.share(case.rubric)
        failed = Score.unscored(reason="grader_failed", answer=row.response)
        scores["rubric"] = failed if share is None else Score(value=share, answer=row.response)
    return log.EvalSample(
        id=case.id, epoch=row.sample + 1, input=asked if case.turns else case.problem, choices=case.options or None,
        target=case.references, messages=[*asked, output.choices[0].message], output=output, scores=scores,
        metadata={"outcome": row.outcome.value, "language": case.language, "specialty": case.specialty,
                  "icd10": case.icd10, "reasoning_tokens": row.reasoning_tokens, "answer_tokens": row.answer_tokens},
    )  # fmt: skip


def _inspect_score(verdict: Verdict, answer: str) -> "Score":
    from inspect_ai.scorer import CORRECT, INCORRECT, Score

    said = f"{verdict.judge}: {verdict.reason or verdict.label.value}"
    if verdict.label.right is None:
        return Score.unscored(reason=verdict.label.value, answer=answer, explanation=said)
    return Score(value=CORRECT if verdict.label.right else INCORRECT, answer=answer, explanation=said)


def write_lm_eval(done: Evaluated, metrics: Metrics, out: Path) -> list[Path]:
    """OUT/MODEL/results_TIME.json and samples_BENCHMARK_TIME.jsonl, as lm-evaluation-harness 0.4 writes them."""
    name, now = done.config.benchmark or "cases", datetime.now(UTC)
    drawn = metrics.decoding.model_dump(mode="json") if metrics.decoding else {}
    figures: dict[str, Any] = {"alias": name}
    measured = set()
    for judge, share, kind, error in _shares(metrics):
        figures |= {f"{kind},{judge}": share.share, f"{kind}_stderr,{judge}": error}
        measured.add(kind)
    if metrics.rubric:
        figures |= {"points,rubric": metrics.rubric.mean, "points_stderr,rubric": "N/A"}
        measured.add("points")
    safe = re.sub(r"[^\w.-]", "_", done.name)
    results = {
        "results": {name: figures},
        "group_subtasks": {name: []},
        "configs": {
            name: {"task": name, "dataset_name": name, "output_type": "generate_until", "num_fewshot": 0,
                   "repeats": done.config.samples, "generation_kwargs": drawn,
                   "metric_list": [{"metric": metric, "aggregation": "mean", "higher_is_better": True}
                                   for metric in sorted(measured)],
                   "metadata": {"version": 1, "notes": metrics.notes}}
        },
        "versions": {name: 1},
        "n-shot": {name: 0},
        "higher_is_better": {name: dict.fromkeys(sorted(measured), True)},
        "n-samples": {name: {"original": len(done.cases), "effective": len(done.cases)}},
        "config": {"model": done.name, "model_args": {"weights_sha256": metrics.weights}, "gen_kwargs": drawn,
                   "random_seed": done.config.seed, "batch_size": done.config.batch_rows},
        "git_hash": None,
        "date": now.timestamp(),
        "model_source": "clinical-r1",
        "model_name": done.name,
        "model_name_sanitized": safe,
        "clinical_r1_version": __version__,
    }  # fmt: skip
    folder, stamp = out / safe, now.strftime("%Y-%m-%dT%H-%M-%S.%f")
    cases = {case.id: (index, case) for index, case in enumerate(done.cases)}
    samples = folder / f"samples_{name}_{stamp}.jsonl"
    write_jsonl(samples, (_lm_eval_sample(*cases[row.case_id], row, measured) for row in done.predictions))
    path = folder / f"results_{stamp}.json"
    write_text(path, json.dumps(results, ensure_ascii=False, indent=2) + "\n")
    return [path, samples]


def _lm_eval_sample(index: int, case: Case, row: Prediction, measured: set[str]) -> dict[str, Any]:
    target = "; ".join(case.references)
    scores: dict[str, Any] = {}
    if row.verdict is not None:
        for metric in measured - {"points"}:
            scores[metric] = None if row.verdict.label.right is None else float(row.verdict.label.right)
    if row.rubric is not None:
        scores["points"] = row.rubric.share(case.rubric)
    return {
        "doc_id": index, "doc": {"id": case.id, "question": case.question, "options": case.options}, "target": target,
        "arguments": {"gen_args_0": {"arg_0": case.problem}}, "resps": [[row.output]], "filtered_resps": [row.response],
        "filter": "reward_judge", "metrics": sorted(scores), "doc_hash": _sha(case.model_dump_json()),
        "prompt_hash": _sha(case.problem), "target_hash": _sha(target), **scores,
    }  # fmt: skip


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def clinical_verifier(judge: str = "") -> Any:
    """Our verifier as a scorer of inspect_ai, by rules or by the judge of a YAML file (`verifier`, `endpoint`):

        from clinical_r1.evaluation.exports import clinical_verifier
        Task(dataset=..., solver=generate(), scorer=clinical_verifier("judge.yaml"))

    The sample's input is the question, its target the reference (several: a list, principal first), its choices the
    options. The thinking is not shown to the judge. What is undecided, or could not be judged, is left unscored.
    """
    from contextlib import AsyncExitStack

    from inspect_ai.scorer import Target, accuracy, scorer, stderr
    from inspect_ai.solver import TaskState

    from clinical_r1.llm.client import LLMClient
    from clinical_r1.reasoning import split
    from clinical_r1.settings import load
    from clinical_r1.text import main_language
    from clinical_r1.verifier.config import JudgeConfig
    from clinical_r1.verifier.judgement import Judgement
    from clinical_r1.verifier.verifier import build_verifier

    config = load(JudgeConfig, Path(judge) if judge else None)

    @scorer(metrics=[accuracy(), stderr()], name="clinical_verifier")
    def build() -> Callable[..., Any]:
        async def score(state: TaskState, target: Target) -> "Score":
            response = split(state.output.completion).response or state.output.completion
            options = [choice.value for choice in state.choices]
            case = Case(
                language=main_language(state.input_text), question=state.input_text, options=options,
                references=[_option(text, options) for text in target],
            )  # fmt: skip
            async with AsyncExitStack() as stack:
                client = await stack.enter_async_context(LLMClient(config.endpoint)) if config.endpoint else None
                verdict = await build_verifier(config.verifier, client).judge(Judgement.of(case, response))
            return _inspect_score(verdict, response)

        return score

    return build()


def _option(text: str, options: list[str]) -> str:
    """The target of a multiple-choice sample is the letter of an option."""
    place = ord(text) - ord("A") if len(text) == 1 and text.isupper() else -1
    return options[place] if 0 <= place < len(options) else text
