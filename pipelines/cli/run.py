"""`clinical-r1 run | experiments | compile`: whole pipelines, on this machine (kfp.local) or as YAML for a server; and
`preflight`, which says what memory a training needs before a GPU is asked for."""

import os
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from clinical_r1.errors import UserError

Runs = Annotated[Path, Option(help="Folder for runs, artifacts and checkpoints.")]
Fresh = Annotated[bool, Option("--fresh", help="Reuse no finished step and no checkpoint.")]


def run(
    pipeline: Annotated[str, Argument(help="The pipeline to run: train, audit, or an experiment (ablate-rl, ...).")],
    config: Annotated[
        str,
        Option(
            help="A shipped configuration by name, or a YAML file of yours. Left out: demo for train, experiments/NAME "
            "for an experiment."
        ),
    ] = "",
    cases: Annotated[
        list[Path] | None,
        Option(help="Case files to use in place of the configuration's (format is found out); repeatable."),
    ] = None,
    map_: Annotated[
        str,
        Option(
            "--map",
            metavar="FIELD=COLUMN,...",
            help="Which column or JSON key of the --cases files is what: question and reference, and if they are there "
            "icd10, patient, site, sex, age, name, phone, ... (docs/records.md). COLUMN+COLUMN joins columns.",
        ),
    ] = "",
    limit: Annotated[int, Option(help="Use at most so many of the cases; 0 = all.", min=0)] = 0,
    seed: Annotated[int | None, Option(help="One seed for the records, the training and the evaluation.")] = None,
    set_: Annotated[
        list[str] | None,
        Option("--set", metavar="KEY=VALUE", help="Change one setting, e.g. --set ppo.kl_beta=0.05; repeatable."),
    ] = None,
    runs: Runs = Path("runs"),
    param: Annotated[
        list[str] | None,
        Option(
            "--param",
            metavar="NAME=VALUE",
            help="A field of the dashboard's form, such as sft_epochs=2 (submit --help-params lists them); repeatable.",
        ),
    ] = None,
    fresh: Fresh = False,
    fork: Annotated[
        bool,
        Option("--fork", help="Where an unfinished training with other settings is found, leave it and start one."),
    ] = False,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Print the resolved configuration as YAML and run nothing.")
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
        list[str] | None, Argument(help="ablate-rl, ablate-rewards, compare-synthesizers, ...; none = all.")
    ] = None,
    set_: Annotated[
        list[str] | None, Option("--set", metavar="KEY=VALUE", help="Change one setting of all of them; repeatable.")
    ] = None,
    runs: Runs = Path("runs"),
    fresh: Fresh = False,
) -> None:
    """Run experiments on the simulated world: each has a report, states its answer with an interval, and prints its
    power; planted effects must be found (exit code 1 where one is missed). Finished steps are reused, shared ones are
    made once, a stopped run goes on where it was. One at a time, with your own cases: clinical-r1 run NAME --help.

    \b
    Examples:
      clinical-r1 experiments
      clinical-r1 experiments audit-verifier held-out-site
    """
    from pipelines.runner import run_all

    if not run_all(names or [], set_ or [], runs, fresh):
        raise typer.Exit(1)


def compile_pipelines(
    pipeline: Annotated[str, Argument(help="A pipeline's name, or 'all'.")] = "all",
    out: Annotated[Path, Option(help="Folder for the YAML files.")] = Path("manifests/pipelines"),
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


def preflight(
    config: Annotated[str, Argument(help="A shipped training configuration, or an SFT or PPO section as a file.")],
    model: Annotated[Path | None, Option(help="Model folder; left out: Qwen2.5-7B.")] = None,
    gpus: Annotated[int, Option(help="GPUs over all nodes; 0 = the configuration's processes.", min=0)] = 0,
    gpu_gib: Annotated[float, Option(help="Memory of each GPU in GiB.", min=0)] = 80.0,
    host_gib: Annotated[float, Option(help="Memory of each node in GiB; 0 = not checked.", min=0)] = 0.0,
    disk_gib: Annotated[float, Option(help="Free disk of the state folder in GiB; 0 = not checked.", min=0)] = 0.0,
) -> None:
    """Estimate what memory and disk a training needs on each GPU, node and volume, before it is asked for.

    Refuses (exit code 2) what cannot fit and names the nearest shipped configuration that does. An estimate from the
    model's sizes; every training makes it again at its start, for the GPUs that it finds.

    \b
    Examples:
      clinical-r1 preflight ppo-paper-7b-8x80-full
      clinical-r1 preflight my-sft.yaml --model ./Qwen2.5-3B-Instruct --gpus 2 --gpu-gib 24 --host-gib 128
    """
    from rich.console import Console
    from rich.table import Table

    from clinical_r1.settings import Catalogue, Document, Shelf
    from clinical_r1.training import preflight as memory
    from clinical_r1.training.ppo.config import PPOConfig
    from clinical_r1.training.sft.config import SFTConfig

    document = Document.read(config, Catalogue(Shelf(memory.CONFIG_FOLDER, "training configuration")), "preflight")
    if not document.data:
        raise UserError(f"{document.source}: is empty; write the settings of SFT or PPO into it")
    # A key that only PPO has tells which of the two it is.
    only = PPOConfig.model_fields.keys() - SFTConfig.model_fields.keys()
    kind: type[PPOConfig] | type[SFTConfig] = PPOConfig if document.data.keys() & only else SFTConfig
    settings = document.filled().validate(kind)
    geometry = memory.Geometry.of(model) if model else memory.QWEN_7B
    world = gpus or settings.processes
    need = memory.estimate(settings, geometry, world)
    table = Table("GiB", f"each of {world} GPU(s)", "each node's host memory", "disk", title=config)
    kinds = (need.gpu, need.host, need.disk)
    for name in dict.fromkeys(name for parts in kinds for name in parts):
        sizes = (parts.get(name) for parts in kinds)
        table.add_row(name, *("" if size is None else f"{size / memory.GIB:.1f}" for size in sizes))
    table.add_section()
    table.add_row(
        "all, with the framework's own", f"{need.gpu_gib:.1f}", f"{need.host_gib:.1f}", f"{need.disk_gib:.0f}"
    )
    Console().print(table)
    if isinstance(settings, PPOConfig):
        settings.accumulation(world)
    else:
        memory.micro_batch(settings, world, tokens=0)
    memory.check(settings, geometry, world, gpu_gib, host_gib or float("inf"))
    if disk_gib:
        memory.check_disk(need, disk_gib, 0.0, "--disk-gib")
    typer.echo("fits")
