"""Activations sigma: value, slope, and the exact displacement sigma(a + u) - sigma(a).

The displacement is the heart of carrying targets as delta_t = h_hat_t - h_t: two nearby activations are
never subtracted, so a tiny signal keeps its relative precision in float32.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor, Tensor, Tensor]
"""Scratch of `displacement`: [2, ...], its two halves, of which the first brings u = delta V, and a 1.

One call takes both activations. The 1 is a tensor because passing the number costs a conversion per call.
"""


def pair_like(x: Tensor) -> Pair:
    """Scratch for displacements of the shape of x."""
    both = x.new_empty(2, *x.shape)
    return both, both[0], both[1], _one(x)


# looked up once: the way through torch.ops costs as much as a small activation
_tanh_backward = torch.ops.aten.tanh_backward.grad_input
_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_threshold_backward = torch.ops.aten.threshold_backward.grad_input


class Tanh:
    """sigma(a) = tanh a."""

    apply_ = staticmethod(torch.tanh_)

    def slope(self, h: Tensor, out: Tensor | None = None) -> Tensor:
        """sigma'(a) as a function of h = sigma(a): 1 - h^2."""
        return torch.addcmul(_one(h), h, h, value=-1.0, out=out)

    def back(self, g: Tensor, h: Tensor, out: Tensor) -> Tensor:
        """g * sigma'(a), in one pass."""
        return _tanh_backward(g, h, grad_input=out)

    def opposite(self, a: Tensor, out: Tensor) -> Tensor:
        """-tanh(a)."""
        return torch.neg(a, out=out).tanh_()

    def displacement(self, a: Tensor, b: Tensor, pair: Pair, out: Tensor) -> Tensor:
        """tanh(a + u) - tanh(a) = tanh(u) (1 - tanh(a) tanh(a + u)), with b = -tanh(a)."""
        both, u, v, one = pair
        torch.add(a, u, out=v)
        both.tanh_()
        return torch.addcmul(one, b, v, out=out).mul_(u)


class Sigmoid:
    """sigma(a) = 1 / (1 + exp(-a))."""

    apply_ = staticmethod(torch.sigmoid_)

    def slope(self, h: Tensor, out: Tensor | None = None) -> Tensor:
        """sigma'(a) as a function of h = sigma(a): h (1 - h) = h - h^2."""
        return torch.addcmul(h, h, h, value=-1.0, out=out)

    def back(self, g: Tensor, h: Tensor, out: Tensor) -> Tensor:
        """g * sigma'(a), in one pass."""
        return _sigmoid_backward(g, h, grad_input=out)

    def opposite(self, a: Tensor, out: Tensor) -> Tensor:
        """-tanh(a/2)."""
        return torch.mul(a, -0.5, out=out).tanh_()

    def displacement(self, a: Tensor, b: Tensor, pair: Pair, out: Tensor) -> Tensor:
        """sigma(a + u) - sigma(a) = tanh(u/2) (1 - tanh(a/2) tanh((a + u)/2)) / 2, with b = -tanh(a/2)."""
        both, u, v, one = pair
        torch.add(a, u, out=v)
        both.mul_(0.5).tanh_()
        return torch.addcmul(one, b, v, out=out).mul_(u).mul_(0.5)


class Relu:
    """sigma(a) = max(a, 0); its slope at 0 is taken as 0."""

    apply_ = staticmethod(torch.relu_)

    def slope(self, h: Tensor, out: Tensor | None = None) -> Tensor:
        """sigma'(a) as a function of h = sigma(a): 1 where h > 0."""
        return torch.sign(h, out=out)

    def back(self, g: Tensor, h: Tensor, out: Tensor) -> Tensor:
        """g * sigma'(a), in one pass."""
        return _threshold_backward(g, h, 0, grad_input=out)

    def opposite(self, a: Tensor, out: Tensor) -> Tensor:
        """-a."""
        return torch.neg(a, out=out)

    def displacement(self, a: Tensor, b: Tensor, pair: Pair, out: Tensor) -> Tensor:
        """max(a + u, 0) - max(a, 0) without subtracting nearby numbers: max(u, b) where a > 0, with b = -a."""
        _, u, v, _ = pair
        torch.add(a, u, out=v)
        return out.copy_(torch.where(a > 0, torch.maximum(u, b), v.relu_()))


def _one(like: Tensor) -> Tensor:
    """A 1 that broadcasts: passing the number itself costs a conversion per call, as much as a small product."""
    return _ones(like.dtype, like.device)


@functools.cache
def _ones(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.ones((), dtype=dtype, device=device)


Activation = Tanh | Sigmoid | Relu
ACTIVATIONS: dict[str, type[Tanh] | type[Sigmoid] | type[Relu]] = {"tanh": Tanh, "sigmoid": Sigmoid, "relu": Relu}
