"""Search for settings (dai2021: 50 trials of each method at each length): asked, trained as a stack, told."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shlex
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

from tprnn.config import SEED_KEYS, RunSpec
from tprnn.cost.memory import refused
from tprnn.errors import TooLarge, UserError
from tprnn.overrides import choice, own_keys
from tprnn.protocols.search.luck import chance, chance_of, checks, ends
from tprnn.protocols.search.samplers import AtRandom, Sampler, Trial, derived, require_optuna, tpe
from tprnn.protocols.search.studies import Search, searches
from tprnn.scores import Score, best_of, score_of, test_of
from tprnn.store import Store
from tprnn.sweep.plan import distinct
from tprnn.sweep.progress import first_line, tell_troubles
from tprnn.sweep.run import Outcome, exit_code, run_all

USAGE = """usage: tprnn search task=NAME trainer=NAME [KEY=VALUE ...] [KEY=RANGE ...] [search.trials=50]
                    [search.batch=10] [search.sampler=tpe] [search.seeds=same] [search.confirm=3]
                    [search.low=1e-5] [search.high=1]

Looks for the settings with the best validation score (accuracy, for most tasks), of equals the lowest loss. A RANGE
is one of Hydra's grammar:

  trainer.alpha_f='tag(log, interval(1e-5, 1))'  numbers between two ends, uniform in their logarithm
  optimizer.momentum='interval(0.5, 0.99)'       uniform; whole numbers, both ends among them, where the setting is one
  trainer.alpha='int(interval(1, 9))'            whole numbers where the setting takes others too
  model.H='range(50, 200, 50)'                   50, 100, 150: as in a sweep, the end is left out
  trainer.K='choice(1, 5, 10)'                   any values, without an order
  optimizer='choice(adam, sgd)'                  members; optimizer.sgd.momentum='interval(0, 0.99)' is for sgd alone

Without a RANGE all learning rates of the trainer are looked for, log-uniformly between search.low and search.high, but
those that are given (trainer.alpha_g=0.01). With one, what has none is held. Values with commas, such as task.T=5,10 or
trainer=bptt,tptt_many, make one search of each, one after the other; trainer.bptt.clip_norm=1 is for that trainer
alone, and points=NAME or 'points=[{...}, {...}]' holds sets of settings as in 'tprnn train --help'.

  search.trials=N        trials in all; a search that is done is gone on with by a larger number
  search.batch=N         trials that are asked for at once and trained as one stack
  search.sampler=tpe     Optuna's sampler (pip install 'tprnn[search]'), its study a file in outputs/searches
  search.sampler=random  independent points; needs nothing
  search.seeds=same      every trial has the seed of the line
  search.seeds=fresh     each trial has a seed of its own, a function of that seed and its number
                         (init_seed=N holds the start all the same, data_seed=N the data)
  search.confirm=N       then trains the best setting with N seeds that the search did not see; 0: with none

Finished trials are taken as they are and broken-off ones go on. The best of many trials is high by chance alone: beside
it stand the highest of as many looks at guesses, and the best setting with the N seeds. The last line holds the best
settings as overrides.

  tprnn search task=copy_memory task.T=5 trainer=tptt_many optimizer=adam model.H=128 search.seeds=fresh
  tprnn search task=copy_memory task.T=5,10,15 trainer=bptt optimizer=adam search.sampler=random
  tprnn search task=adding trainer=bptt trainer.alpha='tag(log, interval(1e-4, 0.1))' model.H='choice(50, 100)'
"""

SAMPLERS = ("tpe", "random")
SEEDS = ("same", "fresh")
_SHOWN = 10  # trials in the table


@dataclass(frozen=True)
class Plan:
    """How many trials, how many at a time, from where, with which seeds, and how many more then try the best."""

    trials: int = 50
    batch: int = 10
    sampler: str = "tpe"
    seeds: str = "same"
    confirm: int = 3
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Tried:
    """A trial that has come to its end."""

    trial: Trial
    outcome: Outcome

    @property
    def score(self) -> float | None:
        return score(self.outcome)


def score(outcome: Outcome) -> float | None:
    """One number for what is better: the score first, of those that count then the lower loss; None for a failed run.

    Accuracies of N sequences are whole steps of 1/N. What the loss adds, 1/(2N (1 + loss)), is less than one of them.
    Of a run that went further than the search has it, and had no full set before, the last part of a set counts.
    """
    result = outcome.result or {}
    judged = score_of(result)
    values = (result.get(f"{kind}_{judged.name}") for kind in ("best", "seen"))
    value = next((value for value in values if value is not None), None)
    if outcome.status == "failed" or value is None or math.isnan(value):
        return None
    if not judged.counted:
        return -judged.error(value)
    loss = result.get("best_validation_loss")
    bonus = 0.0 if loss is None or math.isnan(loss) else 1.0 / (1.0 + loss)
    return float(value + bonus / (2 * outcome.spec.train.validation_size))


def parse(argv: Sequence[str]) -> tuple[Plan, list[str]]:
    """The plan and the overrides of the runs. Raises UserError."""
    own, overrides = own_keys(argv, "search", [entry.name for entry in dataclasses.fields(Plan)])
    values: dict[str, Any] = {}
    for name, text in own.items():
        key = f"search.{name}"
        if name == "sampler":
            values[name] = choice(key, text, SAMPLERS)
        elif name == "seeds":
            if text.isdigit():
                raise UserError(f"{key}: expected same or fresh, got '{text}'; seeds for the best: search.confirm")
            values[name] = choice(key, text, SEEDS)
        else:
            values[name] = _rate(key, text) if name in ("low", "high") else _count(key, text, int(name != "confirm"))
    return Plan(**values), overrides


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


def check_seeds(spec: RunSpec, plan: Plan) -> None:
    """Raise UserError where a plan's seeds change nothing, or are too large."""
    held = [key for key in SEED_KEYS[1:] if spec.config[key] is not None]
    told = "search.seeds=fresh" if plan.seeds == "fresh" else f"search.confirm={plan.confirm}"
    if held == [*SEED_KEYS[1:]] and (plan.seeds == "fresh" or plan.confirm):
        raise UserError(f"{told}: nothing follows from a seed where {' and '.join(held)} are given; leave one out")
    if (last := spec.config["seed"] + plan.confirm) >= 2**63:
        raise UserError(f"seed: search.confirm={plan.confirm} needs seeds up to {last}, more than 2^63 - 1")


def run_of(search: Search, trial: Trial, plan: Plan) -> RunSpec:
    """The run of a trial; `fresh` seeds are functions of (seed of the search, number of the trial)."""
    seed = derived(search.seed, f"search/seed/{trial.number}") if plan.seeds == "fresh" else None
    try:
        return search.run(trial.values, seed)
    except UserError as error:  # settings that are sound one by one, and not together
        raise UserError(f"search: trial {trial.number} ({' '.join(search.lines(trial.values))}): {error}") from error


@contextlib.contextmanager
def sampler_of(search: Search, plan: Plan) -> Iterator[Sampler]:
    """The sampler of a plan, with what an earlier call left of the search. Raises UserError."""
    space, seed = search.space, search.seed
    if plan.sampler == "random":
        yield AtRandom(space, seed)
        return
    store = Store(search.spec.execution["outputs"])
    with store.study(search.study_name(plan.seeds)) as path, tpe(path, space, seed) as sampler:
        yield sampler


def carry_out(search: Search, plan: Plan, sampler: Sampler, tried: list[Tried]) -> None:
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
        for trial, outcome in zip(todo, run_all([run_of(search, trial, plan) for trial in todo]), strict=True):
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


def numbers(outcome: Outcome) -> dict[str, str]:
    """What a table says of a run."""
    result = outcome.result or {}

    def shown(key: str, form: Callable[[Any], str]) -> str:
        return "–" if result.get(key) is None else form(result[key])

    judged, tested = outcome.spec.score, test_of(result)
    return {
        judged.heading: shown(f"best_{judged.name}", judged.number),
        _test_heading(judged): "–" if tested is None else judged.number(tested),
        "loss": shown("best_validation_loss", lambda value: f"{value:.4g}"),
        "iterations": shown("iterations", str),
        "status": outcome.status.replace("_", " "),
        "run": outcome.spec.folder_name,
    }


def _test_heading(judged: Score) -> str:
    return "test (%)" if judged.counted else "test"


def summary(search: Search, tried: Sequence[Tried], repeats: Sequence[Outcome], plan: Plan) -> str:
    """Tables of the best trials, of their first with other seeds, and of what it is worth; the last line has it."""
    best = ranked(tried)
    settings = [search.settings(one.trial.values) for one in best[:_SHOWN]]
    keys = dict.fromkeys(key for row in settings for key in row)
    seeds = ["seed"] * (plan.seeds == "fresh")
    rows = [
        {"trial": one.trial.number}
        | {key: one.outcome.spec.config[key] for key in seeds}
        | {key: row.get(key, "–") for key in keys}
        | numbers(one.outcome)
        for one, row in zip(best, settings, strict=False)
    ]
    runs = distinct([one.outcome for one in tried])
    of_runs = "" if len(runs) == len(tried) else f" of {len(runs)} different runs"
    parts = [
        _table(rows),
        f"{len(tried)} of {plan.trials} trials" + (f", the best {_SHOWN} shown" * (len(tried) > _SHOWN)),
        f"ends{of_runs}: {ends(runs)}",
    ]
    if best[0].score is None:
        return "\n\n".join([*parts, "best: none, every trial failed"])
    if repeats:
        parts += [_table([{"seed": outcome.spec.config["seed"], **numbers(outcome)} for outcome in repeats])]
    parts += [worth(best[0].outcome, runs, repeats)]
    lines = [f"{key}={best[0].outcome.spec.config[key]}" for key in seeds] + search.lines(best[0].trial.values)
    return "\n\n".join([*parts, shlex.join(lines)])


def worth(best: Outcome, runs: Sequence[Outcome], repeats: Sequence[Outcome]) -> str:
    """The best of many runs beside what as many looks give by chance, and beside its setting with other seeds."""
    judged = [run for run in runs if score(run) is not None]
    measured = best.spec.score
    rows = [{"": f"best of {len(judged)} runs", **_scores(measured, [best])}]
    told = []
    if measured.counted:
        rows.append(_by_chance(best, judged))
        level, looks = chance(best.spec), sum(map(checks, judged))
        of_guesses = "" if level is None else f", where a sequence is answered rightly with {100 * level:.4g} %"
        told.append(
            f"By chance: the highest of {looks} looks at {best.spec.train.validation_size} sequences, as many as the "
            f"best is the best of{of_guesses}."
        )
    if repeats:
        rows.append({"": f"its setting with {len(repeats)} new seeds: median (range)", **_scores(measured, repeats)})
        told.append(
            "New seeds: the best setting with starts and data that decided nothing; what the first row has above them "
            f"it owes to being the best of {len(judged)}."
        )
    return "\n\n".join(part for part in (_table(rows), " ".join(told)) if part)


def _by_chance(best: Outcome, judged: Sequence[Outcome]) -> dict[str, str]:
    """What as many looks as were taken give a learner that guesses."""
    if (found := chance_of(judged)) is None:
        told = f"by chance: task={best.spec.config['task']['name']} does not say"
        return {"": told, **_scores(best.spec.score, [])}
    row = {"": "by chance: expected (95 % at most)", **_scores(best.spec.score, [])}
    return row | {best.spec.score.heading: f"{100 * found[0]:.2f} ({100 * found[1]:.2f})"}


def _scores(judged: Score, outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Of the best check on validation data, and of the test set: a number, or median and range of several."""
    results = [outcome.result or {} for outcome in outcomes]

    def shown(found: Iterable[float | None]) -> str:
        values = [value for value in found if value is not None]
        ends = [judged.number(value) for value in (min(values), max(values))] if values else []
        if len(values) < 2:
            return ends[0] if values else "–"
        return f"{judged.number(statistics.median(values))} ({ends[0]} to {ends[1]})"

    return {judged.heading: shown(map(best_of, results)), _test_heading(judged): shown(map(test_of, results))}


def _table(rows: Sequence[dict[str, Any]]) -> str:
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def main(argv: Sequence[str]) -> int:
    """`tprnn search ...`: 0, or 1 if any run failed. Raises UserError before anything is run."""
    if {"-h", "--help"} & set(argv):
        print(USAGE, end="")
        return 0
    plan, overrides = parse(argv)
    found = searches(overrides, plan.low, plan.high)
    for search in found:
        check_seeds(search.spec, plan)
    if len({search.study_name(plan.seeds) for search in found}) < len(found):
        raise UserError("search: points differ in nothing but what is looked for; leave out grid or sweep")
    edges = [search.edges() for search in found]
    if plan.sampler == "tpe":
        require_optuna()
    # one of each shape: what differs in numbers alone needs the same memory
    outcomes = refused([spec for some in edges for spec in {spec.stack_key: spec for spec in some}.values()])
    too_large = {outcome.spec.signature for outcome in outcomes}
    fitting = [
        search for search, some in zip(found, edges, strict=True) if not too_large & {spec.signature for spec in some}
    ]
    if not fitting:
        raise TooLarge(f"no search fits: {outcomes[0].spec.short_name} {outcomes[0].error}")
    tell_troubles(outcomes)
    for search in fitting:
        outcomes += search_and_tell(search, plan)
    return exit_code(outcomes)


def search_and_tell(search: Search, plan: Plan) -> list[Outcome]:
    """One search with its tables printed; the outcomes of all its runs."""
    tried: list[Tried] = []
    repeats: list[Outcome] = []
    try:
        with sampler_of(search, plan) as sampler:
            carry_out(search, plan, sampler, tried)
        best = ranked(tried)[0]
        if plan.confirm and best.score is not None:
            seeds = range(search.seed + 1, search.seed + 1 + plan.confirm)
            repeats += run_all([best.outcome.spec.replace({"seed": seed}) for seed in seeds])
    finally:  # an interrupted search still says how far it came
        if tried:
            line = first_line([one.outcome.spec for one in tried], 0)
            print(f"\nsearch of {line.split(': ')[-1].removeprefix('training ')}\n")
            print(summary(search, tried, repeats, plan))
    return [one.outcome for one in tried] + repeats
