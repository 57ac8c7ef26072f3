"""Random guessing (Hochreiter and Schmidhuber 1997, section 4): weights drawn anew until some answer well.

At every iteration all parameters are drawn from U(-scale, scale); they are kept where the loss on the batch is the
lowest so far. Nothing is differentiated, and any network will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tprnn.core.streams import Seeds, Stream, uniform
from tprnn.models.base import Model
from tprnn.optimizers.base import Optimizer, like
from tprnn.settings import setting
from tprnn.tasks.base import Batch
from tprnn.trainers.base import State, Trainer, TrainerSettings


@dataclass(frozen=True)
class GuessSettings(TrainerSettings):
    """conf/trainer/guess.yaml."""

    scale: float = setting(above=0.0, per_run=True)


class Guess(Trainer):
    """Keeps the best of all weights that it has drawn."""

    Settings = GuessSettings
    needs = frozenset()
    optimizes = False

    def __init__(self, settings: Sequence[Any], seeds: Seeds, model: Model, optimizer: Optimizer) -> None:
        super().__init__(settings, seeds, model, optimizer)
        self.streams = {name: Stream(seeds.data, f"guess/{name}", model.device) for name in self.shapes()}

    def start(self) -> State:
        state = super().start()
        R = len(self.settings)
        lowest = torch.full((R,), float("inf"), dtype=self.model.dtype, device=self.model.device)
        state.slots["guess"] = {"lowest": lowest}
        return state

    def step(self, state: State, batch: Batch, position: int | Tensor) -> Tensor:
        drawn = {name: self.draw(name, w, position) for name, w in state.params.items()}
        states = self.model.forward(drawn, batch, self.draws(position))
        loss = self.model.readout(drawn, states).loss
        lowest = state.slots["guess"]["lowest"]
        better = loss < lowest
        for name, w in state.params.items():
            w.copy_(torch.where(better.view(-1, *[1] * (w.dim() - 1)), drawn[name], w))
        lowest.copy_(torch.where(better, loss, lowest))
        return lowest.clone()

    def draw(self, name: str, w: Tensor, position: int | Tensor) -> Tensor:
        """New values for a parameter w [R, ...]; those of a frozen one stay."""
        positions = position[None] if isinstance(position, Tensor) else [position]
        words = self.streams[name].words(positions, w[0].numel())[0]
        free = [name not in one.freeze for one in self.settings]
        found = (2.0 * uniform(words, w.dtype) - 1.0).view_as(w) * like(self.number("scale"), w)
        return torch.where(torch.tensor(free, device=w.device).view(-1, *[1] * (w.dim() - 1)), found, w)
