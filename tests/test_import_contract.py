"""Imports go one way: from each room to those below it, and in no circle.

Imports inside functions, which are made when the function runs, count for the rooms too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "onnx_fc2conv"

ROOMS = (
    ("errors", "interrupts", "streams", "hints", "options"),
    ("files",),
    ("geometry", "graphs"),
    ("views", "matrices"),
    ("passes",),
    ("pipeline", "to_fc"),
    ("runtime",),
    ("equivalence",),
    ("scanning", "testing", "conversion_report", "report_files"),
    ("detection", "dask", "benchmark"),
    ("cli",),
    ("__main__", ""),
)
"""The rooms of the house, from the ground up: a room imports from those below it only.

Rooms of a line import from each other in no circle; "" is the façade.
"""

SHARED_WITH_THE_CHECK = {
    "errors": {"ArgumentError", "Fc2ConvError", "InvalidModelError"},
    "files.reading": {"ModelSource", "as_model", "stored_tensors"},
    "geometry": {"Geometry", "read_geometry"},
    "graphs.cost": {"multiply_adds"},
    "graphs.names": {"describe", "node_name"},
    "graphs.shapes": {"Shapes", "shapes_at"},
    "passes": {"Normalize"},
    "passes.apply": {"ORIGIN"},
    "passes.normalize": {"Normalize"},
    "pipeline": {"inspect"},
    "views.inputs": {"image_axes", "native_shapes"},
    "views.maps.labels": {"AnyArray"},
}
"""What the check takes from the rest of the package: what it does not find out for itself."""


def modules() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name, without the package's own."""
    found: dict[str, ast.Module] = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        name = ".".join(parts).removesuffix("__init__").removesuffix(".")
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


MODULES = modules()


def imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Module and name of everything that is imported from the package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            module = (node.module or "").removeprefix(PACKAGE).removeprefix(".")
            for alias in node.names:
                inner = f"{module}.{alias.name}".removeprefix(".")
                yield (inner, "") if inner in MODULES else (module, alias.name)


def at_import(tree: ast.Module) -> Iterator[ast.stmt]:
    """The statements of a module that run when it is imported, and those for type checkers."""
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        statement = waiting.pop()
        if isinstance(statement, ast.If | ast.Try | ast.With):
            waiting += [s for s in ast.iter_child_nodes(statement) if isinstance(s, ast.stmt)]
        elif not isinstance(statement, ast.FunctionDef | ast.ClassDef):
            yield statement


def room(module: str) -> str:
    return module.split(".", maxsplit=1)[0]


def test_every_room_stands_on_a_floor() -> None:
    floors = [name for floor in ROOMS for name in floor]
    assert sorted(floors) == sorted({room(module) for module in MODULES})


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module: str) -> None:
    height = {name: number for number, floor in enumerate(ROOMS) for name in floor}
    upward = {
        other
        for other, _ in imported(MODULES[module])
        if room(other) != room(module) and height[room(other)] > height[room(module)]
    }
    assert not upward, f"{module} imports from above: {sorted(upward)}"


def test_no_circle() -> None:
    graph = {
        module: {other for s in at_import(tree) for other, _ in imported(s)} - {module}
        for module, tree in MODULES.items()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_what_the_check_shares_with_the_converter() -> None:
    """docs/architecture.md says what of this may hide an error from the check."""
    found: dict[str, set[str]] = {}
    for module, tree in MODULES.items():
        if room(module) == "equivalence":
            for other, name in imported(tree):
                if room(other) not in ("equivalence", "runtime"):
                    found.setdefault(other, set()).add(name)
    assert found == SHARED_WITH_THE_CHECK
