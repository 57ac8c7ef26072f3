"""Target propagation in recurrent neural networks: train, sweep, climb in depth, report.

From a notebook: `tprnn.runs("outputs")` is a pandas table of all runs, `tprnn.load(run)` a trained network, and
`@tprnn.register` makes a class of the notebook a member.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

__version__ = "0.1.0"
__all__ = ["__version__", "load", "register", "runs"]

# torch, pandas and hydra take seconds to import: what needs them is imported when it is called.


def runs(outputs: str | Path = "outputs") -> DataFrame:
    """All runs of an outputs folder, one row each: what came out, and every config value as a dotted column.

    Damaged files are warned of and left out. Columns: see `tprnn.report.rows.frame.FIXED`, then ``task.T``, ...
    """
    from tprnn.report.rows.frame import run_frame

    return run_frame(outputs)


def load(run: str | Path) -> Any:
    """The trained network of a run folder (or run name in ./outputs): `.spec`, `.params`, `.predict(batch)`."""
    from tprnn.protocols.evaluate import load as load_network

    return load_network(run)


def register(cls: type) -> type:
    """Make a class a member for this process: a decorator for a rule, task, network or optimizer of one's own."""
    from tprnn.members import register as register_class

    return register_class(cls)
