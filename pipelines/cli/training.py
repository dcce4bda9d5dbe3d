"""Commands about training: `preflight` says what memory a configuration needs before a GPU is asked for."""

from pathlib import Path
from typing import Annotated

import typer


def preflight(
    config: Annotated[
        str, typer.Argument(help="A shipped training configuration, or an SFT or PPO section as a file.")
    ],
    model: Annotated[Path | None, typer.Option(help="Model folder; left out: Qwen2.5-7B.")] = None,
    gpus: Annotated[int, typer.Option(help="GPUs over all nodes; 0 = the configuration's processes.", min=0)] = 0,
    gpu_gib: Annotated[float, typer.Option(help="Memory of each GPU in GiB.", min=0)] = 80.0,
    host_gib: Annotated[float, typer.Option(help="Memory of each node in GiB; 0 = not checked.", min=0)] = 0.0,
) -> None:
    """Estimate what memory a training needs on each GPU and in each node, before it is asked for.

    Refuses (exit code 2) what cannot fit and names the nearest shipped configuration that does. An estimate from the
    model's sizes; every training makes it again at its start, for the GPUs that it finds.

    \b
    Examples:
      clinical-r1 preflight ppo-paper-7b-8x80-full
      clinical-r1 preflight my-sft.yaml --model ./Qwen2.5-3B-Instruct --gpus 2 --gpu-gib 24 --host-gib 128
    """
    from rich.console import Console
    from rich.table import Table

    from clinical_r1.generation.load import check_model_folder
    from clinical_r1.training.preflight import GIB, QWEN_7B, Geometry, check, estimate, read_training

    settings = read_training(config)
    geometry = Geometry.of(check_model_folder(model)) if model else QWEN_7B
    world = gpus or settings.processes
    need = estimate(settings, geometry, world)
    table = Table("GiB", f"each of {world} GPU(s)", "each node's host memory", title=config)
    for name in [*need.gpu, *(name for name in need.host if name not in need.gpu)]:
        sizes = (parts.get(name) for parts in (need.gpu, need.host))
        table.add_row(name, *("" if size is None else f"{size / GIB:.1f}" for size in sizes))
    table.add_section()
    table.add_row("all, with the framework's own", f"{need.gpu_gib:.1f}", f"{need.host_gib:.1f}")
    Console().print(table)
    check(settings, geometry, world, gpu_gib, host_gib or float("inf"))
    typer.echo("fits")
