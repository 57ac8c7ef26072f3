"""Override lines of a recipe: its own, those of its columns and rows, and those of controls, in one list."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import yaml

_COLON = re.compile(r":\s*")


def spread(lines: Iterable[str | Iterable[Any]]) -> Iterator[str]:
    """Override lines; a list among them, as a YAML alias puts it there, gives its own."""
    for line in lines:
        if isinstance(line, list):
            yield from spread(line)
        else:
            yield str(line)


def merged(lines: Sequence[str], added: Sequence[str]) -> list[str]:
    """`lines` and then `added`, which do not undo what the lines put into a list or a mapping.

    A list that is added (trainer.freeze) holds the names before it too; a mapping (trainer.rate_factors) is laid over
    the one before, name by name. (For Hydra the last line alone counts.)
    """
    both = list(lines)
    for line in added:
        key, value = _read(line)
        before = next((_read(old)[1] for old in reversed(both) if old.partition("=")[0] == key), None)
        if isinstance(value, list):
            union = dict.fromkeys([*(before or ()), *value])
            line = f"{key}=[{','.join(map(str, union))}]"
        elif isinstance(value, dict):
            line = f"{key}={{{','.join(f'{name}:{entry}' for name, entry in {**(before or {}), **value}.items())}}}"
        both.append(line)
    return both


def _read(line: str) -> tuple[str, Any]:
    """Key and value of an override line; `{W_hh:0.01}` is a mapping as Hydra reads it, though not as YAML does."""
    key, _, text = line.partition("=")
    return key, yaml.safe_load(_COLON.sub(": ", text) if text.startswith("{") else text)
