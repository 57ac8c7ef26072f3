"""Any set of runs, from plan to results: finished ones are skipped, the rest is packed into stacks and trained."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from tprnn.config import RunSpec
from tprnn.engine.loop import Emit, run_stack
from tprnn.engine.runs import Outcome
from tprnn.engine.signals import Interrupted, SignalFlag, Stop, catch_signals
from tprnn.engine.slab import prepare_process
from tprnn.errors import UserError
from tprnn.protocols.progress import Progress
from tprnn.store import Store

Message = tuple[str, RunSpec, dict[str, Any]]


def run_all(specs: Sequence[RunSpec]) -> list[Outcome]:
    """Bring every run to its end; outcomes in the order of `specs` (equal specs share one run).

    Finished runs are not repeated (but with `force`), broken-off ones go on from their checkpoints. Raises UserError
    before anything is written (no such device, outputs not writable), Interrupted after SIGINT or SIGTERM.
    """
    if not specs:
        return []
    execution = specs[0].execution
    _require_device(execution["device"])
    store = Store(execution["outputs"])
    if not store.root.is_dir():
        store.check_writable()
    unique = {spec.signature: spec for spec in specs}
    outcomes = {} if execution["force"] else _finished(store, unique)
    waiting = [spec for signature, spec in unique.items() if signature not in outcomes]
    with Progress(list(unique.values()), list(outcomes.values()), execution["quiet"]) as progress:
        if waiting:
            store.check_writable()
            stacks = pack(waiting, _share(len(waiting), execution["workers"]))
            workers = min(execution["workers"], len(stacks))
            with catch_signals() as flag:
                train = _here if workers == 1 else _in_workers
                for outcome in train(stacks, store, flag, workers, progress.emit):
                    outcomes[outcome.spec.signature] = outcome
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


def _share(runs: int, workers: int) -> int:
    """Runs in a stack, so that all workers end about together."""
    return runs if workers == 1 else max(1, runs // (4 * workers))


def _require_device(device: str) -> None:
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        there = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise UserError(f"device: '{device}' is not there; choices: {', '.join(there)}") from error


def _finished(store: Store, specs: dict[str, RunSpec]) -> dict[str, Outcome]:
    found = {}
    for signature, spec in specs.items():
        if result := store.folder(spec).finished():
            found[signature] = Outcome(spec, result["status"], result, skipped=True)
    return found


def _here(stacks: list[list[RunSpec]], store: Store, stop: SignalFlag, workers: int, emit: Emit) -> list[Outcome]:
    """Train in this process, one stack after another."""
    prepare_process(stacks[0][0].execution["threads"])
    outcomes = []
    for stack in stacks:
        if stop.is_set():
            break
        outcomes += run_stack(stack, store, stop, emit)
    return outcomes


_stop: Stop
_messages: Any


def _start_worker(stop: Stop, messages: Any, threads: int) -> None:
    global _stop, _messages
    _stop, _messages = _WorkerStop(stop), messages
    prepare_process(threads)


class _WorkerStop:
    """The parent's flag, or its death. Signals reach the parent alone: it decides for all."""

    def __init__(self, flag: Stop) -> None:
        self.flag, self.parent = flag, os.getppid()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def is_set(self) -> bool:
        return self.flag.is_set() or os.getppid() != self.parent


def _work(stack: list[RunSpec]) -> list[Outcome]:
    store = Store(stack[0].execution["outputs"])
    return run_stack(stack, store, _stop, lambda kind, spec, row: _messages.put((kind, spec, row)))


def _in_workers(stacks: list[list[RunSpec]], store: Store, stop: SignalFlag, workers: int, emit: Emit) -> list[Outcome]:
    """Train in worker processes, one stack at a time each."""
    context = multiprocessing.get_context("spawn")
    flag, messages = context.Event(), context.Manager().Queue()
    threads = stacks[0][0].execution["threads"]
    outcomes: list[Outcome] = []
    done = threading.Event()

    def relay() -> None:
        while not done.is_set() or not messages.empty():
            try:
                emit(*messages.get(timeout=0.2))
            except queue.Empty:
                continue

    relaying = threading.Thread(target=relay, daemon=True)
    relaying.start()
    try:
        with ProcessPoolExecutor(workers, context, _start_worker, (flag, messages, threads)) as pool:
            waiting: set[Future[list[Outcome]]] = {pool.submit(_work, stack) for stack in stacks}
            while waiting:
                ready, waiting = wait(waiting, timeout=0.1, return_when=FIRST_COMPLETED)
                try:
                    for future in ready:
                        outcomes += future.result()
                except BrokenProcessPool as error:
                    raise UserError("a worker process was killed; run the same command again to go on") from error
                except UserError:
                    flag.set()  # let the others write their checkpoints
                    raise
                if stop.is_set() and not flag.is_set():
                    flag.set()
                    for future in waiting:
                        future.cancel()
                    waiting = {future for future in waiting if not future.cancelled()}
    finally:
        flag.set()
        done.set()
        relaying.join()
    return outcomes
