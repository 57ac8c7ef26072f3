"""The contract of a network.

A trainer sees a network as: parameters by name; `forward`, all states of a batch; `readout`, the loss and its
derivative by the states that carry an output; `adjoint`, that derivative carried back through time to every
pre-activation; `gradients`, an error signal at the pre-activations turned into gradients of chosen parameters.
The last one serves backpropagation and local rules alike: they differ in the signal only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from tprnn.core import scans
from tprnn.core.activations import Activation
from tprnn.core.init import WORK, Initialisation
from tprnn.core.losses import LOSSES
from tprnn.core.products import lookup, lookup_gradient, outer_sum, row_product, row_sum
from tprnn.core.streams import Stream
from tprnn.core.work import Workspace, step_slices
from tprnn.tasks.base import Batch, Task

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class States:
    """A forward pass. Buffers belong to the workspace: they hold until the next pass of the same shape."""

    h: Tensor
    """[R, T + 1, B, H], h[:, 0] = h_0 = 0."""
    h_t: list[Tensor]
    """Its slices, [R, B, H] each, or [B, H] for R = 1."""
    valid: list[Tensor]
    """1 in a sequence and 0 before its start, [R, B, 1] or [B, 1], for the first `batch.empty` steps only."""
    batch: Batch


@dataclass(frozen=True)
class Readout:
    """The global loss and its derivatives."""

    loss: Tensor
    """E, [R]."""
    y: Tensor
    """Raw outputs (logits, or values), [R, S, B, O]."""
    dy: Tensor
    """dE/dy, [R, S, B, O]."""
    dh: Tensor
    """dE/dh_t of the last S steps through their own outputs, [R, S, B, H]."""


class Model(ABC):
    """A network for a task. `Settings` are its YAML keys."""

    Settings: ClassVar[type]
    parameters: ClassVar[tuple[str, ...]]
    """Names of all parameters."""
    recurrent: ClassVar[tuple[str, ...]]
    """Square matrices whose spectral radius is watched."""
    additive: ClassVar[bool] = False
    """Whether a_t = x_t W_xh + h_{t-1} W_hh + b_h and h_t = sigma(a_t): what the inverse G of eq. 7 stands on."""

    H: int
    """Hidden units."""
    activation: Activation
    compiled: bool = False
    """Whether recurrences run compiled (core/scans.py)."""
    starts: tuple[Initialisation, Initialisation]
    """How square hidden matrices start, and how all other matrices do."""

    def __init__(self, task: Task, dtype: torch.dtype, device: str | torch.device) -> None:
        self.inputs, self.outputs, self.readout_kind = task.inputs, task.outputs, task.readout
        self.dtype, self.device = dtype, device
        self.work = Workspace(dtype, device)

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape (without the runs axis) of each parameter."""

    def init(self, seeds: Sequence[int]) -> dict[str, Tensor]:
        """Initial parameters [R, ...] of R runs."""
        return {name: self.init_one(seeds, name, shape) for name, shape in self.shapes().items()}

    def init_one(self, seeds: Sequence[int], name: str, shape: tuple[int, ...]) -> Tensor:
        """One parameter: vectors 0, matrices by `starts`."""
        if len(shape) == 1:
            return torch.zeros(len(seeds), *shape, dtype=self.dtype, device=self.device)
        return self.start_of(name)(Stream(seeds, f"init/{name}", self.device), shape[0], shape[1], self.dtype)

    def start_of(self, name: str) -> Initialisation:
        """How a matrix starts."""
        return self.starts[not name.endswith("hh")]

    def start_bytes(self, name: str, shape: tuple[int, ...]) -> tuple[int, int]:
        """What `init_one` holds at once beyond the parameter itself, at least: for each run, and once."""
        work = WORK.get(self.start_of(name)) if len(shape) == 2 else None
        return (0, 0) if work is None else work(shape[0], shape[1])

    @abstractmethod
    def forward(self, params: Tensors, batch: Batch) -> States:
        """All states of a batch."""

    @abstractmethod
    def adjoint(self, params: Tensors, states: States, dh: Tensor) -> Tensor:
        """dE/da_t for all pre-activations [R, T, B, H], from dE/dh_t of the last S steps [R, S, B, H]."""

    @abstractmethod
    def gradients(self, states: States, da: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """sum_t da_t * da_t/dw for parameters w of the recurrence, by the signal da [R, T, B, H]."""

    def readout(self, params: Tensors, states: States) -> Readout:
        """y_t = h_t W_hy + b_y and the loss, for the steps that carry an output."""
        return self.read(params, states.h, states.batch.targets)

    def read(self, params: Tensors, h: Tensor, targets: Tensor) -> Readout:
        """The same for given states [R, >= S, B, H], the last S of which are read; S by the targets."""
        S = targets.shape[1]
        if self.compiled:
            return self._read_compiled(params, h, targets)
        y = row_product(h[:, -S:], params["W_hy"]).add_(params["b_y"][:, None, None])
        loss, dy = LOSSES[self.readout_kind](y, targets)
        return Readout(loss, y, dy, row_product(dy, params["W_hy"].mT))

    def _read_compiled(self, params: Tensors, h: Tensor, targets: Tensor) -> Readout:
        (R, _, B, H), S = h.shape, targets.shape[1]
        y, dy = h.new_empty(R, S, B, self.outputs), h.new_empty(R, S, B, self.outputs)
        dh, loss = h.new_empty(R, S, B, H), h.new_empty(R)
        classes = self.readout_kind == "softmax"
        scans.kernels("compiled_readout").read(
            loss.numpy(),
            y.numpy(),
            dy.numpy(),
            dh.numpy(),
            scans.array(h),
            scans.array(params["W_hy"]),
            scans.array(params["b_y"]),
            scans.array(targets) if classes else scans.nothing(torch.int64, 0, 0, 0),
            scans.nothing(self.dtype, 0, 0, 0, 0) if classes else scans.array(targets),
        )
        return Readout(loss, y, dy, dh)

    def readout_gradients(self, states: States, readout: Readout) -> dict[str, Tensor]:
        """dE/dW_hy and dE/db_y."""
        if self.compiled:
            (R, _, _, O), H = readout.dy.shape, self.H
            found = {"W_hy": states.h.new_empty(R, H, O), "b_y": states.h.new_empty(R, O)}
            arrays = found["W_hy"].numpy(), found["b_y"].numpy(), states.h.numpy(), scans.array(readout.dy)
            scans.kernels("compiled_readout").weigh(*arrays)
            return found
        h = states.h[:, -states.batch.outputs :]
        return {"W_hy": outer_sum(h, readout.dy), "b_y": row_sum(readout.dy)}

    def answers(self, params: Tensors, batch: Batch) -> tuple[Tensor, Tensor]:
        """Raw outputs [R, S, B, O] and loss E [R]: a forward pass for judging."""
        found = self.readout(params, self.forward(params, batch))
        return found.y, found.loss

    def input_part(self, params: Tensors, batch: Batch, bias: Tensor, out: Tensor) -> Tensor:
        """x_t W_xh + bias for all steps, [R, T, B, H], into `out` (additive networks)."""
        if batch.tokens:
            return lookup(params["W_xh"] + bias[:, None], batch.inputs, out)
        return torch.add(row_product(batch.inputs, params["W_xh"]), bias[:, None, None], out=out)

    def inputs_of(self, params: Tensors, batch: Batch, bias: Tensor) -> tuple[Any, Any, Any, Any]:
        """The same as arrays (x, tokens, W_xh, bias) for compiled recurrences, which look tokens up themselves."""
        weights = scans.array(params["W_xh"]), scans.array(bias)
        if batch.tokens:
            return scans.nothing(self.dtype, 0, 0, 0, 0), scans.array(batch.inputs), *weights
        R, T, B = batch.inputs.shape[:3]
        x = self.work.tensor("x", R, T, B, self.H)
        self.input_part(params, batch, bias, x)
        return x.numpy(), scans.nothing(torch.int64, 0, 0, 0), *weights

    def back_(self, states: States, signal: Tensor) -> Tensor:
        """signal_t * sigma'(a_t) for all steps [R, T, B, H], in place."""
        if not self.compiled:
            return self.activation.back(signal, states.h[:, 1:], out=signal)
        scans.kernels().back(signal.numpy(), states.h.numpy())
        return signal

    def row_sum(self, d: Tensor) -> Tensor:
        """The sum over steps and batch, the gradient of a bias: [R, T, B, H] -> [R, H]."""
        if not self.compiled:
            return row_sum(d)
        totals = d.new_empty(d.shape[0], d.shape[3])
        scans.kernels().sums(totals.numpy(), scans.array(d))
        return totals

    def lengths(self, x: Tensor) -> Tensor:
        """||x_t|| of each step of x [R, T, B, H], over batch and units: [R, T]."""
        if not self.compiled:
            return x.flatten(2).norm(dim=2)
        found = x.new_empty(x.shape[:2])
        scans.kernels().lengths(found.numpy(), x.numpy())
        return found

    def token_sum(self, tokens: Tensor, d: Tensor) -> Tensor:
        """sum_t x_t^T d_t for one-hot x_t: tokens [R, T, B], d [R, T, B, H] -> [R, I, H]."""
        if not self.compiled:
            return lookup_gradient(tokens, d, self.inputs)
        table = d.new_empty(d.shape[0], self.inputs, d.shape[3])
        scans.kernels().sum_by_token(table.numpy(), scans.array(d), scans.array(tokens))
        return table

    def valid(self, batch: Batch) -> list[Tensor]:
        """For each step that may stand before a sequence: 1 from its start on, else 0."""
        if batch.start is None:
            return []
        t = torch.arange(batch.empty, device=self.device)[:, None, None]
        return list(step_slices((t >= batch.start[:, None, :, None]).to(self.dtype)))

    def mask_(self, states: States, signal: Tensor, first: int = 0) -> Tensor:
        """Zero a signal [R, T, B, H], which begins with step `first`, in the empty steps before a sequence."""
        for t, valid in enumerate(states.valid[first : first + signal.shape[1]]):
            signal[:, t].mul_(valid)
        return signal
