"""Backpropagation through time (Werbos 1990), with two remedies of Pascanu, Mikolov and Bengio (2013).

    dE/da_t = (dE/da_{t+1} W_hh^T + dE_t/dh_t) * sigma'(a_t),   dE/dW_hh = sum_t h_{t-1}^T dE/da_t

clip_norm c: where the norm of the whole gradient exceeds c it is scaled to c (their algorithm 1).
omega lambda: adds lambda dOmega/dW_hh with (their eq. 10, in pre-activations, e_t = dE/da_t)

    Omega = (1/B) sum_b sum_t ( |(e_{t+1} W_hh^T) * sigma'(a_t)| / |e_{t+1}| - 1 )^2

where only the W_hh that stands in the formula is differentiated; e and a are constants (their eq. 11). Their program
averages over steps instead of summing, and takes squared norms: about (T - 1)/4 times less for the same lambda.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tprnn.config import member_class
from tprnn.core.products import norm, outer_sum, rows
from tprnn.core.streams import Seeds
from tprnn.errors import UserError
from tprnn.models.base import ADDITIVE, States
from tprnn.optimizers.base import like
from tprnn.settings import rate, setting
from tprnn.tasks.base import Batch
from tprnn.trainers.base import Costs, State, Trainer, TrainerSettings


@dataclass(frozen=True)
class BPTTSettings(TrainerSettings):
    """conf/trainer/bptt.yaml."""

    alpha: float = rate()
    clip_norm: float | None = setting(above=0.0, per_run=True)
    omega: float = setting(low=0.0, per_run=True)


_VANISHED = 1e-10  # an error whose norm is below takes no part in Omega (Pascanu's program: its square below 1e-20)


class BPTT(Trainer):
    """The exact gradient of E for every parameter, one rate alpha."""

    Settings = BPTTSettings

    def __init__(self, settings: Sequence[Any], seeds: Seeds, model: Any, optimizer: Any) -> None:
        super().__init__(settings, seeds, model, optimizer)
        self.limit: Tensor | None = None
        self.frozen: dict[str, Tensor] = {}
        if any(one.clip_norm is not None for one in self.settings):
            limits = [float("inf") if one.clip_norm is None else one.clip_norm for one in self.settings]
            self.limit = torch.tensor(limits, dtype=model.dtype, device=model.device)
            for name in self.shapes():
                frozen = [rate == 0.0 for rate in self.rate("alpha", name)]
                if any(frozen):
                    self.frozen[name] = torch.tensor(frozen, device=model.device)

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        super().check(config)
        model = config["model"]
        if config["trainer"]["omega"] > 0 and ADDITIVE not in member_class("model", model["rule"]).traits:
            raise UserError(f"trainer.omega: needs a network with one W_hh, not model={model['name']}; give 0")

    @classmethod
    def costs(cls, config: Mapping[str, Any]) -> Costs:
        return Costs(dependent=2, activated=1, rows=int(config["trainer"]["omega"] > 0), outer=1, buffers=3)

    def step(self, state: State, batch: Batch, position: int | Tensor) -> Tensor:
        model, params = self.model, state.params
        states = model.forward(params, batch, self.draws(position))
        readout = model.readout(params, states)
        da = model.adjoint(params, states, readout.dh)
        recurrence = [name for name in params if name not in model.reader.parameters]
        gradients = model.gradients(states, da, recurrence) | model.readout_gradients(states, readout)
        if any(one.omega for one in self.settings):
            W_hh = params["W_hh"]
            omega = like(self.number("omega"), W_hh)
            extra = omega * self.omega_gradient(W_hh, states, da)
            # a run without the regulariser takes nothing from the stack's, not even a nan
            gradients["W_hh"] += torch.where(omega > 0, extra, 0.0) if isinstance(omega, Tensor) else extra
        self.clip_(gradients)
        self.update(state, gradients, "alpha")
        return readout.loss

    def omega_gradient(self, W_hh: Tensor, states: States, da: Tensor) -> Tensor:
        """dOmega/dW_hh, [R, H, H]: the sum of 2 (|u|/|e| - 1) / (|u| |e|) (u * s)^T e with u = (e W_hh^T) * s."""
        _, T, B, _ = da.shape
        e = da[:, 1:]
        s = self.model.activation.slope(states.h[:, 1:T])
        u = torch.bmm(rows(e), W_hh.mT).view(s.shape) * s
        e_norm, u_norm = e.norm(dim=-1, keepdim=True), u.norm(dim=-1, keepdim=True)
        # an error that has all but vanished, or a step before the sequence, has no direction to preserve
        live = (e_norm > _VANISHED) & (u_norm > _VANISHED)
        for t, valid in enumerate(states.valid[: T - 1]):
            live[:, t] &= valid > 0
        # by directions: the product of two small norms would leave the range of float32
        left = torch.where(live, 2.0 / B * (u_norm / e_norm - 1.0), 0.0) * (u / u_norm.clamp(min=_VANISHED)) * s
        return outer_sum(left, e / e_norm.clamp(min=_VANISHED))

    def clip_(self, gradients: dict[str, Tensor]) -> None:
        """Scale each run's gradient to norm clip_norm where it is longer."""
        if self.limit is None:
            return
        for name, frozen in self.frozen.items():  # what does not learn does not count
            gradients[name].masked_fill_(frozen.view(-1, *[1] * (gradients[name].dim() - 1)), 0.0)
        # of the gradient divided by its largest entry, for the square of a large one would leave the range
        largest = torch.stack([g.flatten(1).abs().amax(1) for g in gradients.values()]).amax(0)  # [R]
        total = torch.stack([norm(g / like(largest, g)) for g in gradients.values()]).norm(dim=0) * largest
        scale = torch.where(total > self.limit, self.limit / total, 1.0)
        for g in gradients.values():
            g.mul_(like(scale, g))
