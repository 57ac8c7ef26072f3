"""A score against a factor on learning rates: a panel for each row, a line for each rule, a dot for each seed.

Rules are told apart by their columns' labels: columns with the same label are one line.
"""

from __future__ import annotations
from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """The key `figure` of the recipe."""

    x: str
    x_default: float
    x_label: str
    levels: list[str]
    zeros: list[str]
