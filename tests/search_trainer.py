"""What the tests of searches share: a trainer that knows which rates are good, and studies in memory."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import InMemoryStorage

from tprnn.config import RunSpec
from tprnn.engine.signals import Interrupted
from tprnn.protocols import samplers, search
from tprnn.protocols.many import Outcome
from tprnn.store import Store

RUN = ["task=copy_memory", "trainer=tptt_many", "optimizer=adam"]
BPTT = ["task=copy_memory", "trainer=bptt"]
RATES = ("alpha_i", "alpha_f", "alpha_g")
Judge = Callable[[RunSpec], dict[str, Any]]


class Trainer:
    """Stands for `run_all`: finishes runs by a rule, writes their folders, skips finished ones, notes its calls."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.calls: list[list[RunSpec]] = []
        self.trained: list[RunSpec] = []
        self.interrupt_after: int | None = None
        """Runs."""

    def __call__(self, specs: Sequence[RunSpec], first_solved: bool = False) -> list[Outcome]:
        self.calls.append(list(specs))
        return [self._train(spec) for spec in specs]

    def _train(self, spec: RunSpec) -> Outcome:
        folder = Store(spec.execution["outputs"]).folder(spec)
        if result := folder.finished(spec.train):
            return Outcome(spec, result["status"], result, skipped=True)
        if len(self.trained) == self.interrupt_after:
            raise Interrupted(2)
        self.trained.append(spec)
        result = {"status": "not_solved", "iterations": 100, "best_accuracy": 0.0} | self.judge(spec)
        folder.open(spec)
        folder.write_result(result)
        return Outcome(spec, result["status"], result)


def far(spec: RunSpec) -> dict[str, Any]:
    """A loss with its least at 1e-2 for every rate; no accuracy."""
    rates = [spec.config["trainer"].get(name) for name in (*RATES, "alpha")]
    return {"best_validation_loss": sum((math.log10(rate) + 2) ** 2 for rate in rates if rate)}


Install = Callable[..., Trainer]


def installer(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a trainer in the place of `run_all`."""

    def install(judge: Judge = far) -> Trainer:
        trainer = Trainer(judge)
        monkeypatch.setattr(search, "run_all", trainer)
        return trainer

    return install


def keep_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies in memory, which are as good as files for most tests and take no time."""
    kept: defaultdict[Path, InMemoryStorage] = defaultdict(InMemoryStorage)
    monkeypatch.setattr(samplers, "opened", lambda path: nullcontext(kept[path]))


def tried(trainer: Trainer) -> list[tuple[float, ...]]:
    """The rates of all runs trained, in their order."""
    return [tuple(spec.config["trainer"][name] for name in RATES) for spec in trainer.trained]
