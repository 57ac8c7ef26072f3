"""Target propagation through time with a fixed random inverse (feedback alignment for TPTT).

manchev2020's discussion suggests it: no G phase, after the random feedback weights of Lillicrap et al. (2016) and, for
difference target propagation, fixed-weight DTP (Shibuya et al. 2023). Everything else is `tptt`:

    G(x_t, h_t) = sigma(x_t W_xh + h_t V_hh + c_h), V_hh as it was drawn, c_h = 0       Eq. 7 without Eq. 9
    h_hat_t = h_t - G(x_{t+1}, h_{t+1}) + G(x_{t+1}, h_hat_{t+1})                       Eq. 8

W_xh inside G is F's, so that G moves all the same, with W_xh.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from tprnn.models.base import States
from tprnn.settings import rate, setting
from tprnn.trainers.base import Costs, State, TrainerSettings
from tprnn.trainers.tptt import TPTT


@dataclass(frozen=True)
class TPTTFixedSettings(TrainerSettings):
    """conf/trainer/tptt_fixed.yaml."""

    alpha_i: float = rate()
    alpha_f: float = rate()
    wxh: str = setting(choices=("gradient", "local"))
    difference_correction: bool = setting()
    targets: str = setting(choices=("displacement", "absolute"))

    # what tptt is told of the training of G; here there is none
    noise: ClassVar[float] = 0.0
    phases: ClassVar[str] = "alternate"
    p_g: ClassVar[float] = 0.0
    reading: ClassVar[str] = "released"


class TPTTFixed(TPTT):
    """Targets by an inverse that never learns."""

    Settings = TPTTFixedSettings
    fixed = ("V_hh", "c_h")
    recurrent = ()  # the radius of V_hh never changes

    @classmethod
    def costs(cls, config: Mapping[str, Any]) -> Costs:
        # those of tptt without the forward pass of G at the states and the gradient of V_hh
        return replace(super().costs(config), rows=1, outer=1, buffers=5)

    def inverse_step(
        self, state: State, states: States, dh: Tensor, position: int | Tensor, active: Tensor | None
    ) -> None:
        """G stays as it was drawn."""
