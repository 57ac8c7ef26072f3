"""The processes that train: this one, or workers that share a queue. Here is the only supervisor of processes.

The queue lives in this process. Each worker has a pipe of its own, and nothing else in common with others: whichever
process is killed, no lock, queue or message of another one is harmed. A worker that dies costs its runs what they did
since their last checkpoints: they wait again, and another worker takes its place. A worker whose parent dies hears the
end of its pipe (worker_process.py).
"""

from __future__ import annotations

import atexit
import functools
import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from tprnn.config import RunSpec
from tprnn.engine.ensemble import prepare_process
from tprnn.engine.loop import Emit, given_up, work_through
from tprnn.engine.queue import Queue, processes
from tprnn.engine.runs import Outcome
from tprnn.engine.signals import Stop
from tprnn.errors import UserError
from tprnn.store import Store
from tprnn.sweep import worker_process
from tprnn.sweep.spawning import program_left_out

Execution = Mapping[str, Any]

_STILLBORN = 5  # workers in succession that end before they are ready: no more of them
_HOLDING = ("take_stack", "take")  # what a queue answers to these, the asking worker has under way


def train_here(queue: Queue, execution: Execution, stop: Stop, workers: int, emit: Emit) -> list[Outcome]:
    """Train in this process."""
    prepare_process(execution["threads"])
    return work_through(queue, Store(execution["outputs"]), stop, emit)


def train_in_workers(queue: Queue, execution: Execution, stop: Stop, workers: int, emit: Emit) -> list[Outcome]:
    """Train in worker processes that share the queue. Raises UserError where no worker can begin."""
    pool = _pool(processes(execution), execution["threads"])
    try:
        return _Call(pool, queue, Store(execution["outputs"]), stop, emit).run(workers)
    except BaseException:
        pool.close()
        raise


@dataclass
class Worker:
    """A worker process as its parent knows it."""

    process: SpawnProcess
    pipe: Connection
    working: bool = False
    """Whether it has an order that it has not said to be done with."""
    busy: bool = False
    """Whether it has a stack."""
    held: dict[str, RunSpec] = field(default_factory=dict)
    """What it has under way, by signature."""

    def tell(self, kind: str, value: Any = None) -> None:
        """Send a message; nowhere, when the worker is dead."""
        try:
            self.pipe.send((kind, value))
        except OSError:
            return


class Pool:
    """Worker processes, kept from one call to the next: a climb makes a call at every length."""

    def __init__(self, size: int, threads: int) -> None:
        self.size, self.threads = size, threads
        self.workers: list[Worker] = []
        self.parent = os.getpid()
        atexit.register(self.close)  # runs before multiprocessing's own handler, which would wait for idle workers

    def start_one(self) -> Worker:
        """A new process; spawned, not forked: a fork would copy the state of PyTorch's threads. Raises UserError."""
        context = multiprocessing.get_context("spawn")
        try:
            ours, theirs = context.Pipe()
            process = context.Process(target=worker_process.main, args=(theirs, self.threads))
            with program_left_out():
                process.start()
        except OSError as error:
            raise UserError(f"cannot start a worker process ({error.strerror}); give fewer by workers=N") from error
        theirs.close()  # so that its end is the end of the pipe
        worker = Worker(process, ours)
        self.workers.append(worker)
        return worker

    def bury(self, worker: Worker) -> str:
        """Forget a process that has ended; how it ended, in words."""
        worker.process.join()
        worker.pipe.close()
        self.workers.remove(worker)
        code = worker.process.exitcode or 0
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def close(self) -> None:
        """End all workers: they save what is under way, and those that take too long for it are ended anyhow."""
        if os.getpid() != self.parent:  # at the end of a process that was forked from the parent
            return
        for worker in self.workers:
            worker.pipe.close()
        for worker in self.workers:
            worker.process.join(2 * worker_process.GRACE)
            worker.process.kill()
            worker.process.join()
        self.workers.clear()


@functools.cache
def _pool(size: int, threads: int) -> Pool:
    return Pool(size, threads)


class _Call:
    """One call's queue worked on by a pool."""

    def __init__(self, pool: Pool, queue: Queue, store: Store, stop: Stop, emit: Emit) -> None:
        self.pool, self.queue, self.store, self.stop, self.emit = pool, queue, store, stop, emit
        self.outcomes: list[Outcome] = []
        self.error: Exception | None = None
        self.told_to_stop = False
        self.stillborn = 0

    def run(self, count: int) -> list[Outcome]:
        """Have `count` workers train all that waits; the outcomes."""
        while len(self.pool.workers) < count:
            self.pool.start_one()
        workers = self.pool.workers[:count]
        for worker in workers:
            self._order(worker)
        while any(worker.working for worker in workers):
            ready = wait([part for w in workers for part in (w.pipe, w.process.sentinel)], timeout=0.1)
            for worker in workers:
                if worker.pipe in ready or worker.process.sentinel in ready:
                    self._hear(worker)
            if (self.stop.is_set() or self.error) and not self.told_to_stop:
                self.told_to_stop = True
                for worker in workers:
                    worker.tell("stop")
            for worker in [worker for worker in workers if not worker.process.is_alive()]:
                self._hear(worker)  # what it said before its end
                workers.remove(worker)
                workers += self._replace(worker)
        if self.error:
            raise self.error
        return self.outcomes

    def _order(self, worker: Worker) -> None:
        worker.working = True
        worker.tell("work", str(self.store.root))

    def _hear(self, worker: Worker) -> None:
        """Take in all that a worker has said. A message that its death has cut short was not said."""
        try:
            while worker.pipe.poll():
                kind, value = worker.pipe.recv()
                self._heard[kind](self, worker, value)
        except (EOFError, OSError):
            return

    def _ready(self, worker: Worker, _: None) -> None:
        self.stillborn = 0

    def _asked(self, worker: Worker, question: tuple[str, Sequence[Any]]) -> None:
        method, arguments = question
        answer = getattr(self.queue, method)(*arguments)
        if method in _HOLDING:
            worker.held |= {spec.signature: spec for spec in answer}
            worker.busy |= bool(answer)
        elif method == "give_back":
            for spec in arguments[0]:
                worker.held.pop(spec.signature, None)
        elif method == "elsewhere":
            worker.held.pop(arguments[0].signature, None)
        elif method == "leave":
            worker.busy = False
        worker.tell("answer", answer)

    def _event(self, worker: Worker, event: tuple[str, RunSpec, Any]) -> None:
        kind, spec, row = event
        if kind == "begin":  # what was begun anew is not to be begun anew again
            worker.held[spec.signature] = replace(spec, execution={**spec.execution, "force": False})
        elif kind == "end":
            worker.held.pop(spec.signature, None)
            self.outcomes.append(row["outcome"])
        self.emit(kind, spec, row)

    def _failed(self, worker: Worker, error: Exception) -> None:
        self.error = self.error or error

    def _done(self, worker: Worker, _: None) -> None:
        worker.working = False

    _heard: Mapping[str, Callable[[_Call, Worker, Any], None]] = {
        "ready": _ready,
        "ask": _asked,
        "event": _event,
        "error": _failed,
        "done": _done,
    }

    def _replace(self, dead: Worker) -> list[Worker]:
        """Let the runs of a dead worker wait again, and start another in its place if there is need of it."""
        cause = self.pool.bury(dead)
        if dead.busy:
            self.queue.leave()
        for spec in self.queue.died(list(dead.held.values())):
            outcome = given_up(spec, self.store, f"killed, perhaps out of memory ({cause}, also when alone)")
            self.outcomes.append(outcome)
            self.emit("end", spec, {"outcome": outcome})
        for spec in list(dead.held.values())[:1]:
            self.emit("died", spec, {"process": dead.process.pid, "cause": cause, "runs": len(dead.held)})
        if self.told_to_stop or self.queue.over():
            return []
        self.stillborn += 1
        if self.stillborn > _STILLBORN:
            raise UserError(f"worker processes end before they can begin ({cause}); try workers=1")
        worker = self.pool.start_one()
        self._order(worker)
        return [worker]
