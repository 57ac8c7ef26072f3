"""Adding (Hochreiter and Schmidhuber 1997; manchev2020 section 3.1).

Two channels: values uniform on [0, 1), and markers, 1 at two positions and 0 elsewhere. The answer is the mean of the
two marked values.

    T = 10:  values  .71 .20 .05 .84 .33 .90 .12 .48 .66 .27
             markers  1   0   0   1   0   0   0   0   0   0    ->  (.71 + .84) / 2 = .775

released: each batch has one length l, uniform on T .. T + floor(T/10) - 1; markers at U{0 .. floor(l/10) - 1} and
floor(l/10) + U{0 .. floor(4l/10) - 1}; right when the SQUARED error is at most 0.04.
paper: length T; markers (counted from 1) on [1, T/10] and [T/10, T/2]; right when the error is below 0.04. Both
printed ranges hold T/10; the second marker is taken from T/10 + 1 on, so that there are always two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tprnn.core.streams import below, uniform
from tprnn.readouts.base import Answers
from tprnn.settings import setting
from tprnn.tasks.base import Batch, Task


@dataclass(frozen=True)
class AddingSettings:
    """conf/task/adding.yaml."""

    T: int = setting()
    reading: str = setting(choices=("released", "paper"))


class Adding(Task):
    """One linear output at the last step. The constant answer 0.5 is right in 64.0 % (released) or 15.4 % (paper)."""

    Settings = AddingSettings
    shortest = 10  # so that each range holds a position
    inputs, outputs, readout = 2, 1, "linear"

    def __init__(self, settings: AddingSettings) -> None:
        self.T, self.reading = settings.T, settings.reading
        self.longest = settings.T + settings.T // 10 - 1 if settings.reading == "released" else settings.T
        self.words = self.longest + 3

    @classmethod
    def chance(cls, settings: Mapping[str, Any]) -> float:
        """1 - (1 - 2e)^2 for an error of at most e: the mean of two uniform numbers is within e of 1/2 as often.

        64 % by the released program's e^2 = 0.04, 15.4 % by the paper's e = 0.04.
        """
        e = 0.2 if settings["reading"] == "released" else 0.04
        return 1.0 - (1.0 - 2.0 * e) ** 2

    def sample(self, words: Tensor) -> Batch:
        steps = self.longest
        values = uniform(words[..., :steps], torch.float64)
        # one length for the whole batch of a run: the first sequence's word decides
        length = self.T + below(words[:, :1, steps + 2], steps - self.T + 1)  # [R, 1]
        start = steps - length
        if self.reading == "released":
            first = below(words[..., steps], length // 10)
            second = length // 10 + below(words[..., steps + 1], 4 * length // 10)
        else:
            first = below(words[..., steps], self.T // 10)
            second = self.T // 10 + below(words[..., steps + 1], self.T // 2 - self.T // 10)
        marked = torch.stack([start + first, start + second], -1)  # [R, B, 2]
        target = values.gather(-1, marked).mean(-1)
        markers = torch.zeros_like(values).scatter_(-1, marked, 1.0)
        inputs = torch.stack([values, markers], -1).transpose(1, 2).contiguous()
        return Batch(
            inputs,
            target[:, None, :, None],
            start.expand(target.shape) if steps > self.T else None,
            steps - self.T,
        )

    def measure(self, answers: Answers) -> Tensor:
        error = (answers.expected - answers.targets).abs().amax((1, -1))
        return error.square() <= 0.04 if self.reading == "released" else error < 0.04
