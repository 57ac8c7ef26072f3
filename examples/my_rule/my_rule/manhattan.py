"""Manhattan rule: every weight moves by the same amount against the sign of its gradient.

w <- w - alpha sign(dE/dw)
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tprnn.settings import rate
from tprnn.tasks.base import Batch
from tprnn.trainers.base import State, Trainer, TrainerSettings


@dataclass(frozen=True)
class ManhattanSettings(TrainerSettings):
    """conf/trainer/manhattan.yaml."""

    alpha: float = rate()


class Manhattan(Trainer):
    """The sign of the exact gradient, for every parameter."""

    Settings = ManhattanSettings

    def step(self, state: State, batch: Batch, position: int | Tensor) -> Tensor:
        model, params = self.model, state.params
        states = model.forward(params, batch, self.draws(position))
        readout = model.readout(params, states)
        da = model.adjoint(params, states, readout.dh)  # dE/da_t of all pre-activations
        gradients = model.gradients(states, da, model.parameters)
        gradients |= model.readout_gradients(states, readout)
        self.update(state, {name: g.sign_() for name, g in gradients.items()}, "alpha")
        return readout.loss
