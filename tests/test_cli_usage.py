"""Every command, called wrongly: one sentence that names the command and what is wrong, exit code 2, no box."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from test_cli import assert_refused, clinical_r1

from pipelines.cli.main import app


def commands(group: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with its words, groups left out."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*above, name))
        else:
            yield (*above, name), command


ALL = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_an_unknown_option_is_one_sentence(words: tuple[str, ...]) -> None:
    refused = clinical_r1(*words, "--no-such-option")
    assert_refused(refused, f"clinical-r1 {' '.join(words)}: no such option: --no-such-option", "--help says")
    assert "─" not in refused.stderr + refused.stdout


@pytest.mark.parametrize(
    "words", [words for words, command in ALL.items() if any(one.required for one in command.params)], ids=" ".join
)
def test_a_missing_argument_is_one_sentence(words: tuple[str, ...]) -> None:
    refused = clinical_r1(*words)
    assert_refused(refused, f"clinical-r1 {' '.join(words)}: missing ", "--help says")
    assert "─" not in refused.stderr + refused.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("evalute",), "no such command 'evalute': did you mean 'evaluate'"),
        (("runs", "--limit", "x"), "invalid value for '--limit'"),
        (("runs", "--limit"), "option '--limit' requires an argument"),
        (("version", "extra"), "got unexpected extra argument(s) (extra)"),
        (("models", "list", "--store", "nofile"), "--store nofile: no such folder"),
    ],
)
def test_other_wrong_words(words: tuple[str, ...], said: str) -> None:
    assert_refused(clinical_r1(*words), said)


def test_help_and_a_group_without_a_command_say_what_there_is() -> None:
    assert clinical_r1("--help").returncode == 0
    for words in ((), ("models",)):
        listed = clinical_r1(*words)
        assert listed.returncode == 2 and "Usage" in listed.stdout + listed.stderr and "error" not in listed.stderr


def test_an_exit_code_of_a_command_goes_on() -> None:
    assert clinical_r1("version").returncode == 0
