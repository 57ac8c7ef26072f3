"""3-bit temporal order (Hochreiter and Schmidhuber 1997; manchev2020 section 3.1).

As temporal order with three marked positions; the class is the triple, XXX 0 to YYY 7.

    T = 10:  c Y a X b d X a a b  ->  YXX, class 4

Positions (0-based): released k T/10 + {0 .. floor(T/10) - 1} for k = 1, 3, 6; paper the closed ranges
[T/10, 2T/10], [3T/10, 4T/10], [6T/10, 7T/10], counted from 1.
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
class TemporalOrder3BitSettings:
    """conf/task/temporal_order_3bit.yaml."""

    T: int = setting()
    reading: str = setting(choices=("released", "paper"))


class TemporalOrder3Bit(Task):
    """Eight classes, one softmax output at the last step. Chance is 12.5 %."""

    Settings = TemporalOrder3BitSettings
    shortest = 10  # so that each range holds a position
    inputs, outputs, readout = 6, 8, "softmax"

    def __init__(self, settings: TemporalOrder3BitSettings) -> None:
        self.T = settings.T
        self.places = positions(settings.T, (1, 3, 6), settings.reading)
        self.words = settings.T + 6

    @classmethod
    def chance(cls, settings: Mapping[str, Any]) -> float:
        """A class among eight."""
        return 0.125

    def sample(self, words: Tensor) -> Batch:
        return sample(words, self.T, self.places)

    def measure(self, answers: Answers) -> Tensor:
        return (answers.classes == answers.targets).all(1)
