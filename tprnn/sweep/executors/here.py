"""This machine as an executor: runs are trained in this process, or in worker processes that share a queue."""

from __future__ import annotations

from typing import Any

import torch

from tprnn.config import MEMBER_KINDS, RunSpec
from tprnn.core import code_cache
from tprnn.engine.loop import Emit
from tprnn.engine.queue import Queue, processes
from tprnn.engine.runs import Outcome
from tprnn.engine.signals import Interrupted, SignalFlag, catch_signals
from tprnn.errors import UserError
from tprnn.members import registered
from tprnn.sweep.plan import Plan
from tprnn.sweep.progress import Progress, tell_end
from tprnn.sweep.workers import train_here, train_in_workers


class Here:
    """The `Executor` that needs nothing but this machine."""

    waits = True

    def prepare(self, plan: Plan) -> None:
        """Raises UserError where the device is not there, or every run is too large for its memory."""
        _require_device(plan.execution["device"])
        plan.refuse_too_large()

    def carry_out(self, plan: Plan) -> dict[str, Outcome]:
        outcomes = plan.outcomes
        signum = None
        with Progress(plan, _processes(plan)) as progress:
            if plan.waiting:
                plan.store.check_writable()
                with catch_signals() as flag:
                    outcomes |= _train(plan, flag, progress.emit)
                signum = flag.signum
        if signum is not None:
            tell_end(list(outcomes.values()), plan.store)
            raise Interrupted(signum)
        return outcomes


def _processes(plan: Plan) -> int:
    """How many processes train: this one alone where a run has a member that others would not find.

    That is a class of a notebook or of a script, which is known where it was registered.
    """
    here = {(member.kind, member.rule) for member in registered()}
    alone = any((kind, spec.config[kind]["rule"]) in here for spec in plan.runs.values() for kind in MEMBER_KINDS)
    return 1 if alone else processes(plan.execution)


def _train(plan: Plan, flag: SignalFlag, emit: Emit) -> dict[str, Outcome]:
    code_cache.choose()  # before processes are started that would each choose, and say so
    waiting, store = plan.waiting, plan.store
    workers = min(_processes(plan), len(waiting))
    free = None if plan.execution["locked"] == "leave" else lambda spec: not store.folder(spec).is_locked()
    queue = Queue(waiting, workers, plan.first_solved, plan.bound, free)
    halt = _Halt(flag, plan.execution["fail_fast"], emit)
    train = train_here if workers == 1 else train_in_workers
    ended = train(queue, waiting[0].execution, halt, workers, halt.emit)
    stopped_before_their_turn = {spec.signature: Outcome(spec, "interrupted") for spec in waiting}
    return stopped_before_their_turn | {outcome.spec.signature: outcome for outcome in ended}


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


def _require_device(device: str) -> None:
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        there = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise UserError(f"device: '{device}' is not there; choices: {', '.join(there)}") from error
