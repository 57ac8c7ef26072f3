"""A number to be told from what it became (after Bishop 1994): several answers are right, and a mixture may say all.

x is uniform on [0, 1), y = x + 0.3 sin(2 pi x) + e with e uniform on [-0.1, 0.1). The network reads y first, then
distractors uniform on [0, 1), and is asked for x at the end. The length of each sequence is drawn from T/2 .. T.

    T = 4:  .83 .12 .40 .77  ->  .71  (or near .29, which is as right as far as y can tell)

Training, validation and test sets are drawn once for each seed: 3000, 1000 and 1000 sequences in the YAML.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tprnn.core.sets import Epochs, in_order, words_of
from tprnn.core.streams import Stream, below, uniform
from tprnn.readouts.base import Answers
from tprnn.scores import NLL
from tprnn.settings import setting
from tprnn.tasks.base import Batch, Task


@dataclass(frozen=True)
class EchoSettings:
    """conf/task/echo.yaml."""

    T: int = setting(low=2)
    sequences: int = setting(low=1)
    held_out: int = setting(low=1)


class Echo(Task):
    """One value at the end, whose negative log-likelihood is measured."""

    Settings = EchoSettings
    shortest = 2
    inputs, outputs, readout = 1, 1, "mixture"
    score = NLL

    def __init__(self, settings: EchoSettings) -> None:
        self.settings = settings
        self.words = settings.T + 3
        self.epochs: dict[Stream, Epochs] = {}

    @classmethod
    def sizes(cls, settings: Mapping[str, Any]) -> Mapping[str, int]:
        return {"train": settings["sequences"], "validation": settings["held_out"], "test": settings["held_out"]}

    def batch(self, stream: Stream, positions: Sequence[int] | Tensor, B: int) -> Batch:
        if stream.name == "train":
            rows = self.epochs.setdefault(stream, Epochs(stream, self.settings.sequences)).rows(positions, B)
        else:
            rows = in_order(stream, positions, B, self.settings.held_out)
        return self.sample(words_of(stream, rows, self.words))

    def sample(self, words: Tensor) -> Batch:
        T, shortest = self.settings.T, -(-self.settings.T // 2)
        values = uniform(words[..., :T], torch.float64)
        x, noise = (uniform(words[..., T + k], torch.float64) for k in (0, 1))
        start = below(words[..., T + 2], T - shortest + 1)  # empty steps, [R, B]
        y = x + 0.3 * torch.sin(2.0 * math.pi * x) + 0.2 * noise - 0.1
        values = values.scatter(-1, start.unsqueeze(-1), y.unsqueeze(-1))
        return Batch(values.mT.unsqueeze(-1).contiguous(), x[:, None, :, None], start, T - shortest)

    def measure(self, answers: Answers) -> Tensor:
        return answers.losses.mean(1)
