"""Stands for training where what is done with results is tested: it knows how runs end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tprnn.config import RunSpec
from tprnn.engine.signals import Interrupted
from tprnn.store import Store
from tprnn.sweep.run import Outcome

Solves = Callable[[RunSpec], bool]


class FakeTrainer:
    """Stands for `run_all`: finishes runs by a rule, writes their folders, skips finished ones, notes its calls."""

    def __init__(self) -> None:
        self.calls: list[list[RunSpec]] = []
        self.trained: list[RunSpec] = []
        self.interrupt_at: int | None = None
        """Calls."""
        self.interrupt_after: int | None = None
        """Runs."""

    def result(self, spec: RunSpec) -> dict[str, Any]:
        """What a run comes to."""
        raise NotImplementedError

    def __call__(self, specs: Sequence[RunSpec], first_solved: bool = False) -> list[Outcome]:
        self.first_solved = first_solved
        if len(self.calls) == self.interrupt_at:
            raise Interrupted(2)
        self.calls.append(list(specs))
        return [self._train(spec) for spec in specs]

    def _train(self, spec: RunSpec) -> Outcome:
        folder = Store(spec.execution["outputs"]).folder(spec)
        if result := folder.finished(spec.train):
            return Outcome(spec, result["status"], result, skipped=True)
        if len(self.trained) == self.interrupt_after:
            raise Interrupted(2)
        self.trained.append(spec)
        result = self.result(spec)
        folder.open(spec)
        folder.write_result(result)
        return Outcome(spec, result["status"], result)


class Trainer(FakeTrainer):
    """Knows which runs are solved."""

    def __init__(self, solves: Solves) -> None:
        super().__init__()
        self.solves = solves
        self.status = "not_solved"

    def result(self, spec: RunSpec) -> dict[str, Any]:
        status = "solved" if self.solves(spec) else self.status
        return {"status": status, "stopped_by": "solved", "iterations": 100 + spec.config["seed"], "accuracy": 1.0}


def lengths(trainer: Trainer) -> list[set[int]]:
    return [{spec.config["task"]["T"] for spec in call} for call in trainer.calls]


def up_to(T: int) -> Solves:
    return lambda spec: spec.config["task"]["T"] <= T


Install = Callable[[Solves], Trainer]
