"""Errors that are the user's to mend: one line, exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. The message is one line: the thing, what was expected, the nearest valid choice."""


class DamagedFile(UserError):
    """A file of a run folder that cannot be read as what it should be. It is left untouched."""


class RunLocked(UserError):
    """Another process works on the run folder."""

    @classmethod
    def by(cls, holder: str, what: str) -> RunLocked:
        """The error that says who works on what."""
        return cls(f"{what}: {holder} works on it; wait for it or stop it")


class TooLarge(UserError):
    """Each of the runs that are left to do needs more memory than is free."""


class UnknownKey(UserError):
    """A setting that a composed config does not have."""

    def __init__(self, message: str, key: str) -> None:
        super().__init__(message)
        self.key = key


def nearest(word: str, choices: Iterable[str], count: int = 3) -> str:
    """The ending of an error line: nearest valid names, or all of them where there are few.

    >>> nearest("tppt", ["bptt", "tptt"])
    'nearest: tptt, bptt'
    """
    choices = sorted(str(choice) for choice in choices)
    close = difflib.get_close_matches(word, choices, n=count, cutoff=0.5)
    if not close:  # a dotted key may be right but for its last part
        close = [choice for choice in choices if choice.rsplit(".", 1)[-1] == word.rsplit(".", 1)[-1]][:count]
    if close:
        return "nearest: " + ", ".join(close)
    if len(choices) <= 12:
        return "choices: " + ", ".join(choices)
    return f"{len(choices)} choices, see tprnn list"
