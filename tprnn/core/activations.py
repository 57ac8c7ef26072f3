"""Activations sigma: value, slope, and the exact displacement sigma(a + u) - sigma(a).

The displacement is the heart of carrying targets as delta_t = h_hat_t - h_t: two nearby activations are
never subtracted, so a tiny signal keeps its relative precision in float32.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

# looked up once: the way through torch.ops costs as much as a small activation
_tanh_backward = torch.ops.aten.tanh_backward.grad_input
_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_threshold_backward = torch.ops.aten.threshold_backward.grad_input


class Tanh:
    """sigma(a) = tanh a."""

    def apply_(self, a: Tensor) -> Tensor:
        """sigma(a), in place."""
        return a.tanh_()

    def slope(self, h: Tensor, out: Tensor | None = None) -> Tensor:
        """sigma'(a) as a function of h = sigma(a): 1 - h^2."""
        return torch.addcmul(_one(h), h, h, value=-1.0, out=out)

    def back(self, g: Tensor, h: Tensor, out: Tensor) -> Tensor:
        """g * sigma'(a), in one pass."""
        return _tanh_backward(g, h, grad_input=out)

    def displacement(self, a: Tensor, g: Tensor, u: Tensor, out: Tensor) -> Tensor:
        """tanh(a + u) - tanh(a) = tanh(u) (1 - tanh(a) tanh(a + u)), with g = tanh(a). Overwrites u."""
        torch.addcmul(_one(u), g, torch.add(a, u, out=out).tanh_(), value=-1.0, out=out)
        return out.mul_(u.tanh_())


class Sigmoid:
    """sigma(a) = 1 / (1 + exp(-a))."""

    def apply_(self, a: Tensor) -> Tensor:
        """sigma(a), in place."""
        return a.sigmoid_()

    def slope(self, h: Tensor, out: Tensor | None = None) -> Tensor:
        """sigma'(a) as a function of h = sigma(a): h (1 - h) = h - h^2."""
        return torch.addcmul(h, h, h, value=-1.0, out=out)

    def back(self, g: Tensor, h: Tensor, out: Tensor) -> Tensor:
        """g * sigma'(a), in one pass."""
        return _sigmoid_backward(g, h, grad_input=out)

    def displacement(self, a: Tensor, g: Tensor, u: Tensor, out: Tensor) -> Tensor:
        """sigma(a + u) - sigma(a) = tanh(u/2) (1 - tanh(a/2) tanh((a + u)/2)) / 2; tanh(a/2) = 2 g - 1."""
        s_hat = torch.add(a, u, out=out).mul_(0.5).tanh_()
        torch.addcmul(_one(u), g.mul(2.0).sub_(1.0), s_hat, value=-1.0, out=out)
        return out.mul_(u.mul_(0.5).tanh_()).mul_(0.5)


class Relu:
    """sigma(a) = max(a, 0); its slope at 0 is taken as 0."""

    def apply_(self, a: Tensor) -> Tensor:
        """sigma(a), in place."""
        return a.relu_()

    def slope(self, h: Tensor, out: Tensor | None = None) -> Tensor:
        """sigma'(a) as a function of h = sigma(a): 1 where h > 0."""
        return torch.sign(h, out=out)

    def back(self, g: Tensor, h: Tensor, out: Tensor) -> Tensor:
        """g * sigma'(a), in one pass."""
        return _threshold_backward(g, h, 0, grad_input=out)

    def displacement(self, a: Tensor, g: Tensor, u: Tensor, out: Tensor) -> Tensor:
        """max(a + u, 0) - max(a, 0) without subtracting nearby numbers: max(u, -a) where a > 0."""
        return out.copy_(torch.where(a > 0, torch.maximum(u, -a), torch.relu(a + u)))


def _one(like: Tensor) -> Tensor:
    """A 1 that broadcasts: passing the number itself costs a conversion per call, as much as a small product."""
    return _ones(like.dtype, like.device)


@functools.cache
def _ones(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.ones((), dtype=dtype, device=device)


Activation = Tanh | Sigmoid | Relu
ACTIVATIONS: dict[str, type[Tanh] | type[Sigmoid] | type[Relu]] = {"tanh": Tanh, "sigmoid": Sigmoid, "relu": Relu}
