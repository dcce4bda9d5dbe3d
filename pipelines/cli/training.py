"""Commands about training: `preflight` says what memory a configuration needs before a GPU is asked for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from clinical_r1.training.ppo.config import PPOConfig
    from clinical_r1.training.sft.config import SFTConfig


def preflight(
    config: Annotated[
        str, typer.Argument(help="A shipped training configuration, or an SFT or PPO section as a file.")
    ],
    model: Annotated[Path | None, typer.Option(help="Model folder; left out: Qwen2.5-7B.")] = None,
    gpus: Annotated[int, typer.Option(help="GPUs over all nodes; 0 = the configuration's processes.", min=0)] = 0,
    gpu_gib: Annotated[float, typer.Option(help="Memory of each GPU in GiB.", min=0)] = 80.0,
    host_gib: Annotated[float, typer.Option(help="Memory of each node in GiB; 0 = not checked.", min=0)] = 0.0,
    disk_gib: Annotated[
        float, typer.Option(help="Free disk of the state folder in GiB; 0 = not checked.", min=0)
    ] = 0.0,
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

    from clinical_r1.training.ppo.config import PPOConfig
    from clinical_r1.training.preflight import GIB, QWEN_7B, Geometry, check, check_disk, estimate, micro_batch

    settings = _read(config)
    geometry = Geometry.of(model) if model else QWEN_7B
    world = gpus or settings.processes
    need = estimate(settings, geometry, world)
    table = Table("GiB", f"each of {world} GPU(s)", "each node's host memory", "disk", title=config)
    kinds = (need.gpu, need.host, need.disk)
    for name in dict.fromkeys(name for parts in kinds for name in parts):
        sizes = (parts.get(name) for parts in kinds)
        table.add_row(name, *("" if size is None else f"{size / GIB:.1f}" for size in sizes))
    table.add_section()
    table.add_row(
        "all, with the framework's own", f"{need.gpu_gib:.1f}", f"{need.host_gib:.1f}", f"{need.disk_gib:.0f}"
    )
    Console().print(table)
    if isinstance(settings, PPOConfig):
        settings.accumulation(world)
    else:
        micro_batch(settings, world, tokens=0)
    check(settings, geometry, world, gpu_gib, host_gib or float("inf"))
    if disk_gib:
        check_disk(need, disk_gib, 0.0, "--disk-gib")
    typer.echo("fits")


def _read(name: str) -> "SFTConfig | PPOConfig":
    """A shipped training configuration by name, or a YAML file of either kind."""
    from clinical_r1.errors import UserError
    from clinical_r1.settings import Catalogue, Document, Shelf
    from clinical_r1.training.ppo.config import PPOConfig
    from clinical_r1.training.preflight import CONFIG_FOLDER
    from clinical_r1.training.sft.config import SFTConfig

    document = Document.read(name, Catalogue(Shelf(CONFIG_FOLDER, "training configuration")), "preflight")
    if not document.data:
        raise UserError(f"{document.source}: is empty; write the settings of SFT or PPO into it")
    # A key that only PPO has tells which of the two it is.
    only = PPOConfig.model_fields.keys() - SFTConfig.model_fields.keys()
    document.filled()
    return document.validate(PPOConfig) if document.data.keys() & only else document.validate(SFTConfig)
