"""A multirun as jobs of a cluster: what is unfinished is handed over in stacks; run folders carry all results.

A job calls `run_all` on its node, so that locks, checkpoints and the skipping of finished runs are those of any other
command. What a run came to is read from its result.json, never from what a job returns.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from tprnn.budgets import is_finished
from tprnn.config import RunSpec
from tprnn.engine.queue import runs_under_way
from tprnn.engine.runs import Outcome
from tprnn.engine.signals import Interrupted
from tprnn.errors import UserError
from tprnn.store import RESULT, RunFolder, Store
from tprnn.sweep.executors.base import Executor, Job, reason
from tprnn.sweep.executors.jobs import PREFIX, JobSettings
from tprnn.sweep.executors.ray import RayExecutor
from tprnn.sweep.executors.submitit import LocalExecutor, SlurmExecutor
from tprnn.sweep.plan import as_asked, distinct, furthest
from tprnn.sweep.progress import first_line, last_line, troubles, waited_for
from tprnn.sweep.run import pack

UNFINISHED = "unfinished"
"""The status of a run whose job ended (killed, lost, cancelled) before the run did."""

_POLL = 1.0  # seconds between looks at results
_PLAIN_EVERY = 15.0  # seconds between plain lines


def run_jobs(specs: Sequence[RunSpec], settings: JobSettings) -> list[Outcome] | None:
    """Hand over all runs that are neither finished nor worked on; with `wait` their outcomes in the order of `specs`.

    Without `wait`: None, as soon as the jobs are handed over. Raises UserError before anything is handed over
    (no such cluster, outputs not writable, refused settings); KeyboardInterrupt and Interrupted leave the jobs as they
    are. What other calls work on is waited for and, where they leave it unfinished, handed over (but with
    `locked=leave`).
    """
    if not specs:
        return []
    execution = specs[0].execution
    _check_gpus(execution["device"], settings)
    executor = connect(settings, execution["outputs"])
    store = Store(execution["outputs"])
    if not store.root.is_dir():
        store.check_writable()
    unique = furthest(specs)
    outcomes: dict[str, Outcome] = {}
    left = unique
    while left:
        finished = _round(left, executor, settings, store)
        if finished is None:
            return None
        outcomes |= finished
        held = [outcome.spec for outcome in finished.values() if outcome.status == "locked"]
        left = {spec.signature: spec for spec in held} if execution["locked"] == "wait" else {}
        _wait_for_others(store, list(left.values()), execution["quiet"])
    for line in troubles(list(outcomes.values())):
        print(line, file=sys.stderr)
    found = [as_asked(spec, outcomes[spec.signature], store) for spec in specs]
    print(last_line(distinct(found), store))
    return found


def _round(
    specs: dict[str, RunSpec], executor: Executor, settings: JobSettings, store: Store
) -> dict[str, Outcome] | None:
    """Hand over what is neither finished nor worked on; outcomes by signature, or None where nothing is waited for."""
    execution = next(iter(specs.values())).execution
    outcomes = _settled(store, specs, force=execution["force"])
    waiting = [spec for signature, spec in specs.items() if signature not in outcomes]
    jobs: list[Job] = []
    if waiting:
        store.check_writable()
        results = Results(store, waiting)
        jobs = executor.submit(pack(waiting, settings.runs_per_job or _runs_of_a_job(waiting[0], settings)))
    said = _handed_over(jobs, len(specs), settings.executor)
    if not settings.wait:
        for line in troubles(list(outcomes.values())):
            print(line, file=sys.stderr)
        print(f"{said}; tprnn report {store.root} shows what is done")
        if jobs:
            print(executor.advice(jobs))
        return None
    if not execution["quiet"]:
        finished = sum(outcome.skipped for outcome in outcomes.values())
        print(f"{first_line(list(specs.values()), finished)}; {said}", file=sys.stderr)
    if waiting:
        try:
            ended = _wait(jobs, executor, results, execution["quiet"])
        except (KeyboardInterrupt, Interrupted):
            print(f"\n{executor.advice(jobs)}; tprnn report {store.root} shows what is done", file=sys.stderr)
            raise
        outcomes |= {outcome.spec.signature: outcome for outcome in ended}
        _tell(jobs, outcomes)
    return outcomes


def _wait_for_others(store: Store, held: Sequence[RunSpec], quiet: bool) -> None:
    """Stay until no other call works on any of the runs."""
    told: set[str] = set()
    for folder in map(store.folder, held):
        while folder.is_locked():
            if not quiet and (holder := folder.holder()) not in told:
                told.add(holder)
                print(waited_for(holder, folder.name), file=sys.stderr)
            time.sleep(_POLL)


def connect(settings: JobSettings, outputs: str) -> Executor:
    """The executor that the settings ask for. Raises UserError where it is not there."""
    if settings.executor == "ray":
        return RayExecutor(settings, _library("ray"))
    submitit = _library("submitit")
    folder = Path(os.path.abspath(outputs)) / "jobs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"
    if settings.executor == "local":
        return LocalExecutor(settings, submitit, folder)
    missing = [name for name in ("sbatch", "srun", "squeue") if shutil.which(name) is None]
    if missing:
        raise UserError(
            f"{PREFIX}.executor=slurm: no {', '.join(missing)} on the PATH; run this on a machine that "
            f"submits to SLURM, or choose executor=local"
        )
    return SlurmExecutor(settings, submitit, folder)


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        extra = "ray" if name == "ray" else "slurm"
        raise UserError(f"{PREFIX}.executor needs {name}: pip install 'tprnn[{extra}]'") from error


def _runs_of_a_job(spec: RunSpec, settings: JobSettings) -> int:
    """As many as its processes have under way."""
    on_cpu = spec.execution["device"] == "cpu"
    return runs_under_way(spec) * (max(1, settings.cpus // spec.execution["threads"]) if on_cpu else 1)


def _check_gpus(device: str, settings: JobSettings) -> None:
    """Raise UserError where runs want a GPU and their jobs would get none."""
    asked = any("gpu" in option or option == "gres" for option in settings.sbatch)
    if device.startswith("cuda") and not settings.gpus and not asked:
        raise UserError(f"device={device}: a job gets no GPU; give hydra.launcher.gpus=1 too")


def _settled(store: Store, specs: dict[str, RunSpec], *, force: bool) -> dict[str, Outcome]:
    """The runs that need no job: finished ones (but with `force`) and those that somebody works on now."""
    found = {}
    for signature, spec in specs.items():
        folder = store.folder(spec)
        if not force and (result := folder.finished(spec.train)):
            found[signature] = Outcome(spec, result["status"], result, skipped=True)
        elif folder.is_locked():
            found[signature] = _locked(spec, folder)
    return found


class Results:
    """What stands in result.json of some runs, beyond what stood there before their jobs were handed over."""

    def __init__(self, store: Store, specs: Sequence[RunSpec]) -> None:
        self.store, self.specs = store, list(specs)
        self.before = {spec.signature: self._stamp(spec) for spec in specs}
        self.ended: dict[str, Outcome] = {}

    def _stamp(self, spec: RunSpec) -> tuple[int, int] | None:
        try:
            found = os.stat(self.store.folder(spec).path / RESULT)
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_ino

    def look(self) -> None:
        """Take in the runs that have ended since."""
        for spec in self.specs:
            if spec.signature in self.ended or self._stamp(spec) in (None, self.before[spec.signature]):
                continue
            folder = self.store.folder(spec)
            result = folder.finished(spec.train) or folder.result() or {"status": None}
            # an interrupted run goes on when its job does
            if is_finished(result) or result["status"] == "failed":
                self.ended[spec.signature] = Outcome(spec, result["status"], result, error=result.get("error"))

    def left(self, job: Job) -> list[RunSpec]:
        """The runs of a job that have not ended."""
        return [spec for spec in job.specs if spec.signature not in self.ended]


def _wait(jobs: Sequence[Job], executor: Executor, results: Results, quiet: bool) -> list[Outcome]:
    """Stay until each run has ended or its job is over; outcomes in the order of the jobs' runs."""
    console = Console(file=sys.stderr)
    over: dict[str, float] = {}
    printed, told = time.monotonic(), ""
    with console.status("", refresh_per_second=4) as status, executor.attended():
        while True:
            results.look()
            for line in executor.refresh(jobs):
                if not quiet:
                    console.print(line, highlight=False, markup=False, soft_wrap=True)
            now = time.monotonic()
            over |= {job.id: now for job in jobs if job.over and job.id not in over}
            open_jobs = [job for job in jobs if results.left(job)]
            if all(job.id in over and now - over[job.id] >= executor.patience for job in open_jobs):
                break
            text = _progress(results, jobs)
            if not quiet and console.is_terminal:
                status.update(text)
            elif not quiet and text != told and now - printed > _PLAIN_EVERY:
                printed, told = now, text
                console.print(text, highlight=False, soft_wrap=True)
            time.sleep(_POLL)
        results.look()  # what came between the last look and the end of the last job
    return [
        results.ended.get(spec.signature) or _left_over(spec, job, results.store) for job in jobs for spec in job.specs
    ]


def _left_over(spec: RunSpec, job: Job, store: Store) -> Outcome:
    """A run that has not ended though its job has: broken off, or another job's."""
    folder = store.folder(spec)
    if folder.is_locked():
        return _locked(spec, folder)
    return Outcome(spec, UNFINISHED, error=f"job {job.id} ended before it")


def _locked(spec: RunSpec, folder: RunFolder) -> Outcome:
    return Outcome(spec, "locked", error=f"run {folder.name}: {folder.holder()} works on it; it is left to that")


def _progress(results: Results, jobs: Sequence[Job]) -> str:
    solved = sum(outcome.status == "solved" for outcome in results.ended.values())
    states = Counter(job.state for job in jobs if results.left(job))
    told = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    return f"{len(results.ended)}/{len(results.specs)} done, {solved} solved; jobs: {told or 'none left'}"


def _handed_over(jobs: Sequence[Job], runs: int, executor: str) -> str:
    """How many of `runs` runs, as which jobs, with which logs."""
    if not jobs:
        return "nothing to hand over: all is finished or at work"
    given = sum(len(job.specs) for job in jobs)
    ids = jobs[0].id if len(jobs) == 1 else f"{jobs[0].id} to {jobs[-1].id}"
    logs = f", logs in {jobs[0].log.parent}" if jobs[0].log is not None else ""
    return f"{given} of {runs} handed over in {len(jobs)} {executor} job{'s' * (len(jobs) > 1)} ({ids}{logs})"


def _tell(jobs: Sequence[Job], outcomes: dict[str, Outcome]) -> None:
    """One line for each job that ended before its runs did."""
    for job in jobs:
        left = sum(outcomes[spec.signature].status == UNFINISHED for spec in job.specs)
        if left:
            log = f"; log: {job.log}" if job.log is not None else ""
            print(f"job {job.id}: {left} of {len(job.specs)} runs unfinished: {reason(job)}{log}", file=sys.stderr)
