"""The command line: `clinical-r1 COMMAND`. One file a command group; heavy imports only inside the commands."""

import sys
from typing import Any

import typer
from rich.console import Console
from typer.exceptions import TyperException

from clinical_r1 import __version__
from clinical_r1.errors import UserError
from pipelines.cli import cluster as cluster_commands
from pipelines.cli import data as data_commands
from pipelines.cli import evaluation as evaluation_commands
from pipelines.cli import models as model_commands
from pipelines.cli import run as run_commands

app = typer.Typer(
    name="clinical-r1",
    help=(
        "Teach a language model to reason about diagnosis: records -> verified traces -> SFT -> PPO -> evaluation -> "
        "serving. For research and clinician decision support; not a medical device, no autonomous diagnosis."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("run")(run_commands.run)
app.command("experiments")(run_commands.experiments)
app.command("compile")(run_commands.compile_pipelines)
app.command("preflight")(run_commands.preflight)
app.command("serve")(model_commands.serve)
app.command("submit")(cluster_commands.submit)
app.command("runs")(cluster_commands.runs)
app.command("doctor")(cluster_commands.doctor)
app.command("rollout")(cluster_commands.rollout)
app.add_typer(model_commands.app, name="models")
app.command("import-model")(model_commands.import_model)
app.command("import-records")(data_commands.import_records)
app.add_typer(data_commands.traces, name="traces")
app.command("chains")(data_commands.chains)
app.add_typer(data_commands.records, name="records")
app.command("forget")(data_commands.forget)
app.command("evaluate")(evaluation_commands.evaluate)
app.command("compare")(evaluation_commands.compare)
app.command("export-evaluation")(evaluation_commands.export_evaluation)
app.command("build-benchmark")(evaluation_commands.build_benchmark)
app.command("audit-verifier")(evaluation_commands.audit_verifier)
app.add_typer(evaluation_commands.review, name="review")
app.command("check-reasoning")(evaluation_commands.check_reasoning)
app.add_typer(evaluation_commands.gate, name="gate")


@app.command("version")
def version() -> None:
    """Print the version of the package and of the code (the hash that keys the step cache)."""
    from clinical_r1.step import code_version

    typer.echo(f"clinical-r1 {__version__} (code {code_version()})")


def main() -> None:
    """Entry point: a UserError is one line on stderr and exit code 2, Ctrl-C is 130."""
    try:
        # Without typer's own handling, which draws a box of four lines around a sentence.
        sys.exit(app(standalone_mode=False))
    except typer.Abort:
        sys.exit(130)
    except TyperException as error:
        sys.exit(_refused(error))
    except UserError as error:
        _say(str(error))
        sys.exit(2)
    except OSError as error:
        if not error.filename:
            raise
        reason = (
            f"{error.filename}: {(error.strerror or 'cannot be used').lower()}; give another place, or mend this one"
        )
        _say(reason)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _refused(error: Any) -> int:
    """A wrong call of a command in one sentence: which command, what is wrong, where it says what it takes."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return 2  # called without a subcommand: the list of them stands there already
    words = " ".join(error.format_message().split()).rstrip(".?").replace("?", "").replace(". Did", ": did")
    command = getattr(getattr(error, "ctx", None), "command_path", "clinical-r1")
    _say(f"{command}: {words[0].lower()}{words[1:]}: {command} --help says what it takes")
    return int(error.exit_code)


def _say(sentence: str) -> None:
    Console(stderr=True).print(f"error: {sentence}", style="red", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
