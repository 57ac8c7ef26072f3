"""Temporal order (Hochreiter and Schmidhuber 1997; manchev2020 section 3.1).

Distractors a, b, c, d; at two positions X or Y. The class is the pair: XX 0, XY 1, YX 2, YY 3.

    T = 10:  b X a d c Y a b b d  ->  XY, class 1

Positions (0-based): released t_1 in floor(T/10) + {0 .. floor(T/10) - 1}, t_2 in floor(5T/10) + the same;
paper t_1 in [T/10, 2T/10], t_2 in [4T/10, 5T/10], counted from 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tprnn.readouts.base import Answers
from tprnn.settings import setting
from tprnn.tasks._symbols import positions, sample
from tprnn.tasks.base import Batch, Task


@dataclass(frozen=True)
class TemporalOrderSettings:
    """conf/task/temporal_order.yaml."""

    T: int = setting()
    reading: str = setting(choices=("released", "paper"))


class TemporalOrder(Task):
    """Four classes, one softmax output at the last step. Chance is 25 %."""

    Settings = TemporalOrderSettings
    shortest = 10  # so that each range holds a position
    inputs, outputs, readout = 6, 4, "softmax"

    def __init__(self, settings: TemporalOrderSettings) -> None:
        self.T = settings.T
        self.places = positions(settings.T, (1, 5) if settings.reading == "released" else (1, 4), settings.reading)
        self.words = settings.T + 4

    @classmethod
    def chance(cls, settings: Mapping[str, Any]) -> float:
        """A class among four."""
        return 0.25

    def sample(self, words: Tensor) -> Batch:
        return sample(words, self.T, self.places)

    def measure(self, answers: Answers) -> Tensor:
        return (answers.classes == answers.targets).all(1)
