"""Commands about records and traces: `import-records`, `chains` compares two trace datasets, `forget` a patient."""

from pathlib import Path
from typing import Annotated

import typer


def import_records(
    path: Annotated[
        Path, typer.Argument(help="A file of cases (CSV, JSONL, Parquet, ...), or a folder of FHIR files.")
    ],
    name: Annotated[str, typer.Option(help="Name in the store, such as ward-7.")],
    map_: Annotated[
        str, typer.Option("--map", metavar="FIELD=COLUMN,...", help="Which column is what (docs/records.md).")
    ] = "",
    store: Annotated[
        str, typer.Option(envvar="CLINICAL_R1_RECORDS", help="URI of the records: s3://BUCKET/records, or a folder.")
    ] = "runs/records",
    preview_only: Annotated[
        bool, typer.Option("--preview", help="Say what the PHI gate finds, and store nothing.")
    ] = False,
) -> None:
    """Bring records to where a run on a cluster reads them; first say what the records step would make of them.

    The files are stored as they are: the PHI gate runs again, with your policy, in the records step of each run.
    Interrupted, the same command goes on.

    \b
    Example:
      clinical-r1 import-records notes.csv --name ward-7 --map question=note,reference=diagnosis,patient=pid \\
        --store s3://clinical-r1/records
    """
    import shlex

    from clinical_r1.errors import UserError
    from clinical_r1.records.config import RecordsConfig, parse_map
    from clinical_r1.runs.imported import preview, store_records

    if not path.exists():
        raise UserError(f"{path}: no such file or folder: give a file of cases, or a folder of FHIR files")
    found = preview(path, parse_map(map_) if map_ else {})
    typer.echo(f"{path}: {found.read} rows, {found.cases} cases, {found.malformed} malformed")
    for reason, count in found.reject_reasons.items():
        typer.echo(f"  {count} rejected: {reason}")
    for reason, count in found.dropped.items():
        if count:
            typer.echo(f"  {count} left out: {reason}")
    most = RecordsConfig.model_fields["max_reject_rate"].default
    if found.reject_rate > most:
        typer.echo(f"  a run refuses more than {most:.0%} malformed rows: mend them, or raise records.max_reject_rate")
    typer.echo(f"PHI gate: {found.quarantined} would be quarantined")
    for what in ("scrubbed", "quarantined"):
        for kind, count in (found.phi.get(what) or {}).items():
            typer.echo(f"  {what} {kind}: {count}")
    if preview_only:
        return
    uri = store_records(path, name, store, typer.echo)
    told = f" --param record_map={shlex.quote(map_)}" if map_ else ""
    typer.echo(f"use it: clinical-r1 submit train --param records={uri}{told} ..., or fill them in the form")


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
