"""Training runs to their ends.

The runs of a stack are worked on ensemble by ensemble, each for one block of `check_every` iterations and then a check;
a run that is done leaves its ensemble, another takes its place, and the others go on unchanged. Nothing that is decided
here depends on a neighbour, but for the end of a rung of which only the first success counts (engine/queue).
"""

from __future__ import annotations

import math
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch

from tprnn.budgets import is_cut
from tprnn.config import RunSpec
from tprnn.core import scans
from tprnn.core.work import Workspace
from tprnn.engine.ensemble import DTYPES, Ensemble
from tprnn.engine.group import Group
from tprnn.engine.memory import ran_out
from tprnn.engine.queue import Source, ensemble_size
from tprnn.engine.runs import BEST, Outcome, Progress, Run, result_of
from tprnn.engine.signals import Stop
from tprnn.errors import DamagedFile, RunLocked, UserError
from tprnn.store import CHECKPOINT, Store
from tprnn.trainers.base import State

Emit = Callable[[str, RunSpec, dict[str, Any]], None]
"""Called with (kind, spec, facts). Kinds: "begin" (process), "check" (a row of the metrics), "end" (outcome),
"elsewhere" (holder: who works on it), "compiling", and of a supervisor "died" (process, cause, runs)."""

_POLL = 0.1  # seconds between two looks of a process that has nothing to do


def work_through(queue: Source, store: Store, stop: Stop, emit: Emit) -> list[Outcome]:
    """Train runs of the queue, stack by stack, until nothing is left or `stop` is set; their outcomes."""
    outcomes: list[Outcome] = []
    while not stop.is_set() and not queue.over():
        if specs := queue.take_stack():
            try:
                outcomes += run_stack(specs, queue, store, stop, emit)
            finally:
                queue.leave()
        else:
            time.sleep(_POLL)  # another process may give some of its runs back
    return outcomes


def run_stack(specs: Sequence[RunSpec], queue: Source, store: Store, stop: Stop, emit: Emit) -> list[Outcome]:
    """Train runs that may share a stack (same `stack_key`), and those of the queue that fit in as places get free.

    Runs that another call holds are left to it. When `stop` is set, checkpoints are written and what is under way
    is "interrupted". An error in one ensemble fails its runs only; a UserError (disk full, damaged file) ends the
    stack.
    """
    stack = _Stack(specs[0], queue, store, stop, emit)
    outcomes = []
    try:
        compiling = scans.on_compilation(lambda: emit("compiling", specs[0], {}))
        with compiling, torch.inference_mode():  # no bookkeeping for autograd: every gradient is hand-derived
            for outcome in stack.train(specs):
                outcomes.append(outcome)
                emit("end", outcome.spec, {"outcome": outcome})
    finally:
        stack.unlock()
    return outcomes


class _Stack:
    """The runs under way in this process."""

    def __init__(self, first: RunSpec, queue: Source, store: Store, stop: Stop, emit: Emit) -> None:
        self.queue, self.store, self.stop, self.emit = queue, store, stop, emit
        self.key, self.places, self.ensemble_size = first.stack_key, queue.places(first), ensemble_size(first)
        self.device = first.execution["device"]
        # ensembles take turns on a CPU; on a GPU a recorded iteration keeps its buffers
        self.work = Workspace(DTYPES[first.config["dtype"]]) if self.device == "cpu" else None
        self.sizes: set[int] = set()
        self.groups: list[Group] = []
        self.size = 0  # the most runs that were under way at once
        self.held: set[Run] = set()

    def train(self, specs: Sequence[RunSpec]) -> Iterator[Outcome]:
        """Outcomes as runs come to their ends."""
        yield from self._begin(specs)
        while self.groups and not self.stop.is_set():
            broken: list[tuple[Group, Exception]] = []
            for group in self.groups:
                try:
                    yield from self._advance(group)
                except UserError:
                    raise
                except Exception as error:  # a bug of ours or of a user's rule
                    broken.append((group, error))
                if self.stop.is_set():
                    break
            self.groups = [group for group in self.groups if group.runs and group not in [b for b, _ in broken]]
            for group, why in broken:
                yield from self._apart(group.runs, why)
            if not self.stop.is_set():
                yield from self._rearrange()
        for group in self.groups:  # stopped
            yield from self._leave(group, group.runs, "signal")

    def _begin(self, specs: Sequence[RunSpec]) -> Iterator[Outcome]:
        """Lock runs and make their ensembles; outcomes of those that there is nothing to do for."""
        runs = []
        for spec in specs:
            found = self._take(spec)
            if isinstance(found, Run):
                runs.append(found)
            elif found is not None:
                yield found
        for members in self._together(runs):
            yield from self._add(members)
        self.size = max(self.size, sum(len(group.runs) for group in self.groups))

    def _take(self, spec: RunSpec) -> Run | Outcome | None:
        """Lock a run's folder and read where the run stands; an Outcome where there is nothing to do.

        None where another call works on it, and it comes back.
        """
        folder = self.store.folder(spec)
        run = Run(spec, folder, Progress())
        try:
            run.lock.enter_context(folder.lock())
        except RunLocked as error:
            if self.queue.elsewhere(spec):
                self.emit("elsewhere", spec, {"holder": folder.holder()})
                return None
            return Outcome(spec, "locked", error=str(error))
        self.held.add(run)
        folder.open(spec)
        if spec.execution["force"]:
            folder.clear()
        elif done := folder.finished(spec.train, score=spec.score):  # by another call, since this one made its plan
            return self._done(run, done)
        _stand(run)
        if run.remaining < 0 and (done := folder.finished(spec.train, run.progress.iteration, spec.score)):
            return self._done(run, done)
        folder.set_budget(spec.train)
        self.emit("begin", spec, {"process": os.getpid()})
        return run

    def _done(self, run: Run, result: dict[str, Any]) -> Outcome:
        """Let go a run that needs no more training within its budget."""
        self._release(run)
        return Outcome(run.spec, result["status"], result, skipped=True)

    def _together(self, runs: Sequence[Run]) -> Iterator[list[Run]]:
        """Runs of one ensemble: as many as it holds, all as far from their next checks."""
        for _, same in groupby(sorted(runs, key=_remaining), key=_remaining):
            members = list(same)
            for first in range(0, len(members), self.ensemble_size):
                yield members[first : first + self.ensemble_size]

    def _add(self, runs: list[Run], alone: bool = False) -> Iterator[Outcome]:
        """A group for runs, started or as their checkpoints left them. Raises DamagedFile."""
        try:
            state = State.from_flat(_stacked(runs, self.device)) if runs[0].tensors else None
            positions = [run.progress.iteration for run in runs]
            ensemble = Ensemble([run.spec for run in runs], self.device, state, positions, self.work)
            _check_shapes(runs, ensemble)
            self.groups.append(Group(runs, ensemble, alone))
        except UserError:
            raise
        except Exception as error:  # too large for the memory, or a bug of ours or of a user's rule
            yield from self._apart(runs, error)

    def _apart(self, runs: Sequence[Run], error: Exception) -> Iterator[Outcome]:
        """One of them broke the ensemble: each goes on by itself from its last checkpoint, or fails if it was alone."""
        if len(runs) == 1:
            yield self._fail(runs[0], error)
            return
        traceback.clear_frames(error.__traceback__)  # its tensors, and the scratch for so many runs at once
        if self.work:
            self.work.clear()
        for run in runs:
            _stand(run)
            yield from self._add([run], alone=True)

    def _advance(self, group: Group) -> Iterator[Outcome]:
        """One block of iterations and its check; outcomes of the runs that end there."""
        started = scans.clock()
        if not group.block(self.stop):  # stopped on the way
            return
        ended = group.check(started, self.emit)
        for run, reason, check in ended:
            result = result_of(run.spec, run.progress, reason, check, self.size, group.examine(run, check))
            run.folder.save_model(group.tensors_of(run, parameters=True), {"signature": run.spec.signature})
            if is_cut(result):  # a larger budget goes on from here
                group.checkpoint([run])
            run.folder.write_result(result)
            self._release(run)
            if result["status"] == "solved":
                self.queue.solved(run.progress.iteration)
            yield Outcome(run.spec, result["status"], result)
        group.drop([run for run, _, _ in ended])
        group.checkpoint_if_due()

    def _rearrange(self) -> Iterator[Outcome]:
        """Between two rounds: who leaves, who joins, who shares an ensemble."""
        news = self.queue.news()
        if news.bound is not None:
            for group in self.groups:
                late = [run for run in group.runs if run.progress.iteration >= news.bound]
                yield from self._leave(group, late, "decided")
        self.groups = [group for group in self.groups if group.runs]
        under_way = sum(len(group.runs) for group in self.groups)
        if news.idle and under_way > 1:
            self._share(under_way // 2)
        elif self.places - under_way >= max(1, self.places // 8):  # not one by one, where a new ensemble costs time
            yield from self._begin(self.queue.take(self.key, self.places - under_way))
        self._merge()

    def _leave(self, group: Group, runs: Sequence[Run], reason: str) -> Iterator[Outcome]:
        """Save runs where they stand and end them as interrupted."""
        group.checkpoint(runs)
        for run in runs:
            result = result_of(run.spec, run.progress, reason, None, self.size)
            run.folder.write_result(result)
            self._release(run)
            yield Outcome(run.spec, result["status"], result)
        group.drop(list(runs))

    def _share(self, count: int) -> None:
        """Give runs back for a process that has nothing to do."""
        given: list[RunSpec] = []
        for group in self.groups:
            runs = group.runs[: count - len(given)]
            group.checkpoint(runs)
            group.drop(runs)
            for run in runs:
                self._release(run)
            # what was begun anew is not to be begun anew again
            given += [replace(run.spec, execution={**run.spec.execution, "force": False}) for run in runs]
        self.groups = [group for group in self.groups if group.runs]
        self.queue.give_back(given)

    def _merge(self) -> None:
        """Fill up ensembles where that makes them fewer."""
        small = [group for group in self.groups if len(group.runs) < self.ensemble_size and not group.alone]
        for _, same in groupby(sorted(small, key=_group_remaining), key=_group_remaining):
            groups = list(same)
            if -(-sum(len(group.runs) for group in groups) // self.ensemble_size) < len(groups):
                self._merge_all(groups)
        if self.work and (sizes := {len(group.ensemble.specs) for group in self.groups}) != self.sizes:
            self.sizes = sizes
            self.work.clear()

    def _merge_all(self, groups: Sequence[Group]) -> None:
        try:
            merged = Group.merge(groups).split(self.ensemble_size)
        except Exception:  # too large for the memory: they go on as they are
            for group in groups:
                group.alone = True
        else:
            self.groups = [group for group in self.groups if group not in groups] + merged

    def _fail(self, run: Run, error: Exception) -> Outcome:
        """Leave the traceback in the run's folder."""
        line = ran_out(error) or f"{type(error).__name__}: {error}".splitlines()[0]
        result = result_of(run.spec, run.progress, "error", None, self.size) | {"error": line}
        run.folder.write_failure("".join(traceback.format_exception(error)))
        run.folder.write_result(result)
        self._release(run)
        return Outcome(run.spec, "failed", result, error=line)

    def _release(self, run: Run) -> None:
        self.held.discard(run)
        run.lock.close()

    def unlock(self) -> None:
        """Give up what is still held, after an error."""
        for run in list(self.held):
            self._release(run)


def given_up(spec: RunSpec, store: Store, line: str) -> Outcome:
    """A run that cannot be trained, because of what no process can tell of itself: `line`. It counts as failed."""
    folder = store.folder(spec)
    run = Run(spec, folder, Progress())
    try:
        with folder.lock():
            _stand(run)
            result = result_of(spec, run.progress, "error", None, 1) | {"error": line}
            folder.write_result(result)
    except UserError as error:  # another call works on it by now, or its files are damaged
        return Outcome(spec, "failed", error=f"{line}; {error}")
    return Outcome(spec, "failed", result, error=line)


def _stand(run: Run) -> None:
    """Put the run where its last checkpoint left it, or at its start. Raises DamagedFile."""
    run.progress, run.tensors, run.best = Progress(), {}, {}
    if checkpoint := run.folder.load_checkpoint():
        tensors, state = checkpoint
        run.tensors = {name: value for name, value in tensors.items() if not name.startswith(BEST)}
        if "best_accuracy" in state:  # of before there were other scores
            state["best_score"] = state.pop("best_accuracy")
        if "best_loss" in state:
            run.best = {name.removeprefix(BEST): w for name, w in tensors.items() if name.startswith(BEST)}
        else:  # of before checks of equal error were told apart: only fewer mistakes are known to be better
            state["best_loss"] = -math.inf
        try:
            run.progress = Progress(**state)
        except TypeError as error:
            raise DamagedFile(f"{run.folder.path / CHECKPOINT}: damaged ({error}); it is left as it is") from error
    run.folder.rewind_metrics(run.progress.iteration)


def _remaining(run: Run) -> tuple[int, bool]:
    return run.remaining, bool(run.tensors)


def _group_remaining(group: Group) -> int:
    return group.remaining


def _stacked(runs: Sequence[Run], device: str) -> dict[str, torch.Tensor]:
    try:
        return {name: torch.stack([run.tensors[name] for run in runs]).to(device) for name in runs[0].tensors}
    except (KeyError, RuntimeError) as error:
        if ran_out(error):
            raise
        raise DamagedFile(f"{runs[0].folder.path / CHECKPOINT}: damaged ({error}); it is left as it is") from error


def _check_shapes(runs: Sequence[Run], ensemble: Ensemble) -> None:
    """Raise DamagedFile where a checkpoint's parameters are not those of the network."""
    found = {name: tuple(w.shape[1:]) for name, w in ensemble.state.params.items()}
    if found != ensemble.trainer.shapes():
        path = runs[0].folder.path / CHECKPOINT
        raise DamagedFile(f"{path}: damaged (its parameters are not those of the run's network); it is left as it is")
