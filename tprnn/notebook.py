"""What a notebook or a script calls to train and to look: the command line's own path, and tables in place of text."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tprnn import plugins
from tprnn.arguments import DEFAULT, FLAGS
from tprnn.budgets import is_finished
from tprnn.compose import points
from tprnn.config import BUDGET_KEYS, flatten
from tprnn.engine.runs import Outcome
from tprnn.engine.signals import Interrupted
from tprnn.errors import UserError
from tprnn.overrides import is_hydra_line
from tprnn.protocols.evaluate import run_folder
from tprnn.protocols.host import torch_as_it_was
from tprnn.report.rows.frame import Row, read_row, to_frame
from tprnn.store import NUMBERS, Store
from tprnn.sweep.run import run_all

if TYPE_CHECKING:
    from pandas import DataFrame

_EXAMPLE = '"task=adding", "trainer=tptt", "seed=range(3)"'
_OPTIONS = (*FLAGS, "--plugin=NAME", "--config-dir=DIR")
_ONE_CALL = threading.Lock()  # calls of one process would share its worker processes


def train(*lines: str) -> DataFrame:
    """Train what `tprnn train -m` with these lines trains; one row for each run asked for, in their order.

    Calls from several threads wait for one another. Outside the main thread no signal is heard: such a call cannot be
    interrupted, and goes on from the checkpoints of before where its process is ended.

    Raises UserError as the command line tells it, before anything is written; KeyboardInterrupt once what is under way
    is in its checkpoints. Other signals that ask for an end do what they did before the call, after checkpoints too.
    """
    overrides = _overrides(lines)
    with _ONE_CALL, torch_as_it_was():
        try:
            outcomes = run_all(points(overrides))
        except Interrupted as stop:
            _pass_on(stop.signum)
            raise
    return to_frame([_row(outcome) for outcome in outcomes])


def metrics(run: str | Path, outputs: str | Path = DEFAULT) -> DataFrame:
    """The history of a run, a row for each check. Raises UserError."""
    from pandas import DataFrame

    rows = run_folder(run, outputs).read_metrics()
    return DataFrame(rows) if rows else DataFrame({"iteration": []}, dtype="int64")


def _overrides(lines: Sequence[str]) -> list[str]:
    """Override lines, with flags as such; plugins and folders that they name are asked for.

    Raises UserError for what is no line, or not for runs that train here.
    """
    for line in lines:
        if not isinstance(line, str):
            raise UserError(f"tprnn.train: expected lines of text such as {_EXAMPLE}, got {line!r}")
    named, folders, words = plugins.take_places(lines)
    plugins.ask(named, folders)
    found = []
    for line in words:
        if line.startswith("-") and line not in FLAGS:
            raise UserError(f"'{line}': an option of the command line alone; tprnn.train takes {', '.join(_OPTIONS)}")
        if is_hydra_line(line):
            raise UserError(f"'{line}': tprnn.train trains on this machine; Hydra's settings are for tprnn train -m")
        found.append(FLAGS.get(line, line))
    return found


def _row(outcome: Outcome) -> Row:
    """The row of `tprnn.runs`, as of the budget that was asked for; of a run that was refused, what there is."""
    spec = outcome.spec
    folder = Store(spec.execution["outputs"]).folder(spec)
    if os.path.exists(folder.path):
        row = read_row(folder)
    else:
        known = {"run": folder.name, "path": str(folder.path), "signature": spec.signature, "family": spec.family}
        came = {"status": outcome.status, "stopped_by": None, **dict.fromkeys(NUMBERS)}
        row = known | came | flatten(spec.as_dict())
    row |= {f"train.{key}": getattr(spec.train, key) for key in BUDGET_KEYS}
    if outcome.result is not None and is_finished(outcome.result):  # of a smaller budget than that of the folder
        row |= {key: outcome.result.get(key) for key in ("status", "stopped_by", *NUMBERS)}
    return row


def _pass_on(signum: int) -> None:
    """End the call as the signal would have, had it not been kept until checkpoints were written."""
    if signum == signal.SIGINT:
        raise KeyboardInterrupt("runs stand at their last checkpoints; the same call goes on from there") from None
    signal.raise_signal(signum)
