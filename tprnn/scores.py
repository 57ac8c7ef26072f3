"""Scores: what is measured of each sequence of a validation or test set, and where a result has it.

A result says which score its run was judged by (`score`) and holds its mean over sequences under the score's own name:
`accuracy` at the last check, `best_accuracy` over all full sets. On the test set a score that counts has `test_right`
of `test_sequences`, any other `test_NAME`. Results of before there was more than one are of ACCURACY.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Score:
    """What is measured of each sequence; what is reported is its mean over sequences."""

    name: str
    unit: str
    higher: bool
    """Whether more is better."""
    counted: bool = False
    """Whether a sequence is right or wrong. Only then is there a criterion of success: the share of wrong ones."""

    def __post_init__(self) -> None:
        if self.counted and not self.higher:
            raise ValueError(f"score {self.name}: of right answers more is better")

    def error(self, value: float) -> float:
        """The same as something of which less is better: of a share, the rest."""
        return 1.0 - value if self.counted else -value if self.higher else value

    def value(self, error: float) -> float:
        """The inverse of `error`."""
        return 1.0 - error if self.counted else -error if self.higher else error

    def better(self, one: float, other: float) -> float:
        """The better of two; what is no number is never better."""
        if one != one or other != other:
            return other if one != one else one
        return max(one, other) if self.higher else min(one, other)

    def show(self, value: float | None) -> str:
        """`99.90%` of a share, else four digits; a dash for None."""
        if value is None:
            return "–"
        return f"{value:.2%}" if self.counted else f"{value:.4g}"

    @property
    def heading(self) -> str:
        """What stands above a column of it, a share in percent."""
        return f"{self.name} (%)" if self.counted else self.name

    def number(self, value: float) -> str:
        """A value below that heading."""
        return f"{100 * value:.2f}" if self.counted else f"{value:.4g}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a result."""
        return asdict(self)


ACCURACY = Score("accuracy", "share of sequences", higher=True, counted=True)
SQUARED_ERROR = Score("squared_error", "square of the answer's unit", higher=False)
NLL = Score("nll", "nats a step", higher=False)


def score_of(result: Mapping[str, Any]) -> Score:
    """The score of a stored result; what cannot be read as one is ACCURACY, as of old ones."""
    stored = result.get("score")
    if not isinstance(stored, Mapping) or not isinstance(stored.get("name"), str):
        return ACCURACY
    higher = stored.get("higher") is True
    counted = higher and stored.get("counted") is True
    return Score(stored["name"], str(stored.get("unit", "")), higher, counted)


def last_of(result: Mapping[str, Any]) -> float | None:
    """The score at the run's end, of the full validation set."""
    return _number(result, score_of(result).name)


def best_of(result: Mapping[str, Any]) -> float | None:
    """The best score over full validation sets."""
    return _number(result, f"best_{score_of(result).name}")


def test_of(result: Mapping[str, Any]) -> float | None:
    """The score of the test set."""
    score = score_of(result)
    if not score.counted:
        return _number(result, f"test_{score.name}")
    right, of = _number(result, "test_right"), _number(result, "test_sequences")
    return None if right is None or not of else right / of


def _number(result: Mapping[str, Any], key: str) -> float | None:
    value = result.get(key)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
