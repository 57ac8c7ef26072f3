"""The contract of a learning rule, as a test that any rule can be put to: `check_trainer("mine")`.

What a rule must keep to is in docs/extending.md. What fails raises `ContractError`, which says which run broke what,
from which iteration on, and shows the losses.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tprnn import plugins
from tprnn.compose import compose
from tprnn.config import RunSpec
from tprnn.engine.ensemble import Ensemble
from tprnn.errors import UserError
from tprnn.listing import members
from tprnn.store import Store
from tprnn.sweep.run import run_all

RTOL, ATOL = 1e-9, 1e-12
"""Of float64: how far a run beside others may be from the same run alone."""
SMALL = ("dtype=float64", "model.H=8", "train.batch_size=5", "task.T=10", "probe=none", "quiet=true", "workers=1")
_SHOWN = 5  # losses on each side of where they part


class ContractError(AssertionError):
    """A rule does not keep its contract."""


@dataclass(frozen=True)
class Course:
    """What runs of an ensemble went through."""

    losses: Tensor
    """[iterations, R]."""
    tensors: dict[str, Tensor]
    """Parameters and slots at the end, [R, ...]."""

    @classmethod
    def of(cls, ensemble: Ensemble, iterations: int) -> Course:
        """Train an ensemble for some iterations."""
        rows = []
        for _ in range(iterations):
            before = ensemble.loss_sum.clone()
            ensemble.advance()
            rows.append(ensemble.loss_sum - before)
        return cls(torch.stack(rows), ensemble.state.flat())

    def run(self, r: int) -> Course:
        """That of one run."""
        return Course(self.losses[:, r], {name: value[r] for name, value in self.tensors.items()})


def check_trainer(
    name: str,
    *,
    settings: Mapping[str, Any] | None = None,
    numbers: Mapping[str, Sequence[Any]] | None = None,
    tasks: Iterable[str] | None = None,
    iterations: int = 20,
    plugin: str | None = None,
    config_dir: str | Path | None = None,
) -> None:
    """Hold a learning rule to its contract on every task that it does not refuse, in float64 and with 8 units.

    Each task: losses and weights stay finite and something learns; three runs that differ in seed, rates, `freeze` and
    `rate_factors` are beside each other what they are alone, in any order, and when one joins later. Then: a frozen
    parameter stays as it is, and a run that is cut and goes on has the bits of one that was not.

    Args:
        name: of the trainer, as in trainer=NAME.
        settings: dotted key -> value that all runs have, e.g. {"model.H": 5}.
        numbers: dotted key of a per-run setting -> its three values in the runs of a stack.
        tasks: names; None: all.
        iterations: of each run.
        plugin: a module or FILE.py that holds the rule, where no installed package does.
        config_dir: a folder with its trainer/NAME.yaml.

    Raises ContractError, and UserError where there is no such trainer or it refuses all tasks.
    """
    plugins.ask([plugin] if plugin else [], [str(config_dir)] if config_dir else [])
    refused: list[str] = []
    specs = []
    for task in tasks if tasks is not None else [task for task, _ in members("task")]:
        try:
            specs.append(compose([f"task={task}", f"trainer={name}", *SMALL]).replace(settings or {}))
        except UserError as error:
            refused.append(f"{task}: {error}")
    if not specs:
        raise UserError(f"{name}: no task can be trained; {'; '.join(refused)}")
    for spec in specs:
        runs = neighbours(spec, numbers or {})
        check_alive(runs, iterations)
        check_stacked(runs, iterations)
        check_permuted(runs, iterations)
        check_joined(runs, iterations)
    check_frozen(specs[0], iterations)
    check_resumed(specs[0], iterations)


def neighbours(spec: RunSpec, numbers: Mapping[str, Sequence[Any]]) -> list[RunSpec]:
    """Three runs of one stack: they differ in seed, in every rate, in what is frozen, and in `numbers`."""
    names = list(Ensemble([spec]).trainer.shapes())
    own: dict[str, Sequence[Any]] = {
        "trainer.freeze": ([], names[:1], names[-1:]),
        "trainer.rate_factors": ({}, {names[1]: 0.1}, {names[0]: 0.0}),
    }
    for entry in dataclasses.fields(spec.member("trainer").Settings):
        if entry.metadata.get("searched") and entry.metadata.get("per_run"):
            value = spec.config["trainer"][entry.name]
            own[f"trainer.{entry.name}"] = (value, 2 * value, value / 2)
    values = own | dict(numbers)
    return [spec.replace({"seed": 10 + r, **{key: each[r] for key, each in values.items()}}) for r in range(3)]


def check_alive(runs: Sequence[RunSpec], iterations: int = 20) -> None:
    """Losses and weights stay finite, and some weight moves. Raises ContractError."""
    for spec in runs:
        ensemble = Ensemble([spec])
        start = {name: value.clone() for name, value in ensemble.state.params.items()}
        course = Course.of(ensemble, iterations)
        if not course.losses.isfinite().all():
            raise ContractError(f"{_which(spec)}: a loss is not finite; losses {_numbers(course.losses[:, 0])}")
        broken = [name for name, value in ensemble.state.params.items() if not value.isfinite().all()]
        if broken:
            told = f"{', '.join(broken)} not finite after {iterations} iterations"
            raise ContractError(f"{_which(spec)}: {told}; losses {_numbers(course.losses[:, 0])}")
        if all(torch.equal(start[name], value) for name, value in ensemble.state.params.items()):
            told = f"no parameter has moved in {iterations} iterations"
            raise ContractError(f"{_which(spec)}: {told}; losses {_numbers(course.losses[:, 0])}")


def check_stacked(runs: Sequence[RunSpec], iterations: int = 30) -> None:
    """Each run of a stack is what it is alone. Raises ContractError."""
    together = Course.of(Ensemble(runs), iterations)
    for r, spec in enumerate(runs):
        _compare(
            f"{_which(spec)}: beside others", together.run(r), "alone", Course.of(Ensemble([spec]), iterations).run(0)
        )


def check_permuted(runs: Sequence[RunSpec], iterations: int = 30) -> None:
    """A stack in another order has the same runs. Raises ContractError."""
    order = [*range(1, len(runs)), 0]
    straight, turned = (Course.of(Ensemble(each), iterations) for each in (runs, [runs[r] for r in order]))
    for place, r in enumerate(order):
        _compare(f"{_which(runs[r])}: in another place of a stack", turned.run(place), "before", straight.run(r))


def check_joined(runs: Sequence[RunSpec], iterations: int = 30) -> None:
    """Where a run joins others that stand at a later iteration, all are what they are alone. Raises ContractError."""
    before = iterations // 2
    early, late = Ensemble(runs[:-1]), Ensemble(runs[-1:])
    first = Course.of(early, before)
    then = Course.of(Ensemble.merge([early, late]), iterations)
    for r, spec in enumerate(runs):
        found, joins = then.run(r), r == len(runs) - 1
        if not joins:
            found = Course(torch.cat([first.run(r).losses, found.losses]), found.tensors)
        alone = Course.of(Ensemble([spec]), iterations if joins else before + iterations).run(0)
        what = f"joining others at their iteration {before}" if joins else f"joined by another at iteration {before}"
        _compare(f"{_which(spec)}: {what}", found, "alone", alone)


def check_frozen(spec: RunSpec, iterations: int = 20) -> None:
    """A parameter in `trainer.freeze` keeps its bits, whatever the others do. Raises ContractError."""
    for name in Ensemble([spec]).trainer.shapes():
        ensemble = Ensemble([spec.replace({"trainer.freeze": [name]})])
        before = ensemble.state.params[name].clone()
        course = Course.of(ensemble, iterations)
        if not torch.equal(before, ensemble.state.params[name]):
            far = (ensemble.state.params[name] - before).abs().max().item()
            told = f"trainer.freeze=[{name}], yet {name} has moved by up to {far:.3g}"
            raise ContractError(f"{_which(spec)}: {told}; losses {_numbers(course.losses[:, 0])}")


def check_resumed(spec: RunSpec, iterations: int = 20) -> None:
    """A run that is cut and goes on, also between two checks, has the bits of one that was not.

    Raises ContractError.
    """
    found = []
    with tempfile.TemporaryDirectory() as folder:
        small = {"train.check_every": 4, "train.validation_size": 20, "train.success_error": None}
        for place, cuts in (("straight", (iterations,)), ("cut", (4, 7, iterations))):
            for cut in cuts:
                one = spec.replace({**small, "outputs": str(Path(folder, place)), "train.max_iterations": cut})
                (outcome,) = run_all([one])
                if outcome.status == "failed":
                    raise ContractError(f"{_which(spec)}: failed at its way to iteration {cut}: {outcome.error}")
            there = Store(Path(folder, place)).folder(one)
            model = there.load_model()
            losses = [row["loss"] for row in there.read_metrics()]
            found.append(Course(torch.tensor(losses), model[0] if model else {}))
    _compare(f"{_which(spec)}: cut after 4 and 7 iterations", found[1], "without a cut", found[0], rtol=0.0, atol=0.0)


def _compare(what: str, one: Course, other_way: str, other: Course, rtol: float = RTOL, atol: float = ATOL) -> None:
    """Raise ContractError where two courses of a run differ: the first losses that do, and the tensors."""
    apart = [name for name, value in one.tensors.items() if not torch.allclose(value, other.tensors[name], rtol, atol)]
    parted = ~torch.isclose(one.losses, other.losses, rtol, atol)
    if not apart and not parted.any():
        return
    first = int(parted.nonzero()[0]) if parted.any() else len(parted) - 1
    shown = slice(max(0, first - _SHOWN), first + _SHOWN)
    told = f"losses part at number {first + 1}" if parted.any() else "losses agree"
    far = [(name.removeprefix("param/"), (one.tensors[name] - other.tensors[name]).abs().max()) for name in apart]
    ends = ", ".join(f"{name} by up to {value.item():.3g}" for name, value in far)
    raise ContractError(
        f"{what} it is not what it is {other_way}: {told} ({_numbers(one.losses[shown])} against "
        f"{_numbers(other.losses[shown])})" + (f"; at the end differ {ends}" if ends else "")
    )


def _which(spec: RunSpec) -> str:
    frozen = f", freeze={spec.config['trainer']['freeze']}" if spec.config["trainer"]["freeze"] else ""
    return f"{spec.config['trainer']['name']} on {spec.config['task']['name']} (seed {spec.config['seed']}{frozen})"


def _numbers(values: Tensor) -> str:
    return " ".join(f"{value:.6g}" for value in values.tolist())
