"""Jobs by submitit: what those of SLURM and those of this machine share."""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tprnn.config import RunSpec
from tprnn.errors import UserError
from tprnn.sweep.executors.cluster import Job, JobExecutor, said
from tprnn.sweep.executors.jobs import PREFIX, JobSettings, StackJob, config_for_node

ARRAY_SIZE = 1000
"""SLURM's own limit of an array, where its administrators did not change it."""


class SubmititExecutor(JobExecutor):
    """Hands jobs over as an array of submitit's."""

    def __init__(self, settings: JobSettings, submitit: Any, folder: Path) -> None:
        self.settings, self.submitit, self.folder = settings, submitit, folder
        self.handles: dict[str, Any] = {}

    @abstractmethod
    def executor(self) -> Any:
        """submitit's executor with all settings."""

    def submit(self, stacks: Sequence[Sequence[RunSpec]]) -> list[Job]:
        executor = self.executor()
        jobs: list[Job] = []
        for first in range(0, len(stacks), ARRAY_SIZE):
            part = stacks[first : first + ARRAY_SIZE]
            work = [StackJob([config_for_node(spec, self.settings) for spec in stack]) for stack in part]
            try:
                with self.submitting():
                    handles = executor.submit_array(work)
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                if not jobs:
                    shutil.rmtree(self.folder, ignore_errors=True)
                told = f"; {len(jobs)} jobs were handed over before" if jobs else ""
                raise UserError(f"{PREFIX}.executor={self.settings.executor}: refused ({said(error)}){told}") from error
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
