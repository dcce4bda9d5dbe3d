"""Benchmarks by name: every module in `benchmarks/` is one."""

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

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


def load_benchmark(name: str, path: Path) -> list[Case]:
    """The cases of a benchmark from its file; raises UserError where there are none."""
    module = benchmark(name)
    if not Path(path).is_file():
        raise UserError(f"benchmark {name}: {path}: no such file; give the benchmark's original file")
    cases = module.load(Path(path))
    if not cases:
        raise UserError(f"benchmark {name}: {path}: no cases in it; give the benchmark's original file")
    return cases
