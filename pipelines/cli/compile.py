"""`clinical-r1 compile`: pipelines as YAML for a Kubeflow Pipelines server."""

from pathlib import Path
from typing import Annotated

import typer


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
