"""The contract of a network.

A rule sees a network as: parameters by name; `forward`, all states of a batch; `readout`, the loss and its derivative
by the states that carry an output (tprnn/readouts); `adjoint`, that derivative carried back through time to every
pre-activation; `gradients`, an error signal at the pre-activations turned into gradients of chosen parameters. The last
one serves backpropagation and local rules alike: they differ in the signal only. What a rule may count on beyond
`forward` and `readout` a network says by its `traits`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from tprnn.config import member_class
from tprnn.core import scans
from tprnn.core.activations import Activation
from tprnn.core.init import WORK, Initialisation
from tprnn.core.products import lookup, lookup_gradient, row_product, row_sum
from tprnn.core.streams import Draws, Stream
from tprnn.core.work import Workspace, step_slices
from tprnn.readouts.base import Answers, Reading, Readout, Tensors
from tprnn.settings import setting
from tprnn.tasks.base import Batch, Task

GRADIENT = "gradient"
"""A trait: it has `adjoint` and `gradients`."""
ADDITIVE = "additive"
"""A trait: a_t = x_t W_xh + h_{t-1} W_hh + b_h, h_t = sigma(a_t): what an inverse G (manchev2020 eq. 7) stands on."""


@dataclass(frozen=True)
class ModelSettings:
    """What every network has: a read-out in the place of its task's."""

    readout: dict[str, Any] | None = setting(before=None)


@dataclass(frozen=True)
class States:
    """A forward pass. Buffers belong to the workspace: they hold until the next pass of the same shape."""

    h: Tensor
    """[R, T + 1, B, H], h[:, 0] = h_0 = 0: what the read-out sees. M rows of a sequence, where states are drawn."""
    h_t: list[Tensor]
    """Its slices, [R, B, H] each, or [B, H] for R = 1."""
    valid: list[Tensor]
    """1 in a sequence and 0 before its start, [R, B, 1] or [B, 1], for the first `batch.empty` steps only."""
    batch: Batch
    more: Mapping[str, Tensor] = field(default_factory=dict)
    """What else the network keeps of the pass (cells, gates, probabilities), for its own `adjoint` and `gradients`."""


class Model(ABC):
    """A network for a task. `Settings` are its YAML keys; they begin with those of `ModelSettings`."""

    Settings: ClassVar[type]
    parameters: ClassVar[tuple[str, ...]]
    """Names of the parameters of its recurrence; those of the read-out come after them."""
    recurrent: ClassVar[tuple[str, ...]]
    """Square matrices whose spectral radius is watched."""
    traits: ClassVar[frozenset[str]] = frozenset({GRADIENT})
    """What rules may count on (`Trainer.needs`)."""
    products: ClassVar[int] = 1
    """Products by matrices [H, H] in a step: how often what a rule takes of one (`Trainer.costs`) is taken."""
    drawn: ClassVar[bool] = False
    """Whether its states are drawn: `forward` then gets numbers to draw them by."""

    H: int
    """Hidden units that the read-out sees."""
    activation: Activation
    """Of networks that are additive."""
    compiled: bool = False
    """Whether recurrences run compiled (core/scans.py)."""
    starts: tuple[Initialisation, Initialisation]
    """How square hidden matrices start, and how all other matrices do."""

    def __init__(self, settings: Any, task: Task, dtype: torch.dtype, device: str | torch.device) -> None:
        self.inputs, self.outputs = task.inputs, task.outputs
        self.reader = readout_of(settings.readout, task)
        self.dtype, self.device = dtype, device
        self.work = Workspace(dtype, device)

    @abstractmethod
    def recurrence(self) -> dict[str, tuple[int, ...]]:
        """Name and shape (without the runs axis) of each of its own `parameters`."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The same of all parameters, the read-out's included."""
        return self.recurrence() | self.reader.shapes(self.H)

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
    def forward(self, params: Tensors, batch: Batch, draws: Draws | None = None) -> States:
        """All states of a batch; `draws`, where they are drawn, is what they are functions of besides.

        M samples of a sequence are rows beside each other: `batch.repeated(M)`, whose targets stay as they are.
        """

    def adjoint(self, params: Tensors, states: States, dh: Tensor) -> Tensor:
        """dE/da_t for all pre-activations [R, T, B, A], from dE/dh_t of the last S steps [R, S, B, H].

        A is H for a network of one pre-activation per unit, 4 H for one with four gates.
        """
        raise NotImplementedError(f"{type(self).__name__} has no adjoint, though its traits say so")

    def gradients(self, states: States, da: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """sum_t da_t * da_t/dw for parameters w of the recurrence, by the signal da [R, T, B, A]."""
        raise NotImplementedError(f"{type(self).__name__} has no gradients, though its traits say so")

    def readout(self, params: Tensors, states: States) -> Reading:
        """The loss and its derivatives, for the steps that carry an output."""
        return self.reader.read(params, states.h, states.batch.targets)

    def readout_gradients(self, states: States, reading: Reading) -> dict[str, Tensor]:
        """dE/dw for the parameters of the read-out."""
        return self.reader.gradients(states.h, reading)

    def answers(self, params: Tensors, batch: Batch, draws: Draws | None = None) -> tuple[Answers, Tensor]:
        """What the network says, and its loss E [R]: a forward pass for judging."""
        found = self.readout(params, self.forward(params, batch, draws))
        return Answers(found.y, batch.targets, self.reader), found.loss

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


def readout_of(chosen: Mapping[str, Any] | None, task: Task) -> Readout:
    """The read-out that a config names, or else its task's."""
    found = {"name": task.readout} if chosen is None else dict(chosen)
    name = found.pop("name")
    found.pop("code", None)  # of a read-out that is not ours: part of what a run is, no setting
    member = member_class("readout", name)
    reader: Readout = member(member.Settings(**found), task.outputs)
    return reader
