"""What local, SLURM and Ray share: runs are handed over as jobs, in stacks, and followed in their run folders.

A job calls `run_all` on its node, so that locks, checkpoints and the skipping of finished runs are those of any other
command (jobs.py).
"""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from tprnn.config import RunSpec
from tprnn.engine.queue import runs_under_way
from tprnn.engine.runs import Outcome
from tprnn.engine.signals import Interrupted
from tprnn.sweep.executors.base import UNDER_WAY, UNFINISHED
from tprnn.sweep.executors.jobs import ERROR_MARK, JobSettings
from tprnn.sweep.executors.results import Results
from tprnn.sweep.plan import Plan, holder_of, locked
from tprnn.sweep.progress import PLAIN_EVERY, first_line, tell_troubles, waited_for

_POLL = 1.0  # seconds between looks at results


@dataclass
class Job:
    """Some runs that were handed over together."""

    id: str
    specs: Sequence[RunSpec]
    log: Path | None = None
    state: str = "waiting"
    """waiting, running, or how it ended, in words."""
    over: bool = False
    error: str | None = None
    restarts: int = 0
    """Times it was put back into the queue after it had begun."""


class JobExecutor(ABC):
    """An `Executor` that hands runs over; those who derive from it say to whom. Signals leave the jobs as they are."""

    settings: JobSettings
    patience: float
    """Seconds that results may need to be seen here after their job is over (shared file systems cache)."""

    # ---- whom runs are handed over to

    @abstractmethod
    def submit(self, stacks: Sequence[Sequence[RunSpec]]) -> list[Job]:
        """Hand over one job for each stack. Raises UserError where it is refused."""

    @abstractmethod
    def attended(self) -> AbstractContextManager[None]:
        """Holds while somebody waits for the jobs."""

    @abstractmethod
    def refresh(self, jobs: Sequence[Job]) -> list[str]:
        """Bring `state` and `over` of jobs that are not over up to date; cheap to call often.

        Returns a line for each job that was put back into the queue since the last call.
        """

    @abstractmethod
    def advice(self, jobs: Sequence[Job]) -> str:
        """How to look at the jobs and how to cancel them; what becomes of them when this command ends."""

    # ---- the contract of executors

    @property
    def waits(self) -> bool:
        return self.settings.wait

    def prepare(self, plan: Plan) -> None:
        """What is too large, a job finds on its node. Raises ValueError where jobs would have to run side by side."""
        if plan.first_solved:
            raise ValueError("first_solved: jobs do not know of each other; run it on this machine")

    def carry_out(self, plan: Plan) -> dict[str, Outcome]:
        """Hand over what waits; then what other calls work on now and leave unfinished, round by round."""
        outcomes: dict[str, Outcome] = {}
        while True:
            outcomes |= self._round(plan)
            held = [outcome.spec for outcome in outcomes.values() if outcome.status == "locked"]
            if not held or plan.execution["locked"] == "leave":
                return outcomes
            _wait_for_others(plan, held)
            plan = Plan(held, plan.store)

    # ---- one round

    def _round(self, plan: Plan) -> dict[str, Outcome]:
        free = [spec for spec in plan.waiting if spec.signature not in plan.held]
        results, jobs = Results(plan.store, free), list[Job]()
        if free:
            plan.store.check_writable()
            jobs = self.submit(pack(free, self.settings.runs_per_job or _runs_of_a_job(free[0], self.settings)))
        said = _handed_over(jobs, len(plan.runs), self.settings.executor)
        if not self.waits:
            return self._leave(plan, jobs, said)
        if not plan.execution["quiet"]:
            print(f"{first_line(list(plan.runs.values()), len(plan.done))}; {said}", file=sys.stderr)
        outcomes = plan.outcomes | plan.held
        if jobs:
            try:
                ended = self._wait(jobs, results, plan.execution["quiet"])
            except (KeyboardInterrupt, Interrupted):
                print(f"\n{self.advice(jobs)}; tprnn report {plan.store.root} shows what is done", file=sys.stderr)
                raise
            outcomes |= {outcome.spec.signature: outcome for outcome in ended}
            _tell_of_unfinished(jobs, outcomes)
        return outcomes

    def _leave(self, plan: Plan, jobs: Sequence[Job], said: str) -> dict[str, Outcome]:
        """Say how to see what nobody waits for."""
        tell_troubles(list(plan.held.values()))
        print(f"{said}; tprnn report {plan.store.root} shows what is done")
        if jobs:
            print(self.advice(jobs))
        return {spec.signature: Outcome(spec, UNDER_WAY) for spec in plan.waiting} | plan.outcomes

    def _wait(self, jobs: Sequence[Job], results: Results, quiet: bool) -> list[Outcome]:
        """Stay until each run has ended or its job is over; outcomes in the order of the jobs' runs."""
        console = Console(file=sys.stderr)
        over: dict[str, float] = {}
        printed, told = time.monotonic(), ""
        with console.status("", refresh_per_second=4) as status, self.attended():
            while True:
                results.look()
                for line in self.refresh(jobs):
                    if not quiet:
                        console.print(line, highlight=False, markup=False, soft_wrap=True)
                now = time.monotonic()
                over |= {job.id: now for job in jobs if job.over and job.id not in over}
                open_jobs = [job for job in jobs if results.left(job.specs)]
                if all(job.id in over and now - over[job.id] >= self.patience for job in open_jobs):
                    break
                text = _progress(results, jobs)
                if not quiet and console.is_terminal:
                    status.update(text)
                elif not quiet and text != told and now - printed > PLAIN_EVERY:
                    printed, told = now, text
                    console.print(text, highlight=False, soft_wrap=True)
                time.sleep(_POLL)
            results.look()  # what came between the last look and the end of the last job
        return [
            results.ended.get(spec.signature) or _left_over(spec, job, results) for job in jobs for spec in job.specs
        ]


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


def _runs_of_a_job(spec: RunSpec, settings: JobSettings) -> int:
    """As many as its processes have under way."""
    on_cpu = spec.execution["device"] == "cpu"
    return runs_under_way(spec) * (max(1, settings.cpus // spec.execution["threads"]) if on_cpu else 1)


def _wait_for_others(plan: Plan, held: Sequence[RunSpec]) -> None:
    """Stay until no other call works on any of the runs."""
    told: set[str] = set()
    for folder in map(plan.store.folder, held):
        while (holder := holder_of(folder)) is not None:
            if not plan.execution["quiet"] and holder not in told:
                told.add(holder)
                print(waited_for(holder, folder.name), file=sys.stderr)
            time.sleep(_POLL)


def _left_over(spec: RunSpec, job: Job, results: Results) -> Outcome:
    """A run that has not ended though its job has: broken off, or another job's."""
    folder = results.store.folder(spec)
    if (holder := holder_of(folder)) is not None:
        return locked(spec, folder, holder)
    return Outcome(spec, UNFINISHED, error=f"job {job.id} ended before it")


def _progress(results: Results, jobs: Sequence[Job]) -> str:
    solved = sum(outcome.status == "solved" for outcome in results.ended.values())
    states = Counter(job.state for job in jobs if results.left(job.specs))
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


def _tell_of_unfinished(jobs: Sequence[Job], outcomes: dict[str, Outcome]) -> None:
    """One line for each job that ended before its runs did."""
    for job in jobs:
        left = sum(outcomes[spec.signature].status == UNFINISHED for spec in job.specs)
        if left:
            log = f"; log: {job.log}" if job.log is not None else ""
            print(f"job {job.id}: {left} of {len(job.specs)} runs unfinished: {reason(job)}{log}", file=sys.stderr)


def reason(job: Job) -> str:
    """Why a job ended before its runs did: the line it left in its log, or its last state."""
    if job.error is None and job.log is not None:
        try:
            text = job.log.read_text(errors="replace")
        except OSError:
            text = ""
        for line in text.splitlines():
            if line.startswith(ERROR_MARK):
                job.error = line.removeprefix(ERROR_MARK)
    return job.error or job.state


def said(error: BaseException) -> str:
    """What a program or a library said, in one line."""
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    return "; ".join(lines[-2:]) or type(error).__name__
