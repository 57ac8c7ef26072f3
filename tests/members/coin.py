"""A network whose states are drawn: units that are 1 with probability sigma(a_t), else 0; M draws of each sequence.

    a_t = x_t W_xh + h_{t-1} W_hh + b_h,  P(h_t = 1) = sigma(a_t)

Nothing of it is differentiated: it has no trait, and rules that only look at losses train it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tprnn.core.init import INITIALISATIONS
from tprnn.core.streams import Draws
from tprnn.models.base import Model, ModelSettings, States
from tprnn.readouts.base import Tensors
from tprnn.settings import setting
from tprnn.tasks.base import Batch, Task


@dataclass(frozen=True)
class CoinSettings(ModelSettings):
    """conf/model/coin.yaml."""

    H: int = setting(low=1)
    M: int = setting(low=1)


class Coin(Model):
    """One layer of H binary units."""

    Settings = CoinSettings
    parameters = ("W_xh", "W_hh", "b_h")
    recurrent = ("W_hh",)
    traits = frozenset()
    drawn = True

    def __init__(self, settings: CoinSettings, task: Task, dtype: torch.dtype, device: str | torch.device) -> None:
        super().__init__(settings, task, dtype, device)
        self.H, self.M = settings.H, settings.M
        self.starts = next(iter(INITIALISATIONS.values()))

    def recurrence(self) -> dict[str, tuple[int, ...]]:
        return {"W_xh": (self.inputs, self.H), "W_hh": (self.H, self.H), "b_h": (self.H,)}

    def forward(self, params: Tensors, batch: Batch, draws: Draws | None = None) -> States:
        assert draws is not None
        batch = batch.repeated(self.M)
        R, T, B = batch.inputs.shape[:3]
        u = draws.uniforms(T, B, self.H, self.dtype)
        x = self.input_part(params, batch, params["b_h"], self.work.tensor("x", R, T, B, self.H))
        h = torch.zeros(R, T + 1, B, self.H, dtype=self.dtype, device=self.device)
        valid = [one.view(R, B, 1) for one in self.valid(batch)]
        for t in range(T):
            p = torch.baddbmm(x[:, t], h[:, t], params["W_hh"]).sigmoid()
            h[:, t + 1] = (u[:, t] < p).to(self.dtype)
            if t < len(valid):
                h[:, t + 1] *= valid[t]
        return States(h, list(h.unbind(1)), valid, batch)
