"""Jobs as tasks of a Ray cluster."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from tprnn.config import RunSpec
from tprnn.errors import UserError
from tprnn.protocols.executors import Job, said
from tprnn.protocols.jobs import PREFIX, JobSettings, config_for_node, train


class RayExecutor:
    """Tasks of a Ray cluster. Ray ends them with this command; a lost worker's job is handed over again."""

    patience = 5.0

    def __init__(self, settings: JobSettings, ray: Any) -> None:
        self.settings, self.ray = settings, ray
        self.tasks: dict[str, Any] = {}
        self.again: dict[str, int] = {}
        address = settings.address
        local: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
        try:
            if ":" in address:
                _reach(address)
            ray.init(address=address, log_to_driver=False, ignore_reinit_error=True, logging_level="error", **local)
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{PREFIX}.address: no Ray at '{address}' ({said(error)}); start one with 'ray start --head', "
                f"or choose address=local"
            ) from error
        if address == "local":  # a cluster may grow; this machine does not
            found = ray.cluster_resources()
            for kind, asked in (("CPU", settings.cpus), ("GPU", settings.gpus)):
                if asked > found.get(kind, 0):
                    there = f"this machine has {found.get(kind, 0):g}"
                    raise UserError(f"{PREFIX}.{kind.lower()}s: a job asks for {asked}, {there}")

    def submit(self, stacks: Sequence[Sequence[RunSpec]]) -> list[Job]:
        jobs = [Job(str(number), stack) for number, stack in enumerate(stacks)]
        for job in jobs:
            self._start(job, again=0)
        return jobs

    def _start(self, job: Job, again: int) -> None:
        s = self.settings
        memory = None if s.memory is None else int(s.memory * 2**30)
        # our own retries instead of Ray's: a job that was at work before must not force its runs anew
        task = self.ray.remote(num_cpus=s.cpus, num_gpus=s.gpus, memory=memory, max_retries=0)(train)
        self.again[job.id] = again
        job.state = "handed over"  # whether Ray has begun it is not asked
        self.tasks[job.id] = task.remote([config_for_node(spec, s) for spec in job.specs], again > 0)

    def refresh(self, jobs: Sequence[Job]) -> None:
        for job in [job for job in jobs if not job.over]:
            ready, _ = self.ray.wait([self.tasks[job.id]], timeout=0)
            if not ready:
                continue
            try:
                job.error = self.ray.get(ready[0])
                job.over, job.state = True, "ended"
            except self.ray.exceptions.RayError as error:
                lost = not isinstance(error, self.ray.exceptions.RayTaskError)
                if lost and self.again[job.id] < self.settings.requeues:
                    self._start(job, self.again[job.id] + 1)
                else:
                    job.over, job.state, job.error = True, "lost" if lost else "failed", said(error)

    def advice(self, jobs: Sequence[Job]) -> str:
        return "Ray ends the jobs with this command; the same command goes on from their checkpoints"


def _reach(address: str) -> None:
    """Raise OSError where nothing listens: Ray itself would try for minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if not port.isdigit():
        raise ValueError("expected auto, local or HOST:PORT")
    socket.create_connection((host, int(port)), timeout=5).close()
