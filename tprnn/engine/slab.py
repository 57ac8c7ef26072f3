"""A slab: R runs that are computed at once, as one tensor program.

A stack is a list of slabs. On a GPU a slab holds the whole stack; on a CPU it holds few runs, because there the
states of one run just fit the cache and a larger slab is slower (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tprnn.config import RunSpec, member_class
from tprnn.core.products import norm, spectral_radius
from tprnn.core.streams import Stream
from tprnn.tasks.base import Batch
from tprnn.trainers.base import State, Trainer

DTYPES = {"float32": torch.float32, "float64": torch.float64}
_DRAWN_AT_ONCE = 2**17  # words; a draw of fewer costs as much, a draw of more leaves the cache
_CHUNK = 1000  # validation sequences that are judged before the next are looked at
_ROWS = 100  # of them in one forward pass: more leave the cache


def prepare_process(threads: int) -> None:
    """Settings of PyTorch that hold for a whole process that trains.

    Numbers below the normal range are taken as 0: signals vanish through them step by step, at ten times the cost of a
    normal product, and are of no size by then (float32: 1e-38).
    """
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)


class Slab:
    """Runs that share all but their numbers: members, state and streams."""

    def __init__(self, specs: Sequence[RunSpec], device: str = "cpu", state: State | None = None) -> None:
        self.specs = list(specs)
        self.device = device
        first = self.specs[0]
        self.train = first.train
        self.dtype = DTYPES[first.config["dtype"]]
        self.seeds = [spec.config["seed"] for spec in self.specs]
        self.task = _member(first, "task")(first.settings("task"))
        model = _member(first, "model")(first.settings("model"), self.task, self.dtype, device)
        optimizer = _member(first, "optimizer")([one.settings("optimizer") for one in self.specs], self.dtype, device)
        settings = [one.settings("trainer") for one in self.specs]
        self.trainer: Trainer = _member(first, "trainer")(settings, self.seeds, model, optimizer)
        self.model = model
        self.watched = (*model.recurrent, *self.trainer.recurrent)
        self.state = self.trainer.start() if state is None else state
        self.loss_sum = torch.zeros(len(self.specs), dtype=torch.float64, device=device)
        self._streams = {name: Stream(self.seeds, name, device) for name in ("train", "validation", "test")}
        self._drawn: dict[int, Batch] = {}

    def select(self, keep: Sequence[int]) -> Slab:
        """The slab without the runs that are not in `keep`; the others go on unchanged."""
        rows = torch.tensor(list(keep), device=self.device)
        state = State.from_flat({name: value[rows] for name, value in self.state.flat().items()})
        slab = Slab([self.specs[i] for i in keep], self.device, state)
        slab.loss_sum = self.loss_sum[rows]
        return slab

    def advance(self, position: int) -> None:
        """Iteration number `position` (from 0) of all runs."""
        self.loss_sum += self.trainer.step(self.state, self.batch(position), position)

    def batch(self, position: int) -> Batch:
        """The training batch of one iteration: a function of seeds and position, drawn for several at once."""
        found = self._drawn.pop(position, None)
        if found is None:
            B, words = self.train.batch_size, self.task.words
            count = max(1, min(self.train.check_every, _DRAWN_AT_ONCE // (len(self.specs) * B * words)))
            positions = range(position, position + count)
            drawn = self._streams["train"].words(positions, B * words).view(-1, B, words)
            batches = self.task.sample(drawn).cast(self.dtype).split(count)
            self._drawn = dict(zip(positions, batches, strict=True))
            found = self._drawn.pop(position)
        return found

    def validate(self, check: int, full: bool) -> tuple[Tensor, Tensor]:
        """Mistakes and sequences looked at, [R] each, in the validation set of check number `check`.

        A run's set is looked at in chunks of 1000 until it has too many mistakes to count as solved, or to its end
        where `full`.
        """
        R = len(self.specs)
        size = self.train.validation_size
        chunks = -(-size // _CHUNK)
        mistakes, seen = torch.zeros(2, R, dtype=torch.int64, device=self.device)
        for chunk in range(chunks):
            going = mistakes < (size + 1 if full else self.train.success_error * size)
            if not going.any():
                break
            count = min(_CHUNK, size - chunk * _CHUNK)
            position = (check if self.train.validation == "fresh" else 0) * chunks + chunk
            wrong = count - self.right(self.draw("validation", position, count))
            mistakes += torch.where(going, wrong, 0)
            seen += torch.where(going, count, 0)
        return mistakes, seen

    def draw(self, stream: str, position: int, count: int) -> Batch:
        """One batch of `count` sequences at one position of a stream."""
        words = self._streams[stream].words([position], count * self.task.words)
        return self.task.sample(words.view(len(self.specs), count, self.task.words)).cast(self.dtype)

    def right(self, batch: Batch) -> Tensor:
        """How many sequences of a batch are answered rightly, [R]."""
        right = torch.zeros(len(self.specs), dtype=torch.int64, device=self.device)
        for part in batch.parts(_ROWS):
            y, _ = self.model.answers(self.state.params, part)
            right += (self.task.right(y, part.targets) & y.isfinite().all(-1).all(1)).sum(-1)
        return right

    def finite(self) -> Tensor:
        """[R] bool: whether every parameter is finite."""
        return torch.stack([w.flatten(1).isfinite().all(1) for w in self.state.params.values()]).all(0)

    def radii(self, limit: float | None) -> dict[str, Tensor]:
        """Spectral radii [R] of the watched matrices; with `limit`, nan where a norm shows that it is not exceeded."""
        found = {}
        for name in self.watched:
            W = self.state.params[name]
            if limit is not None and bool((norm(W) <= limit).all()):  # |eigenvalue| <= Frobenius norm
                found[name] = torch.full_like(W[:, 0, 0], float("nan"))
            else:
                found[name] = spectral_radius(W)
        return found


def _member(spec: RunSpec, kind: str) -> Any:
    return member_class(kind, spec.config[kind]["rule"])
