"""The executor that `hydra.launcher.executor` asks for."""

from __future__ import annotations

import importlib
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tprnn.errors import UserError
from tprnn.sweep.executors.base import Executor
from tprnn.sweep.executors.here import Here
from tprnn.sweep.executors.jobs import PREFIX, JobSettings
from tprnn.sweep.executors.local import LocalExecutor
from tprnn.sweep.executors.ray import RayExecutor
from tprnn.sweep.executors.slurm import SlurmExecutor


def connect(settings: JobSettings, execution: Mapping[str, Any]) -> Executor:
    """The executor for runs with these execution settings. Raises UserError where it is not there."""
    if settings.executor == "here":
        return Here()
    _check_gpus(execution["device"], settings)
    if settings.executor == "ray":
        return RayExecutor(settings, _library("ray"))
    submitit = _library("submitit")
    logs = Path(os.path.abspath(execution["outputs"])) / "jobs"
    folder = logs / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"
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


def _check_gpus(device: str, settings: JobSettings) -> None:
    """Raise UserError where runs want a GPU and their jobs would get none."""
    asked = any("gpu" in option or option == "gres" for option in settings.sbatch)
    if device.startswith("cuda") and not settings.gpus and not asked:
        raise UserError(f"device={device}: a job gets no GPU; give hydra.launcher.gpus=1 too")
