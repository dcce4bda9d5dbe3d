"""Can a person start every pipeline from the dashboard, whatever the release is called?

    python -m benchmarks.form        # builds helm once where the cache has none (minutes)

For every compiled pipeline: parameters that the form requires, that it does not describe, and whose default does not
fit the declared type or does not resolve to a configuration. Then the chart is rendered under three release names, as
it registers the pipelines, and each Secret, ConfigMap, claim, key and image that a step's pod asks for is looked up
among what the chart installs. The last line is one JSON object.
"""

import itertools
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from clinical_r1.cluster.facts import PLATFORM, Facts
from clinical_r1.errors import UserError
from clinical_r1.runs.config import CONFIGS
from clinical_r1.runs.form import settle
from tests.chart.references import images, references
from tests.chart.rendering import APIS, CHART

ROOT = Path(__file__).resolve().parent.parent
COMPILED = ROOT / "manifests" / "pipelines"
RELEASES = ("r1", "clinical-r1", "the-department-of-endocrinology-and-metabolism-7")
EXAMPLES = ("laptop", "one-gpu")
"""Values in which the chart brings everything; in production's the hospital brings some itself."""
KINDS: dict[str, Any] = {"STRING": str, "NUMBER_INTEGER": (int, float), "NUMBER_DOUBLE": (int, float), "BOOLEAN": bool}
KINDS |= {"LIST": list, "STRUCT": dict}
BY_THE_USER = ("endpoint_secret", "client_key_secret", "image_pull_secret")
"""Run parameters that name what only the user can make, or what not every installation has; pods start without."""


def form_problems(path: Path) -> Iterator[tuple[str, str]]:
    """(kind of problem, where) of one compiled pipeline."""
    parameters = next(yaml.safe_load_all(path.read_text(encoding="utf-8")))["root"]["inputDefinitions"]["parameters"]
    for name, told in parameters.items():
        place, kind, default = f"{path.stem}.{name}", told["parameterType"], told.get("defaultValue")
        if not told.get("isOptional") and "defaultValue" not in told:
            yield "required", place
        if not told.get("description", "").strip():
            yield "undescribed", place
        good = isinstance(default, KINDS[kind]) and (kind == "BOOLEAN" or not isinstance(default, bool))
        if not good or (kind == "NUMBER_INTEGER" and not float(default).is_integer()):
            yield "invalid_defaults", place
    if "preset" in parameters:
        filled = {name: told.get("defaultValue") for name, told in parameters.items()}
        preset, one = filled.pop("preset"), filled.pop("experiment", "")
        try:
            for name in CONFIGS if one else [path.stem]:
                settle(name, preset, filled)
        except UserError as error:
            yield "invalid_defaults", f"{path.stem}: {error}"


def unresolved(helm: Path, example: str, release: str) -> Iterator[str]:
    """What a step of a registered pipeline asks for and the rendered chart does not install."""
    command = [str(helm), "template", release, str(CHART), "--namespace", "clinic"]
    command += ["--values", str(CHART / "examples" / f"{example}.yaml"), "--set", "kubeflow.register.mode=job"]
    command += [word for api in APIS for word in ("--api-versions", api)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    documents = [one for one in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if one]
    there = {(one["kind"], one["metadata"]["name"]): one for one in documents}
    facts = Facts.of(there["ConfigMap", PLATFORM]["data"], PLATFORM)
    maps = [one.get("data") or {} for one in documents if one["kind"] == "ConfigMap"]
    registered = {name: text for data in maps for name, text in data.items() if (COMPILED / name).is_file()}
    missing = {path.name for path in COMPILED.glob("*.yaml")} - set(registered)
    yield from (f"{example} {release}: {name} is not registered" for name in sorted(missing))
    may_be_absent = {facts.run_parameters[name] for name in BY_THE_USER}
    for name, text in registered.items():
        for asked in references(text):
            place = f"{example} {release} {name} {asked.step}: {asked.kind} {asked.name}"
            found = there.get((asked.kind, asked.name))
            if found is None and not (asked.optional and asked.name in may_be_absent):
                yield place
            elif found is not None and not asked.optional:
                keys = set(found.get("data") or {}) | set(found.get("stringData") or {})
                yield from (f"{place} key {key}" for key in sorted(asked.keys - keys))
        yield from (f"{place}: image {image}" for image in images(text) - {facts.run_parameters["image"]})


def main() -> None:
    """Print each problem, then the counts."""
    paths = sorted(COMPILED.glob("*.yaml"))
    tools = [str(ROOT / "tests" / "chart" / "tools.sh")]
    built = subprocess.run(tools, capture_output=True, text=True, check=True, cwd=ROOT)
    helm = Path(built.stdout.strip().splitlines()[-1]) / "helm"
    problems = [problem for path in paths for problem in form_problems(path)]
    for release, example in itertools.product(RELEASES, EXAMPLES):
        problems += [("references_unresolved", where) for where in unresolved(helm, example, release)]
    counts = dict.fromkeys(("required", "undescribed", "invalid_defaults", "references_unresolved"), 0)
    for kind, where in problems:
        counts[kind] += 1
        print(f"{kind}: {where}")
    print(json.dumps({"pipelines": len(paths), "releases": len(RELEASES), **counts}))


if __name__ == "__main__":
    main()
