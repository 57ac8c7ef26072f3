"""An ensemble: R runs that are computed at once, as one tensor program.

A stack is a list of ensembles (engine/queue.py: ensemble_size). On a GPU an ensemble holds the whole stack. On a CPU it
holds one run: whatever kernels PyTorch and its BLAS choose by the size of what they are given, a run is then computed
in the same way whether others train beside it or not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tprnn.config import RunSpec, seeds_of
from tprnn.core.products import norm, spectral_radius
from tprnn.core.streams import Draws, Seeds, Stream
from tprnn.core.work import Workspace
from tprnn.engine.graph import Captured
from tprnn.models.base import Model
from tprnn.tasks.base import Batch, Task
from tprnn.trainers.base import State, Trainer

DTYPES = {"float32": torch.float32, "float64": torch.float64}
_DRAWN_AT_ONCE = 2**17  # words; a draw of fewer costs as much, a draw of more leaves the cache
_DRAWN_AT_ONCE_GPU = 2**24  # 128 MiB, and several times that on the way
_CHUNK = 1000  # validation sequences that are judged before the next are looked at
_ROWS = 100  # of them in one forward pass: more leave the cache


def prepare_process(threads: int) -> None:
    """Settings of PyTorch that hold for a whole process that trains.

    Numbers below the normal range are taken as 0: signals vanish through them step by step, at ten times the cost of a
    normal product, and are of no size by then (float32: 1e-38).
    """
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)


class Ensemble:
    """Runs that share all but their numbers: members, state and streams.

    Args:
        specs: the runs.
        device: cpu | cuda.
        state: parameters and slots; None: the start.
        positions: iterations that each run has behind it; None: 0.
        work: scratch that ensembles which take turns may share; None: its own.
    """

    def __init__(
        self,
        specs: Sequence[RunSpec],
        device: str = "cpu",
        state: State | None = None,
        positions: Sequence[int] | None = None,
        work: Workspace | None = None,
    ) -> None:
        self.specs = list(specs)
        self.device = device
        first = self.specs[0]
        self.train = first.train
        self.dtype = DTYPES[first.config["dtype"]]
        init, data = zip(*(seeds_of(spec.config) for spec in self.specs), strict=True)
        self.seeds = Seeds(init, data)
        self.task: Task = first.member("task").open(first.settings("task"), first.execution.get("data"))
        model = first.member("model")(first.settings("model"), self.task, self.dtype, device)
        self.work = work
        model.work = work or model.work
        optimizer = first.member("optimizer")([one.settings("optimizer") for one in self.specs], self.dtype, device)
        settings = [one.settings("trainer") for one in self.specs]
        self.trainer: Trainer = first.member("trainer")(settings, self.seeds, model, optimizer)
        self.model: Model = model
        self.sizes = self.task.sizes(first.config["task"])
        self.test_size = self.sizes.get("test", self.train.validation_size)
        self.batch_size = type(self.trainer).batch_size(first.config)
        self.watched = (*model.recurrent, *self.trainer.recurrent)
        self.state = self.trainer.start() if state is None else state.in_order(self.trainer.shapes())
        R = len(self.specs)
        self.positions = torch.tensor([0] * R if positions is None else list(positions), device=device)
        self.loss_sum = torch.zeros(R, dtype=torch.float64, device=device)
        self._streams = {name: Stream(data, name, device) for name in ("train", "validation", "test")}
        self._drawn: deque[Batch] = deque()
        on_gpu = torch.device(device).type == "cuda"
        self._graph = Captured(device) if on_gpu else None
        self._at_once = _DRAWN_AT_ONCE_GPU if on_gpu else _DRAWN_AT_ONCE

    def select(self, keep: Sequence[int]) -> Ensemble:
        """The ensemble without the runs that are not in `keep`; the others go on unchanged."""
        rows = torch.tensor(list(keep), device=self.device)
        state = State.from_flat({name: value[rows] for name, value in self.state.flat().items()})
        ensemble = Ensemble([self.specs[i] for i in keep], self.device, state, self.positions[rows].tolist(), self.work)
        ensemble.loss_sum = self.loss_sum[rows]
        return ensemble

    @staticmethod
    def merge(ensembles: Sequence[Ensemble]) -> Ensemble:
        """Ensembles that share all but their runs as one."""
        first = ensembles[0]
        flats = [ensemble.state.flat() for ensemble in ensembles]
        state = State.from_flat({name: torch.cat([flat[name] for flat in flats]) for name in flats[0]})
        specs = [spec for ensemble in ensembles for spec in ensemble.specs]
        positions = torch.cat([ensemble.positions for ensemble in ensembles]).tolist()
        merged = Ensemble(specs, first.device, state, positions, first.work)
        merged.loss_sum = torch.cat([ensemble.loss_sum for ensemble in ensembles])
        return merged

    def advance(self) -> None:
        """The next iteration of all runs."""
        if not self._drawn:
            words = len(self.specs) * self.batch_size * max(1, self.task.words)
            count = max(1, min(self.train.check_every, self._at_once // words))
            self._drawn.extend(self.batches(self.positions, count))
        batch = self._drawn.popleft()
        if self._graph is not None:
            self._graph(self._iterate, batch)
        else:  # features as a batch that was drawn alone has them: bits of products may follow from where they lie
            self._iterate(batch if batch.tokens else batch.clone())

    def _iterate(self, batch: Batch) -> None:
        self.loss_sum += self.trainer.step(self.state, batch, self.positions)
        self.positions += 1

    def batches(self, positions: Tensor, count: int) -> list[Batch]:
        """Training batches of `count` iterations from `positions` [R] on: functions of seeds and positions."""
        ahead = positions + torch.arange(count, device=self.device)[:, None]
        return self.task.batch(self._streams["train"], ahead, self.batch_size).cast(self.dtype).split(count)

    def batch(self, position: int) -> Batch:
        """The training batch of one iteration."""
        return self.batches(torch.full_like(self.positions, position), 1)[0]

    def validate(self, checks: Sequence[int], full: Sequence[bool | None]) -> tuple[Tensor, Tensor, Tensor]:
        """Scores summed, sequences looked at and their mean loss E, [R] each, of check number `checks[r]` of each run.

        Of a score that counts what is summed are mistakes, and a run's set is looked at in chunks of 1000 until it has
        too many of them to count as solved, or to its end where `full`; not at all where that is None.
        """
        size, counted = self.train.validation_size, self.task.score.counted
        chunks = -(-size // _CHUNK)
        split = "train" if self.train.validation == "train" else "validation"
        fresh = self.train.validation == "fresh" and split not in self.sizes
        start = torch.tensor([check * chunks if fresh else 0 for check in checks], device=self.device)
        few = (self.train.success_error or 1.0) * size  # without a criterion no number of mistakes is too many
        enough = [0.0 if whole is None else float(size + 1) if whole or not counted else few for whole in full]
        limit = torch.tensor(enough, dtype=torch.float64, device=self.device)
        seen = torch.zeros(len(self.specs), dtype=torch.int64, device=self.device)
        total, losses = (seen if counted else torch.zeros_like(limit)).clone(), torch.zeros_like(limit)
        for chunk in range(chunks):
            going = total < limit if counted else limit > 0.0
            if not going.any():
                break
            count = min(_CHUNK, size - chunk * _CHUNK)
            found, loss = self.judge(*self.draw(split, start + chunk, count))
            total += torch.where(going, count - found if counted else found, 0)
            seen += torch.where(going, count, 0)
            losses += torch.where(going, loss, 0.0)
        return total, seen, losses / seen

    def draw(self, split: str, position: int | Tensor, count: int) -> tuple[Batch, Draws | None]:
        """A chunk of `count` sequences at one position of a split, or at a position [R] of each run.

        With it, what states are functions of, where the network draws them.
        """
        positions = position[None] if isinstance(position, Tensor) else [position]
        stream = self._streams[split]
        # of a set the last chunk stands where whole ones before it end
        whole = max(_CHUNK, count) if split in self.sizes else count
        batch = self.task.batch(stream, positions, whole).first(count)
        return batch.cast(self.dtype), Draws(stream.child("states"), position) if self.model.drawn else None

    def judge(
        self, batch: Batch, draws: Draws | None = None, params: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The sum of the scores of a batch's sequences, and that of their losses E, [R] each.

        `params`: those to answer with; None: as they are now.
        """
        given = self.state.params if params is None else params
        R, counted = len(self.specs), self.task.score.counted
        loss = torch.zeros(R, dtype=torch.float64, device=self.device)
        total = torch.zeros(R, dtype=torch.int64, device=self.device) if counted else loss.clone()
        for number, part in enumerate(batch.parts(_ROWS)):
            of_part = draws and Draws(draws.stream.child(str(number)), draws.position)
            answers, mean = self.model.answers(given, part, of_part)
            score = self.task.measure(answers)
            if counted:  # what is no number answers nothing
                score = score & answers.y.isfinite().all(-1).all(1).unflatten(1, (part.sequences, -1)).all(-1)
            total += score.sum(-1)
            loss += mean * part.sequences
        return total, loss

    def examine(self, params: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The scores of the test set with `params`, summed (right answers, where it counts), and the mean loss E.

        [R] each. The set has as many sequences as the full validation set, or all that the task has, and no decision of
        a run looks at it.
        """
        size = self.test_size
        parts = [
            self.judge(*self.draw("test", chunk, min(_CHUNK, size - chunk * _CHUNK)), params)
            for chunk in range(-(-size // _CHUNK))
        ]
        total, loss = (torch.stack(each).sum(0) for each in zip(*parts, strict=True))
        return total, loss / size

    def layers(self) -> dict[str, Tensor]:
        """What the rule tells of each time step, on the batch of the last iteration, [R, T] by name."""
        last = self.positions - 1
        return self.trainer.layers(self.state, self.batches(last, 1)[0], last)

    def finite(self) -> Tensor:
        """[R] bool: whether every parameter is finite."""
        return torch.stack([w.flatten(1).isfinite().all(1) for w in self.state.params.values()]).all(0)

    def radii(self, limit: float | None) -> dict[str, Tensor]:
        """Spectral radii [R] of the watched matrices; with `limit`, nan where a norm shows that it is not exceeded.

        An eigenvalue costs as much as a dozen iterations on a GPU, so a run is asked for its own only.
        """
        found = {}
        for name in self.watched:
            W = self.state.params[name]
            found[name] = torch.full_like(W[:, 0, 0], float("nan"))
            # |eigenvalue| <= Frobenius norm; a norm that is nan excludes nothing
            asked = slice(None) if limit is None else ~(norm(W) <= limit)
            found[name][asked] = spectral_radius(W[asked])
        return found
