"""README and docs name what is there; and the check that says so finds what is not."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from clinical_r1 import __version__
from tests.docs_check import ROOT, check, pages
from tests.house import measure
from tests.pictures import PICTURES, SOURCES, digest


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_paths_and_commands(page: Path) -> None:
    assert check(page, page.read_text(encoding="utf-8")).broken == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[map](docs/nowhere.md)", "no such file"),
        ("[limits](README.md#no-such-limits)", "no such heading"),
        ("`tests/no_such_test.py`", "no such file"),
        ("```sh\nclinical-r1 trian\n```", "trian"),
        ("```sh\nclinical-r1 run train --drry-run\n```", "drry-run"),
        ("```sh\nmake tset\n```", "no target 'tset'"),
        ("`make bench NAME=gatway`", "no benchmark 'gatway'"),
        ("```sh\npython -m clinical_r1.nothing\n```", "no module"),
        ("```sh\nhelm upgrade r1 helm/clinical-r1 --set serving.modle.uri=x\n```", "no value 'serving.modle.uri'"),
        ("```sh\ncp helm/clinical-r1/examples/none.yaml my.yaml && ls\n```", "no such file"),
    ],
)
def test_what_is_not_there_is_found(text: str, wrong: str) -> None:
    broken = check(ROOT / "page.md", f"# A page\n\n{text}\n").broken
    assert len(broken) == 1
    assert "page.md:3" in broken[0]
    assert wrong in broken[0]


def test_what_is_there_passes() -> None:
    text = "# A page\n\n[up](#a-page), [home](README.md), `tests/docs_check.py`\n\n"
    found = check(ROOT / "page.md", text + "```sh\nA=1 make bench NAME=gate && clinical-r1 runs\n```\n")
    assert (found.links, found.commands, found.broken) == (3, 2, [])


@pytest.mark.parametrize("name", SOURCES)
def test_pictures_show_the_pages_of_today(name: str) -> None:
    """What a picture shows has changed since it was made: `make run`, `make pictures`, look at it, commit it."""
    made = json.loads((PICTURES / "sources.json").read_text(encoding="utf-8"))
    assert (PICTURES / name).is_file()
    assert made[name] == digest(SOURCES[name])


def test_few_modules_no_circle_of_imports_and_no_file_too_long() -> None:
    numbers, notes = measure()
    assert numbers["modules"] <= 300, notes
    assert numbers["circles"] == 0, notes
    assert numbers["longest"] <= 400, notes
    assert numbers["one_importer_small"] <= 30, notes


def test_the_version_is_the_same_wherever_it_stands() -> None:
    chart = yaml.safe_load((ROOT / "helm/clinical-r1/Chart.yaml").read_text(encoding="utf-8"))
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {chart["version"], chart["appVersion"], str(citation["version"])} == {__version__}
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_release_refuses_before_it_writes() -> None:
    environment = {**os.environ, "VERSION": "next", "DRY_RUN": ""}
    done = subprocess.run([ROOT / ".ci/release"], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("error: VERSION=next: write MAJOR.MINOR.PATCH")
