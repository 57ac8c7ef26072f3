"""The floor of a rule: the products and activations it cannot do without, at its shapes, and nothing else.

Each function returns a callable that does exactly these on its own buffers for one iteration of a slab of R runs.
Elementwise steps, look-ups, losses and optimizers are left out: what an iteration takes beyond the floor is overhead.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from tprnn.core.products import one_step

Kernel = Callable[[], None]


class _Buffers:
    def __init__(self, R: int, T: int, B: int, H: int, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(0)
        self.W = 0.1 * torch.randn(R, H, H, generator=generator, dtype=dtype)
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

    def weight_gradient(self) -> None:
        """sum_t h_t^T d_t."""
        torch.bmm(self.rows.transpose(1, 2), self.rows_out, out=self.gradient)


def bptt(R: int, T: int, B: int, H: int, dtype: torch.dtype) -> Kernel:
    """Forward pass, backward products, the gradient of W_hh."""
    x = _Buffers(R, T, B, H, dtype)

    def iterate() -> None:
        x.steps(activation=True)
        x.steps(activation=False)
        x.weight_gradient()

    return iterate


def tptt_hx(R: int, T: int, B: int, H: int, dtype: torch.dtype) -> Kernel:
    """Forward pass, G before and after its update, gradients of V_hh and W_hh, the pass of targets."""
    x = _Buffers(R, T, B, H, dtype)

    def iterate() -> None:
        x.steps(activation=True)
        x.all_rows()
        x.weight_gradient()
        x.all_rows()
        x.steps(activation=True)
        x.weight_gradient()

    return iterate


def tptt(R: int, T: int, B: int, H: int, dtype: torch.dtype) -> Kernel:
    """TPTT_hx and the backward products for W_xh."""
    x = _Buffers(R, T, B, H, dtype)
    hx = tptt_hx(R, T, B, H, dtype)

    def iterate() -> None:
        hx()
        x.steps(activation=False)

    return iterate


FLOORS = {"bptt": bptt, "tptt": tptt, "tptt_hx": tptt_hx}
