"""Lengths and directions of signals [..., B, H], one for each run and step, and what regularises them.

Signals of local rules vanish by tens of orders of magnitude, so none is squared before it is divided by its largest
entry, and what is exactly zero has the direction zero.
"""

from __future__ import annotations

import torch
from torch import Tensor


def unit(x: Tensor) -> tuple[Tensor, Tensor]:
    """x / ||x|| and ||x|| [..., 1, 1] of each [B, H]; 0 and 0 for x = 0."""
    tiny = torch.finfo(x.dtype).tiny
    largest = x.abs().amax((-2, -1), keepdim=True)
    y = x / largest.clamp(min=tiny)
    length = y.norm(dim=(-2, -1), keepdim=True)
    return y / length.clamp(min=tiny), length * largest


def normalizer(norm: Tensor, c: Tensor | float, force: bool) -> Tensor | None:
    """The factor of Normalize(D, c): c / ||D|| where ||D|| >= c, else 1; always c / ||D|| with `force`.

    Args:
        norm: ||D||. c: 0 switches it off; a tensor broadcasts over norm.
    Returns:
        None where nothing is normalised. D = 0 gets a finite factor, so that it stays 0.
    """
    least = _LEAST if force else c
    if not isinstance(c, Tensor):
        return c / norm.clamp(min=least) if c else None
    factor = c / (norm.clamp(min=_LEAST) if force else torch.maximum(norm, c))
    return torch.where(c > 0, factor, 1.0)


_LEAST = 1e-30  # the shortest length that is normalised: c / 1e-30 is still a float32


Omega = tuple[Tensor, Tensor, Tensor]
"""dOmega/da [..., B, H], and left and right of dOmega/dW = (left * sigma'(a))^T right."""


def omega(g: Tensor, p: Tensor, bend: Tensor, form: str, scale: Tensor | float = 1.0) -> Omega:
    """Derivatives of Omega = (||p|| / ||g|| - 1)^2, or of the ratio alone, with g held fixed (manchev2025 eq. 5).

    p = (g W^T) * sigma'(a) is the error g of a step carried back to the pre-activation a of the step before; it may
    come multiplied by `scale`. With rho = ||p|| / ||g|| and Omega' = 2 (rho - 1) (1 for the ratio):

        dOmega/da = Omega' rho (p / ||p||)^2 bend,   bend = sigma''(a) / sigma'(a)
        dOmega/dW = Omega' (p / ||p|| * sigma'(a))^T g / ||g||
    """
    (g_unit, g_norm), (p_unit, p_norm) = unit(g), unit(p)
    rho = p_norm / (g_norm * scale).clamp(min=torch.finfo(g.dtype).tiny)
    outer = 2.0 * (rho - 1.0) if form == "squared" else torch.ones_like(rho)
    return outer * rho * p_unit.square() * bend, outer * p_unit, g_unit
