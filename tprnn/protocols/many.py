"""Any set of runs, from plan to results: finished ones are skipped, the rest is packed into stacks and trained."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from tprnn.config import RunSpec
from tprnn.engine.backlog import Backlog, processes
from tprnn.engine.runs import Outcome
from tprnn.engine.signals import Interrupted, catch_signals
from tprnn.errors import UserError
from tprnn.protocols.progress import Progress
from tprnn.protocols.workers import train_here, train_in_workers
from tprnn.store import FINISHED, Store


def run_all(specs: Sequence[RunSpec], first_solved: bool = False) -> list[Outcome]:
    """Bring every run to its end; outcomes in the order of `specs` (equal specs share one run).

    Finished runs are not repeated (but with `force`), broken-off ones go on from their checkpoints. With `first_solved`
    all runs advance side by side and end where the first of them is solved: those that are not, are left there as
    interrupted. Raises UserError before anything is written (no such device, outputs not writable), Interrupted after
    SIGINT or SIGTERM.
    """
    if not specs:
        return []
    execution = specs[0].execution
    _require_device(execution["device"])
    workers = processes(execution)
    store = Store(execution["outputs"])
    if not store.root.is_dir():
        store.check_writable()
    unique = {spec.signature: spec for spec in specs}
    outcomes = {} if execution["force"] else _finished(store, unique, first_solved)
    waiting = [spec for signature, spec in unique.items() if signature not in outcomes]
    with Progress(list(unique.values()), list(outcomes.values()), execution["quiet"], workers) as progress:
        if waiting:
            store.check_writable()
            with catch_signals() as flag:
                workers = min(workers, len(waiting))
                train = train_here if workers == 1 else train_in_workers
                bound = _bound(outcome.result or {} for outcome in outcomes.values())
                backlog = Backlog(waiting, workers, first_solved, bound)
                for outcome in train(backlog, waiting[0].execution, flag, workers, progress.emit):
                    outcomes[outcome.spec.signature] = outcome
                for spec in waiting:  # stopped before their turn
                    outcomes.setdefault(spec.signature, Outcome(spec, "interrupted"))
            if flag.signum is not None:
                progress.end(list(outcomes.values()), store)
                raise Interrupted(flag.signum)
        found = [outcomes[spec.signature] for spec in specs]
        progress.end(list(outcomes.values()), store)
    return found


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """0, or 1 where a run failed."""
    return int(any(outcome.status == "failed" for outcome in outcomes))


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
    results = {signature: store.folder(spec).result() or {} for signature, spec in specs.items()}
    bound = _bound(results.values()) if first_solved else None
    found = {}
    for signature, result in results.items():
        status = str(result.get("status"))
        decided = bound is not None and status == "interrupted" and result["iterations"] >= bound
        if status in FINISHED or decided:
            found[signature] = Outcome(specs[signature], status, result, skipped=True)
    return found


def _bound(results: Iterable[Mapping[str, Any]]) -> int | None:
    """The fewest iterations of a solved run."""
    return min((result["iterations"] for result in results if result.get("status") == "solved"), default=None)
