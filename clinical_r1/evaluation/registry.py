"""Benchmarks by name or by file: every module in `benchmarks/` is one."""

import importlib
import json
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from clinical_r1.errors import UserError
from clinical_r1.evaluation import benchmarks
from clinical_r1.schema import Case


def names() -> list[str]:
    """All known benchmarks."""
    return sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__))


def benchmark(name: str) -> ModuleType:
    """The module of a benchmark; UserError lists the known ones."""
    if name not in names():
        raise UserError(f"benchmark {name}: unknown; known ones are {', '.join(names())}")
    return importlib.import_module(f"{benchmarks.__name__}.{name}")


class CaseSet(NamedTuple):
    """A benchmark's file under the name that reports use."""

    name: str
    module: ModuleType
    path: Path

    def load(self) -> list[Case]:
        """The cases; UserError where there are none."""
        return load_benchmark(self.module.NAME, self.path)


def load_benchmark(name: str, path: Path) -> list[Case]:
    """The cases of a benchmark from its file; raises UserError where there are none."""
    module = benchmark(name)
    if not Path(path).is_file():
        raise UserError(f"benchmark {name}: {path}: no such file; give the benchmark's original file")
    cases = module.load(Path(path))
    if not cases:
        raise UserError(f"benchmark {name}: {path}: no cases in it; give the benchmark's original file")
    return cases


def find(wanted: str, folder: Path) -> list[CaseSet]:
    """The files that NAME (in `folder` under its usual names), NAME=FILE, or FILE (recognised) stands for."""
    name, separator, file = wanted.partition("=")
    if separator:
        return [CaseSet(Path(file).stem, benchmark(name), Path(file))]
    if Path(wanted).is_file():
        return [CaseSet(Path(wanted).stem, recognise(Path(wanted)), Path(wanted))]
    if wanted not in names():
        known = ", ".join(names())
        raise UserError(f"--benchmark {wanted}: neither a file nor a known benchmark; known ones are {known}")
    module = benchmark(wanted)
    found = [folder / usual for usual in module.FILES if (folder / usual).is_file()]
    if not found:
        usual = ", ".join(module.FILES) or "no usual file name"
        raise UserError(f"--benchmark {wanted}: not in {folder} ({usual}); give --data FOLDER or {wanted}=FILE")
    return [CaseSet(path.stem, module, path) for path in found]


def recognise(path: Path) -> ModuleType:
    """The benchmark that a file is of, by its first row; UserError where none knows it."""
    if not path.stat().st_size:
        raise UserError(f"{path}: the file is empty; give a file with one case a line, or a benchmark's original file")
    row = _first_row(path)
    for name in names():
        module = benchmark(name)
        if row is not None and module.looks_like(row):
            return module
    raise UserError(f"{path}: no benchmark knows its first row; known ones are {', '.join(names())}: give NAME=FILE")


def _first_row(path: Path) -> dict | None:
    with open(path, encoding="utf-8", errors="replace") as handle:
        start = handle.readline()
        try:
            data = json.loads(start)
        except json.JSONDecodeError:
            try:
                data = json.loads(start + handle.read())
            except json.JSONDecodeError:
                return None
    first = data[0] if isinstance(data, list) and data else data
    return first if isinstance(first, dict) else None
