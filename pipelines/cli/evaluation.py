"""Commands about measuring: evaluate, compare, build-benchmark, audit-verifier, review, gate, check-reasoning."""

from pathlib import Path
from typing import Annotated

import typer

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting, e.g. --set samples=8; repeatable."),
]
Map = Annotated[
    str,
    typer.Option("--map", metavar="FIELD=COLUMN,...", help="Which column or key of the file is what, as run takes it."),
]
Ancestors = Annotated[
    list[str] | None, typer.Option("--ancestor", help="A model that one of the two was trained from; repeatable.")
]


def columns_of(text: str) -> dict[str, str]:
    """`--map` as a map; empty for none."""
    from clinical_r1.records.config import parse_map

    return parse_map(text) if text else {}


review = typer.Typer(help="Blinded grading by experts: make a queue, import what they graded.", no_args_is_help=True)
gate = typer.Typer(help="The promotion gate: decide by a policy, and a person's approval.", no_args_is_help=True)


def show_listing(wanted: bool) -> None:
    """What `--list` does."""
    if wanted:
        from pipelines.evaluate_run import listing

        typer.echo(listing())
        raise typer.Exit


def evaluate(
    model: Annotated[str, typer.Argument(help="A model folder, an endpoint's URL, or a YAML file of an endpoint.")],
    benchmark: Annotated[
        list[str],
        typer.Option(
            "--benchmark", "-b", help="NAME (cases, dxbench, medqa, medmcqa, ...), FILE, or NAME=FILE; repeatable."
        ),
    ],
    data: Annotated[Path, typer.Option(help="Where benchmarks given by NAME have their files.")] = Path("."),
    out: Annotated[Path, typer.Option(help="Folder of evaluations: OUT/<model>/<benchmark>.")] = Path("evaluations"),
    config: Annotated[Path | None, typer.Option(help="YAML: sampling, judges, what may leave; or two-judges.")] = None,
    set_: Set = None,
    name: Annotated[str, typer.Option(help="What reports call the model.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many cases of each benchmark, drawn by the seed.", min=0)] = 0,
    model_id: Annotated[str, typer.Option("--model", help="With a URL: the model to ask for.")] = "",
    api_key_env: Annotated[str, typer.Option(help="With a URL: the environment variable with the key.")] = "",
    trusted: Annotated[bool, typer.Option(help="With a URL: it is inside the security boundary.")] = False,
    concurrency: Annotated[int, typer.Option(help="With a URL: most calls in flight.", min=1)] = 128,
    baseline: Annotated[
        str, typer.Option(help="Ask and draw as a published model's publisher does: a name that --list shows.")
    ] = "",
    prompt: Annotated[
        str,
        typer.Option(help="Only its words, for any model: a baseline's name (the paper's: clinicalgpt-r1-preview)."),
    ] = "",
    map_: Map = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved settings as YAML, run nothing.")
    ] = False,
    list_: Annotated[
        bool,
        typer.Option("--list", help="Show baselines and benchmarks, and end.", is_eager=True, callback=show_listing),
    ] = False,
) -> None:
    """Let a model answer benchmarks, judge every answer twice, and write metrics with intervals and a page.

    An interrupted evaluation goes on where it was: give the same command again. Every answer counts, empty ones too.

    \b
    Examples:
      clinical-r1 evaluate runs/latest/model -b test.jsonl
      clinical-r1 evaluate runs/latest/model -b medqa -b dxbench --data ../data --set max_new_tokens=300
      clinical-r1 evaluate http://127.0.0.1:8000/v1 --model model --trusted -b cases.jsonl
      clinical-r1 evaluate runs/latest/model -b cases.jsonl --set samples=8 --set temperature=0.7
      clinical-r1 evaluate gpt-4o.yaml -b benchmark/cases.jsonl --config evaluation.yaml
      clinical-r1 evaluate https://api.openai.com/v1 --baseline gpt-4o --api-key-env OPENAI_API_KEY -b medqa
      clinical-r1 evaluate ClinicalGPT-R1-Qwen-7B-EN-preview/ --baseline clinicalgpt-r1-preview -b cases.jsonl
      clinical-r1 evaluate runs/latest/model --prompt clinicalgpt-r1-preview -b cases.jsonl
      clinical-r1 evaluate --list
    """
    from clinical_r1.evaluation.config import EvaluationConfig, baselines
    from clinical_r1.settings import shown
    from pipelines.evaluate_run import model_of, read_settings, run_evaluation

    named = [f"{key}={value}" for key, value in (("baseline", baseline), ("prompt", prompt)) if value]
    settings = read_settings(EvaluationConfig, config, [*named, *(set_ or [])])
    settings = settings.model_copy(update={"model_name": name or settings.model_name})
    if dry_run:
        typer.echo(shown(settings), nl=False)
        return
    model_id = model_id or (baselines()[settings.baseline].model if settings.baseline else "")
    endpoint = {"model": model_id, "api_key_env": api_key_env, "trusted": trusted, "max_concurrency": concurrency}
    run_evaluation(model_of(model, endpoint), benchmark, data, settings, out, limit, columns_of(map_))


def compare(
    first: Annotated[Path, typer.Argument(help="An evaluation's folder, or a folder of several (the reference).")],
    second: Annotated[Path, typer.Argument(help="Another one, on the same cases.")],
    out: Annotated[Path, typer.Option(help="Folder for comparison.html and comparison.json.")] = Path("comparison"),
    ancestor: Ancestors = None,
) -> None:
    """Compare two models case by case: difference with its interval, McNemar, Holm over subgroups, partial credit.

    \b
    Examples:
      clinical-r1 compare evaluations/base/cases evaluations/ours/cases
      clinical-r1 compare evaluations/gpt-4o evaluations/ours --out comparison
    """
    from pipelines.evaluate_run import compare_folders

    compare_folders(first, second, out, ancestor or [])


def export_evaluation(
    evaluation: Annotated[Path, typer.Argument(help="The folder of a finished evaluation.")],
    form: Annotated[str, typer.Option("--as", help="inspect (a .eval log) or lm-eval (results and samples).")],
    out: Annotated[Path, typer.Option(help="Folder for what is written.")] = Path("exports"),
) -> None:
    """Give a finished evaluation to other people's tools: an inspect_ai log, or lm-evaluation-harness results.

    The files hold the cases' text. `inspect` needs the extra of that name.

    \b
    Examples:
      clinical-r1 export-evaluation evaluations/ours/medqa --as inspect    # then: inspect view --log-dir exports
      clinical-r1 export-evaluation evaluations/ours/medqa --as lm-eval
    """
    from clinical_r1.errors import UserError
    from clinical_r1.evaluation.exports import export

    if form not in ("inspect", "lm-eval"):
        raise UserError(f"--as {form}: unknown form; use inspect or lm-eval")
    for path in export(evaluation, form, out):  # type: ignore[arg-type]
        typer.echo(str(path))


def build_benchmark(
    cases: Annotated[Path, typer.Argument(help="JSONL of cases to draw from, such as a records step's test.jsonl.")],
    training: Annotated[
        list[Path] | None, typer.Option(help="What models were trained on (cases or traces); repeatable.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for cases.jsonl, card.md, contamination.json.")] = Path("benchmark"),
    config: Annotated[Path | None, typer.Option(help="YAML: specialties, cases of each, seed, filter.")] = None,
    map_: Map = "",
    set_: Set = None,
) -> None:
    """Build a benchmark in MedBench-Hard's form from your own records: 7 specialties x 500, spread over ICD-10.

    \b
    Examples:
      clinical-r1 build-benchmark splits/test.jsonl --training splits/sft.jsonl --training splits/rl.jsonl
      clinical-r1 build-benchmark cases.jsonl --set per_specialty=100 --set seed=3
      clinical-r1 build-benchmark cases.jsonl --set 'difficulty={model: base, predictions: base/predictions.jsonl}'
    """
    from clinical_r1.evaluation.benchmarks import BuilderConfig
    from clinical_r1.evaluation.benchmarks import build_benchmark as build
    from pipelines.evaluate_run import read_settings

    report = build(read_settings(BuilderConfig, config, set_ or []), cases, training or None, out, columns_of(map_))
    short = report["short"]
    typer.echo(f"{report['cases']} cases of {report['pool']} records; {report['contaminated']} contaminated, left out")
    if isinstance(short, list) and short:
        typer.echo(f"fewer than asked for: {', '.join(short)}")
    if report["filtered_by"]:
        typer.echo(f"biased comparison: chosen by failures of {report['filtered_by']}; its gate is disabled here")
    typer.echo(str(out / "card.md"))


def audit_verifier(
    labelled: Annotated[Path, typer.Argument(help="JSONL: question, reference, answer, language, correct.")],
    judge: Annotated[Path | None, typer.Option(help="YAML of the judge (verifier, endpoint); else the rules.")] = None,
    set_: Set = None,
    reported: Annotated[
        list[Path] | None, typer.Option(help="Evaluation whose accuracy to correct for the judge's errors; repeatable.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for audit.html, audit.json and the journal.")] = Path("audit"),
) -> None:
    """How often does the judge err, does wording move it, and what do its errors do to a reported accuracy?

    \b
    Examples:
      clinical-r1 audit-verifier review/labelled.jsonl
      clinical-r1 audit-verifier labelled.jsonl --judge judge.yaml --reported evaluations/ours/cases
    """
    from clinical_r1.evaluation.judging.audit import audit_judge
    from clinical_r1.verifier.config import JudgeConfig
    from pipelines.evaluate_run import read_settings, reported_of

    settings = read_settings(JudgeConfig, judge, set_ or [])
    audit = audit_judge(settings, labelled, out, out / ".state", reported_of(reported or []))
    low, high = audit.kappa_interval
    typer.echo(
        f"{audit.verifier} on {audit.n} labelled answers: accepts {audit.sensitivity:.1%} of the right, rejects "
        f"{audit.specificity:.1%} of the wrong, kappa {audit.kappa:.2f} ({low:.2f} to {high:.2f}); "
        f"{audit.invalid} judgements failed"
    )
    typer.echo(str(out / "audit.html"))


@review.command("make")
def review_make(
    evaluations: Annotated[list[Path], typer.Argument(help="Evaluation folders on the same cases; blinded together.")],
    size: Annotated[int, typer.Option(help="Answers to grade.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Which answers, and their order.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for review.html, review.csv and key.jsonl.")] = Path("review"),
) -> None:
    """Make a blinded, stratified queue: one page that works offline, a CSV, and a key that stays with you.

    Example: clinical-r1 review make evaluations/base/cases evaluations/ours/cases --size 200 --out review/
    """
    from clinical_r1.evaluation.judging.review import build_queue, read_answers, write_queue

    cases, predictions = read_answers(evaluations)
    items, keys = build_queue(cases, predictions, size, seed)
    write_queue(items, keys, out)
    typer.echo(f"{len(items)} answers: give {out / 'review.html'} (or review.csv) to the experts; keep key.jsonl")


@review.command("import")
def review_import(
    reviews: Annotated[list[Path], typer.Argument(help="CSV files that the experts saved.")],
    key: Annotated[Path, typer.Option(help="key.jsonl of the queue.")],
    evaluations: Annotated[
        list[Path] | None, typer.Option("--evaluation", help="Evaluation folders, to write labelled.jsonl; repeatable.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for agreement.json, labelled.jsonl.")] = Path("review"),
) -> None:
    """Read the experts' grades: agreement among them and with the verifier, and labelled answers for audit-verifier.

    Example: clinical-r1 review import li.csv smith.csv --key review/key.jsonl --evaluation evaluations/ours/cases
    """
    from clinical_r1.evaluation.inputs import read_evaluated
    from clinical_r1.evaluation.judging.review import import_reviews

    cases = {case.id: case for folder in evaluations or [] for case in read_evaluated(folder).cases}
    for row in import_reviews(reviews, key, out, cases):
        low, high = row.kappa_interval
        typer.echo(f"{row.first} and {row.second}: {row.n} items, agree {row.agreed:.0%}, kappa {row.kappa:.2f} "
                   f"({low:.2f} to {high:.2f})")  # fmt: skip
    typer.echo(str(out / "agreement.json"))


def check_reasoning(
    evaluation: Annotated[Path, typer.Argument(help="An evaluation's folder, or with --measure a file of cases.")],
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure the detector itself on seeded corruptions of real chains.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Which corruptions.")] = 0,
    out: Annotated[Path | None, typer.Option(help="File for the flags or scores, JSONL; else only printed.")] = None,
) -> None:
    """What does the thinking state that the case does not hold: findings, numbers, results, another conclusion.

    \b
    Examples:
      clinical-r1 check-reasoning evaluations/ours/cases --out flags.jsonl
      clinical-r1 check-reasoning huatuogpt_o1_demo_198.json --measure
      clinical-r1 check-reasoning traces.jsonl --measure
    """
    from clinical_r1.evaluation.grounding import check_evaluation, measure_detector

    for line in measure_detector(evaluation, seed, out) if measure else check_evaluation(evaluation, out):
        typer.echo(line)


@gate.command("decide")
def gate_decide(
    candidate: Annotated[Path, typer.Argument(help="Evaluation of the candidate.")],
    rival: Annotated[Path, typer.Argument(help="Evaluation of the model in use on the same cases, or of the base.")],
    forgetting: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Two evaluations in MedQA form: the candidate's and the base model's."),
    ] = None,
    no_incumbent: Annotated[
        bool, typer.Option("--no-incumbent", help="RIVAL is the base model: there is no model in use.")
    ] = False,
    policy: Annotated[Path | None, typer.Option(help="Policy YAML; default: the shipped one.")] = None,
    set_: Set = None,
    ancestor: Ancestors = None,
    out: Annotated[Path, typer.Option(help="Folder for gate.json, gate.html, reasoning_baseline.json.")] = Path("gate"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved policy as YAML, decide nothing.")
    ] = False,
) -> None:
    """Say promote, hold or refuse, with reasons and with what each rule could have seen. Exit code 0, 3 or 4.

    \b
    Examples:
      clinical-r1 gate decide evaluations/new/cases evaluations/old/cases --forgetting evaluations/{new,base}/medqa
      clinical-r1 gate decide evaluations/new/cases evaluations/base/cases --no-incumbent --policy strict.yaml
    """
    from clinical_r1.evaluation.promotion.policy import DEFAULT_POLICY, read_policy
    from clinical_r1.evaluation.promotion.run import decide_on_folders
    from clinical_r1.settings import shown

    rules = read_policy(policy or DEFAULT_POLICY, set_ or [])
    if dry_run:
        typer.echo(shown(rules), nl=False)
        return
    result = decide_on_folders(candidate, rival, forgetting, not no_incumbent, rules, out, ancestor or [])
    typer.echo(f"{result.decision}: {result.candidate} against {result.against}")
    for reason in result.reasons:
        typer.echo(f"  {reason}")
    typer.echo(str(out / "gate.html"))
    raise typer.Exit({"promote": 0, "hold": 3, "refuse": 4}[result.decision])


@gate.command("approve")
def gate_approve(
    decision: Annotated[Path, typer.Argument(help="Folder with gate.json.")],
    by: Annotated[str, typer.Option(help="Who approves.")],
    reason: Annotated[str, typer.Option(help="Why; it stands in the manifest for good.")],
    model: Annotated[
        Path | None, typer.Option(help="The folder of that model: decision and baseline go beside its weights.")
    ] = None,
    override_hold: Annotated[bool, typer.Option("--override-hold", help="Promote a held model all the same.")] = False,
    override_refusal: Annotated[
        bool, typer.Option("--override-refusal", help="Promote a refused model; stands in manifest and card for ever.")
    ] = False,
) -> None:
    """A person takes responsibility: approved_by and the reason go into gate.json, there and beside the weights.

    Example: clinical-r1 gate approve gate/ --by "Dr. Li" --reason "reviewed 200 answers" --model runs/latest/model
    """
    from clinical_r1.evaluation.promotion.run import approve_folder

    result = approve_folder(decision, by, reason, model, override_hold, override_refusal)
    typer.echo(f"{result.candidate}: approved by {result.approved_by} at {result.approved_at}")
