"""Mixture of Gaussians (Bishop 1994; manchev2024 section 4): K parts, each around mu_k with one width s_k.

    pi = softmax(h W_pi + b_pi),  mu = h W_mu + b_mu,  s = exp(h W_s + b_s)
    l  = -log sum_k pi_k N(target; mu_k, s_k^2 I)

With z_k = (target - mu_k) / s_k and the posterior q_k = pi_k N_k / sum_j pi_j N_j:

    dl/d log pi_k before the softmax = pi_k - q_k,   dl/dmu_k = -q_k z_k / s_k,   dl/d log s_k = q_k (D - |z_k|^2)

Shapes: W_pi [R, H, K], W_mu [R, H, K D] (part k's D values beside each other), W_s [R, H, K], biases alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tprnn.readouts.base import Readout, Tensors
from tprnn.readouts.linear import gaussian
from tprnn.settings import setting


@dataclass(frozen=True)
class MixtureSettings:
    """conf/readout/mixture.yaml."""

    K: int = setting(low=1)


class Mixture(Readout):
    """D values for each output, of which several answers may be right."""

    Settings = MixtureSettings
    targets = "values"
    parameters = ("W_pi", "b_pi", "W_mu", "b_mu", "W_s", "b_s")

    @property
    def width(self) -> int:
        return int(self.settings.K) * (self.outputs + 2)

    @property
    def parts(self) -> list[int]:
        """How many raw outputs say pi, mu and log s."""
        K = self.settings.K
        return [K, K * self.outputs, K]

    @property
    def uniforms(self) -> int:
        return 1 + 2 * self.outputs

    def shapes(self, H: int) -> dict[str, tuple[int, ...]]:
        names = zip(self.parameters[::2], self.parameters[1::2], self.parts, strict=True)
        return {name: shape for W, b, n in names for name, shape in ((W, (H, n)), (b, (n,)))}

    def weights(self, params: Tensors) -> tuple[Tensor, Tensor]:
        W, b = (torch.cat([params[name] for name in self.parameters[i::2]], -1) for i in (0, 1))
        return W, b

    def by_parameter(self, dW: Tensor, db: Tensor) -> dict[str, Tensor]:
        names = zip(self.parameters[::2], self.parameters[1::2], strict=True)
        pieces = zip(dW.split(self.parts, -1), db.split(self.parts, -1), strict=True)
        found = zip(names, pieces, strict=True)
        return {name: g.contiguous() for (W, b), (gW, gb) in found for name, g in ((W, gW), (b, gb))}

    def _parts(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log pi [..., K], mu [..., K, D] and log s [..., K]."""
        logits, mu, log_s = y.split(self.parts, -1)
        return torch.log_softmax(logits, -1), mu.unflatten(-1, (-1, self.outputs)), log_s

    def each(self, y: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        D = self.outputs
        log_pi, mu, log_s = self._parts(y)
        z = (targets.unsqueeze(-2) - mu) * (-log_s).exp().unsqueeze(-1)
        far = z.square().sum(-1)  # |z_k|^2
        log_p = log_pi - 0.5 * far - D * (log_s + 0.5 * math.log(2.0 * math.pi))
        q = torch.softmax(log_p, -1)
        d_mu = (q * (-log_s).exp()).unsqueeze(-1) * -z
        return -torch.logsumexp(log_p, -1), torch.cat([log_pi.exp() - q, d_mu.flatten(-2), q * (D - far)], -1)

    def mean(self, y: Tensor) -> Tensor:
        log_pi, mu, _ = self._parts(y)
        return (log_pi.exp().unsqueeze(-1) * mu).sum(-2)

    def sample(self, y: Tensor, u: Tensor) -> Tensor:
        log_pi, mu, log_s = self._parts(y)
        part = (u[..., :1] >= log_pi.exp().cumsum(-1)[..., :-1]).sum(-1, keepdim=True)
        chosen = mu.gather(-2, part.unsqueeze(-1).expand(*part.shape, self.outputs)).squeeze(-2)
        return chosen + gaussian(u[..., 1:]) * log_s.gather(-1, part).exp()
