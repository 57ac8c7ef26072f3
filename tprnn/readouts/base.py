"""The contract of a read-out: raw outputs of hidden states, the loss, and its derivatives.

    y_t = h_t W + b                          raw outputs, O of them
    E   = (1/SB) sum_t sum_b l(y_tb)         l: the loss of one output

Where states are drawn, each sequence has M rows beside each other, and what counts is the mean probability over them
(manchev2024 eq. 7): l = -log (1/M) sum_m exp(-l_m), whose derivative gives row m the weight exp(-l_m) / sum exp(-l).
Shapes: h [R, >= S, B M, H], y [R, S, B M, O], targets [R, S, B] classes or [R, S, B, D] values.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from tprnn.core import scans
from tprnn.core.products import outer_sum, row_product, row_sum

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class NoSettings:
    """Of a read-out without settings."""


@dataclass(frozen=True)
class Reading:
    """The global loss and its derivatives."""

    loss: Tensor
    """E, [R]."""
    y: Tensor
    """Raw outputs, [R, S, B M, O]."""
    dy: Tensor
    """dE/dy, [R, S, B M, O]."""
    dh: Tensor
    """dE/dh_t of the last S steps through their own outputs, [R, S, B M, H]."""


@dataclass(frozen=True)
class Answers:
    """What a network says to a batch, for a task that measures it."""

    y: Tensor
    """Raw outputs [R, S, B M, O]."""
    targets: Tensor
    """[R, S, B] classes or [R, S, B, D] values."""
    reader: Readout

    @cached_property
    def losses(self) -> Tensor:
        """The loss of each output, [R, S, B]."""
        return self.reader.losses(self.y, self.targets)

    @cached_property
    def expected(self) -> Tensor:
        """The mean of the distribution that is read: probabilities of classes or bits, or values; [R, S, B, D]."""
        M = self.y.shape[2] // self.targets.shape[2]
        found = self.reader.mean(self.y)
        return found if M == 1 else found.unflatten(2, (-1, M)).mean(3)

    @cached_property
    def classes(self) -> Tensor:
        """The likeliest class of each output, [R, S, B]."""
        one_row = self.y.shape[2] == self.targets.shape[2]
        return (self.y if one_row else self.expected).argmax(-1)


class Readout(ABC):
    """A read-out for D outputs (classes, values or bits). `Settings` are its YAML keys."""

    Settings: ClassVar[type] = NoSettings
    targets: ClassVar[str]
    """What it reads: classes | values | bits."""
    parameters: ClassVar[tuple[str, ...]] = ("W_hy", "b_y")
    """Names of its parameters: one weight matrix and one bias, or several that stand side by side."""
    in_kernel: ClassVar[bool] = False
    """Whether core/compiled_readout has its loss."""

    def __init__(self, settings: Any, outputs: int) -> None:
        self.settings, self.outputs = settings, outputs
        self.compiled = False

    @property
    def width(self) -> int:
        """O, how many raw outputs there are."""
        return self.outputs

    def shapes(self, H: int) -> dict[str, tuple[int, ...]]:
        """Name and shape (without the runs axis) of each parameter."""
        return {"W_hy": (H, self.width), "b_y": (self.width,)}

    def weights(self, params: Tensors) -> tuple[Tensor, Tensor]:
        """W [R, H, O] and b [R, O]."""
        return params["W_hy"], params["b_y"]

    def by_parameter(self, dW: Tensor, db: Tensor) -> dict[str, Tensor]:
        """Gradients by W and b as those of the parameters: the inverse of `weights`."""
        return {"W_hy": dW, "b_y": db}

    @abstractmethod
    def each(self, y: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The loss l of each output [R, S, B] and dl/dy [R, S, B, O]; targets have as many rows as y."""

    @abstractmethod
    def mean(self, y: Tensor) -> Tensor:
        """The mean of the distribution that raw outputs y [R, S, B, O] describe, [R, S, B, D]."""

    @property
    @abstractmethod
    def uniforms(self) -> int:
        """How many uniform numbers a draw of one output takes."""

    @abstractmethod
    def sample(self, y: Tensor, u: Tensor) -> Tensor:
        """One draw from each of the distributions: classes [R, S, B], or values or bits [R, S, B, D].

        u: uniform numbers on [0, 1), [R, S, B, `uniforms`].
        """

    def loss(self, y: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """E [R] and dE/dy [R, S, B M, O]."""
        _, S, B = targets.shape[:3]
        losses, dy, weights = self._over_samples(y, targets)
        if weights is not None:
            dy.mul_(weights)
        return losses.mean((1, 2)), dy.div_(S * B)

    def losses(self, y: Tensor, targets: Tensor) -> Tensor:
        """The loss of each output, [R, S, B]."""
        return self._over_samples(y, targets)[0]

    def _over_samples(self, y: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Losses [R, S, B], derivatives of each row's own loss, and the weights of rows [R, S, B M, 1]; None: all 1."""
        M = y.shape[2] // targets.shape[2]
        if M == 1:
            return *self.each(y, targets), None
        l, dl = self.each(y, targets.repeat_interleave(M, 2))
        rows = l.unflatten(2, (-1, M)).neg()  # log p of each
        weights = torch.softmax(rows, -1).flatten(2)
        return math.log(M) - torch.logsumexp(rows, -1), dl, weights.unsqueeze(-1)

    def read(self, params: Tensors, h: Tensor, targets: Tensor) -> Reading:
        """Outputs, loss and derivatives for given states, the last S of which are read; S by the targets."""
        S = targets.shape[1]
        if self.compiled and self.in_kernel and h.shape[2] == targets.shape[2]:
            return self._read_compiled(params, h, targets)
        W, b = self.weights(params)
        y = row_product(h[:, -S:], W).add_(b[:, None, None])
        loss, dy = self.loss(y, targets)
        return Reading(loss, y, dy, row_product(dy, W.mT))

    def _read_compiled(self, params: Tensors, h: Tensor, targets: Tensor) -> Reading:
        """`read` in one call, where PyTorch takes ten."""
        (R, _, B, H), S, O = h.shape, targets.shape[1], self.width
        y, dy = h.new_empty(R, S, B, O), h.new_empty(R, S, B, O)
        dh, loss = h.new_empty(R, S, B, H), h.new_empty(R)
        classes = self.targets == "classes"
        W, b = self.weights(params)
        scans.kernels("compiled_readout").read(
            loss.numpy(),
            y.numpy(),
            dy.numpy(),
            dh.numpy(),
            scans.array(h),
            scans.array(W),
            scans.array(b),
            scans.array(targets) if classes else scans.nothing(torch.int64, 0, 0, 0),
            scans.nothing(h.dtype, 0, 0, 0, 0) if classes else scans.array(targets),
        )
        return Reading(loss, y, dy, dh)

    def gradients(self, h: Tensor, reading: Reading) -> dict[str, Tensor]:
        """dE/dw of its parameters, from the states that were read."""
        if self.compiled:
            (R, _, _, O), H = reading.dy.shape, h.shape[3]
            dW, db = h.new_empty(R, H, O), h.new_empty(R, O)
            arrays = scans.array(h), scans.array(reading.dy)
            scans.kernels("compiled_readout").weigh(dW.numpy(), db.numpy(), *arrays)
            return self.by_parameter(dW, db)
        h = h[:, -reading.dy.shape[1] :]
        return self.by_parameter(outer_sum(h, reading.dy), row_sum(reading.dy))
