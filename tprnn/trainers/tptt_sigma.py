"""Target propagation through time with adaptive noise in the training of the inverse (DTP-sigma).

Ororbia and Mali (2019), "Biologically motivated algorithms for propagating local target representations": the standard
deviation of the noise is a function of the local loss, as manchev2020's discussion tells it. Which function is our
choice, made so that the noise has the unit of a state:

    L_t       = (1/BH) sum_{b,i} (h_hat_t - h_t)^2 = MSE(F(x_t, h_{t-1}), h_hat_t)       the local loss of Eq. 10
    epsilon_t ~ N(0, sigma_t),  sigma_t = noise sqrt(L_t)
    V_hh, c_h follow -alpha_g grad sum_t MSE(G(x_t, F(x_t, h_{t-1} + epsilon_t)), h_{t-1} + epsilon_t)  section 3.1.2

With noise = 1 the inverse of step t is trained in a neighbourhood of h_t as wide as the displacement that it will have
to carry, whatever alpha_i and however far the targets have shrunk on their way. The targets behind L_t are those of G
before its step. Everything else is `tptt`, and all of it where noise = 0. L_t has the shape [R, T].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from tprnn.models.base import States
from tprnn.trainers.base import Costs, State
from tprnn.trainers.tptt import TPTT, TPTTSettings, shaped


@dataclass(frozen=True)
class TPTTSigmaSettings(TPTTSettings):
    """conf/trainer/tptt_sigma.yaml; `noise` in units of the root of the local loss."""


class TPTTSigma(TPTT):
    """G learns where its targets will be."""

    Settings = TPTTSigmaSettings

    @classmethod
    def costs(cls, config: Mapping[str, Any]) -> Costs:
        plain = super().costs(config)
        if config["trainer"]["noise"] == 0:
            return plain
        # targets before the G step, with G at their steps
        return replace(plain, dependent=plain.dependent + 1, activated=plain.activated + 1, rows=plain.rows + 1)

    def inverse_step(
        self, state: State, states: States, dh: Tensor, position: int | Tensor, active: Tensor | None
    ) -> None:
        """The G step; the noise of each time step has a standard deviation of its own."""
        deviation = shaped(self.noise)
        if self.noisy:
            delta = self.targets(state.params, states, dh)
            _, _, B, H = delta.shape
            deviation = deviation * (self.model.lengths(delta) / (B * H) ** 0.5)[:, :, None, None]  # noise sqrt(L_t)
        gradients = self.inverse_gradients(state.params, states, position, deviation)
        self.update(state, gradients, "alpha_g", active)
