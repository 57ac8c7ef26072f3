"""Target propagation in recurrent neural networks: train, sweep, climb in depth, report.

From a notebook (docs/notebook.md): `train` trains what the command line trains and gives back a table of the runs,
`runs` is the table of all runs, `metrics` the history of one, `load` its trained network, `update` what one iteration
of a rule changes in a network, and `@register` makes a class of the notebook a member.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

if TYPE_CHECKING:
    from pandas import DataFrame

    from tprnn.protocols.evaluate import Network
    from tprnn.protocols.update import Update
    from tprnn.tasks.base import Batch

__version__ = "0.1.0"
__all__ = ["__version__", "load", "metrics", "register", "runs", "train", "update"]

_Class = TypeVar("_Class", bound=type)

# torch, pandas and hydra take seconds to import: what needs them is imported when it is called.


def train(*lines: str) -> DataFrame:
    """Train the runs that these lines stand for; a table with a row for each, in the order of the lines' points.

    The lines are those of `tprnn train -m`, one string each, e.g. ``train("task=adding", "trainer=tptt,bptt",
    "seed=range(3)")``; ``--force`` and ``--quiet`` too, and ``--plugin=NAME`` and ``--config-dir=DIR``, which hold for
    the rest of the process. What is trained, and where, is what the command line trains: the same run folders, nothing
    that is finished trained again, broken-off runs go on, progress on the way. It is spread over all cores (over N
    with "workers=N"), by processes that know nothing of the program that calls. The columns are those of `runs`; each
    run is seen as of the budget asked for, and a failed or refused one is a row as well.

    Raises UserError for bad input, with nothing written, and DamagedFile; KeyboardInterrupt after an interruption, with
    all that is under way in its checkpoints: the same call goes on from there.
    """
    from tprnn.notebook import train as train_lines

    return train_lines(*lines)


def runs(outputs: str | Path = "outputs") -> DataFrame:
    """All runs of an outputs folder, one row each: what came out, and every config value as a dotted column.

    Damaged files are warned of and left out. Columns: see `tprnn.report.rows.frame.FIXED`, then ``task.T``, ...
    """
    from tprnn.report.rows.frame import run_frame

    return run_frame(outputs)


def metrics(run: str | Path, outputs: str | Path = "outputs") -> DataFrame:
    """The history of a run: a row for each check, with its `iteration` and whatever was measured there.

    `loss` is the mean training loss since the check before; `accuracy` and `validation_loss` are of the `validated`
    sequences of the validation set that the check looked at; `seconds` count from the run's start. Columns such as
    `rho_W_hh` and `norm_W_hh` are there where the run's `probe` asked for them.

    Args:
        run: the path of its folder (`path` of a row), or its name or signature in `outputs`.

    Raises UserError where there is no such run, DamagedFile where its history cannot be read.
    """
    from tprnn.notebook import metrics as read_metrics

    return read_metrics(run, outputs)


def load(run: str | Path, outputs: str | Path = "outputs") -> Network:
    """The trained network of a run: `params` by name, `predict(batch)`, `score()`, `on({"task.T": 200})`, and more.

    Args:
        run: the path of its folder (`path` of a row), or its name or signature in `outputs`.

    Raises UserError where there is no such run, or none that has come to an end; DamagedFile.
    """
    from tprnn.protocols.evaluate import load as load_network

    return load_network(run, outputs)


def update(network: Network | str | Path, *lines: str, batch: Batch, iteration: int = 0) -> Update:
    """What one iteration of a rule changes in a network on a batch: Delta w of every parameter, optimizer included.

    ``update(network, "trainer=tptt", batch=batch).angles(update(network, "trainer=bptt", batch=batch))`` are the
    degrees between the updates of two rules. The network stays as it is. Rule, settings and optimizer are those of the
    network's run but for what the lines say; the optimizer starts afresh. Parameters that the rule has and the
    network lacks begin as in a run of the network's seed. With "optimizer=sgd" the change is the rule's own direction
    times its rate. All is computed in float64 but with "dtype=float32": near a weight of 0.1 float32 knows numbers to
    1e-8, and some rules ask for less.

    Args:
        network: a network, or the run whose network is meant.
        lines: for trainer, optimizer and dtype, as on the command line: "trainer=tptt", "trainer.alpha_f=0.1".
        batch: of the network's task with R = 1, e.g. ``network.sample(20)``.
        iteration: of which noise and phases are taken, where the rule draws any.

    Raises UserError.
    """
    from tprnn.protocols.update import update as one_update

    return one_update(network, *lines, batch=batch, iteration=iteration)


@overload
def register(cls: _Class, /) -> _Class: ...
@overload
def register(**values: Any) -> Callable[[_Class], _Class]: ...
def register(cls: _Class | None = None, /, **values: Any) -> _Class | Callable[[_Class], _Class]:
    """Make a class a member for this process: a decorator for a rule, task, network or optimizer of one's own.

    ``@tprnn.register(alpha=0.001)`` gives the settings of the class their values, as a YAML would (lists and mappings
    are empty where nothing is given). ``@tprnn.register`` is for a class that has a YAML in a folder of --config-dir.
    ``class SignDescent(Trainer)`` is then ``trainer=sign_descent``; another name is its attribute `rule`. Its source is
    part of what its runs are: changed code makes runs of its own. They are trained in the calling process alone.

    Raises UserError for a class that is no member, a missing or wrong value, a name that is taken.
    """
    from tprnn.members import register as register_class

    def decorate(one: _Class) -> _Class:
        register_class(one, values)
        return one

    if cls is None:
        return decorate
    register_class(cls)
    return cls
