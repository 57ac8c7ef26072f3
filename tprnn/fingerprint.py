"""What a piece of code is: a hash of its source that comments, docstrings and layout do not change."""

from __future__ import annotations

import ast
import hashlib
import json
import linecache
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

DIGITS = 16
_SCRIPTS = ("__main__", "__mp_main__")  # what runs, and what a spawned process knows it by


def of_class(cls: type) -> tuple[str, Path | None]:
    """The hash of the code of a class, and the file that holds the class; no file for one of a notebook.

    Hashed are all .py files of the package that the class is of, else the file of its module. Of a class of a notebook
    or of the script that runs, its own source and that of bases beside it. Raises OSError where there is no source.
    """
    module = sys.modules[cls.__module__]
    if module.__name__ in _SCRIPTS or not module.__file__:
        return of_texts({one.__name__: _text(one) for one in cls.__mro__ if one.__module__ == module.__name__}), None
    file, folder = Path(module.__file__), _package(module)
    paths = [file] if folder is None else sorted(folder.rglob("*.py"))
    return of_texts({path.relative_to(folder or file.parent).as_posix(): path.read_bytes() for path in paths}), file


def of_texts(texts: Mapping[str, str | bytes]) -> str:
    """The first hex digits of the SHA-256 of Python sources by name. Raises SyntaxError.

    >>> of_texts({"a": "x = 1  # one"}) == of_texts({"a": "x = (1)"}) != of_texts({"a": "x = -1"})
    True
    """
    plain = {name: ast.unparse(_Bare().visit(ast.parse(text))) for name, text in texts.items()}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:DIGITS]


class _Bare(ast.NodeTransformer):
    """Takes out statements that are a text alone: docstrings."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else node


def _text(cls: type) -> str:
    """The source of a class, found by that of a method of its own: a class of a notebook is in no file."""
    for value in vars(cls).values():
        code = getattr(getattr(value, "__func__", value), "__code__", None)
        lines = linecache.getlines(code.co_filename) if code else []
        for node in ast.walk(ast.parse("".join(lines))):
            if isinstance(node, ast.ClassDef) and node.name == cls.__name__:
                return ast.unparse(node)
    raise OSError(f"no source of {cls.__name__}")


def _package(module: ModuleType) -> Path | None:
    """The folder of the outermost package that a module is of (one with an __init__.py); None for one of none."""
    parts = module.__name__.split(".")
    for count in range(1, len(parts) + 1):
        outer = sys.modules.get(".".join(parts[:count]))
        file = getattr(outer, "__file__", None)
        if file and hasattr(outer, "__path__"):
            return Path(file).parent
    return None
