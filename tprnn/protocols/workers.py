"""The processes that train: this one, or workers that share a backlog."""

from __future__ import annotations

import functools
import multiprocessing
import os
import queue
import threading
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tprnn.engine.backlog import Backlog, BacklogManager, processes
from tprnn.engine.loop import Emit, work_through
from tprnn.engine.runs import Outcome
from tprnn.engine.signals import SignalFlag, Stop, ignore_signals
from tprnn.engine.slab import prepare_process
from tprnn.errors import UserError
from tprnn.store import Store

Execution = Mapping[str, Any]


def train_here(backlog: Backlog, execution: Execution, stop: SignalFlag, workers: int, emit: Emit) -> list[Outcome]:
    """Train in this process."""
    prepare_process(execution["threads"])
    return work_through(backlog, Store(execution["outputs"]), stop, emit)


class _Crew:
    """Worker processes, kept from one call to the next: a climb makes a call at every length."""

    def __init__(self, workers: int, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.manager = BacklogManager(ctx=context)
        self.manager.start(ignore_signals)
        self.flag, self.messages = context.Event(), self.manager.Queue()
        # spawned, not forked: a fork would copy the state of PyTorch's threads
        self.pool = ProcessPoolExecutor(workers, context, _start_worker, (self.flag, self.messages, threads))


@functools.cache
def _crew(workers: int, threads: int) -> _Crew:
    return _Crew(workers, threads)


_stop: Stop
_messages: Any


def _start_worker(stop: Stop, messages: Any, threads: int) -> None:
    global _stop, _messages
    _stop, _messages = _WorkerStop(stop), messages
    ignore_signals()
    prepare_process(threads)


class _WorkerStop:
    """The parent's flag, or its death."""

    def __init__(self, flag: Stop) -> None:
        self.flag, self.parent = flag, os.getppid()

    def is_set(self) -> bool:
        return self.flag.is_set() or os.getppid() != self.parent


def _work(backlog: Backlog, outputs: str) -> list[Outcome]:
    return work_through(backlog, Store(outputs), _stop, lambda kind, spec, row: _messages.put((kind, spec, row)))


def train_in_workers(
    backlog: Backlog, execution: Execution, stop: SignalFlag, workers: int, emit: Emit
) -> list[Outcome]:
    """Train in worker processes that share a backlog."""
    crew = _crew(processes(execution), execution["threads"])  # whose processes begin as they are needed
    shared = crew.manager.Backlog(backlog)
    crew.flag.clear()
    outcomes: list[Outcome] = []
    done = threading.Event()

    def relay() -> None:
        while not done.is_set() or not crew.messages.empty():
            try:
                emit(*crew.messages.get(timeout=0.1))
            except queue.Empty:
                continue

    relaying = threading.Thread(target=relay, daemon=True)
    relaying.start()
    try:
        waiting: set[Future[list[Outcome]]] = {
            crew.pool.submit(_work, shared, execution["outputs"]) for _ in range(workers)
        }
        while waiting:
            ready, waiting = wait(waiting, timeout=0.1, return_when=FIRST_COMPLETED)
            if stop.is_set():
                crew.flag.set()
            for future in ready:
                outcomes += future.result()
    except BaseException as error:
        crew.flag.set()  # the others write their checkpoints
        _crew.cache_clear()
        crew.pool.shutdown()
        if isinstance(error, BrokenProcessPool):
            raise UserError("a worker process was killed; run the same command again to go on") from error
        raise
    finally:
        done.set()
        relaying.join()
    return outcomes
