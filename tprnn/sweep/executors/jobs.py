"""What a job of a cluster is: the settings of `hydra.launcher`, and the work it does on its node."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from tprnn.config import RunSpec
from tprnn.errors import UserError, nearest
from tprnn.settings import check_settings, setting

PREFIX = "hydra.launcher"
ERROR_MARK = "tprnn: error: "
"""Begins the line of a job's log that says why the job could not do its work."""

# Options of sbatch that a setting of ours (or the work itself) decides.
_OWN_OPTIONS = {
    "time": "time",
    "mem": "memory",
    "cpus_per_task": "cpus",
    "gpus_per_node": "gpus",
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "array": "runs_per_job",
    "signal": "notice",
    "output": None,
    "error": None,
    "open_mode": None,
    "ntasks": None,
}


@dataclass(frozen=True)
class _PlainSettings:
    executor: str = setting(choices=("here", "local", "slurm", "ray"))
    wait: bool = setting()
    runs_per_job: int | None = setting(low=1)
    parallel: int | None = setting(low=1)
    time: int = setting(low=1)
    notice: int = setting(low=1)
    requeues: int = setting(low=0)
    memory: float | None = setting(above=0.0)
    cpus: int = setting(low=1)
    gpus: int = setting(low=0)
    partition: str | None = setting()
    account: str | None = setting()
    qos: str | None = setting()
    setup: list[str] = setting()
    address: str = setting()


@dataclass(frozen=True)
class JobSettings(_PlainSettings):
    """The values of conf/hydra/launcher/stack.yaml, checked; `time` in minutes."""

    sbatch: Mapping[str, Any] = setting()


def read_settings(values: Mapping[str, Any]) -> JobSettings:
    """The settings of a composed `hydra.launcher`. Raises UserError."""
    given = {key: value for key, value in values.items() if not key.startswith("_")}
    given["time"] = minutes(given.get("time"))
    options = _options(given.pop("sbatch", {}))
    settings = JobSettings(**check_settings(PREFIX, given, _PlainSettings), sbatch=options)
    # SLURM may send its signal up to a minute early, and a job that has not begun yet would die of it
    left = 60 * settings.time - (60 if settings.executor == "slurm" else 0)
    if settings.notice >= left:
        raise UserError(f"{PREFIX}.notice: expected less than {left} s with that time limit, got {settings.notice}")
    if settings.executor == "ray" and not settings.wait:
        raise UserError(
            f"{PREFIX}.wait: Ray ends jobs with the command that started them; leave it true with ray, and "
            "leave the whole command to Ray: ray job submit --no-wait (docs/clusters.md)"
        )
    return settings


def minutes(value: Any) -> int:
    """A time limit in whole minutes, rounded up: 90, "90", "1:30:00" and "0-01:30:00" are the same.

    Raises UserError for anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = str(value)
    if text.isascii() and text.isdigit():
        return int(text)
    if found := re.fullmatch(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)", text, re.ASCII):
        days, hours, mins, seconds = (int(part or 0) for part in found.groups())
        return (days * 24 + hours) * 60 + mins + (seconds > 0)
    raise UserError(f"{PREFIX}.time: expected minutes, HH:MM:SS or D-HH:MM:SS, got {value!r}")


def _options(values: Any) -> dict[str, Any]:
    """Options of sbatch with underscores in their names. Raises UserError."""
    if not isinstance(values, Mapping):
        raise UserError(f"{PREFIX}.sbatch: expected a mapping such as {{constraint: a100}}, got {values!r}")
    options = {}
    for key, value in values.items():
        name = str(key).lstrip("-").replace("-", "_")
        if name in _OWN_OPTIONS:
            own = _OWN_OPTIONS[name]
            advice = f"give {PREFIX}.{own} instead" if own else "it is set by the launcher"
            raise UserError(f"{PREFIX}.sbatch.{key}: {advice}")
        if value is None or value is False or not isinstance(value, (str, int, float)):
            raise UserError(f"{PREFIX}.sbatch.{key}: expected text, a number or true, got {value!r}")
        options[name] = value
    return options


def unknown_key(overrides: Sequence[str]) -> UserError | None:
    """The error for the first override line about a key that the stack launcher does not have, if there is one."""
    if any(line.startswith("hydra/launcher=") and line != "hydra/launcher=stack" for line in overrides):
        return None
    known = [f"{PREFIX}.{name}" for name in JobSettings.__dataclass_fields__]
    for line in overrides:
        key = line.lstrip("+~").partition("=")[0]
        if key.startswith(f"{PREFIX}.") and key not in known and not key.startswith(f"{PREFIX}.sbatch."):
            return UserError(f"unknown key '{key}'; {nearest(key, known)}")
    return None


def config_for_node(spec: RunSpec, settings: JobSettings) -> dict[str, Any]:
    """A run's config as its job gets it: plain, quiet, with paths that mean the same on another machine."""
    config = spec.as_dict()
    for key in ("outputs", "data"):
        if config[key] is not None:
            config[key] = os.path.abspath(config[key])
    on_cpu = str(config["device"]) == "cpu"
    workers = max(1, settings.cpus // config["threads"]) if on_cpu else 1
    return config | {"quiet": True, "workers": workers}


def train(configs: Sequence[Mapping[str, Any]], again: bool) -> str | None:
    """Train the runs of a job; the error line where a UserError kept it from its work.

    Runs that are finished are skipped; `again` says that the job was at work before, so that `force` is done with.
    Raises Interrupted after SIGTERM, when checkpoints are written.
    """
    from tprnn.sweep.run import run_all

    try:
        run_all([RunSpec.from_config({**config, "force": config["force"] and not again}) for config in configs])
    except UserError as error:
        return str(error)
    return None


@dataclass
class StackJob:
    """What submitit stores for a job and calls on its node; after the time limit it is stored and queued again."""

    configs: Sequence[Mapping[str, Any]]
    again: bool = False

    def checkpoint(self) -> Any:
        """What the job goes on with (submitit's protocol): itself; the runs have their own checkpoints."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(StackJob(self.configs, again=True))

    def __call__(self) -> None:
        """Train. Submitit's signal and preemption queue the job again after checkpoints, any other SIGTERM ends it.

        Ends the process with code 2 and a line in the log where a UserError kept the runs from being trained.
        """
        from tprnn.engine.signals import Interrupted

        if os.environ.get("SUBMITIT_EXECUTOR") == "local":
            os.setsid()  # Ctrl-C in the terminal is for the command that waits, not for its jobs
        notice = getattr(signal, "SIG" + os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2"))
        queue_again, ignore = signal.getsignal(notice), signal.getsignal(signal.SIGTERM)
        noticed = False

        def stop(signum: int, frame: FrameType | None) -> None:
            raise Interrupted(signum)

        def take_notice(signum: int, frame: FrameType | None) -> None:
            nonlocal noticed
            if not noticed:
                noticed = True
                signal.raise_signal(signal.SIGTERM)  # the engine writes checkpoints, or `stop` ends what goes before

        signal.signal(signal.SIGTERM, stop)
        signal.signal(notice, take_notice)
        try:
            error = train(self.configs, self.again or int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0)
        except Interrupted as interrupted:
            signal.signal(signal.SIGTERM, ignore)  # SLURM sends it to the job that is queued again, too
            if callable(queue_again) and (noticed or _preempted()):
                _queue_again(queue_again, notice)
            raise SystemExit(128 + interrupted.signum) from None
        if error is not None:
            _end(2, error)


def _preempted() -> bool:
    """Whether SLURM sent SIGTERM to a job that it has not ended: preemption with a grace time.

    It would not queue a job again that ends within that time. A cancelled job is no longer RUNNING.
    """
    if os.environ.get("SUBMITIT_EXECUTOR") != "slurm":
        return False
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID", "")
    command = ["squeue", "--noheader", "--format=%T", f"--jobs={job}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.stdout.strip() == "RUNNING"


def _queue_again(handler: Any, notice: signal.Signals) -> None:
    """Call submitit's handler: it stores the job, hands it to the queue and ends the process."""
    from submitit.core.utils import UncompletedJobError

    try:
        handler(notice, None)
    except UncompletedJobError:
        _end(1, f"met its time limit more than {PREFIX}.requeues times; the same command goes on from the checkpoints")
    except subprocess.CalledProcessError as error:
        # SLURM ends what it queues again, and may end the program that asks it to before it has said so
        if error.returncode != -signal.SIGTERM:
            _end(1, f"could not be queued again ({error}); the same command goes on from the checkpoints")
        raise SystemExit(128 + signal.SIGTERM) from None


def _end(code: int, message: str) -> None:
    print(f"{ERROR_MARK}{' '.join(message.split())}", file=sys.stderr, flush=True)
    raise SystemExit(code)
