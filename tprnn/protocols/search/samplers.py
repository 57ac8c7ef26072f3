"""Where a search looks next: at random, or by Optuna's tree-structured Parzen estimator (TPE), kept in a SQLite file.

A trial is a function of (seed, number of the trial, what was asked and told before it), so that a search which was
broken off goes on as if it had not been.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tprnn.core.streams import Stream, uniform
from tprnn.errors import DamagedFile, UserError
from tprnn.protocols.search.spaces import Space

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Trial:
    """One point of the space."""

    number: int
    values: Mapping[str, str]
    """Of its dimensions, as they stand in override lines."""


class Sampler(ABC):
    """Asked for points, and told how good they were."""

    def before(self) -> list[Trial]:
        """Trials that were asked for in earlier calls, told or not, by number."""
        return []

    def waiting(self, trial: Trial) -> bool:
        """Whether the trial is still to be told."""
        return True

    @abstractmethod
    def ask(self) -> Trial:
        """The next trial."""

    @abstractmethod
    def tell(self, trial: Trial, score: float | None) -> None:
        """How good a trial was (more is better); None: it failed."""


class AtRandom(Sampler):
    """Independent points from streams of our own; it learns nothing and needs no file: all is in the run folders."""

    def __init__(self, space: Space, seed: int) -> None:
        self.space, self.asked = space, 0
        self.streams = {name: Stream([seed], f"search/{name}") for name in space.dimensions}

    def ask(self) -> Trial:
        number = self.asked
        self.asked += 1
        shares = {
            name: uniform(stream.words([number], 1), torch.float64).item() for name, stream in self.streams.items()
        }
        drawn = {name: self.space.dimensions[name].at(share) for name, share in shares.items()}
        return Trial(number, {name: drawn[name] for name in self.space.names(drawn)})

    def tell(self, trial: Trial, score: float | None) -> None:
        """Nothing follows from it."""


class TPE(Sampler):
    """Optuna's TPE (Bergstra, Bardenet, Bengio and Kegl 2011); trials that are under way count as bad ones near by."""

    def __init__(self, study: Study, space: Space, seed: int) -> None:
        from optuna.trial import TrialState

        self.study, self.space, self.seed = study, space, seed
        self.running, self.failed = TrialState.RUNNING, TrialState.FAIL
        for trial in study.trials:  # a process ended between asking and drawing
            if trial.state == self.running and self._known(trial) is None:
                study.tell(trial.number, state=self.failed)

    def before(self) -> list[Trial]:
        found = map(self._known, self.study.trials)
        return [trial for trial in found if trial is not None]

    def waiting(self, trial: Trial) -> bool:
        return self.study.trials[trial.number].state == self.running

    def ask(self) -> Trial:
        from optuna.samplers import TPESampler

        # the state of a sampler is not in the file: a new one for each trial
        words = derived(self.seed, f"search/{len(self.study.trials)}")
        self.study.sampler = TPESampler(seed=words, constant_liar=True)
        asked = self.study.ask()
        values: dict[str, str] = {}
        for name in self.space.groups:
            values[name] = self.space.dimensions[name].suggest(asked, name)
        for name in self.space.names(values)[len(values) :]:
            values[name] = self.space.dimensions[name].suggest(asked, name)
        return Trial(asked.number, values)

    def tell(self, trial: Trial, score: float | None) -> None:
        if self.waiting(trial):
            if score is None:
                self.study.tell(trial.number, state=self.failed)
            else:
                self.study.tell(trial.number, score)

    def _known(self, trial: FrozenTrial) -> Trial | None:
        """A trial of the file; None where not all of it was drawn."""
        values = {name: self.space.dimensions[name].text(value) for name, value in trial.params.items()}
        if not set(self.space.groups) <= set(values) or set(self.space.names(values)) != set(values):
            return None
        return Trial(trial.number, {name: values[name] for name in self.space.names(values)})


@contextlib.contextmanager
def tpe(path: Path, space: Space, seed: int) -> Iterator[TPE]:
    """A sampler whose study is the SQLite file `path`, made if it is not there. Raises DamagedFile."""
    require_optuna()
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with opened(path) as storage:
            yield TPE(optuna.create_study(storage=storage, direction="maximize", **_ONE), space, seed)
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        reason = str(error).splitlines()[0]
        raise DamagedFile(f"{path}: cannot be used as a study ({reason}); it is left as it is") from error


_ONE: dict[str, Any] = {"study_name": "search", "load_if_exists": True}  # a file holds one study


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BaseStorage]:
    """Optuna's storage in the SQLite file `path`."""
    from optuna.storages import RDBStorage

    storage = RDBStorage(f"sqlite:///{path}")
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def require_optuna() -> None:
    """Raise UserError where Optuna is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise UserError("search.sampler=tpe needs optuna: pip install 'tprnn[search]', or give search.sampler=random")


def derived(seed: int, name: str) -> int:
    """32 bits that are a function of a seed and a name."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "little")
