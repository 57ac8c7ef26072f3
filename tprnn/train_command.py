"""`tprnn train`: Hydra composes, `run_all` trains; one run, or with -m all points of a grid."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from tprnn import compose
from tprnn.config import RunSpec
from tprnn.errors import TooLarge, UserError
from tprnn.listing import members
from tprnn.override_errors import strictly
from tprnn.overrides import for_hydra, is_hydra_line
from tprnn.points import at_points
from tprnn.sweep.executors.jobs import unknown_key
from tprnn.sweep.returned import RunFailed, job_value

PROGRAM = "tprnn train"


class _Past(BaseException):
    """Carries an error past Hydra, which would print a line of its own for an Exception of a single run."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def train_one(config: DictConfig) -> float | None:
    """Hydra's task function: train one composed run. Raises UserError, RunFailed."""
    single = HydraConfig.get().mode != RunMode.MULTIRUN
    try:
        container = compose.plain(config)
        if single:
            compose.refuse_grid(container)
            _refuse_jobs(HydraConfig.get().launcher)
        spec = RunSpec.from_config(container)

        from tprnn.sweep.run import run_all

        return job_value(run_all([spec])[0])
    except (UserError, RunFailed) as error:
        if single:
            raise _Past(error) from error
        if isinstance(error, TooLarge):  # Hydra's own launchers come with one run at a time: the others go on
            print(error, file=sys.stderr)
            raise RunFailed(str(error)) from error
        raise


def _refuse_jobs(launcher: Any) -> None:
    """Raise UserError where a single run is meant for a cluster: Hydra uses launchers for multiruns only."""
    executor = launcher.get("executor", "here") if isinstance(launcher, DictConfig) else "here"
    if executor != "here":
        raise UserError(f"hydra.launcher.executor={executor} hands over multiruns: add -m (one point is enough)")


def main(argv: Sequence[str], program: str = PROGRAM) -> int:
    """Run `tprnn train` with Hydra's flags and overrides; the exit code. Raises UserError."""
    flags, overrides, args = read_arguments(argv)
    if args.help:
        overrides = with_examples(overrides)
    if args.hydra_help:  # is about Hydra alone and knows no other keys
        overrides = [line for line in overrides if is_hydra_line(line)]
    register_plugins()
    lines = at_points(overrides) if args.multirun and not args.help else compose.for_one(overrides)
    decorated = hydra.main(
        config_path=f"pkg://{compose.CONFIG_MODULE}", config_name=compose.CONFIG_NAME, **compose.version_base()
    )(train_one)
    try:
        with _command_line([program, *flags, *lines]), _terminable(), strictly():
            decorated()
    except _Past as past:
        if isinstance(past.error, UserError):
            raise past.error from None
        return getattr(past.error, "code", 1)
    except RunFailed as failed:
        return failed.code
    except UserError:
        raise
    except Exception as error:
        found = unknown_key(overrides) or compose.explain(error, overrides, multirun=args.multirun)
        about_hydra = " ".join(filter(is_hydra_line, overrides))
        if found is None and about_hydra and _raised_by_hydra(error):
            found = UserError(f"{about_hydra}: Hydra cannot be set like that")
        if found is None:
            raise
        raise found from error
    return 0


def _raised_by_hydra(error: Exception) -> bool:
    """Whether no function of ours but `main` was under way."""
    _, *inner = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    return not any(name.startswith(("tprnn.", "hydra_plugins.tprnn_stack.")) for name in inner)


def register_plugins() -> None:
    """Make the stack launcher and the grid sweeper known to Hydra, also where its scan cannot see them."""
    plugins = compose.plugins()
    from hydra_plugins.tprnn_stack.launcher import StackLauncher
    from hydra_plugins.tprnn_stack.sweeper import GridSweeper

    plugins.register(StackLauncher)
    plugins.register(GridSweeper)


def read_arguments(argv: Sequence[str]) -> tuple[list[str], list[str], argparse.Namespace]:
    """Hydra's flags, the override lines, and the flags parsed; flags may stand anywhere. Raises UserError."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            args = get_args_parser().parse_intermixed_args(argv)
    except SystemExit as end:
        if not end.code:
            raise
        raise UserError(said.getvalue().strip().rpartition("error: ")[2]) from None
    if args.experimental_rerun is not None:
        raise UserError("--experimental-rerun is not supported: its file could run code; give the overrides again")
    chosen = [
        name
        for name, given in [
            ("--run", args.run),
            ("--multirun", args.multirun),
            ("--cfg", args.cfg is not None),
            ("--info", args.info is not None),
            ("--shell-completion", args.shell_completion),
        ]
        if given
    ]
    if len(chosen) > 1:
        raise UserError(f"{' and '.join(chosen)} exclude each other")
    if args.resolve and args.cfg is None and not args.help:
        raise UserError("--resolve needs --cfg job")
    flags, rest = [], list(args.overrides)
    for word in argv:
        if rest and word == rest[0]:
            rest.pop(0)
        else:
            flags.append(word)
    return flags, for_hydra(args.overrides), args


def with_examples(overrides: Sequence[str]) -> list[str]:
    """Lines with the task and the trainer that --help shows where none is chosen yet."""
    lines = list(overrides)
    for kind in ("task", "trainer"):
        if not any(line.startswith(f"{kind}=") for line in lines):
            lines.append(f"{kind}={members(kind)[0][0]}")
    return lines


@contextlib.contextmanager
def _command_line(words: Sequence[str]) -> Iterator[None]:
    """What hydra.main reads: sys.argv, and the wish that errors reach us as they are."""
    argv, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = list(words), "1"
    try:
        yield
    finally:
        sys.argv = argv
        if full is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the command like Ctrl-C, so that a launcher's worker processes end with it."""

    def stop(signum: int, frame: FrameType | None) -> Any:
        from tprnn.engine.signals import Interrupted

        raise Interrupted(signum)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
