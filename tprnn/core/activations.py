"""Activations sigma: value, slope, and the exact displacement sigma(a + u) - sigma(a).

The displacement is the heart of carrying targets as delta_t = h_hat_t - h_t: two nearby activations are
never subtracted, so a tiny signal keeps its relative precision in float32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

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

    def anchor(self, a: Tensor, out: Tensor) -> Tensor:
        """What `Shift` keeps of the place a that it starts from: tanh(a)."""
        return torch.tanh(a, out=out)

    def shift(self, s: Shift) -> Callable[[Tensor], Tensor]:
        """With y = tanh(a), v = tanh(a + u): tanh(u) (1 - y v) and the slope 1 - v^2; their brackets are one call."""
        place, moved, one, both, v, brackets, tau, bracket = _parts(s)
        tanh, addcmul, mul = torch.tanh, torch.addcmul, torch.mul

        def shifted(out: Tensor) -> Tensor:
            tanh(place, out=moved)
            addcmul(one, both, v, value=-1.0, out=brackets)
            return mul(tau, bracket, out=out)

        return shifted

    def bend(self, h: Tensor) -> Tensor:
        """sigma''(a) / sigma'(a) as a function of h = sigma(a): -2 h."""
        return h * -2.0

    def slope_gap(self, h: Tensor, delta: Tensor, slope: Tensor) -> Tensor:
        """sigma'(a + u) - sigma'(a) where sigma moves from h by delta, to the slope given: -delta (2 h + delta)."""
        return -delta * (2.0 * h + delta)


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

    def anchor(self, a: Tensor, out: Tensor) -> Tensor:
        """What `Shift` keeps of the place a that it starts from: tanh(a/2)."""
        return torch.mul(a, 0.5, out=out).tanh_()

    def shift(self, s: Shift) -> Callable[[Tensor], Tensor]:
        """With y = tanh(a/2), v = tanh((a + u)/2): tanh(u/2) (1 - y v) / 2 and the slope (1 - v^2) / 4."""
        place, moved, one, both, v, brackets, tau, bracket = _parts(s)

        def shifted(out: Tensor) -> Tensor:
            torch.mul(place, 0.5, out=moved).tanh_()
            torch.addcmul(one, both, v, value=-1.0, out=brackets).mul_(0.5)
            torch.mul(tau, bracket, out=out)
            s.slope.mul_(0.5)
            return out

        return shifted

    def bend(self, h: Tensor) -> Tensor:
        """sigma''(a) / sigma'(a) as a function of h = sigma(a): 1 - 2 h."""
        return h * -2.0 + 1.0

    def slope_gap(self, h: Tensor, delta: Tensor, slope: Tensor) -> Tensor:
        """sigma'(a + u) - sigma'(a) where sigma moves from h by delta, to the slope given: delta (1 - 2 h - delta)."""
        return delta * (1.0 - 2.0 * h - delta)


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

    def anchor(self, a: Tensor, out: Tensor) -> Tensor:
        """What `Shift` keeps of the place a that it starts from: a."""
        return out.copy_(a)

    def shift(self, s: Shift) -> Callable[[Tensor], Tensor]:
        """max(u, -a) where a > 0, else max(a + u, 0); the slope is 1 where a + u > 0."""

        def shifted(out: Tensor) -> Tensor:
            there = torch.relu(s.there)
            torch.sign(there, out=s.slope)
            return out.copy_(torch.where(s.start > 0, torch.maximum(s.u, -s.start), there))

        return shifted

    def bend(self, h: Tensor) -> Tensor:
        """sigma''(a) / sigma'(a): 0."""
        return torch.zeros_like(h)

    def slope_gap(self, h: Tensor, delta: Tensor, slope: Tensor) -> Tensor:
        """sigma'(a + u) - sigma'(a) where sigma moves from h by delta, to the slope given: 0, 1 or -1."""
        return slope - torch.sign(h)


class Shift:
    """Scratch for sigma(a + u) - sigma(a) together with sigma'(a + u), where u changes often and a seldom.

    `activation.shift(scratch)` is a function that writes the displacement into its argument and the slope into `slope`.
    Neighbouring rows of one buffer: each pass over them is then one call.
    """

    def __init__(self, like: Tensor) -> None:
        self.place = like.new_zeros(2, *like.shape)
        """a + u, then u: one addition moves both."""
        self.there, self.u = self.place.unbind(0)
        self.kept = like.new_zeros(3, *like.shape)
        self.start, self.v, _ = self.kept.unbind(0)
        """What `anchor` keeps of a."""
        self.brackets = like.new_zeros(2, *like.shape)
        self.slope = self.brackets[1]
        """sigma'(a + u)."""


def _parts(s: Shift) -> tuple[Tensor, ...]:
    return s.place, s.kept[1:], _one(s.place), s.kept[:2], s.v, s.brackets, s.kept[2], s.brackets[0]


def _one(like: Tensor) -> Tensor:
    """A 1 that broadcasts: passing the number itself costs a conversion per call, as much as a small product."""
    return _ones(like.dtype, like.device)


@functools.cache
def _ones(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.ones((), dtype=dtype, device=device)


Activation = Tanh | Sigmoid | Relu
ACTIVATIONS: dict[str, type[Tanh] | type[Sigmoid] | type[Relu]] = {"tanh": Tanh, "sigmoid": Sigmoid, "relu": Relu}
