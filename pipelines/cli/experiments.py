"""`clinical-r1 experiments`: the paper's open questions, one after the other, with one JSON object at the end."""

from pathlib import Path
from typing import Annotated

import typer


def experiments(
    names: Annotated[
        list[str] | None, typer.Argument(help="ablate-rl, ablate-rewards, compare-synthesizers, ...; none = all six.")
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
