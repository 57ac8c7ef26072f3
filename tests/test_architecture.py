"""Rooms import downwards only, no imports go round in a circle, and no room but its own knows a member by name."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import MEMBERS

import tprnn

ROOT = Path(__file__).parent.parent / "tprnn"

# which tprnn rooms each room may import from
_MEMBERS = {"tasks", "readouts", "models", "optimizers", "trainers"}
_PLAIN = {"settings", "scores", "errors"}
ALLOWED = {
    "core": {"core"},
    "readouts": {"readouts", "core", *_PLAIN},
    "tasks": {"tasks", "readouts", "core", "datasets", *_PLAIN},
    "optimizers": {"optimizers", "core", *_PLAIN},
    "models": {"models", "tasks", "readouts", "core", "config", *_PLAIN},
    "trainers": {*_MEMBERS, "core", "config", *_PLAIN},
    "engine": {"engine", *_MEMBERS, "core", "config", "store", "budgets", *_PLAIN},
    "papers": {"papers", "config", "compose", "listing", "overrides", "plugins", *_PLAIN},
    "cost": {"cost", "engine", *_MEMBERS, "core", "papers", "config", "store", "budgets", *_PLAIN},
    "sweep": {"sweep", "cost", "engine", "core", "papers", "config", "store", "budgets", "members", *_PLAIN},
    "report": {
        "report",
        "papers",
        "statistics",
        "arguments",
        "budgets",
        "config",
        "store",
        "files",
        "compose",
        "listing",
        "plugins",
        *_PLAIN,
    },
}


def imported(path: Path) -> set[str]:
    """Rooms of tprnn that a file imports, at its top and inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {name.split(".")[1] for name in names if name.startswith("tprnn.")}
    return found


def files(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_rooms_import_downwards_only(room: str) -> None:
    assert files(room)
    for path in files(room):
        assert imported(path) <= ALLOWED[room], path.name


def modules(root: Path) -> dict[str, Path]:
    """The files of tprnn and of its plugins below `root`, by the names of their modules."""
    found = {}
    for package in ("tprnn", "hydra_plugins"):
        for path in (root / package).rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def names_imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names after any import: at the top, in functions, for types alone, and by import_module("...")."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not followed here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(name := node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called == "import_module":
                yield str(name.value)


def circle(root: Path) -> list[str]:
    """Modules each of which imports the one before it, the last being the first; empty where there is no circle."""
    known = modules(root)
    graph = {}
    for module, path in known.items():
        # `from a.b import c` imports the module a.b.c where there is one, else a.b
        names = {
            name if name in known else name.rpartition(".")[0] for name in names_imported(ast.parse(path.read_text()))
        }
        graph[module] = (names & known.keys()) - {module}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_imports_go_round_in_a_circle() -> None:
    assert len(modules(ROOT.parent)) > 100
    assert circle(ROOT.parent) == []


@pytest.mark.parametrize(
    "back",
    [
        "import tprnn.a",
        "from tprnn import a",
        "def late():\n    from tprnn.a import thing",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tprnn.a import Thing",
        "import importlib\nimportlib.import_module('tprnn.a')",
    ],
)
def test_a_circle_is_seen_whatever_closes_it(tmp_path: Path, back: str) -> None:
    texts = {"tprnn/__init__.py": "", "tprnn/a.py": "from hydra_plugins.b import x", "tprnn/c.py": "import tprnn.a"}
    for name, text in (texts | {"hydra_plugins/b.py": "x = 0"}).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert circle(tmp_path) == []
    (tmp_path / "hydra_plugins" / "b.py").write_text(back)
    assert set(circle(tmp_path)) == {"tprnn.a", "hydra_plugins.b"}


def test_no_public_name_is_that_of_a_module() -> None:
    """An import of the module would put it in the place of the function."""
    assert "train" in tprnn.__all__
    assert not set(tprnn.__all__) & {name.split(".")[1] for name in modules(ROOT.parent) if name.startswith("tprnn.")}


def test_no_file_has_more_than_400_lines() -> None:
    found = [*modules(ROOT.parent).values(), *(ROOT.parent / "tests").rglob("*.py")]
    assert {path.name: lines for path in found if (lines := path.read_text().count("\n")) > 400} == {}


def test_core_imports_torch_alone_and_numba_where_it_is_compiled() -> None:
    outside: dict[str, set[str]] = {}
    for path in files("core"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found = {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"torch", "tprnn"}
            outside.setdefault(path.name, set()).update(found)
    assert outside.pop("scans.py") == {"numba", "threadpoolctl"}
    compiled = {name: outside.pop(name) for name in list(outside) if "compiled" in name}
    assert compiled.pop("compiled.py") == {"numba", "numpy"}
    assert set(map(frozenset, compiled.values())) == {frozenset({"numpy"})}
    assert not set().union(*outside.values())


def test_contract_bases_name_no_member() -> None:
    """Trainers use the model and task contracts, never a concrete one."""
    concrete = {f"tprnn.{kind}s.{name}" for kind in ("task", "model") for name in MEMBERS[kind]}
    for path in files("trainers"):
        text = path.read_text()
        assert not [name for name in concrete if f"from {name} " in text], path.name


@pytest.mark.parametrize("room", ["core", "engine", "cost", "sweep", "protocols"])
def test_no_special_case_by_the_name_of_a_member(room: str) -> None:
    names = {name for kind in MEMBERS for name in MEMBERS[kind]}
    for path in files(room):
        constants = {
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        assert not constants & names, path.name


def test_only_the_store_writes_to_outputs() -> None:
    """The loop and the protocols open no file for themselves."""
    for room in ("engine", "cost", "sweep", "protocols", "trainers", "tasks", "models", "optimizers", "core"):
        for path in files(room):
            calls = {
                node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Call)
            }
            assert not calls & {"open_file", "write_text", "write_bytes", "mkdir", "unlink", "rename"}, path.name
            assert "open" not in {
                getattr(n.func, "id", "") for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)
            }


def test_every_yaml_key_of_a_member_has_a_comment_above_it() -> None:
    conf = ROOT.parent / "conf"
    for kind in MEMBERS:
        for path in (conf / kind).glob("*.yaml"):
            lines = path.read_text().splitlines()
            assert lines[0].startswith("# "), path.name
            for above, line in pairwise(lines):
                key = line.split(":")[0]
                if not line.startswith((" ", "#", "-")) and line and key not in ("name", "rule"):
                    assert above.startswith("#"), f"{path.name}: {key}"
