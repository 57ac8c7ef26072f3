"""Global losses E with their derivative by the network's raw outputs, one value per run.

E_t is the mean over the batch, so its derivative carries 1/B; E is the mean of E_t over the S steps that carry
an output.
"""

from __future__ import annotations

import torch
from torch import Tensor


def softmax_cross_entropy(y: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """E = -(1/SB) sum log softmax(y)[target].

    Args:
        y: [R, S, B, O] raw outputs. targets: [R, S, B] classes.
    Returns:
        E [R] and dE/dy = (softmax(y) - onehot)/(S B), [R, S, B, O].
    """
    R, S, B, O = y.shape
    log_p = torch.log_softmax(y, -1)
    right = torch.zeros_like(log_p).scatter_(-1, targets.unsqueeze(-1), 1.0)
    loss = torch.mul(log_p, right).sum((1, 2, 3)).div_(-S * B)
    return loss, log_p.exp_().sub_(right).div_(S * B)


def squared_error(y: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """E = (1/SB) sum (y - target)^2, summed over outputs.

    Args:
        y, targets: [R, S, B, O].
    Returns:
        E [R] and dE/dy = 2 (y - target)/(S B), [R, S, B, O].
    """
    _, S, B, _ = y.shape
    difference = y - targets
    return difference.square().sum((1, 2, 3)) / (S * B), difference.mul_(2.0 / (S * B))
