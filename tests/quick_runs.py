"""Small runs for tests of the engine, and what they left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conftest import make_spec

from tprnn.config import RunSpec
from tprnn.engine.runs import Outcome
from tprnn.store import Store

QUICK = {"model.H": 20, "train.validation_size": 2000, "train.check_every": 20, "train.max_iterations": 60}


def quick(tmp_path: Path, changes: dict[str, Any] | None = None, **choices: str) -> RunSpec:
    return make_spec(QUICK | {"outputs": str(tmp_path / "outputs")} | (changes or {}), **choices)


def metrics(outcome: Outcome) -> list[dict[str, Any]]:
    return Store(outcome.spec.execution["outputs"]).folder(outcome.spec).read_metrics()


def strip(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


class After:
    """A wish to stop that comes when it has been looked for so many times; the loop looks once in an iteration."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def is_set(self) -> bool:
        self.looks -= 1
        return self.looks < 0
