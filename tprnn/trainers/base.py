"""The contract of a learning rule.

A rule is a class with `Settings` (its YAML keys), `start` (parameters and optimizer slots of R runs) and `step`
(one mini-batch: gradients, targets, its own optimizer calls). Every tensor has the runs axis first, and nothing may
mix runs. What differs between the runs of a stack are the settings marked `per_run`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from tprnn.config import member_class, networks_with, readout_name
from tprnn.core.streams import Draws, Seeds, Stream
from tprnn.errors import UserError, nearest
from tprnn.models.base import GRADIENT, Model
from tprnn.optimizers.base import Optimizer, per_run
from tprnn.settings import setting
from tprnn.tasks.base import Batch
from tprnn.trainers._vector import ParameterVector


@dataclass(frozen=True)
class TrainerSettings:
    """What every rule has: the controls that tell a rule from its rates (numerics: which parameter learns?)."""

    freeze: list[str] = setting(per_run=True)
    rate_factors: dict[str, float] = setting(per_run=True)


@dataclass
class State:
    """All that changes while runs train: parameters and optimizer slots, each tensor [R, ...]."""

    params: dict[str, Tensor]
    slots: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def flat(self) -> dict[str, Tensor]:
        """Every tensor under one name, for a checkpoint."""
        flat = {f"param/{name}": w for name, w in self.params.items()}
        return flat | {f"slot/{n}/{s}": v for n, slots in self.slots.items() for s, v in slots.items()}

    def in_order(self, names: Iterable[str]) -> State:
        """With parameters in the order of `names`, in which a rule sums over them; a file has them in another."""
        order = [name for name in (*names, *self.params) if name in self.params]
        return State({name: self.params[name] for name in order}, self.slots)

    @classmethod
    def from_flat(cls, flat: Mapping[str, Tensor]) -> State:
        """The inverse of `flat`."""
        state = cls({})
        for name, value in flat.items():
            kind, parameter, *slot = name.split("/")
            if kind == "param":
                state.params[parameter] = value
            else:
                state.slots.setdefault(parameter, {})[slot[0]] = value
        return state


@dataclass(frozen=True)
class Costs:
    """What one iteration of a rule cannot do without: its floor (tprnn/bench) and its cost (tprnn/cost/modelled)."""

    dependent: int = 2
    """Passes over the T steps of which each waits for the one before: T products [B, H] x [H, H]."""
    activated: int = 1
    """How many of them have an activation at each step."""
    rows: int = 0
    """Products of all rows at once, [T B, H] x [H, H], each with an activation."""
    outer: int = 1
    """Gradients of square matrices, [T B, H]^T x [T B, H]."""
    square: int = 0
    """Products of weights with weights, [H, H] x [H, H], whatever T and B."""
    solves: int = 0
    """Cholesky factors of a matrix [H, H], each with a solution for H right-hand sides."""
    normals: int = 0
    """Standard normal numbers for every unit and step, [T B, H]."""
    buffers: int = 3
    """Buffers [R, T, B, H] that live as long as a stack."""

    def times(self, products: int) -> Costs:
        """The same with a network of so many products in a step (`Model.products`): passes and buffers as often."""
        more = ("dependent", "activated", "rows", "outer", "buffers")
        return replace(self, **{name: products * getattr(self, name) for name in more})


class Trainer(ABC):
    """A learning rule for R runs at once."""

    Settings: ClassVar[type]
    extra: ClassVar[tuple[str, ...]] = ()
    """Names of parameters that the rule adds to the network's."""
    fixed: ClassVar[tuple[str, ...]] = ()
    """Which of them stay as they were drawn: they are saved with a run, and have no optimizer slots."""
    recurrent: ClassVar[tuple[str, ...]] = ()
    """Which of them are square matrices whose spectral radius is watched."""
    paper: ClassVar[str] = ""
    """The paper (tprnn/papers) that made the rule; empty where none of them did. Not for rules derived from it."""
    paper_settings: ClassVar[Mapping[str, Sequence[Any]]] = {}
    """What that paper states of its runs beside the rule: dotted key -> value, or values, that it has.

    A run with a default that is another says so in its first lines (papers/departures). The member's name stands
    before its settings: {"optimizer.name": ["sgd"], "optimizer.momentum": [0.0]}.
    """

    needs: ClassVar[frozenset[str]] = frozenset({GRADIENT})
    """Traits that a network must have for the rule to train it (tprnn/models/base.py)."""
    optimizes: ClassVar[bool] = True
    """Whether it changes parameters by an optimizer. One that does not is trained with `optimizer=none`, whatever is
    given, and no optimizer is part of its runs."""

    def __init__(self, settings: Sequence[Any], seeds: Seeds, model: Model, optimizer: Optimizer) -> None:
        self.settings, self.seeds, self.model, self.optimizer = list(settings), seeds, model, optimizer
        self._numbers: dict[str, Tensor | float] = {}
        self._states = Stream(seeds.data, "states", model.device)
        self._vectors: dict[tuple[tuple[str, ...], str], ParameterVector] = {}

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        """Raise UserError where a rule cannot train what the whole config describes."""
        network = member_class("model", config["model"]["rule"])
        names = (*network.parameters, *member_class("readout", readout_name(config)).parameters, *cls.extra)
        for key in ("freeze", "rate_factors"):
            for name in config["trainer"][key]:
                if name not in names:
                    raise UserError(f"trainer.{key}: no parameter '{name}'; {nearest(name, names)}")
        for name, factor in config["trainer"]["rate_factors"].items():
            if not 0.0 <= factor < float("inf"):
                raise UserError(f"trainer.rate_factors.{name}: expected a finite number from 0 on, got {factor:g}")
        for trait in sorted(cls.needs - network.traits):
            rule, model = config["trainer"]["name"], config["model"]["name"]
            alike = ", ".join(networks_with(cls.needs)) or "none of ours"
            raise UserError(f"trainer: {rule} cannot train model={model}, which is not '{trait}'; choices: {alike}")

    @classmethod
    def batch_size(cls, config: Mapping[str, Any]) -> int:
        """How many sequences an iteration is given; a rule that looks at a whole training set asks for all of it."""
        return int(config["train"]["batch_size"])

    @classmethod
    def sequences(cls, config: Mapping[str, Any]) -> int:
        """How many sequences an iteration shows the network, for limits and tables that count presentations.

        A rule that runs its batch through the network several times counts each of them.
        """
        return cls.batch_size(config)

    @classmethod
    def costs(cls, config: Mapping[str, Any]) -> Costs:
        """What an iteration takes under a whole config; for a rule that does not say, what backpropagation takes."""
        return Costs()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape (without the runs axis) of each parameter, the rule's own included."""
        return self.model.shapes()

    def start(self) -> State:
        """Parameters and slots before the first step."""
        params = self.model.init(self.seeds.init)
        params |= {name: self.start_one(name, shape) for name, shape in self.shapes().items() if name not in params}
        learning = {name: w for name, w in params.items() if name not in self.fixed}
        return State(params, {name: self.optimizer.start(w) for name, w in learning.items()})

    def start_one(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The initial value of a parameter of the rule's own."""
        return self.model.init_one(self.seeds.init, name, shape)

    @abstractmethod
    def step(self, state: State, batch: Batch, position: int | Tensor) -> Tensor:
        """One update on one batch, in place; returns the training loss E [R] before it.

        `position` is the iteration, [R] where runs of a stack stand at different ones: what the rule draws must be a
        function of it and of `self.seeds.data`. No value may be asked of a tensor (`bool`, `.item()`, a mask as an
        index): on a GPU the iteration is recorded once and played back.
        """

    def draws(self, position: int | Tensor) -> Draws | None:
        """What the states of the iteration at `position` are drawn by; None for networks whose states are not."""
        return Draws(self._states, position) if self.model.drawn else None

    def layers(self, state: State, batch: Batch, position: int | Tensor) -> dict[str, Tensor]:
        """What figures show of each time step, [R, T] by name; changes nothing. Asked for by `probe.layers`."""
        return {}

    def number(self, name: str) -> Tensor | float:
        """A per-run setting: a plain number where all runs agree, else [R]."""
        if name not in self._numbers:
            values = [getattr(one, name) for one in self.settings]
            self._numbers[name] = per_run(values, self.model.dtype, self.model.device)
        return self._numbers[name]

    def rate(self, alpha: str, parameter: str) -> list[float]:
        """The rate `alpha` times the parameter's factor (0 where it is frozen), one per run."""
        return [
            0.0 if parameter in one.freeze else getattr(one, alpha) * one.rate_factors.get(parameter, 1.0)
            for one in self.settings
        ]

    def update(self, state: State, gradients: Mapping[str, Tensor], alpha: str, active: Tensor | None = None) -> None:
        """One optimizer step of each parameter in `gradients`; runs outside `active` [R] stay as they are.

        Parameters that are once named together are to be named together always.
        """
        vector = self.vector(state, tuple(gradients), alpha)
        g = vector.side_by_side(gradients)
        w, slots = vector.w, vector.slots
        before = None if active is None else [x.clone() for x in (w, *slots.values())]
        self.optimizer.update(w, g, vector.rate, slots)
        if active is not None and before is not None:
            for x, old in zip((w, *slots.values()), before, strict=True):
                x.copy_(torch.where(active[:, None], x, old))

    def vector(self, state: State, names: tuple[str, ...], alpha: str) -> ParameterVector:
        """The parameters of one update side by side, so that the step of all of them is a handful of calls."""
        found = self._vectors.get((names, alpha))
        if found is None or not found.holds(state.params):
            rates = [self.rate(alpha, name) for name in names]
            found = self._vectors[names, alpha] = ParameterVector(state.params, state.slots, names, rates)
        return found
