"""Jobs by submitit: of SLURM, or processes of this machine."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tprnn.config import RunSpec
from tprnn.errors import UserError
from tprnn.sweep.executors.base import Job, said
from tprnn.sweep.executors.jobs import PREFIX, JobSettings, StackJob, config_for_node

# States of SLURM after which a job does not go on. (A preempted job that is queued again is PENDING.)
_OVER = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
}
_ARRAY_SIZE = 1000  # SLURM's own limit of an array, where its administrators did not change it


class _Submitit(ABC):
    """What SLURM and local jobs share."""

    cluster: str

    def __init__(self, settings: JobSettings, submitit: Any, folder: Path) -> None:
        self.settings, self.submitit, self.folder = settings, submitit, folder
        self.handles: dict[str, Any] = {}

    @abstractmethod
    def executor(self) -> Any:
        """submitit's executor with all settings."""

    def submit(self, stacks: Sequence[Sequence[RunSpec]]) -> list[Job]:
        executor = self.executor()
        jobs: list[Job] = []
        for first in range(0, len(stacks), _ARRAY_SIZE):
            part = stacks[first : first + _ARRAY_SIZE]
            work = [StackJob([config_for_node(spec, self.settings) for spec in stack]) for stack in part]
            try:
                with self.submitting():
                    handles = executor.submit_array(work)
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                if not jobs:
                    shutil.rmtree(self.folder, ignore_errors=True)
                told = f"; {len(jobs)} jobs were handed over before" if jobs else ""
                raise UserError(f"{PREFIX}.executor={self.cluster}: refused ({said(error)}){told}") from error
            for handle, stack in zip(handles, part, strict=True):
                self.handles[handle.job_id] = handle
                jobs.append(Job(handle.job_id, stack, handle.paths.stderr))
        return jobs

    def attended(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def submitting(self) -> Iterator[None]:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit prints there what its error says too
            yield


class SlurmExecutor(_Submitit):
    """Jobs of an array, by sbatch; their state by squeue (sacct needs an accounting that small clusters lack)."""

    cluster = "slurm"
    patience = 20.0

    def __init__(self, settings: JobSettings, submitit: Any, folder: Path) -> None:
        super().__init__(settings, submitit, folder)
        self.started = self.asked = time.monotonic()

    def executor(self) -> Any:
        s = self.settings
        executor = self.submitit.SlurmExecutor(self.folder, max_num_timeout=s.requeues)
        executor.update_parameters(
            job_name="tprnn",
            time=s.time,
            mem=None if s.memory is None else f"{round(s.memory * 1024)}MB",
            cpus_per_task=s.cpus,
            gpus_per_node=s.gpus or None,
            partition=s.partition,
            account=s.account,
            qos=s.qos,
            setup=s.setup or None,
            array_parallelism=s.parallel or _ARRAY_SIZE,
            signal_delay_s=s.notice,
            # srun takes no --cpus-per-task over from sbatch since SLURM 22.05
            srun_args=[f"--cpus-per-task={s.cpus}"],
            additional_parameters=dict(s.sbatch),
        )
        return executor

    def refresh(self, jobs: Sequence[Job]) -> list[str]:
        now = time.monotonic()
        if now - self.asked < min(30.0, max(2.0, (now - self.started) / 10)):  # spare the controller
            return []
        self.asked = now
        left = [job for job in jobs if not job.over]
        command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r"]
        done = subprocess.run(
            [*command, f"--jobs={','.join(_arrays(left))}"], capture_output=True, text=True, check=False
        )
        if done.returncode and "Invalid job id" not in done.stderr:
            return []  # the controller does not answer now
        found = {fields[0]: fields[1:] for line in done.stdout.splitlines() if len(fields := line.split("|")) == 3}
        lines = []
        for job in left:
            state, reason = found.get(job.id, ("ENDED", ""))
            begun = job.state == "running"
            job.over = state in _OVER or state == "ENDED"
            job.state = {"PENDING": "waiting", "COMPLETING": "running"}.get(state, state.lower().replace("_", " "))
            if begun and job.state == "waiting":  # for minutes, where SLURM has its own AuthInfo: no look misses it
                job.restarts += 1
                why = "a lost node, its time limit or preemption"
                lines.append(f"job {job.id}: queued again by SLURM after {why} ({job.restarts} so far)")
            if job.state == "waiting" and reason not in ("None", "Priority", "Resources", "JobArrayTaskLimit"):
                job.state += f" ({reason})"
        return lines

    def advice(self, jobs: Sequence[Job]) -> str:
        arrays = _arrays(jobs)
        return f"the jobs go on: squeue --jobs={','.join(arrays)} shows them, scancel {' '.join(arrays)} cancels them"


def _arrays(jobs: Sequence[Job]) -> list[str]:
    return list(dict.fromkeys(job.id.split("_")[0] for job in jobs))


class LocalExecutor(_Submitit):
    """Processes of this machine, each under a process of submitit's that minds its time limit."""

    cluster = "local"
    patience = 0.0

    def executor(self) -> Any:
        s = self.settings
        executor = self.submitit.LocalExecutor(self.folder, max_num_timeout=s.requeues)
        executor.update_parameters(timeout_min=s.time, signal_delay_s=s.notice, gpus_per_node=s.gpus)
        return executor

    def submit(self, stacks: Sequence[Sequence[RunSpec]]) -> list[Job]:
        # nothing queues here: each of a few jobs gets several stacks
        most = self.settings.parallel or max(1, (os.cpu_count() or 1) // self.settings.cpus)
        shares = [[spec for stack in stacks[first::most] for spec in stack] for first in range(min(most, len(stacks)))]
        return super().submit(shares)

    @contextlib.contextmanager
    def submitting(self) -> Iterator[None]:
        # jobs take over what is ignored: Ctrl-C and the end of the terminal are for the command, not for its jobs
        before = {signum: signal.signal(signum, signal.SIG_IGN) for signum in (signal.SIGINT, signal.SIGHUP)}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def refresh(self, jobs: Sequence[Job]) -> list[str]:
        for job in jobs:
            state = self.handles[job.id].state
            job.over = state != "RUNNING"
            job.state = "running" if not job.over else "killed" if state == "INTERRUPTED" else "ended"
        return []

    def advice(self, jobs: Sequence[Job]) -> str:
        return f"the jobs go on as processes of this machine: kill {' '.join(job.id for job in jobs)} ends them"
