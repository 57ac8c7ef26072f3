"""Arguments of the commands that take no override lines: errors as one line, one way to name the folder of runs.

Nothing heavy is imported here: --help must come at once.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any, NoReturn

from tprnn.errors import UserError

DEFAULT = "outputs"
"""The folder of runs where none is named."""
FLAGS = {"--force": "force=true", "--quiet": "quiet=true"}
"""What is short for an override, wherever overrides stand."""


class Parser(argparse.ArgumentParser):
    """Whole names of options only, and errors as one line like everywhere else in tprnn."""

    def __init__(self, prog: str, description: str, **options: Any) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, description=description, allow_abbrev=False, formatter_class=formatter, **options)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def take_outputs(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The folder that `outputs=DIR` names, wherever it stands, and the other words.

    Quotes around DIR are no part of it. Raises UserError where two folders are named.
    """
    named = [word.removeprefix("outputs=") for word in words if word.startswith("outputs=")]
    folders = [text[1:-1] if text[:1] in ("'", '"') and text[-1:] == text[0] else text for text in named]
    return one_folder(folders), [word for word in words if not word.startswith("outputs=")]


def one_folder(named: Sequence[str | None]) -> str | None:
    """The folder among what may name one, None where nothing does. Raises UserError where there are two."""
    folders = [name for name in named if name is not None]
    if len(folders) > 1:
        raise UserError(f"outputs: expected one folder of runs, got {' and '.join(map(repr, folders))}")
    return folders[0] if folders else None


def existing_folder(named: str | None) -> str:
    """The folder of runs to read: `named`, which must be there, or the default, which need not. Raises UserError."""
    if named is None:
        return DEFAULT
    if os.path.isdir(named):
        return named
    told = "that is a file" if os.path.exists(named) else "nothing is there"
    raise UserError(f"outputs: no folder '{named}'; {told}")
