"""Search for learning rates (dai2021: 50 trials of each method at each length): asked, trained as a stack, told."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

from tprnn.compose import sweep
from tprnn.config import RunSpec
from tprnn.errors import UserError
from tprnn.overrides import choice, own_keys
from tprnn.protocols.many import Outcome, exit_code, run_all
from tprnn.protocols.memory import refused
from tprnn.protocols.progress import first_line, troubles
from tprnn.protocols.samplers import AtRandom, Sampler, Space, Trial, require_optuna, tpe
from tprnn.store import Store
from tprnn.sweeps import Point

USAGE = """usage: tprnn search task=NAME trainer=NAME [KEY=VALUE ...] [search.trials=50] [search.batch=10]
                    [search.sampler=tpe] [search.low=1e-5] [search.high=1] [search.seeds=0]

Looks for the learning rates of the trainer, log-uniformly between search.low and search.high: those with the best
validation accuracy and, among equals, the lowest validation loss. A rate that is given (trainer.alpha_g=0.01) is held.
Sweeps such as task.T=5,10 or trainer=bptt,tptt_many make one search of each point, one after the other;
trainer.bptt.clip_norm=1 is for that trainer alone, and points=NAME or 'points=[{...}, {...}]' holds sets of settings as
in 'tprnn train --help'.

  search.trials=N        trials in all; a search that is done is gone on with by a larger number
  search.batch=N         trials that are asked for at once and trained as one stack
  search.sampler=tpe     Optuna's sampler (pip install 'tprnn[search]'), its study a file in outputs/searches
  search.sampler=random  independent points; needs nothing
  search.seeds=N         then trains the best setting with N further seeds

Finished trials are taken as they are and broken-off ones go on. The last line holds the best rates as overrides.

  tprnn search task=copy_memory task.T=5 trainer=tptt_many optimizer=adam model.H=128 search.seeds=3
  tprnn search task=copy_memory task.T=5,10,15 trainer=bptt optimizer=adam search.sampler=random
"""

SAMPLERS = ("tpe", "random")
_SHOWN = 10  # trials in the table


@dataclass(frozen=True)
class Plan:
    """How many trials, how many at a time, from where, and how many seeds then try the best of them."""

    trials: int = 50
    batch: int = 10
    sampler: str = "tpe"
    low: float = 1e-5
    high: float = 1.0
    seeds: int = 0


@dataclass(frozen=True)
class Tried:
    """A trial that has come to its end."""

    trial: Trial
    outcome: Outcome

    @property
    def score(self) -> float | None:
        return score(self.outcome)


def score(outcome: Outcome) -> float | None:
    """One number for what is better: accuracy first, then the lower loss; None for a run that failed.

    Accuracies of N sequences are whole steps of 1/N. What the loss adds, 1/(2N (1 + loss)), is less than one of them.
    Of a run that went further than the search has it, and had no full set before, the last part of a set counts.
    """
    result = outcome.result or {}
    accuracies = (result.get(key) for key in ("best_accuracy", "seen_accuracy"))
    accuracy = next((value for value in accuracies if value is not None), None)
    if outcome.status == "failed" or accuracy is None:
        return None
    loss = result.get("best_validation_loss")
    bonus = 0.0 if loss is None or math.isnan(loss) else 1.0 / (1.0 + loss)
    return float(accuracy + bonus / (2 * outcome.spec.train.validation_size))


def parse(argv: Sequence[str]) -> tuple[Plan, list[str]]:
    """The plan and the overrides of the runs. Raises UserError."""
    own, overrides = own_keys(argv, "search", [entry.name for entry in dataclasses.fields(Plan)])
    values: dict[str, Any] = {}
    for name, text in own.items():
        key = f"search.{name}"
        if name == "sampler":
            values[name] = choice(key, text, SAMPLERS)
        else:
            values[name] = _rate(key, text) if name in ("low", "high") else _count(key, text, int(name != "seeds"))
    plan = Plan(**values)
    if plan.high <= plan.low:
        raise UserError(f"search.high: expected more than search.low = {plan.low:g}, got {plan.high:g}")
    return plan, overrides


def _count(key: str, value: str, least: int) -> int:
    if not value.isascii() or not value.isdigit() or int(value) < least:
        raise UserError(f"{key}: expected a whole number from {least} on, got {value!r}")
    return int(value)


def _rate(key: str, value: str) -> float:
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not 0.0 < found < math.inf:
        raise UserError(f"{key}: expected a finite number above 0, got {value!r}")
    return found


def space_of(spec: RunSpec, plan: Plan, point: Point) -> Space:
    """The rates that the lines of a point (but for its grid) do not give. Raises UserError where there are none."""
    given = {line.partition("=")[0].lstrip("+") for line in point} - point.grid
    keys = [key for key in spec.rates if key not in given]
    if not keys:
        name = spec.config["trainer"]["name"]
        told = f"all of them ({', '.join(spec.rates)}) are given" if spec.rates else "it has none"
        raise UserError(f"search: no learning rate of trainer={name} is left to look for; {told}")
    return Space(keys, plan.low, plan.high)


def study_name(spec: RunSpec, space: Space) -> str:
    """`<task>-T<T>-<trainer>-s<seed>-<hash>`: of all that is held fixed, and of the space."""
    trainer = {key: value for key, value in spec.identity["trainer"].items() if f"trainer.{key}" not in space.keys}
    # a sampler that was told of other budgets would ask for other points
    held = [spec.identity_with_budget | {"trainer": trainer}, sorted(space.keys), space.low, space.high]
    text = json.dumps(held, sort_keys=True, separators=(",", ":"))
    return f"{spec.short_name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


@contextlib.contextmanager
def sampler_of(spec: RunSpec, plan: Plan, space: Space) -> Iterator[Sampler]:
    """The sampler of a plan, with what an earlier call left of the search. Raises UserError."""
    seed = spec.config["seed"]
    if plan.sampler == "random":
        yield AtRandom(space, seed)
        return
    with Store(spec.execution["outputs"]).study(study_name(spec, space)) as path, tpe(path, space, seed) as sampler:
        yield sampler


def search(spec: RunSpec, plan: Plan, sampler: Sampler, tried: list[Tried]) -> None:
    """Ask, train and tell, a batch at a time, and append what came out, until the plan's trials are done.

    Trials of an earlier call are first taken from their run folders, or gone on with.
    """
    trials = sampler.before()[: plan.trials]
    todo = list(trials)
    while True:
        begun = any(sampler.waiting(trial) for trial in todo)
        # a batch that was broken off while it was asked for is filled up
        batches = -(-len(trials) // plan.batch) if begun else len(trials) // plan.batch + 1
        while len(trials) < min(batches * plan.batch, plan.trials):
            trials.append(sampler.ask())
            todo.append(trials[-1])
        for trial, outcome in zip(todo, run_all([spec.replace(trial.values) for trial in todo]), strict=True):
            if outcome.status == "locked":
                raise UserError(f"search: {outcome.error}")
            found = Tried(trial, outcome)
            sampler.tell(trial, found.score)
            tried.append(found)
        if len(trials) >= plan.trials:
            return
        todo = []


def ranked(tried: Sequence[Tried]) -> list[Tried]:
    """The best first, those that failed last."""
    return sorted(tried, key=lambda one: (-math.inf if one.score is None else one.score, -one.trial.number))[::-1]


def overrides_of(trial: Trial) -> str:
    """`trainer.alpha_i=0.5 trainer.alpha_f=0.01`."""
    return " ".join(f"{key}={value:g}" for key, value in trial.values.items())


def numbers(outcome: Outcome) -> dict[str, str]:
    """What a table says of a run."""
    result = outcome.result or {}

    def shown(key: str, form: Callable[[Any], str]) -> str:
        return "–" if result.get(key) is None else form(result[key])

    return {
        "accuracy (%)": shown("best_accuracy", lambda value: f"{100 * value:.2f}"),
        "loss": shown("best_validation_loss", lambda value: f"{value:.4g}"),
        "iterations": shown("iterations", str),
        "status": outcome.status.replace("_", " "),
        "run": outcome.spec.folder_name,
    }


def summary(tried: Sequence[Tried], repeats: Sequence[Outcome], plan: Plan) -> str:
    """Tables of the best trials and of their first with other seeds; the last line has its rates."""
    best = ranked(tried)
    rows = [
        {"trial": one.trial.number, **{key: f"{value:g}" for key, value in one.trial.values.items()}}
        | numbers(one.outcome)
        for one in best[:_SHOWN]
    ]
    parts = [
        _table(rows),
        f"{len(tried)} of {plan.trials} trials" + (f", the best {_SHOWN} shown" * (len(tried) > _SHOWN)),
    ]
    if repeats:
        parts += [_table([{"seed": outcome.spec.config["seed"], **numbers(outcome)} for outcome in repeats])]
    parts.append(overrides_of(best[0].trial) if best[0].score is not None else "best: none, every trial failed")
    return "\n\n".join(parts)


def _table(rows: Sequence[dict[str, Any]]) -> str:
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def main(argv: Sequence[str]) -> int:
    """`tprnn search ...`: 0, or 1 if any run failed. Raises UserError before anything is run."""
    if {"-h", "--help"} & set(argv):
        print(USAGE, end="")
        return 0
    plan, overrides = parse(argv)
    searches = [(spec, space_of(spec, plan, point)) for point, spec in sweep(overrides)]
    if len({study_name(spec, space) for spec, space in searches}) < len(searches):
        raise UserError("search: points differ in nothing but rates that are looked for; leave out grid or sweep")
    if plan.sampler == "tpe":
        require_optuna()
    outcomes = refused([spec for spec, _ in searches])
    for line in troubles(outcomes):
        print(line, file=sys.stderr)
    too_large = {outcome.spec.signature for outcome in outcomes}
    for spec, space in searches:
        if spec.signature not in too_large:
            outcomes += search_and_tell(spec, plan, space)
    return exit_code(outcomes)


def search_and_tell(spec: RunSpec, plan: Plan, space: Space) -> list[Outcome]:
    """One search with its tables printed; the outcomes of all its runs."""
    tried: list[Tried] = []
    repeats: list[Outcome] = []
    try:
        with sampler_of(spec, plan, space) as sampler:
            search(spec, plan, sampler, tried)
        best = ranked(tried)[0]
        if plan.seeds and best.score is not None:
            seeds = range(spec.config["seed"] + 1, spec.config["seed"] + 1 + plan.seeds)
            repeats += run_all([best.outcome.spec.replace({"seed": seed}) for seed in seeds])
    finally:  # an interrupted search still says how far it came
        if tried:
            print(f"\nsearch of {first_line([spec], 0).removeprefix('training ')}\n")
            print(summary(tried, repeats, plan))
    return [one.outcome for one in tried] + repeats
