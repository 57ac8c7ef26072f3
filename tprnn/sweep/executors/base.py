"""What carries jobs: the contract of SLURM, Ray and processes of this machine, and what becomes of a job, in words."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tprnn.config import RunSpec
from tprnn.sweep.executors.jobs import ERROR_MARK


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


class Executor(Protocol):
    """Takes jobs, knows their state."""

    patience: float
    """Seconds that results may need to be seen here after their job is over (shared file systems cache)."""

    def submit(self, stacks: Sequence[Sequence[RunSpec]]) -> list[Job]:
        """Hand over one job for each stack. Raises UserError where it is refused."""
        ...

    def attended(self) -> AbstractContextManager[None]:
        """Holds while somebody waits for the jobs."""
        ...

    def refresh(self, jobs: Sequence[Job]) -> list[str]:
        """Bring `state` and `over` of jobs that are not over up to date; cheap to call often.

        Returns a line for each job that was put back into the queue since the last call.
        """
        ...

    def advice(self, jobs: Sequence[Job]) -> str:
        """How to look at the jobs and how to cancel them; what becomes of them when this command ends."""
        ...


def said(error: BaseException) -> str:
    """What a program or a library said, in one line."""
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    return "; ".join(lines[-2:]) or type(error).__name__


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
