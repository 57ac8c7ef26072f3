"""Stands for training where climbs are tested: it knows which lengths are solved."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tprnn.config import RunSpec
from tprnn.engine.signals import Interrupted
from tprnn.protocols.many import Outcome
from tprnn.store import Store

Solves = Callable[[RunSpec], bool]


class Trainer:
    """Stands for `run_all`: finishes runs by a rule, writes their folders, skips finished ones, notes its calls."""

    def __init__(self, solves: Solves) -> None:
        self.solves = solves
        self.calls: list[list[RunSpec]] = []
        self.trained: list[RunSpec] = []
        self.interrupt_at: int | None = None
        self.status = "not_solved"

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
        self.trained.append(spec)
        status = "solved" if self.solves(spec) else self.status
        result = {"status": status, "stopped_by": "solved", "iterations": 100 + spec.config["seed"], "accuracy": 1.0}
        folder.open(spec)
        folder.write_result(result)
        return Outcome(spec, status, result)


def lengths(trainer: Trainer) -> list[set[int]]:
    return [{spec.config["task"]["T"] for spec in call} for call in trainer.calls]


def up_to(T: int) -> Solves:
    return lambda spec: spec.config["task"]["T"] <= T


Install = Callable[[Solves], Trainer]
