"""Jobs of SLURM."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tprnn.sweep.executors.cluster import Job
from tprnn.sweep.executors.jobs import JobSettings
from tprnn.sweep.executors.submitit import ARRAY_SIZE, SubmititExecutor

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


class SlurmExecutor(SubmititExecutor):
    """Jobs of an array, by sbatch; their state by squeue (sacct needs an accounting that small clusters lack)."""

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
            array_parallelism=s.parallel or ARRAY_SIZE,
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
