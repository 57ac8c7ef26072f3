"""The floor of a rule: the products, activations and normal numbers it cannot do without, at its shapes; nothing else.

A rule declares them itself (`Costs` in tprnn/trainers/base.py, which the cost model reads too). Elementwise steps,
look-ups, losses and optimizers are left out: what an iteration takes beyond the floor is overhead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch

from tprnn.compose import compose
from tprnn.config import member_class
from tprnn.core.products import one_step
from tprnn.errors import UserError
from tprnn.listing import members
from tprnn.trainers.base import Costs, Trainer

Kernel = Callable[[], None]


class _Buffers:
    def __init__(self, R: int, T: int, B: int, H: int, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(0)
        self.W = 0.1 * torch.randn(R, H, H, generator=generator, dtype=dtype)
        self.A = self.W @ self.W.mT + torch.eye(H, dtype=dtype)
        self.h_t = (0.5 * torch.randn(T, R, B, H, generator=generator, dtype=dtype)).squeeze(1).unbind(0)
        self.out_t = [torch.empty_like(h) for h in self.h_t]
        self.rows = 0.5 * torch.randn(R, T * B, H, generator=generator, dtype=dtype)
        self.rows_out = torch.empty_like(self.rows)
        self.gradient = torch.empty(R, H, H, dtype=dtype)

    def steps(self, activation: bool) -> None:
        """T dependent steps: a product each, and an activation."""
        W, _, product = one_step(self.W)
        for h, out in zip(self.h_t, self.out_t, strict=True):
            product(h, W, out=out)
            if activation:
                out.tanh_()

    def all_rows(self) -> None:
        """G at all steps at once: one product over T B rows and its activation."""
        torch.bmm(self.rows, self.W, out=self.rows_out)
        self.rows_out.tanh_()

    def noise(self) -> None:
        """A normal number for every unit and step."""
        self.rows_out.normal_()

    def weight_gradient(self) -> None:
        """sum_t h_t^T d_t."""
        torch.bmm(self.rows.transpose(1, 2), self.rows_out, out=self.gradient)

    def of_weights(self) -> None:
        """A product of weights with weights."""
        torch.bmm(self.W, self.W, out=self.gradient)

    def solve(self) -> None:
        """A^{-1} W for a matrix A with a Cholesky factor."""
        torch.cholesky_solve(self.W, torch.linalg.cholesky_ex(self.A).L)


def floor(costs: Costs, R: int, T: int, B: int, H: int, dtype: torch.dtype) -> Kernel:
    """What a rule's `costs` say that an iteration of R runs cannot do without, on buffers of its own."""
    x = _Buffers(R, T, B, H, dtype)

    def iterate() -> None:
        for number in range(costs.dependent):
            x.steps(activation=number < costs.activated)
        for _ in range(costs.rows):
            x.all_rows()
        for _ in range(costs.normals):
            x.noise()
        for _ in range(costs.outer):
            x.weight_gradient()
        for _ in range(costs.square):
            x.of_weights()
        for _ in range(costs.solves):
            x.solve()

    return iterate


def trainers() -> list[str]:
    """Every rule that declares its passes, and can train temporal order as its YAML stands."""
    found = []
    for name, _ in members("trainer"):
        with contextlib.suppress(UserError):
            rule = compose(["task=temporal_order", f"trainer={name}"]).config["trainer"]["rule"]
            if any("costs" in vars(one) for one in member_class("trainer", rule).__mro__ if one is not Trainer):
                found.append(name)
    return found
