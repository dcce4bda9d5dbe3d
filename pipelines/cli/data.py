"""Commands about records and traces: `chains` compares two trace datasets, `forget` removes a patient."""

from pathlib import Path
from typing import Annotated

import typer


def chains(
    a: Annotated[Path, typer.Argument(help="A traces.jsonl, such as that of one synthesizer.")],
    b: Annotated[Path, typer.Argument(help="Another traces.jsonl.")],
    out: Annotated[Path, typer.Option(help="Folder for chains.html and chains.json.")] = Path("chains"),
    names: Annotated[str, typer.Option(help="Two names for the report, separated by a comma.")] = "",
) -> None:
    """Compare how two synthesizers reason: lengths, self-correction, strategies, ungrounded findings, with intervals.

    Example: clinical-r1 chains gpt/traces.jsonl deepseek/traces.jsonl --names gpt-4o-mini,deepseek-chat --out chains/
    """
    from clinical_r1.errors import UserError
    from clinical_r1.synthesis.analysis import analyse

    labels = tuple(part.strip() for part in names.split(",")) if names else None
    if labels is not None and len(labels) != 2:
        raise UserError(f"--names {names}: give two names separated by a comma, such as --names first,second")
    analyse(a, b, out, (labels[0], labels[1]) if labels else None)
    typer.echo(str(out / "chains.html"))


def forget(
    patient: Annotated[
        list[str], typer.Option("--patient", help="Keyed patient hash as the records carry it, or with --raw the id.")
    ],
    roots: Annotated[list[Path], typer.Argument(help="Folders that hold records, traces and journals.")],
    raw: Annotated[
        bool, typer.Option("--raw", help="--patient is the source system's id: hash it with the key.")
    ] = False,
    key_file: Annotated[str, typer.Option(help="File with the key behind the hashes (else the environment's).")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and change nothing.")] = False,
) -> None:
    """Remove a patient's cases, traces and journal lines, and list the models that were trained on them.

    Prints one JSON object: removed lines by file, datasets with their new hashes, models to retrain.

    Example: clinical-r1 forget --patient 5f3c... runs/.outputs runs/.state
    """
    from clinical_r1.privacy.config import PhiConfig
    from clinical_r1.privacy.identity import hash_of
    from clinical_r1.synthesis.forget import forget as forget_patients

    hashes = [hash_of(one, PhiConfig(key_file=key_file)) for one in patient] if raw else patient
    typer.echo(forget_patients(hashes, roots, dry_run=dry_run).model_dump_json(indent=1))
