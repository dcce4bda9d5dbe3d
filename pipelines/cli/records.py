"""Commands about records: `records preview` looks at a file, `records prepare` runs the records step alone."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Look at records before a run, or run the records step alone.", no_args_is_help=True)
Files = Annotated[list[Path], typer.Argument(help="Files, folders (FHIR exports, data sets) or globs in quotes.")]
Map = Annotated[
    str, typer.Option("--map", metavar="FIELD=COLUMN,...", help="Which column or key is what (docs/records.md).")
]
Format = Annotated[str, typer.Option("--format", help="Insist on a form; auto looks at the file.")]
Encoding = Annotated[str, typer.Option(help="Insist on an encoding, such as gb18030; empty finds out.")]


@app.command("preview")
def preview(
    files: Files,
    map_: Map = "",
    format_: Format = "auto",
    encoding: Encoding = "",
    cases: Annotated[int, typer.Option(help="Cases to show.", min=0)] = 3,
    limit: Annotated[int, typer.Option(help="Read no more than so many rows; 0 = all.", min=0)] = 1000,
) -> None:
    """What a file is taken for, three of its cases as the PHI gate leaves them, and what became of its rows.

    \b
    Examples:
      clinical-r1 records preview notes.csv --map question=complaint+history,reference=diagnosis
      clinical-r1 records preview fhir-export/ --limit 0
    """
    from clinical_r1.records.config import RecordsConfig
    from clinical_r1.records.preview import preview as lines_of

    config = RecordsConfig(
        sources=sources_of(files, map_, format_, encoding), limit=limit or None, limit_by="first", icd10_invalid="clear"
    )
    for line in lines_of(config, cases):
        typer.echo(line)


@app.command("prepare")
def prepare(
    files: Annotated[list[Path] | None, typer.Argument(help="Files in place of the configuration's sources.")] = None,
    map_: Map = "",
    format_: Format = "auto",
    encoding: Encoding = "",
    config: Annotated[Path | None, typer.Option(help="YAML of the records step (RecordsConfig).")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for splits, rejects, report and card.")] = Path("splits"),
) -> None:
    """Files to four disjoint splits of de-identified cases: what `run train` does first.

    \b
    Examples:
      clinical-r1 records prepare notes.csv --map question=note,reference=dx,patient=pid --out splits
      clinical-r1 records prepare --config records.yaml --set max_reject_rate=0.1
    """
    from clinical_r1.errors import UserError
    from clinical_r1.records.config import RecordsConfig
    from clinical_r1.records.report import account
    from clinical_r1.records.run import prepare as run_step
    from pipelines.evaluate_run import read_settings

    if not files and config is None:
        raise UserError("records prepare: no source; give files, or --config FILE with sources")
    given = [source.model_dump(mode="json") for source in sources_of(files, map_, format_, encoding)] if files else None
    overrides = [*(set_ or [])]
    if given is not None:
        import json

        overrides.append(f"sources={json.dumps(given)}")
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
