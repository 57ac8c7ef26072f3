"""Which settings of a rule are learning rates, read off its source: to import it would bring torch to every table."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parents[2] / "trainers"


@cache
def rates(rule: str) -> tuple[str, ...]:
    """The names of a rule's learning rates (`RunSpec.rates` without "trainer."); none for a rule that is not there.

    They are the fields that its dataclasses, or those they inherit from, make by `rate()` or as `searched` settings.
    """
    classes = _classes(rule).values()
    found = [_of_class(rule, one.name) for one in classes if one.decorator_list]  # the dataclasses
    return tuple(dict.fromkeys(name for names in found for name in names))


@cache
def _source(rule: str) -> ast.Module:
    paths = [_FOLDER / f"{rule}.py", _FOLDER / rule / "rule.py"] if rule.isidentifier() else []
    return ast.parse("".join(path.read_text(encoding="utf-8") for path in paths if path.is_file()))


def _classes(rule: str) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in _source(rule).body if isinstance(node, ast.ClassDef)}


def _of_class(rule: str, name: str) -> Iterator[str]:
    """Searched fields of a class, those of its bases first."""
    if name not in _classes(rule):  # imported, or of another room
        for node in _source(rule).body:
            if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
                package, _, other = str(node.module).rpartition(".")
                if package == "tprnn.trainers":
                    yield from _of_class(other, name)
        return
    for base in _classes(rule)[name].bases:
        yield from _of_class(rule, ast.unparse(base))
    for field in _classes(rule)[name].body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.value, ast.Call) and _is_searched(field.value):
            yield ast.unparse(field.target)


def _is_searched(made: ast.Call) -> bool:
    marked = [ast.unparse(word.value) for word in made.keywords if word.arg == "searched"]
    return ast.unparse(made.func) == "rate" or marked == ["True"]
