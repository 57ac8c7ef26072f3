"""Jobs as processes of this machine that outlive the command."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any

from tprnn.config import RunSpec
from tprnn.sweep.executors.cluster import Job
from tprnn.sweep.executors.submitit import SubmititExecutor


class LocalExecutor(SubmititExecutor):
    """Processes of this machine, each under a process of submitit's that minds its time limit."""

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
