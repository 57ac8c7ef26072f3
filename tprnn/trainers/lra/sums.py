"""The sums over steps of lra (manchev2025, Algorithm 1, lines 16 to 18 and 28), each step's gradient normalised first.

No matrix of a single step is formed: ||x^T d||^2 = sum_{b, b'} (x x^T)_{b b'} (d d^T)_{b b'} takes products of rows of
the batch only, and sum_t s_t x_t^T d_t is one product with rows that are scaled.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tprnn.core.directions import Omega, normalizer, omega, unit
from tprnn.core.products import outer_sum, rows
from tprnn.models.base import Model, States
from tprnn.optimizers.base import like
from tprnn.readouts.base import Tensors
from tprnn.trainers.lra.local import Inner
from tprnn.trainers.lra.released import Released

Record = dict[str, Tensor] | None
"""Where `layers` collects what it shows."""


@dataclass(frozen=True)
class Sums:
    """How the gradients of single steps are regularised, normalised and summed."""

    model: Model
    inner: Inner
    c_0: Tensor | float
    with_omega: bool
    regularized: tuple[str, ...]
    """Which of W_hh, b_h, W_xh Omega is added to."""
    first_loss: bool
    """Whether the first step of a sequence has a local loss (and Omega)."""

    def local(self, params: Tensors, states: States, g: Tensor, seen: Record) -> dict[str, Tensor]:
        """sum_t Normalize(dL_t/dw + lambda dOmega_t/dw, c_0) of the local signals g = dL_t/da_t, [R, T, B, H]."""
        self.without_first_(states, g)
        terms = self.omega_terms(params, states, g) if self.with_omega else None
        wanted = seen is not None or ((isinstance(self.c_0, Tensor) or self.c_0 > 0) and not self.short(states, g))
        gradients: dict[str, Tensor] = {}
        crosses: dict[bool, tuple[Tensor, Tensor]] = {}
        for name in ("W_hh", "b_h", "W_xh"):
            d, explicit = g, None
            regularized = terms is not None and name in self.regularized
            if terms is not None and regularized:
                d = g.clone()
                d[:, :-1] += terms[0]
                explicit = terms[1:] if name == "W_hh" else None
            norm = None
            if wanted:
                if name == "b_h":
                    norm = unit(d.sum(2, keepdim=True))[1]
                elif explicit is not None:
                    norm = self.explicit_norms(states, d, *explicit)
                else:
                    if regularized not in crosses:
                        crosses[regularized] = gram(d)
                    norm = joined_norms(self.input_gram(states, name), *crosses[regularized])
            factor = self.factor(norm, seen, name)
            scaled = d if factor is None else d * factor
            gradients |= self.model.gradients(states, scaled, (name,))
            if explicit is not None:
                left, right = explicit
                gradients[name] += outer_sum(left if factor is None else left * factor[:, :-1], right)
        return gradients

    def without_first_(self, states: States, g: Tensor) -> Tensor:
        """Zeros, in place, at the first step of each sequence where it has no local loss; [R, T', B, H]."""
        if not self.first_loss:
            g[:, 0].zero_()
            for t, begun in enumerate(states.valid[: g.shape[1] - 1]):  # a sequence that had begun by the step before
                g[:, t + 1].mul_(begun)
        return g

    def short(self, states: States, g: Tensor) -> bool:
        """Whether no gradient of a step can be as long as c_0, by ||x^T d|| <= ||x|| ||d||: asked on a CPU alone."""
        if not self.model.compiled or self.with_omega or self.inner.force:
            return False
        _, _, B, H = g.shape
        size = (B * H) ** 0.5  # ||z_t|| is less
        if not states.batch.tokens:
            size = max(size, float(states.batch.inputs.flatten(2).norm(dim=2).amax()))
        bound = size * g.flatten(2).norm(dim=2).amax(1)  # [R]
        limit = like(self.c_0, bound)
        return bool((bound < 0.999 * limit).all())

    def omega_terms(self, params: Tensors, states: States, g: Tensor) -> Omega:
        """lambda times the derivatives of Omega_t for t = 1..T-1 (eq. 5 to 7), `left` with its sigma'(a_t)."""
        activation, T = self.model.activation, g.shape[1]
        error = self.model.mask_(states, g[:, 1:].clone())  # of sequences that have begun by step t
        self.without_first_(states, error)
        h = states.h[:, 1:T]
        slope = activation.slope(h)
        p = torch.bmm(rows(error), params["W_hh"].mT).view(error.shape).mul_(slope)
        da, left, right = omega(error, p, activation.bend(h), self.inner.omega_form)
        lam = like(self.inner.omega, h)
        return da * lam, left * slope * lam, right

    def input_gram(self, states: States, name: str) -> Tensor:
        """x_t x_t^T of what a weight multiplies, [R, T, B, B]."""
        x = states.batch.inputs
        if name == "W_xh" and states.batch.tokens:  # x_b x_b' = 1 where the tokens agree
            return (x.unsqueeze(3) == x.unsqueeze(2)).to(states.h.dtype)
        x = states.h[:, :-1] if name == "W_hh" else x
        return x @ x.mT

    def explicit_norms(self, states: States, d: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """||z_{t-1}^T d_t + left_t^T right_t||, as of one product with twice the rows."""
        nothing = torch.zeros_like(d[:, -1:])
        x = torch.cat([states.h[:, :-1], torch.cat([left, nothing], 1)], 2)
        return joined_norms(x @ x.mT, *gram(torch.cat([d, torch.cat([right, nothing], 1)], 2)))

    def through_time(self, released: Released, seen: Record) -> dict[str, Tensor]:
        """The same sum of the gradients that the released program has, which are there step by step."""
        if self.model.compiled and seen is None:
            return released.sums(self.c_0, self.regularized if self.with_omega else ())
        extra = released.omega_gradients() if self.with_omega else None
        found = {}
        for name, g in released.gradients().items():
            if extra is not None and name in self.regularized:
                g = g + like(self.inner.omega, g) * extra[name]
            if self.inner.released and name == "b_h":  # the program has no limit of it
                found[name] = g.sum(1)
                continue
            factor = self.factor(unit(g if g.dim() == 4 else g.unsqueeze(2))[1], seen, name)
            found[name] = (g if factor is None else g * factor.view(*g.shape[:2], *[1] * (g.dim() - 2))).sum(1)
        return found

    def factor(self, norm: Tensor | None, seen: Record, name: str) -> Tensor | None:
        """What each step's gradient is multiplied with, by its norm [R, T, 1, 1]."""
        if norm is None:
            return None
        factor = normalizer(norm, like(self.c_0, norm), self.inner.force)
        if seen is not None and name != "b_h":
            seen[f"norm_{name}"] = (norm if factor is None else norm * factor)[:, :, 0, 0]
        return factor


def gram(d: Tensor) -> tuple[Tensor, Tensor]:
    """d d^T of d / ||d||, and ||d||: the square of a signal that has all but vanished would leave the range."""
    d, length = unit(d)
    return d @ d.mT, length


def joined_norms(inputs: Tensor, signals: Tensor, length: Tensor) -> Tensor:
    """||x_t^T d_t||, [R, T, 1, 1], from x_t x_t^T and `gram` of d_t."""
    return (inputs * signals).sum((2, 3), keepdim=True).clamp(min=0.0).sqrt() * length


class Seen:
    """What `layers` shows of the way back, written down in float64 as it goes by."""

    def __init__(self, inner: Inner, last: Tensor, T: int, seen: dict[str, Tensor]) -> None:
        self.inner = inner
        seen["local_loss"], seen["norm_delta_h"] = last.new_zeros(2, len(last), T, dtype=torch.float64)
        seen["norm_delta_h"][:, -1] = unit(last.double())[1][:, -1, 0, 0]
        self.seen = seen

    def __call__(self, t: int, delta: Tensor, n: Tensor) -> None:
        """L of step t + 1; n = gamma times the last Delta h of step t, before it was normalised."""
        shape = (-1, *delta.shape[-2:])
        squared = delta.double().view(shape).square()
        self.seen["local_loss"][:, t] = (squared.log1p() if self.inner.log_penalty else squared).mean((1, 2))
        if t > 0:
            n = n.double().view(shape)
            norm = unit(n / like(self.inner.gamma, n))[1]
            factor = normalizer(norm, like(self.inner.c_1, norm), self.inner.force)
            self.seen["norm_delta_h"][:, t - 1] = (norm if factor is None else norm * factor)[:, 0, 0]
