"""Sequence expansion (dai2021 section 4.1): say each symbol of the first half twice.

The first ceil(T/2) steps hold symbols drawn from k, the others blanks; the answer of length T repeats each symbol once.

    T = 6:  a c b * * *  ->  a a c c b b
    T = 5:  a c b * *    ->  a a c c b

Symbols are tokens 0 .. k - 1, the blank is k; it is never an answer, so there are k classes; `classes: codes` has one
for each code of the input, as what seems to be the authors' program: k + 1, of which one never occurs.
"""

from __future__ import annotations

import math
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
class SequenceExpansionSettings:
    """conf/task/sequence_expansion.yaml."""

    T: int = setting()
    symbols: int = setting(low=2)
    classes: str = setting(choices=("answers", "codes"), before="answers")


class SequenceExpansion(Task):
    """A softmax output at every step; a sequence is right when all its steps are."""

    Settings = SequenceExpansionSettings
    shortest = 2
    readout = "softmax"

    def __init__(self, settings: SequenceExpansionSettings) -> None:
        self.T, self.symbols = settings.T, settings.symbols
        self.inputs, self.outputs = settings.symbols + 1, settings.symbols + (settings.classes == "codes")
        self.words = (settings.T + 1) // 2

    @classmethod
    def baseline(cls, settings: Mapping[str, Any]) -> float:
        """(T - 1) ln k / T: the answer at step t is the symbol of step ceil(t/2), which is t itself for t = 1 alone.

        A bound, for it knows the clock: whoever remembers nothing but which step it is has the first answer and guesses
        all others among k.
        """
        return float((settings["T"] - 1) * math.log(settings["symbols"]) / settings["T"])

    @classmethod
    def chance(cls, settings: Mapping[str, Any]) -> float:
        """k^-ceil(T/2): as many symbols among k."""
        return float(settings["symbols"] ** -((settings["T"] + 1) // 2))

    def sample(self, words: Tensor) -> Batch:
        drawn = below(words, self.symbols).mT  # [R, ceil(T/2), B]
        targets = drawn.repeat_interleave(2, 1)[:, : self.T].contiguous()
        tokens = torch.full_like(targets, self.symbols)
        tokens[:, : self.words] = drawn
        return Batch(tokens, targets)

    def measure(self, answers: Answers) -> Tensor:
        return (answers.classes == answers.targets).all(1)
