"""The products of a recurrence over a stack.

Two layouts: by time, [T, R, B, H], where a step is one contiguous slice, for what must go step by step; and by run,
[R, T B, H], where all steps are rows of one product. For R = 1 they are views of each other. Weights are [R, H, H] in
row convention (h_t W). On a CPU the result for a run has the same bits for every R, which the tests hold to.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

InPlace = Callable[[Tensor, Tensor, Tensor], Tensor]


def rows(x: Tensor) -> Tensor:
    """[T, R, B, H] -> [R, T B, H]: a view for R = 1, else a copy."""
    T, R, B, H = x.shape
    return x.transpose(0, 1).reshape(R, T * B, H)


def steps(y: Tensor, T: int) -> Tensor:
    """[R, T B, H] -> [T, R, B, H], a view."""
    R, TB, H = y.shape
    return y.view(R, T, TB // T, H).transpose(0, 1)


def one_step(W: Tensor) -> tuple[Tensor, InPlace, Callable[..., Tensor]]:
    """How a step multiplies by W [R, H, H]: (weights, add_product_(out, x, weights), product(x, weights, out=)).

    A single run is a plain matrix: the stacked product of one matrix takes half as long again as the plain one.
    """
    if W.shape[0] == 1:
        return W[0], torch.Tensor.addmm_, torch.mm
    return W, torch.Tensor.baddbmm_, torch.bmm


def outer_sum(x: Tensor, d: Tensor) -> Tensor:
    """sum_t x_t^T d_t, the gradient of a weight matrix: rows [R, T B, I], [R, T B, H] -> [R, I, H]."""
    return torch.bmm(x.transpose(1, 2), d)


def row_sum(d: Tensor) -> Tensor:
    """The sum over steps and batch, the gradient of a bias: rows [R, T B, H] -> [R, H]."""
    return d.sum(1)


def flat_tokens(tokens: Tensor, I: int, by_run: bool) -> Tensor:
    """Token i of run r as row r I + i of the stacked table: [T, R, B] -> [T R B], or run by run."""
    R = tokens.shape[1]
    if R > 1:
        tokens = tokens + torch.arange(0, R * I, I, device=tokens.device)[:, None]
        if by_run:
            tokens = tokens.transpose(0, 1)
    return tokens.reshape(-1)


def lookup(table: Tensor, tokens: Tensor, out: Tensor, by_run: bool) -> Tensor:
    """x_t W for one-hot x_t: rows of table [R, I, H] by tokens [T, R, B], into out by time or by run."""
    R, I, H = table.shape
    torch.index_select(table.view(R * I, H), 0, flat_tokens(tokens, I, by_run), out=out.view(-1, H))
    return out


def lookup_gradient(tokens: Tensor, d: Tensor, I: int) -> Tensor:
    """sum_t x_t^T d_t for one-hot x_t: tokens [T, R, B], rows d [R, T B, H] -> [R, I, H]."""
    R, _, H = d.shape
    gradient = d.new_zeros(R * I, H)
    return gradient.index_add_(0, flat_tokens(tokens, I, by_run=True), d.reshape(-1, H)).view(R, I, H)


def norm(x: Tensor) -> Tensor:
    """The 2-norm of each run's tensor: [R, ...] -> [R]."""
    return x.flatten(1).norm(dim=1)


def spectral_radius(W: Tensor) -> Tensor:
    """The largest absolute eigenvalue of each matrix: [R, H, H] -> [R]; nan where an entry is not finite."""
    radius = torch.full(W.shape[:1], float("nan"), dtype=W.dtype, device=W.device)
    finite = W.flatten(1).isfinite().all(1)
    if finite.any():
        radius[finite] = torch.linalg.eigvals(W[finite]).abs().amax(1)
    return radius
