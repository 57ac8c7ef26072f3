"""Copy memory (dai2021 section 4.1): say again, after a delay, what came first.

n symbols drawn from k, T - 1 blanks, a recall mark, n blanks; n = `elements` = 10 and k = `symbols` = 8 in the paper.
The answer to every step but the last n is a blank; the last n are the symbols in their order. Both have T + 2n steps.

    T = 3, n = 3:  a c b - - * - - -  ->  - - - - - - a c b

(The paper prints this example with one blank too many in the input and one too few in the answer; the lengths here are
those of its rule.) Symbols are tokens 0 .. k - 1, the blank is k, the mark k + 1. The mark is never an answer, so there
are k + 1 classes; `classes: codes` has one for each code of the input, as what seems to be the authors' program: k + 2,
of which one never occurs.
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
class CopyMemorySettings:
    """conf/task/copy_memory.yaml."""

    T: int = setting()
    symbols: int = setting(low=2)
    elements: int = setting(low=1)
    classes: str = setting(choices=("answers", "codes"), before="answers")


class CopyMemory(Task):
    """A softmax output at every step; a sequence is right when all its steps are."""

    Settings = CopyMemorySettings
    readout = "softmax"

    def __init__(self, settings: CopyMemorySettings) -> None:
        self.T, self.symbols, self.elements = settings.T, settings.symbols, settings.elements
        self.inputs, self.outputs = settings.symbols + 2, settings.symbols + 1 + (settings.classes == "codes")
        self.words = settings.elements

    @classmethod
    def baseline(cls, settings: Mapping[str, Any]) -> float:
        """n ln k / (T + 2n), the paper's 10 ln 8 / (T + 20): blanks where they belong, then n guesses among k."""
        n = settings["elements"]
        return float(n * math.log(settings["symbols"]) / (settings["T"] + 2 * n))

    @classmethod
    def chance(cls, settings: Mapping[str, Any]) -> float:
        """k^-n: n symbols among k, and blanks where they belong."""
        return float(settings["symbols"] ** -settings["elements"])

    def sample(self, words: Tensor) -> Batch:
        n, blank = self.elements, self.symbols
        drawn = below(words, self.symbols).mT  # [R, n, B]
        R, _, B = drawn.shape
        tokens = torch.full((R, self.T + 2 * n, B), blank, dtype=torch.int64, device=words.device)
        targets = tokens.clone()
        tokens[:, :n] = drawn
        tokens[:, n + self.T - 1] = blank + 1
        targets[:, -n:] = drawn
        return Batch(tokens, targets)

    def measure(self, answers: Answers) -> Tensor:
        return (answers.classes == answers.targets).all(1)
