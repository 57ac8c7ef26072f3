"""What the tests of searches share: a trainer that knows which rates are good, and studies in memory."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from fake_trainer import FakeTrainer
from optuna.storages import InMemoryStorage

from tprnn.config import RunSpec
from tprnn.protocols.search import command as search
from tprnn.protocols.search import samplers

RUN = ["task=copy_memory", "trainer=tptt_many", "optimizer=adam"]
BPTT = ["task=copy_memory", "trainer=bptt"]
RATES = ("alpha_i", "alpha_f", "alpha_g")
Judge = Callable[[RunSpec], dict[str, Any]]


class Trainer(FakeTrainer):
    """Knows how good settings are."""

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self.judge = judge

    def result(self, spec: RunSpec) -> dict[str, Any]:
        return {"status": "not_solved", "iterations": 100, "best_accuracy": 0.0} | self.judge(spec)


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
