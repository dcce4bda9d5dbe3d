"""Commands about records and traces: `records preview` looks at a file, `records prepare` runs the records step alone,
`import-records` stores them; `traces import` and `traces export` exchange reasoning data with others, `chains` compares
two trace datasets, `forget` a patient."""

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from clinical_r1.errors import UserError

traces = typer.Typer(
    help="Reasoning data of others as our traces, and ours in the form of others.", no_args_is_help=True
)


@traces.command("import")
def import_traces(
    path: Annotated[Path, Argument(help="JSON, JSONL or Parquet: medical-o1, messages, ShareGPT, our own.")],
    out: Annotated[Path, Option(help="Folder for the dataset.")] = Path("traces"),
    map_: Annotated[
        str, Option("--map", metavar="FIELD=COLUMN,...", help="question, thinking, response, reference, ...")
    ] = "",
    against: Annotated[
        Path | None, Option(help="Folder with splits: no trace may come from their rl, validation and test.")
    ] = None,
    config: Annotated[
        Path | None, Option(help="YAML of the synthesis step, for a verifier with a judge. Without: rules.")
    ] = None,
    set_: Annotated[list[str] | None, Option("--set", metavar="KEY=VALUE", help="Change one setting.")] = None,
) -> None:
    """Read reasoning data of others, verify what names a reference, mark the rest unverified, reject with a reason.

    A run takes such data as they are: `--set synthesis.traces.path=FILE`, or `traces` in the form.

    \b
    Example:
      clinical-r1 traces import medical_o1_sft.json --against splits --out traces/medical-o1
    """
    from clinical_r1.records.config import parse_map
    from clinical_r1.synthesis.config import SynthesisConfig
    from clinical_r1.synthesis.dataset import CARD
    from clinical_r1.synthesis.run import take_traces
    from pipelines.evaluate_run import read_settings

    if against is not None and not (against / "test.jsonl").is_file():
        raise UserError(f"--against {against}: no test.jsonl in it; give the folder that `records prepare` wrote")
    given = [f"traces.path={json.dumps(str(path))}"] + ([f"traces.map={json.dumps(parse_map(map_))}"] if map_ else [])
    rules = [] if config else ["verifier.kind=rule"]
    settings = read_settings(SynthesisConfig, config, [*rules, *given, *(set_ or [])])
    state = out.with_name(f".{out.name}.calls")
    report = take_traces(settings, against / "sft.jsonl" if against else None, out, state)
    typer.echo(", ".join(f"{count} {outcome}" for outcome, count in report.outcomes.items() if count))
    typer.echo(str(out / CARD))


@traces.command("export")
def export_traces(
    folder: Annotated[Path, Argument(help="Folder of a synthesis, or of `traces import`.")],
    out: Annotated[Path, Option(help="Folder for README.md and data/.")] = Path("dataset"),
    licence: Annotated[str, Option(help="Licence of the data, such as cc-by-4.0.")] = "",
    verified: Annotated[bool, Option("--verified", help="Without what no verifier has found right.")] = False,
) -> None:
    """Write traces as a Hugging Face data set: messages with reasoning_content, JSONL, Parquet, a card.

    Example: clinical-r1 traces export traces/medical-o1 --out dataset --licence apache-2.0
    """
    from clinical_r1.synthesis.exchange import export_traces as export

    count = export(folder, out, licence, unverified=not verified)
    typer.echo(f"{count} rows: {out / 'data' / 'train.parquet'}")


def import_records(
    path: Annotated[Path, Argument(help="A file of cases (CSV, JSONL, Parquet, ...), or a folder of FHIR files.")],
    name: Annotated[str, Option(help="Name in the store, such as ward-7.")],
    map_: Annotated[
        str, Option("--map", metavar="FIELD=COLUMN,...", help="Which column is what (docs/records.md).")
    ] = "",
    store: Annotated[
        str, Option(envvar="CLINICAL_R1_RECORDS", help="URI of the records: s3://BUCKET/records, or a folder.")
    ] = "runs/records",
    preview_only: Annotated[bool, Option("--preview", help="Say what the PHI gate finds, and store nothing.")] = False,
) -> None:
    """Bring records to where a run on a cluster reads them; first say what the records step would make of them.

    The files are stored as they are: the PHI gate runs again, with your policy, in the records step of each run.
    Interrupted, the same command goes on.

    \b
    Example:
      clinical-r1 import-records notes.csv --name ward-7 --map question=note,reference=diagnosis,patient=pid \\
        --store s3://clinical-r1/records
    """
    from clinical_r1.records.config import RecordsConfig, parse_map
    from clinical_r1.runs.sources import preview, store_records

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
    a: Annotated[Path, Argument(help="A traces.jsonl, such as that of one synthesizer.")],
    b: Annotated[Path, Argument(help="Another traces.jsonl.")],
    out: Annotated[Path, Option(help="Folder for chains.html and chains.json.")] = Path("chains"),
    names: Annotated[str, Option(help="Two names for the report, separated by a comma.")] = "",
) -> None:
    """Compare how two synthesizers reason: lengths, self-correction, strategies, ungrounded findings, with intervals.

    Example: clinical-r1 chains gpt/traces.jsonl deepseek/traces.jsonl --names gpt-4o-mini,deepseek-chat --out chains/
    """
    from clinical_r1.synthesis.analysis import analyse

    labels = tuple(part.strip() for part in names.split(",")) if names else None
    if labels is not None and len(labels) != 2:
        raise UserError(f"--names {names}: give two names separated by a comma, such as --names first,second")
    analyse(a, b, out, (labels[0], labels[1]) if labels else None)
    typer.echo(str(out / "chains.html"))


def forget(
    patient: Annotated[
        list[str], Option("--patient", help="Keyed patient hash as the records carry it, or with --raw the id.")
    ],
    roots: Annotated[list[Path], Argument(help="Folders that hold records, traces and journals.")],
    raw: Annotated[bool, Option("--raw", help="--patient is the source system's id: hash it with the key.")] = False,
    key_file: Annotated[str, Option(help="File with the key behind the hashes (else the environment's).")] = "",
    dry_run: Annotated[bool, Option("--dry-run", help="Count, and change nothing.")] = False,
) -> None:
    """Remove a patient's cases, traces and journal lines, and list the models that were trained on them.

    Prints one JSON object: removed lines by file, datasets with their new hashes, models to retrain.

    Example: clinical-r1 forget --patient 5f3c... runs/.outputs runs/.state
    """
    from clinical_r1.privacy.config import PhiConfig, hash_of
    from clinical_r1.synthesis.forget import forget as forget_patients

    hashes = [hash_of(one, PhiConfig(key_file=key_file)) for one in patient] if raw else patient
    typer.echo(forget_patients(hashes, roots, dry_run=dry_run).model_dump_json(indent=1))


records = typer.Typer(help="Look at records before a run, or run the records step alone.", no_args_is_help=True)
Files = Annotated[list[Path], Argument(help="Files, folders (FHIR exports, data sets) or globs in quotes.")]
Map = Annotated[str, Option("--map", metavar="FIELD=COLUMN,...", help="Which column or key is what (docs/records.md).")]
Format = Annotated[str, Option("--format", help="Insist on a form; auto looks at the file.")]
Encoding = Annotated[str, Option(help="Insist on an encoding, such as gb18030; empty finds out.")]


@records.command("preview")
def preview(
    files: Files,
    map_: Map = "",
    format_: Format = "auto",
    encoding: Encoding = "",
    cases: Annotated[int, Option(help="Cases to show.", min=0)] = 3,
    limit: Annotated[int, Option(help="Read no more than so many rows; 0 = all.", min=0)] = 1000,
) -> None:
    """What a file is taken for, three of its cases as the PHI gate leaves them, and what became of its rows.

    \b
    Examples:
      clinical-r1 records preview notes.csv --map question=complaint+history,reference=diagnosis
      clinical-r1 records preview fhir-export/ --limit 0
    """
    from clinical_r1.records.config import RecordsConfig
    from clinical_r1.records.run import preview as lines_of

    config = RecordsConfig(
        sources=sources_of(files, map_, format_, encoding), limit=limit or None, limit_by="first", icd10_invalid="clear"
    )
    for line in lines_of(config, cases):
        typer.echo(line)


@records.command("prepare")
def prepare(
    files: Annotated[list[Path] | None, Argument(help="Files in place of the configuration's sources.")] = None,
    map_: Map = "",
    format_: Format = "auto",
    encoding: Encoding = "",
    config: Annotated[Path | None, Option(help="YAML of the records step (RecordsConfig).")] = None,
    set_: Annotated[list[str] | None, Option("--set", metavar="KEY=VALUE", help="Change one setting.")] = None,
    out: Annotated[Path, Option(help="Folder for splits, rejects, report and card.")] = Path("splits"),
) -> None:
    """Files to four disjoint splits of de-identified cases: what `run train` does first.

    \b
    Examples:
      clinical-r1 records prepare notes.csv --map question=note,reference=dx,patient=pid --out splits
      clinical-r1 records prepare --config records.yaml --set max_reject_rate=0.1
    """
    from clinical_r1.records.config import RecordsConfig
    from clinical_r1.records.report import account
    from clinical_r1.records.run import prepare as run_step
    from pipelines.evaluate_run import read_settings

    if not files and config is None:
        raise UserError("records prepare: no source; give files, or --config FILE with sources")
    given = [source.model_dump(mode="json") for source in sources_of(files or [], map_, format_, encoding)]
    overrides = [*(set_ or []), *([f"sources={json.dumps(given)}"] if files else [])]
    report = run_step(read_settings(RecordsConfig, config, overrides), out)
    for line in account(report):
        typer.echo(line)
    typer.echo("splits: " + ", ".join(f"{count} {name}" for name, count in report.splits.items()))
    typer.echo(str(out / "card.md"))


def sources_of(files: list[Path], map_: str, format_: str, encoding: str) -> list:
    """Sources of the command line, checked as far as their first row."""
    from clinical_r1.records.config import Source, parse_map
    from clinical_r1.records.readers.registry import check_source

    columns = parse_map(map_) if map_ else {}
    sources = [Source(path=str(path), map=columns, format=format_, encoding=encoding) for path in files]
    for source in sources:
        check_source(source)
    return sources
