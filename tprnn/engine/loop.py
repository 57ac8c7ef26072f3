"""Training a stack of runs to their ends.

The stack is worked on slab by slab, each for one block of `check_every` iterations and then a check; a run that is
done leaves its slab and the others go on unchanged. Nothing that is decided here depends on a neighbour.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import groupby
from typing import Any

import torch

from tprnn.config import RunSpec
from tprnn.engine.group import Group
from tprnn.engine.runs import Outcome, Progress, Run, result_of
from tprnn.engine.signals import Stop
from tprnn.engine.slab import Slab
from tprnn.errors import DamagedFile, RunLocked, UserError
from tprnn.store import CHECKPOINT, RunFolder, Store
from tprnn.trainers.base import State

Emit = Callable[[str, RunSpec, dict[str, Any]], None]
"""Called with ("check", spec, metrics row) and ("end", spec, result)."""


def run_stack(specs: Sequence[RunSpec], store: Store, stop: Stop, emit: Emit) -> list[Outcome]:
    """Train runs that may share a stack (same `stack_key`); outcomes in the order of `specs`.

    Runs that another process holds are left to it. When `stop` is set, checkpoints are written and what is under way
    is "interrupted". An error in one slab fails its runs only; a UserError (disk full, damaged file) ends the stack.
    """
    outcomes: dict[str, Outcome] = {}
    with ExitStack() as locks:
        runs = []
        for spec in specs:
            found = _take(spec, store, locks)
            if isinstance(found, Run):
                runs.append(found)
            else:
                outcomes[spec.signature] = found
        for outcome in _train(runs, stop, emit):
            outcomes[outcome.spec.signature] = outcome
            emit("end", outcome.spec, outcome.result or {})
    return [outcomes[spec.signature] for spec in specs]


def _take(spec: RunSpec, store: Store, locks: ExitStack) -> Run | Outcome:
    """Lock a run's folder and read where the run stands; an Outcome where there is nothing to do."""
    folder = store.folder(spec)
    try:
        locks.enter_context(folder.lock())
    except RunLocked as error:
        return Outcome(spec, "locked", error=str(error))
    folder.open(spec)
    if spec.execution["force"]:
        folder.clear()
    elif done := folder.finished():  # by another process, since this one made its plan
        return Outcome(spec, done["status"], done, skipped=True)
    return _stand(spec, folder)


def _stand(spec: RunSpec, folder: RunFolder) -> Run:
    """The run as its last checkpoint left it, or at its start. Raises DamagedFile."""
    run = Run(spec, folder, Progress())
    if checkpoint := folder.load_checkpoint():
        run.tensors, state = checkpoint
        try:
            run.progress = Progress(**state)
        except TypeError as error:
            raise DamagedFile(f"{folder.path / CHECKPOINT}: damaged ({error}); it is left as it is") from error
    folder.rewind_metrics(run.progress.iteration)
    return run


def _together(runs: list[Run]) -> Iterator[list[Run]]:
    """Runs of one slab: as many as it holds, all at the same iteration."""
    for _, same in groupby(sorted(runs, key=_iteration), key=_iteration):
        members = list(same)
        size = Group.slab_size(members[0].spec)
        for first in range(0, len(members), size):
            yield members[first : first + size]


def _group(runs: list[Run]) -> Group:
    """The runs with their slab, started or as their checkpoints left them. Raises DamagedFile."""
    device = runs[0].spec.execution["device"]
    state = State.from_flat(_stacked(runs, device)) if runs[0].tensors else None
    slab = Slab([run.spec for run in runs], device, state)
    _check_shapes(runs, slab)
    return Group(runs, slab)


def _iteration(run: Run) -> int:
    return run.progress.iteration


def _stacked(runs: Sequence[Run], device: str) -> dict[str, torch.Tensor]:
    try:
        return {name: torch.stack([run.tensors[name] for run in runs]).to(device) for name in runs[0].tensors}
    except (KeyError, RuntimeError) as error:
        raise DamagedFile(f"{runs[0].folder.path / CHECKPOINT}: damaged ({error}); it is left as it is") from error


def _check_shapes(runs: Sequence[Run], slab: Slab) -> None:
    """Raise DamagedFile where a checkpoint's parameters are not those of the network."""
    found = {name: tuple(w.shape[1:]) for name, w in slab.state.params.items()}
    if found != slab.trainer.shapes():
        path = runs[0].folder.path / CHECKPOINT
        raise DamagedFile(f"{path}: damaged (its parameters are not those of the run's network); it is left as it is")


def _train(runs: list[Run], stop: Stop, emit: Emit) -> Iterator[Outcome]:
    """Outcomes as runs come to their ends."""
    stack = len(runs)
    waiting = list(_together(runs))
    groups: list[Group] = []
    while (waiting or groups) and not stop.is_set():
        broken: list[tuple[list[Run], Exception]] = []
        for members in waiting:
            try:
                groups.append(_group(members))
            except UserError:
                raise
            except Exception as error:  # too large for the memory, or a bug of ours or of a user's rule
                broken.append((members, error))
        waiting = []
        for group in groups:
            try:
                yield from _advance(group, stack, stop, emit)
            except UserError:
                raise
            except Exception as error:
                broken.append((group.runs, error))
                group.keep([])
            if stop.is_set():
                break
        groups = [group for group in groups if group.runs]
        for members, reason in broken:
            if len(members) == 1:
                yield _fail(members[0], stack, reason)
            else:  # one of them broke it: each goes on by itself from its last checkpoint
                waiting += [[_stand(run.spec, run.folder)] for run in members]
    for group in groups:  # stopped
        group.checkpoint()
    for run in [run for group in groups for run in group.runs] + [run for members in waiting for run in members]:
        result = result_of(run.spec, run.progress, "signal", None, stack)
        run.folder.write_result(result)
        yield Outcome(run.spec, "interrupted", result)


def _advance(group: Group, stack: int, stop: Stop, emit: Emit) -> Iterator[Outcome]:
    """One block of iterations and its check; outcomes of the runs that end there."""
    started = time.perf_counter()
    if not group.block(stop):  # stopped on the way
        return
    ended = group.check(started, emit)
    for run, reason, check in ended:
        result = result_of(run.spec, run.progress, reason, check, stack)
        run.folder.save_model(group.tensors_of(run, parameters=True), {"signature": run.spec.signature})
        run.folder.write_result(result)
        yield Outcome(run.spec, result["status"], result)
    done = [run for run, _, _ in ended]
    group.keep([i for i, run in enumerate(group.runs) if run not in done])
    group.checkpoint_if_due()


def _fail(run: Run, stack: int, error: Exception) -> Outcome:
    """Leave the traceback in the run's folder."""
    line = f"{type(error).__name__}: {error}".splitlines()[0]
    result = result_of(run.spec, run.progress, "error", None, stack) | {"error": line}
    run.folder.write_failure("".join(traceback.format_exception(error)))
    run.folder.write_result(result)
    return Outcome(run.spec, "failed", result, error=line)
