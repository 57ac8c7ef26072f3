"""Random permutation (Hochreiter and Schmidhuber 1997; manchev2020 section 3.1).

The first symbol is 0 or 1, the last is the same, all between are drawn from 98 others. The last symbol is kept back:
it is the answer.

    T = 10:  1 57 3 88 41 9 14 76 2 60  ->  1

released: the network reads T symbols (the answer is the symbol after them). paper: a sequence of length T includes
the answer, so the network reads T - 1. Symbols are 0, 1 and 2..99 (the paper numbers the others 3..100: the same
98 one-hot codes), and the softmax is over all 100.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tprnn.core.streams import below
from tprnn.readouts.base import Answers
from tprnn.settings import setting
from tprnn.tasks.base import Batch, Task


@dataclass(frozen=True)
class RandomPermutationSettings:
    """conf/task/random_permutation.yaml."""

    T: int = setting()
    reading: str = setting(choices=("released", "paper"))


class RandomPermutation(Task):
    """A hundred classes of which two occur, one softmax output at the last step. Chance is 50 %."""

    Settings = RandomPermutationSettings
    shortest = 3  # a distractor and the answer
    inputs, outputs, readout = 100, 100, "softmax"

    def __init__(self, settings: RandomPermutationSettings) -> None:
        self.words = settings.T if settings.reading == "released" else settings.T - 1

    @classmethod
    def chance(cls, settings: Mapping[str, Any]) -> float:
        """One of the two symbols that occur."""
        return 0.5

    def sample(self, words: Tensor) -> Batch:
        first = below(words[..., :1], 2)
        tokens = torch.cat([first, 2 + below(words[..., 1:], 98)], -1)
        return Batch(tokens.mT.contiguous(), first.mT.contiguous())

    def measure(self, answers: Answers) -> Tensor:
        return (answers.classes == answers.targets).all(1)
