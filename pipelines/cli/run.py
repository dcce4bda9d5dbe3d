"""`clinical-r1 run | experiments | compile`: whole pipelines, on this machine (kfp.local) or as YAML for a server."""

import os
from pathlib import Path
from typing import Annotated

import typer


def run(
    pipeline: Annotated[
        str, typer.Argument(help="The pipeline to run: train, audit, or an experiment (ablate-rl, ...).")
    ],
    config: Annotated[
        str,
        typer.Option(
            help="A shipped configuration by name, or a YAML file of yours. Left out: demo for train, experiments/NAME "
            "for an experiment."
        ),
    ] = "",
    cases: Annotated[
        list[Path] | None,
        typer.Option(help="Case files to use in place of the configuration's (format is found out); repeatable."),
    ] = None,
    map_: Annotated[
        str,
        typer.Option(
            "--map",
            metavar="FIELD=COLUMN,...",
            help="Which column or JSON key of the --cases files is what: question and reference, and if they are there "
            "icd10, patient, site, sex, age, name, phone, ... (docs/records.md). COLUMN+COLUMN joins columns.",
        ),
    ] = "",
    limit: Annotated[int, typer.Option(help="Use at most so many of the cases; 0 = all.", min=0)] = 0,
    seed: Annotated[int | None, typer.Option(help="One seed for the records, the training and the evaluation.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one setting, e.g. --set ppo.kl_beta=0.05; repeatable."),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder for runs, artifacts and checkpoints.")] = Path("runs"),
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            metavar="NAME=VALUE",
            help="A field of the dashboard's form, such as sft_epochs=2 (submit --help-params lists them); repeatable.",
        ),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Reuse no finished step and no checkpoint.")] = False,
    fork: Annotated[
        bool,
        typer.Option(
            "--fork", help="Where an unfinished training with other settings is found, leave it and start one."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved configuration as YAML and run nothing.")
    ] = False,
) -> None:
    """Run a pipeline on this machine with the steps that a cluster would run.

    Finished steps are reused while neither their settings, their inputs nor the code changed; a stopped run goes on in
    the step it was in. Without --cases the demo samples records from its simulated clinical world.

    \b
    Examples:
      clinical-r1 run train
      clinical-r1 run train --cases cases.jsonl --limit 300 --seed 3
      clinical-r1 run train --cases notes.csv --map question=complaint+history,reference=diagnosis,patient=pid
      clinical-r1 run train --config my.yaml --set sft.epochs=2
      clinical-r1 run audit --set store=s3://audit/clinical-r1 --set days=7
    """
    from clinical_r1.settings import shown
    from clinical_r1.training.checkpoints import FORK_VARIABLE
    from pipelines.runner import Request, run_pipeline, settled
    from pipelines.submit import local_parameters

    pipeline, parameters = local_parameters(pipeline, param or [])
    if limit:
        parameters["limit"] = limit
    if seed is not None:
        parameters["seed"] = seed
    if fork:
        os.environ[FORK_VARIABLE] = "1"  # the steps, and the training processes in them, inherit it
    request = Request(config, cases or [], map_, parameters, set_ or [], runs, fresh)
    if dry_run:
        typer.echo(shown(settled(pipeline, request)), nl=False)
        return
    run_pipeline(pipeline, request)


def experiments(
    names: Annotated[
        list[str] | None, typer.Argument(help="ablate-rl, ablate-rewards, compare-synthesizers, ...; none = all.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one setting of all of them; repeatable."),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder for runs, artifacts and checkpoints.")] = Path("runs"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Reuse no finished step and no checkpoint.")] = False,
) -> None:
    """Run experiments on the simulated world: each has a report, states its answer with an interval, and prints its
    power; planted effects must be found (exit code 1 where one is missed). Finished steps are reused, shared ones are
    made once, a stopped run goes on where it was. One at a time, with your own cases: clinical-r1 run NAME --help.

    \b
    Examples:
      clinical-r1 experiments
      clinical-r1 experiments audit-verifier held-out-site
    """
    from pipelines.runner import check_names, run_all

    if not run_all(check_names(names or []), set_ or [], runs, fresh):
        raise typer.Exit(1)


def compile_pipelines(
    pipeline: Annotated[str, typer.Argument(help="A pipeline's name, or 'all'.")] = "all",
    out: Annotated[Path, typer.Option(help="Folder for the YAML files.")] = Path("manifests/pipelines"),
) -> None:
    """Compile pipelines to YAML that the Kubeflow dashboard takes (Pipelines > Upload pipeline).

    Example: clinical-r1 compile train --out build/
    """
    from kfp import compiler

    from pipelines.registry import PIPELINES, cluster_form

    names = sorted(PIPELINES) if pipeline == "all" else [pipeline]
    for name in names:
        function = cluster_form(name)
        out.mkdir(parents=True, exist_ok=True)
        temporary, target = out / f".{name}.tmp.yaml", out / f"{name}.yaml"
        try:
            compiler.Compiler().compile(function, str(temporary))
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        typer.echo(str(target))
