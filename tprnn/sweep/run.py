"""Any set of runs, from plan to results: finished ones are skipped, the rest is packed into stacks and trained."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from tprnn.config import RunSpec
from tprnn.core import code_cache
from tprnn.cost.memory import refused
from tprnn.engine.loop import Emit
from tprnn.engine.queue import Queue, processes
from tprnn.engine.runs import REFUSED, Outcome
from tprnn.engine.signals import Interrupted, SignalFlag, catch_signals
from tprnn.errors import UserError
from tprnn.store import Store
from tprnn.sweep.plan import as_asked, distinct, furthest
from tprnn.sweep.progress import Progress
from tprnn.sweep.workers import train_here, train_in_workers


def run_all(specs: Sequence[RunSpec], first_solved: bool = False) -> list[Outcome]:
    """Bring every run to its end; outcomes in the order of `specs` (equal specs share one run).

    Specs that differ in their budgets alone are one run too, trained once to the largest; each gets what the run came
    to within its own. Finished runs are not repeated (but with `force`), broken-off ones go on from their checkpoints.
    With `first_solved` all runs advance side by side and end where the first of them is solved: those that are not, are
    left there as interrupted. Runs that another call works on are waited for, unless `locked` is "leave". With
    `fail_fast` a run that fails is the last: others are left as interrupted. A run that needs more memory than is free
    is "refused", and nothing of it is written. Raises UserError before anything is written (no such device, outputs not
    writable, every run refused), Interrupted after SIGINT, SIGTERM or SIGHUP.
    """
    if not specs:
        return []
    execution = specs[0].execution
    _require_device(execution["device"])
    workers = processes(execution)
    store = Store(execution["outputs"])
    unique = furthest(specs)
    outcomes = {} if execution["force"] else _finished(store, unique, first_solved)
    waiting = [spec for signature, spec in unique.items() if signature not in outcomes]
    too_large = {one.spec.signature: one for one in refused(waiting, others=bool(outcomes))}
    unique = {signature: spec for signature, spec in unique.items() if signature not in too_large}
    waiting = [spec for spec in waiting if spec.signature in unique]
    if not store.root.is_dir():
        store.check_writable()
    with Progress(list(unique.values()), list(outcomes.values()), execution["quiet"], workers) as progress:
        outcomes |= too_large
        if waiting:
            store.check_writable()
            with catch_signals() as flag:
                code_cache.choose()  # before processes are started that would each choose, and say so
                workers = min(workers, len(waiting))
                train = train_here if workers == 1 else train_in_workers
                bound = _bound(outcome.result or {} for outcome in outcomes.values())
                free = None if execution["locked"] == "leave" else lambda spec: not store.folder(spec).is_locked()
                queue = Queue(waiting, workers, first_solved, bound, free)
                halt = _Halt(flag, execution["fail_fast"], progress.emit)
                for outcome in train(queue, waiting[0].execution, halt, workers, halt.emit):
                    outcomes[outcome.spec.signature] = outcome
                for spec in waiting:  # stopped before their turn
                    outcomes.setdefault(spec.signature, Outcome(spec, "interrupted"))
            if flag.signum is not None:
                progress.end(list(outcomes.values()), store)
                raise Interrupted(flag.signum)
        found = [as_asked(spec, outcomes[spec.signature], store) for spec in specs]
        progress.end(distinct(found), store)
    return found


class _Halt:
    """Whether to stop: asked for by a signal, or with `fail_fast` because a run has failed."""

    def __init__(self, flag: SignalFlag, fail_fast: bool, emit: Emit) -> None:
        self.flag, self.fail_fast, self.pass_on = flag, fail_fast, emit
        self.failed = False

    def is_set(self) -> bool:
        return self.failed or self.flag.is_set()

    def emit(self, kind: str, spec: RunSpec, facts: dict[str, Any]) -> None:
        """Look at an event on its way."""
        self.failed |= self.fail_fast and kind == "end" and facts["outcome"].status == "failed"
        self.pass_on(kind, spec, facts)


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """0; 1 where a run failed or was refused; else 3 where runs were left to another call."""
    statuses = {outcome.status for outcome in outcomes}
    return 1 if statuses & {"failed", REFUSED} else 3 if "locked" in statuses else 0


def pack(specs: Sequence[RunSpec], most: int) -> list[list[RunSpec]]:
    """Stacks of at most `most` runs (and at most the spec's stack_size) that differ in numbers only."""
    groups: dict[str, list[RunSpec]] = defaultdict(list)
    for spec in specs:
        groups[spec.stack_key].append(spec)
    stacks = []
    for group in groups.values():
        size = min(group[0].execution["stack_size"], most)
        stacks += [group[i : i + size] for i in range(0, len(group), size)]
    return stacks


def _require_device(device: str) -> None:
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        there = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise UserError(f"device: '{device}' is not there; choices: {', '.join(there)}") from error


def _finished(store: Store, specs: dict[str, RunSpec], first_solved: bool) -> dict[str, Outcome]:
    """Outcomes of runs that need no more training, by signature."""
    folders = {signature: store.folder(spec) for signature, spec in specs.items()}
    results = {signature: folder.finished(specs[signature].train) for signature, folder in folders.items()}
    found = {
        signature: Outcome(specs[signature], result["status"], result, skipped=True)
        for signature, result in results.items()
        if result is not None
    }
    bound = _bound(outcome.result or {} for outcome in found.values()) if first_solved else None
    for signature in specs.keys() - found.keys() if bound is not None else ():
        result = folders[signature].result() or {}
        if result.get("status") == "interrupted" and result["iterations"] >= bound:
            found[signature] = Outcome(specs[signature], "interrupted", result, skipped=True)
    return found


def _bound(results: Iterable[Mapping[str, Any]]) -> int | None:
    """The fewest iterations of a solved run."""
    return min((result["iterations"] for result in results if result.get("status") == "solved"), default=None)
