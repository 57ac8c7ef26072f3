"""The contract of a task, and what a batch is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from tprnn.core.streams import Stream
from tprnn.errors import UserError
from tprnn.readouts.base import Answers
from tprnn.scores import ACCURACY, Score


@dataclass(frozen=True)
class Batch:
    """Sequences of R runs.

    Sequences of unequal length end together: sequence b of run r begins after `start[r, b]` empty steps, in which
    the state stays h_0 = 0 and nothing is learnt. The last step is then T - 1 for all of them.
    """

    inputs: Tensor
    """Tokens [R, T, B] (integers: x_t W_xh is then a row look-up) or features [R, T, B, I]."""
    targets: Tensor
    """[R, S, B] classes or [R, S, B, O] values, for the last S steps."""
    start: Tensor | None = None
    """[R, B] empty steps before each sequence; None where all have the full length."""
    empty: int = 0
    """The largest entry that `start` can have."""

    @property
    def T(self) -> int:
        """Steps, the empty ones included."""
        return self.inputs.shape[1]

    @property
    def outputs(self) -> int:
        """S, how many of the last steps carry an output."""
        return self.targets.shape[1]

    @property
    def sequences(self) -> int:
        """B, one for each answer: of states that are drawn the inputs may have M rows for each."""
        return self.targets.shape[2]

    @property
    def tokens(self) -> bool:
        """Whether inputs are integers."""
        return self.inputs.dim() == 3

    def cast(self, dtype: torch.dtype) -> Batch:
        """The batch with its real numbers in `dtype`; integers stay."""

        def real(x: Tensor) -> Tensor:
            return x.to(dtype) if x.is_floating_point() else x

        return replace(self, inputs=real(self.inputs), targets=real(self.targets))

    def clone(self) -> Batch:
        """A copy with tensors of its own."""
        start = None if self.start is None else self.start.clone()
        return replace(self, inputs=self.inputs.clone(), targets=self.targets.clone(), start=start)

    def copy_(self, other: Batch) -> None:
        """Take over the values of a batch of the same shapes."""
        self.inputs.copy_(other.inputs)
        self.targets.copy_(other.targets)
        if self.start is not None and other.start is not None:
            self.start.copy_(other.start)

    def repeated(self, M: int) -> Batch:
        """M rows of each sequence beside each other, for states that are drawn; targets stay one for each sequence."""
        start = None if self.start is None else self.start.repeat_interleave(M, 1)
        return replace(self, inputs=self.inputs.repeat_interleave(M, 2), start=start)

    def first(self, sequences: int) -> Batch:
        """Its first sequences alone."""
        return self if sequences == self.sequences else self.parts(sequences)[0]

    def steps(self, first: int, last: int) -> Batch:
        """Steps first .. last - 1 of the inputs; targets and starts as they are."""
        return replace(self, inputs=self.inputs[:, first:last])

    def parts(self, rows: int) -> list[Batch]:
        """The batch in pieces of at most `rows` sequences."""
        B = self.inputs.shape[2]
        return [
            replace(
                self,
                inputs=self.inputs[:, :, i : i + rows].contiguous(),
                targets=self.targets[:, :, i : i + rows].contiguous(),
                start=None if self.start is None else self.start[:, i : i + rows],
            )
            for i in range(0, B, rows)
        ]

    def split(self, parts: int) -> list[Batch]:
        """The batches of `parts` positions that were drawn at once as parts * R runs."""

        def pieces(x: Tensor) -> tuple[Tensor, ...]:
            return x.unflatten(0, (parts, -1)).unbind(0)

        starts = [None] * parts if self.start is None else pieces(self.start)
        found = zip(pieces(self.inputs), pieces(self.targets), starts, strict=True)
        return [Batch(inputs, targets, start, self.empty) for inputs, targets, start in found]


class Task(ABC):
    """A source of labelled sequences. `Settings` are its YAML keys; T, where it has one, is the length.

    A task says how a batch is drawn by `sample`, where sequences are functions of random words, or else by `batch`.
    """

    Settings: ClassVar[type]
    score: ClassVar[Score] = ACCURACY

    inputs: int
    """I: width of an input, or number of tokens."""
    outputs: int
    """O: width of an output, or number of classes."""
    readout: ClassVar[str]
    """The read-out (tprnn/readouts) that a network has where `model.readout` names no other that reads the same."""
    words: int = 0
    """How many random words `sample` makes one sequence of."""

    shortest: ClassVar[int] = 1
    """The smallest T that the task can be made for."""

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """Raise UserError where the settings do not make a task (T too short)."""
        if settings.get("T", cls.shortest) < cls.shortest:
            raise UserError(f"task.T: {settings['name']} needs at least {cls.shortest} steps, got {settings['T']}")

    @classmethod
    def baseline(cls, settings: Mapping[str, Any]) -> float | None:
        """E of a learner that remembers nothing, the line to get below; None where a task has no such line."""
        return None

    @classmethod
    def chance(cls, settings: Mapping[str, Any]) -> float | None:
        """The share of sequences that the best constant answer gets right; None where a task does not know it."""
        return None

    @classmethod
    def open(cls, settings: Any, data: str | None) -> Task:
        """The task; one that reads real files looks for them in the folder `data`. Raises UserError."""
        make: Callable[[Any], Task] = cls
        return make(settings)

    @classmethod
    def sizes(cls, settings: Mapping[str, Any]) -> Mapping[str, int]:
        """How many sequences the splits (train, validation, test) have that are sets, and not drawn without end."""
        return {}

    def batch(self, stream: Stream, positions: Sequence[int] | Tensor, B: int) -> Batch:
        """B sequences of each run at each of P positions, a batch of P * R runs, position by position.

        `stream.name` is the split; positions [P] hold for all runs, [P, R] gives each its own. What comes out is a
        function of the stream's seeds, the positions and B alone. A split that is a set is gone through in order: at
        position p are its sequences p B .. p B + B - 1, round and round. core/sets.py has what that takes, and epochs.
        """
        return self.sample(stream.words(positions, B * self.words).view(-1, B, self.words))

    def sample(self, words: Tensor) -> Batch:
        """One batch for each run from random words [R, B, words] (32 bits in int64)."""
        raise NotImplementedError(f"{type(self).__name__} has neither sample nor batch")

    @abstractmethod
    def measure(self, answers: Answers) -> Tensor:
        """The score of each sequence, [R, B]: bool, where it is right or wrong, else real numbers."""
