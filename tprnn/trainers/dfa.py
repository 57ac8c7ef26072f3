"""Direct feedback alignment through time (Nokland 2016, on the network unrolled in time).

The error of an output goes through one fixed random matrix B_yh straight to every step before it, past W_hy and W_hh:

    da_t = (sum_{s >= t} dE/dy_s B_yh) * sigma'(a_t)                     Nokland's rule, a layer being a step
    W_xh, W_hh, b_h follow -alpha sum_t da_t . da_t/dw,  with h_{t-1} held fixed
    W_hy, b_y follow -alpha grad E

With one output every step gets the same error, dE/dy_T B_yh. Nokland allows one B for all layers of the same width, and
the steps of a recurrent network are such layers; a matrix for each delay would tie the rule to one T. Nothing waits for
a later step, so only the forward pass is sequential (Cossu et al. 2026 use it in recurrent networks for that reason).
Random feedback of an online rule (Murray 2019) filters h_{t-1} instead of sending errors back in time: another rule.

B_yh is `scale` times a matrix drawn as the others are, by a stream of its own, and never learns. Its size is free: for
plain gradient steps it is a factor on the rate of the recurrence. The same error at T steps adds up where a
backpropagated one would turn and fade, so that B_yh as large as W_hy drives units into saturation.
Shapes: B_yh [R, O, H], da [R, T, B, H].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tprnn.core import scans
from tprnn.core.products import row_product
from tprnn.core.work import chunks
from tprnn.models.base import ADDITIVE, GRADIENT, States
from tprnn.optimizers.base import like
from tprnn.readouts.base import Tensors
from tprnn.settings import rate, setting
from tprnn.tasks.base import Batch
from tprnn.trainers.base import Costs, State, Trainer, TrainerSettings


@dataclass(frozen=True)
class DFASettings(TrainerSettings):
    """conf/trainer/dfa.yaml."""

    alpha: float = rate()
    scale: float = setting(above=0.0, per_run=True)


class DFA(Trainer):
    """Errors of outputs at all earlier steps at once, by fixed random weights."""

    Settings = DFASettings
    needs = frozenset({GRADIENT, ADDITIVE})
    extra = ("B_yh",)
    fixed = ("B_yh",)

    @classmethod
    def costs(cls, config: Mapping[str, Any]) -> Costs:
        return Costs(dependent=1, activated=1, rows=0, outer=1, buffers=3)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return super().shapes() | {"B_yh": (self.model.reader.width, self.model.H)}

    def start_one(self, name: str, shape: tuple[int, ...]) -> Tensor:
        B_yh = super().start_one(name, shape)
        return B_yh * like(self.number("scale"), B_yh)

    def step(self, state: State, batch: Batch, position: int | Tensor) -> Tensor:
        model, params = self.model, state.params
        states = model.forward(params, batch, self.draws(position))
        readout = model.readout(params, states)
        gradients = model.readout_gradients(states, readout)
        gradients |= model.gradients(states, self.signal(params, states, readout.dy), ("W_xh", "W_hh", "b_h"))
        self.update(state, gradients, "alpha")
        return readout.loss

    def signal(self, params: Tensors, states: States, dy: Tensor) -> Tensor:
        """da_t at all pre-activations, [R, T, B, H], from dE/dy of the last S steps, [R, S, B, O]."""
        h = states.h[:, 1:]
        T, S = h.shape[1], dy.shape[1]
        if S > 1:
            dy = dy.clone()
            for s in range(S - 2, -1, -1):  # sum over all outputs from s on; in this order on every device
                dy[:, s].add_(dy[:, s + 1])
        da = self.model.work.tensor("delta", *h.shape)
        if self.model.compiled:
            errors, start = (scans.array(dy), scans.array(params["B_yh"])), scans.starts(states.batch.start, len(h))
            scans.kernels().spread(da.numpy(), states.h.numpy(), *errors, start)
            return da
        error = row_product(dy, params["B_yh"])
        da[:, : T - S] = error[:, :1]
        da[:, T - S :] = error
        for first, last in chunks(T, da):
            part = da[:, first:last]
            self.model.activation.back(part, h[:, first:last], out=part)
        return self.model.mask_(states, da)
