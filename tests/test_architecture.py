"""The house rules that a machine can hold: which folder imports what, and what a KFP executor may import."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("clinical_r1", "components", "pipelines", "serving")

BASE = {"schema", "reasoning", "folders", "baseline", "errors", "atomic", "step", "progress", "stats", "containment"}
BASE |= {"asking", "dialects", "recognise", "references", "sampling", "settings", "text", "lexicon"}
BASE |= {"charts", "page", "strict"}
MIDDLE = {"llm", "privacy", "verifier", "rewards", "generation", "objectstore"}
ROOMS = {"records", "synthesis", "training", "evaluation", "cluster"}
TOP = {"runs"}
"""What a whole run is told: one section a room."""


def python_files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            names.add("RELATIVE")
    return names


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if parts[0] == "clinical_r1" and len(parts) > 1 else ""


def allowed_rooms(own: str) -> set[str]:
    """Rooms of clinical_r1 that a room may import besides itself."""
    if own in BASE:
        return BASE
    if own in MIDDLE:
        # The verifier's judge is an endpoint, and privacy says which endpoint gets what; nothing else crosses here.
        return BASE | {"verifier": {"llm", "privacy"}, "privacy": {"llm"}}.get(own, set())
    if own in ROOMS:
        # One reader a format: what the records step reads, evaluation and build-benchmark read.
        return BASE | MIDDLE | ({"records"} if own == "evaluation" else set())
    if own in TOP:
        return BASE | MIDDLE | ROOMS | {"simulator"}
    if own == "simulator":
        return BASE
    raise AssertionError(f"clinical_r1/{own}: say in tests/test_architecture.py which level this room is on")


@pytest.mark.parametrize("path", python_files("clinical_r1"), ids=module_name)
def test_library_arrows_run_down_only(path: Path) -> None:
    own = room(module_name(path))
    for name in imports_of(path):
        assert name != "RELATIVE", f"{path}: relative import"
        top = name.split(".")[0]
        assert top not in {"kfp", "components", "pipelines", "serving"}, f"{path} imports {name}"
        other = room(name)
        if own and other and other != own and other != "__version__":
            assert other in allowed_rooms(own), f"{path} imports {name}"


def names_in(path: Path) -> set[str]:
    """What a module offers to others: all that is bound at its top level, also in branches."""
    found: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while nodes:
        for node in ast.iter_child_nodes(nodes.pop()):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            else:
                nodes.append(node)
    return found


@pytest.mark.parametrize("package", [*PACKAGES, "benchmarks", "tests", "helm"])
def test_every_import_of_ours_names_what_is_there(package: str) -> None:
    """Also those inside of functions, which no type checker that forgives missing modules sees, and no import runs."""
    ours = {module_name(path): path for root in (*PACKAGES, "benchmarks", "tests") for path in python_files(root)}
    missing = []
    for path in python_files(package):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = [(alias.name, "") for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                named = [(node.module or "", alias.name) for alias in node.names]
            for module, name in named:
                if module.split(".")[0] not in (*PACKAGES, "benchmarks", "tests") or f"{module}.{name}" in ours:
                    continue
                folder = (ROOT / module.replace(".", "/")).is_dir() and not name  # a package without an __init__
                if not folder and (module not in ours or (name and name not in names_in(ours[module]))):
                    missing.append(f"{path.relative_to(ROOT)}:{node.lineno}: {module} {name}")
    assert missing == []


def test_one_door_to_kubernetes() -> None:
    found = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in python_files(package)
        if any(name.split(".")[0] in ("kubernetes", "kserve") for name in imports_of(path))
    ]
    assert found == ["clinical_r1/cluster/api.py", "clinical_r1/cluster/inference_service.py"]


@pytest.mark.parametrize("path", python_files("components"), ids=module_name)
def test_components_import_the_library_only(path: Path) -> None:
    for name in imports_of(path):
        assert name.split(".")[0] not in {"pipelines", "serving"}, f"{path} imports {name}"


@pytest.mark.parametrize("path", python_files("serving"), ids=module_name)
def test_serving_imports_the_base_only(path: Path) -> None:
    allowed = {"schema", "reasoning", "dialects", "recognise", "sampling", "baseline", "errors", "atomic"}
    allowed |= {"asking", "folders", "objectstore", "settings", "strict", "text", "__version__"}
    if "engine" in path.relative_to(ROOT).parts:
        allowed = allowed | {"generation"}
    for name in imports_of(path):
        assert name.split(".")[0] not in {"pipelines", "components", "kfp"}, f"{path} imports {name}"
        if room(name):
            assert room(name) in allowed, f"{path} imports {name}"


def test_gateway_does_not_import_torch() -> None:
    for path in python_files("serving"):
        if "engine" not in path.relative_to(ROOT).parts:
            heavy = {name.split(".")[0] for name in imports_of(path)} & {"torch", "transformers", "kfp"}
            assert not heavy, f"{path} imports {heavy}"


def test_component_packages_stay_empty() -> None:
    """A decorated function in an __init__.py breaks the executor: kfp.dsl hides `component` at run time."""
    for path in (ROOT / "components").rglob("__init__.py"):
        assert path.read_text(encoding="utf-8").strip() == "", path


def test_every_library_module_imports_inside_a_kfp_executor() -> None:
    modules = [module_name(path) for path in python_files("clinical_r1") if path.name != "__main__.py"]
    code = f"import importlib\nfor name in {modules!r}:\n    importlib.import_module(name)\n"
    environment = {**os.environ, "_KFP_RUNTIME": "true", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_components_neither_postpone_annotations_nor_use_literals() -> None:
    """Both break kfp's reading of the signature (notes in components/README.md)."""
    for path in python_files("components"):
        text = path.read_text(encoding="utf-8")
        assert "from __future__ import annotations" not in text, path
        assert "Literal[" not in text, path
