"""Jobs as tasks of a Ray cluster."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from tprnn.config import RunSpec
from tprnn.errors import UserError
from tprnn.sweep.executors.cluster import Job, JobExecutor, said
from tprnn.sweep.executors.jobs import PREFIX, JobSettings, config_for_node, train


class RayExecutor(JobExecutor):
    """Tasks of a Ray cluster. Ray ends them with this command; a lost worker's job is handed over again."""

    patience = 5.0

    def __init__(self, settings: JobSettings, ray: Any) -> None:
        self.settings, self.ray = settings, ray
        self.tasks: dict[str, Any] = {}
        address = settings.address
        local: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
        try:
            if ":" in address:
                _reach(address)
            if address == "local":  # else Ray writes a token to the home, by which later Rays refuse those without it
                os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            ray.init(address=address, log_to_driver=False, ignore_reinit_error=True, logging_level="error", **local)
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{PREFIX}.address: no Ray at '{address}' ({said(error)}); start one with 'ray start --head', "
                f"set RAY_AUTH_MODE=token where it asks for one, or choose address=local"
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
            self._start(job)
        return jobs

    def _start(self, job: Job) -> None:
        s = self.settings
        memory = None if s.memory is None else int(s.memory * 2**30)
        # our own retries instead of Ray's: a job that was at work before must not force its runs anew
        task = self.ray.remote(num_cpus=s.cpus, num_gpus=s.gpus, memory=memory, max_retries=0)(train)
        job.state = "handed over"  # whether Ray has begun it is not asked
        self.tasks[job.id] = task.remote([config_for_node(spec, s) for spec in job.specs], job.restarts > 0)

    @contextlib.contextmanager
    def attended(self) -> Iterator[None]:
        """Ray's messages (they stand in its logs, too) stay out of ours; at the end Ray is left, with what it runs."""
        with contextlib.redirect_stdout(_OneThread(sys.stdout)):
            try:
                yield
            finally:
                self.ray.shutdown()

    def refresh(self, jobs: Sequence[Job]) -> list[str]:
        """As the contract says. Raises UserError where this command has lost its own node of Ray."""
        try:
            return self._refresh(jobs)
        except (OSError, self.ray.exceptions.LocalRayletDiedError) as error:
            lost = f"the connection to Ray is lost ({_first_sentence(error)})"
            raise UserError(f"{lost}; the same command goes on from the checkpoints") from error

    def _refresh(self, jobs: Sequence[Job]) -> list[str]:
        lines = []
        fits = self._fits()
        for job in [job for job in jobs if not job.over]:
            ready, _ = self.ray.wait([self.tasks[job.id]], timeout=0)
            if not ready:
                job.state = "handed over" if fits else "waiting (no node has what a job asks for)"
                continue
            try:
                job.error = self.ray.get(ready[0])
                job.over, job.state = True, "ended"
            except self.ray.exceptions.LocalRayletDiedError:
                raise
            except self.ray.exceptions.RayError as error:
                lost = not isinstance(error, self.ray.exceptions.RayTaskError)
                if lost and job.restarts < self.settings.requeues:
                    job.restarts += 1
                    self._start(job)
                    times = f"{job.restarts} of {self.settings.requeues} times"
                    lines.append(
                        f"job {job.id}: handed over again, {times}: its worker was lost ({_first_sentence(error)})"
                    )
                else:
                    job.over, job.state = True, "lost" if lost else "failed"
                    job.error = _first_sentence(error) if lost else said(error)
        return lines

    def _fits(self) -> bool:
        """Whether a job fits one of the nodes that there are now. (A cluster may grow: it waits for one that does.)"""
        s = self.settings
        asked = {"CPU": s.cpus, "GPU": s.gpus, "memory": (s.memory or 0) * 2**30}
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        return any(all(node.get(kind, 0) >= amount for kind, amount in asked.items()) for node in nodes)

    def advice(self, jobs: Sequence[Job]) -> str:
        return "Ray ends the jobs with this command; the same command goes on from their checkpoints"


def _reach(address: str) -> None:
    """Raise OSError where nothing listens: Ray itself would try for minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if not port.isdigit():
        raise ValueError("expected auto, local or HOST:PORT")
    socket.create_connection((host, int(port)), timeout=5).close()


def _first_sentence(error: BaseException) -> str:
    """Ray goes on with advice and addresses."""
    return " ".join(str(error).split()).partition(". ")[0].removesuffix(".") or type(error).__name__


class _OneThread(io.TextIOBase):
    """Standard output of the thread that makes this; what others print is dropped: Ray prints from its own."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.thread = stream, threading.get_ident()

    def write(self, text: str) -> int:
        return self.stream.write(text) if threading.get_ident() == self.thread else len(text)

    def flush(self) -> None:
        self.stream.flush()
