"""The loader of configurations: layers, places, near misses; the same words whichever model it loads."""

from pathlib import Path
from typing import Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field

from clinical_r1.errors import UserError
from clinical_r1.evaluation.promotion.policy import read_policy
from clinical_r1.settings import Catalogue, Document, Shelf, load, shown
from serving.gateway.__main__ import main as gateway
from serving.gateway.config import GatewayConfig


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Judge(Strict):
    kind: Literal["rule", "llm", "ensemble"] = "rule"
    weight: float = Field(default=1.0, ge=0)


class Source(Strict):
    path: str = ""
    judges: dict[str, Judge] = Field(default_factory=dict)


class Run(Strict):
    epochs: int = 3
    judge: Judge | None = None
    table: str | Judge = "paper"
    sources: list[Source] = Field(default_factory=list)


def refusal(path: Path, *options: str, catalogue: Catalogue = Catalogue()) -> str:
    with pytest.raises(UserError) as refused:
        load(Run, path, options, catalogue)
    return str(refused.value)


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str, name: str = "mine.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epochs: 1\nepoch: 2\n", "mine.yaml:2: unknown key 'epoch': did you mean 'epochs'?"),
        ("judge:\n  kind: rule\n  wieght: 2\n", "mine.yaml:3: unknown key 'judge.wieght': did you mean 'weight'?"),
        ("sources:\n- path: a\n- pth: b\n", "mine.yaml:3: unknown key 'sources.1.pth': did you mean 'path'?"),
        ("sources:\n- judges:\n    one: {knd: rule}\n", "mine.yaml:3: unknown key 'sources.0.judges.one.knd': did"),
        ("judge: {kind: ruel}\n", "mine.yaml:1: judge.kind: Input should be 'rule', 'llm' or 'ensemble'; did you mean"),
        ("judge: {xyzzy: 1}\n", "mine.yaml:1: unknown key 'judge.xyzzy': known: kind, weight"),
        ("epochs: many\n", "mine.yaml:1: epochs: Input should be a valid integer"),
        ("epochs: 1\njudge: {}\nepochs: 2\n", "mine.yaml:3: key 'epochs' stands in line 1 already"),
        ("epochs: 1\n judge: 2\n", "mine.yaml:2: not valid YAML"),
        ("- 1\n", "mine.yaml: expected a mapping"),
        (
            "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else '1'}]\n" for n in range(9)),
            "its aliases come",
        ),
        ("a: &a [*a]\n", "mine.yaml:1: not valid YAML"),
        ("epochs: ${NO_SUCH_NUMBER}\n", "mine.yaml:1: epochs: the environment has no ${NO_SUCH_NUMBER}"),
    ],
)
def test_a_mistake_in_a_file_is_told_with_line_key_and_near_miss(write, text: str, said: str) -> None:
    assert said in refusal(write(text))


def test_what_an_option_did_is_blamed_on_the_option(write) -> None:
    path = write("judge: {weight: 1}\nsources: [{path: a}]\n")
    assert refusal(path, "epochs=x").startswith("--set epochs: epochs: ")
    assert refusal(path, "judge.wieght=2") == "--set judge.wieght: unknown key 'judge.wieght': did you mean 'weight'?"
    assert refusal(path, "epochs.more=2").startswith("--set epochs.more: epochs: ")
    assert refusal(path, "sources.3.path=x").startswith("--set sources.3.path: 'sources.3' is a value")
    assert refusal(path, "epochs").startswith("--set epochs: write it as section.key=value")
    assert load(Run, path, ["sources.0.path=b", "judge.weight=2"]).sources[0].path == "b"


def test_a_file_says_only_what_differs_from_what_it_extends(write, tmp_path: Path) -> None:
    write("epochs: 1\njudge: {kind: llm, weight: 2}\nsources: [{path: a}, {path: b}]\n", "base.yaml")
    write("extends: base.yaml\njudge: {weight: 3}\n", "middle.yaml")
    top = write("extends: middle\nsources: [{path: c}]\n", "top.yaml")
    shelf = Catalogue(Shelf(tmp_path))
    run = load(Run, top, (), shelf)
    assert run.epochs == 1 and run.judge == Judge(kind="llm", weight=3) and [s.path for s in run.sources] == ["c"]
    write("extends: base\nepochs: 2\njudge: {weigth: 3}\n", "middle.yaml")
    assert "middle.yaml:3: unknown key 'judge.weigth'" in refusal(top, catalogue=shelf)
    write("extends: top\n", "middle.yaml")
    assert "extends itself" in refusal(top, catalogue=shelf)
    write("extends: bsae\n", "middle.yaml")
    assert "middle.yaml:1: extends: bsae: neither a file nor a shipped" in refusal(top, catalogue=shelf)
    assert "did you mean 'base'?" in refusal(top, catalogue=shelf)


def test_an_alias_is_a_copy_and_a_variable_is_filled_in(write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", "somewhere: {else}")
    path = write("judge: &one {weight: 1}\ntable: *one\nsources: [{path: '${PLACE}/x'}]\n")
    run = load(Run, path, ["judge.weight=5"])
    assert run.judge == Judge(weight=5) and run.table == Judge(weight=1)
    assert run.sources[0].path == "somewhere: {else}/x"
    assert load(Run, write(shown(run), "shown.yaml")) == run


def test_a_section_by_name_replaces_an_extended_one_and_options_go_on_top(write, tmp_path: Path) -> None:
    write("kind: llm\nweight: 9\n", "judge-strict.yaml")
    write("judge: {kind: ensemble, weight: 4}\n", "base.yaml")
    path = write("extends: base\njudge: judge-strict\n")
    shelf = Shelf(tmp_path)
    catalogue = Catalogue(shelf, {"judge": shelf})
    assert load(Run, path, ["judge.weight=2"], catalogue).judge == Judge(kind="llm", weight=2)
    write("knd: llm\n", "judge-strict.yaml")
    assert "judge-strict.yaml:1: unknown key 'judge.knd'" in refusal(path, catalogue=catalogue)
    assert "--set judge: judge 'judge-strit': neither" in refusal(path, "judge=judge-strit", catalogue=catalogue)


def test_gateway_and_gate_policy_speak_with_the_same_words(write, capsys: pytest.CaptureFixture) -> None:
    path = write("prot: 1\n")
    for read in (lambda: load(GatewayConfig, path), lambda: read_policy(path)):
        with pytest.raises(UserError, match=r"mine.yaml:1: unknown key 'prot': "):
            read()
    assert gateway(["--config", str(path)]) == 2
    assert "mine.yaml:1: unknown key 'prot': did you mean 'port'?" in capsys.readouterr().err
    assert gateway(["--config", "nowhere.yaml"]) == 2 and "nowhere.yaml: no such file" in capsys.readouterr().err
    assert gateway(["--port", "99999"]) == 2 and "--port: port: Input should be less" in capsys.readouterr().err
    write("port: 1\n")
    assert gateway(["--config", str(path), "--port", "2", "--set", "limits.messages=7", "--dry-run"]) == 0
    shown_ = yaml.safe_load(capsys.readouterr().out)
    assert (shown_["port"], shown_["limits"]["messages"]) == (2, 7)


@pytest.mark.parametrize("text", ["010", "007", "/data/a #b", "ward #7", "-012"])
def test_an_option_is_not_changed_in_silence(text: str) -> None:
    assert Document().set(f"name={text}").data == {"name": text}


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("0.10", 0.1), ("[1, 2] # two", [1, 2]), ("'a #b'", "a #b"), ("10", 10)]
)
def test_an_option_is_yaml_otherwise(text: str, value: object) -> None:
    assert Document().set(f"name={text}").data == {"name": value}


def test_off_is_a_word_and_a_boolean_takes_it(write) -> None:
    """YAML 1.1 makes false of `off` and `no`: a policy of that name, or Norwegian, could not be written."""

    class Section(BaseModel):
        policy: Literal["scrub", "off"]
        languages: dict[str, bool]

    path = write("policy: off\nlanguages: {no: yes, en: off, zh: false, de: True}\n")
    for document in (Document.read(str(path)), Document().set("policy=off").set("languages={no: on, en: no, zh: no}")):
        section = document.validate(Section)
        assert section.policy == "off" and section.languages["no"] and not section.languages["zh"]
        assert Document.read(str(write(shown(section)))).validate(Section) == section
