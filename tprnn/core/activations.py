"""Activations sigma: value, slope, and the exact displacement sigma(a + u) - sigma(a).

The displacement is the heart of carrying targets as delta_t = h_hat_t - h_t: two nearby activations are
never subtracted, so a tiny signal keeps its relative precision in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Tanh:
    """sigma(a) = tanh a."""

    def apply_(self, a: Tensor) -> Tensor:
        """sigma(a), in place."""
        return a.tanh_()

    def slope(self, h: Tensor, out: Tensor | None = None) -> Tensor:
        """sigma'(a) as a function of h = sigma(a): 1 - h^2."""
        out = torch.mul(h, h, out=out)
        return out.neg_().add_(1.0)

    def prepare_(self, a: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """What `displacement` needs of pre-activations a, all steps at once; overwrites a, `out` is scratch."""
        g = a.tanh_()
        return g, self.slope(g, out=out)

    def displacement(self, prepared: tuple[Tensor, Tensor], u: Tensor, out: Tensor) -> Tensor:
        """tanh(a + u) - tanh(a) = (1 - g^2) tau / (1 + g tau), tau = tanh u, g = tanh a. Overwrites u."""
        g, slope = prepared
        tau = u.tanh_()
        torch.mul(slope, tau, out=out)
        return out.div_(tau.mul_(g).add_(1.0))


class Sigmoid:
    """sigma(a) = 1 / (1 + exp(-a))."""

    def apply_(self, a: Tensor) -> Tensor:
        """sigma(a), in place."""
        return a.sigmoid_()

    def slope(self, h: Tensor, out: Tensor | None = None) -> Tensor:
        """sigma'(a) as a function of h = sigma(a): h (1 - h) = h - h^2."""
        out = torch.mul(h, h, out=out)
        return out.neg_().add_(h)

    def prepare_(self, a: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """What `displacement` needs of pre-activations a; overwrites a, `out` is scratch."""
        g = a.sigmoid_()
        slope = self.slope(g, out=out)
        return g.mul_(2.0).sub_(1.0), slope.mul_(2.0)

    def displacement(self, prepared: tuple[Tensor, Tensor], u: Tensor, out: Tensor) -> Tensor:
        """With sigma(a) = (1 + s)/2, s = tanh(a/2): sigma(a + u) - sigma(a) = 2 g (1 - g) tau / (1 + s tau).

        tau = tanh(u/2); 2 g (1 - g) = (1 - s^2)/2. Overwrites u.
        """
        s, twice_slope = prepared
        tau = u.mul_(0.5).tanh_()
        torch.mul(twice_slope, tau, out=out)
        return out.div_(tau.mul_(s).add_(1.0))


class Relu:
    """sigma(a) = max(a, 0); its slope at 0 is taken as 0."""

    def apply_(self, a: Tensor) -> Tensor:
        """sigma(a), in place."""
        return a.relu_()

    def slope(self, h: Tensor, out: Tensor | None = None) -> Tensor:
        """sigma'(a) as a function of h = sigma(a): 1 where h > 0."""
        return torch.sign(h, out=out)

    def prepare_(self, a: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """What `displacement` needs of pre-activations a; `out` is scratch."""
        return a, torch.clamp(a, min=0.0, out=out)

    def displacement(self, prepared: tuple[Tensor, Tensor], u: Tensor, out: Tensor) -> Tensor:
        """max(a + u, 0) - max(a, 0) without subtracting nearby numbers: max(u, -a) where a > 0. Overwrites u."""
        a, g = prepared
        inactive = torch.add(a, u, out=out).relu_()  # where a <= 0 the old value is 0
        active = torch.maximum(u, -g)
        return out.copy_(torch.where(a > 0, active, inactive))


Activation = Tanh | Sigmoid | Relu
ACTIVATIONS: dict[str, type[Tanh] | type[Sigmoid] | type[Relu]] = {"tanh": Tanh, "sigmoid": Sigmoid, "relu": Relu}
