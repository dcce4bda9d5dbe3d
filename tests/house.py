"""The size of the house: how many modules and lines a newcomer has to find a way in, and where it is knotted.

    make house          # one JSON object, and what stands behind each number

Counted is the Python of the product and its benchmarks; tests are not.
"""

import json
import sys
from pathlib import Path

import networkx as nx

from tests.test_architecture import PACKAGES, imports_of, module_name, python_files

SMALL = 60
"""Lines below which a module with a single importer is asked whether it is one."""


def import_graph(files: dict[str, Path]) -> "nx.DiGraph[str]":
    """An edge from each module to each one that it imports, also where a function does so as it runs.

    A package's `__init__` is an edge's end only where it is named itself: Python runs it on the way to every module
    below it, and nobody has to read it for that.
    """
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(files)
    for name, path in files.items():
        named = imports_of(path)
        packages = {other.rpartition(".")[0] for other in named & files.keys()}  # `from a import b` names a and a.b
        graph.add_edges_from((name, other) for other in (named & files.keys()) - packages - {name})
    return graph


def measure() -> tuple[dict[str, int], list[str]]:
    """The numbers of `make house`, and the sentences that say which modules they are."""
    files = {module_name(path): path for package in (*PACKAGES, "benchmarks") for path in python_files(package)}
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in files.items()}
    modules = {name for name in files if lines[name]}
    graph = import_graph(files)
    circles = [sorted(group) for group in nx.strongly_connected_components(graph) if len(group) > 1]
    longest = sorted(modules, key=lambda name: -lines[name])[:5]
    lonely = sorted(
        name
        for name in modules
        if lines[name] < SMALL and files[name].name != "__init__.py" and graph.in_degree(name) == 1
    )
    notes = ["longest: " + ", ".join(f"{name} ({lines[name]})" for name in longest)]
    notes += ["circle: " + ", ".join(group) for group in sorted(circles)]
    notes += [f"one importer: {name} ({lines[name]} lines), of {next(graph.predecessors(name))}" for name in lonely]
    numbers = {
        "modules": len(modules),
        "lines": sum(lines.values()),
        "circles": len(circles),
        "longest": lines[longest[0]],
        "one_importer_small": len(lonely),
    }
    return numbers, notes


def main() -> int:
    """Prints the notes, then the numbers as one JSON object."""
    numbers, notes = measure()
    print("\n".join(notes))
    print(json.dumps(numbers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
