"""Depth protocol of manchev2020: at each length T all points and seeds; T grows while any of them solves it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

from tprnn.compose import points
from tprnn.config import RunSpec, flatten
from tprnn.errors import UserError
from tprnn.overrides import choice, own_keys
from tprnn.protocols import estimate as cost
from tprnn.protocols.many import Outcome, exit_code, run_all

USAGE = """usage: tprnn depth task=NAME trainer=NAME [KEY=VALUE ...] [depth.start=10] [depth.step=10] [depth.max=1000]
                   [depth.rung=first_solved] [--dry-run]

Trains all points (sweeps such as seed=0,1,2 or trainer.alpha=0.1,0.01, and grid=NAME) at T = depth.start;
T grows by depth.step as long as any of them solves it, and ends at the first failure or at depth.max.
Finished runs are taken as of train.max_iterations and broken-off ones go on, so that a climb may be stopped and taken
up at any time.

  depth.rung=first_solved  a rung ends where its first run is solved: all have had as many iterations by then, and
                           those that are not solved stay as they are ("left"); rung=all goes on with them later
  depth.rung=all           every run goes to its own end
  --dry-run                says what the first rung and the whole climb cost at most, trains nothing

  tprnn depth task=random_permutation trainer=tptt seed=0,1,2 depth.rung=all
  tprnn depth task=temporal_order trainer=tptt grid=manchev2020 depth.start=50
"""

RUNGS = ("first_solved", "all")


@dataclass(frozen=True)
class Climb:
    """First length, step and last length, and when a length is done with."""

    start: int = 10
    step: int = 10
    max: int = 1000
    rung: str = "first_solved"


@dataclass(frozen=True)
class Rung:
    """The outcomes at one length, in the order of the points."""

    T: int
    outcomes: Sequence[Outcome]

    @property
    def solved(self) -> list[Outcome]:
        """Solved ones, fastest first."""
        solved = [outcome for outcome in self.outcomes if outcome.status == "solved"]
        return sorted(solved, key=lambda outcome: outcome.result["iterations"] if outcome.result else 0)

    @property
    def left(self) -> int:
        """Runs that were not at their ends when the rung was decided."""
        return sum(outcome.status == "interrupted" for outcome in self.outcomes)


def parse(argv: Sequence[str]) -> tuple[Climb, list[str]]:
    """The climb and the overrides of the runs. Raises UserError."""
    if any(word.partition("=")[0].lstrip("+") == "task.T" for word in argv):
        raise UserError("task.T: the climb sets it; give depth.start, depth.step, depth.max")
    own, overrides = own_keys(argv, "depth", [entry.name for entry in dataclasses.fields(Climb)])
    values: dict[str, Any] = {}
    for name, text in own.items():
        key = f"depth.{name}"
        if name == "rung":
            values[name] = choice(key, text, RUNGS)
        elif not text.isascii() or not text.isdigit() or int(text) < 1:
            raise UserError(f"{key}: expected a whole number above 0, got {text!r}")
        else:
            values[name] = int(text)
    climb = Climb(**values)
    if climb.max < climb.start:
        raise UserError(f"depth.max: expected at least depth.start = {climb.start}, got {climb.max}")
    return climb, overrides


def shown_keys(specs: Sequence[RunSpec]) -> list[str]:
    """Dotted keys that tell the points apart, and the trainer's learning rates; seed and length left out."""
    flat = [flatten(spec.config) for spec in specs]
    first = flat[0]
    differing = [key for key in first if any(other.get(key) != first[key] for other in flat)]
    return [key for key in first if key in {*specs[0].rates, *differing} - {"seed", "task.T"}]


def describe(spec: RunSpec, keys: Sequence[str]) -> str:
    """`trainer.alpha=0.01 seed=2`."""
    flat = flatten(spec.config)
    return " ".join(f"{key}={flat.get(key)}" for key in [*keys, "seed"])


def climb(specs: Sequence[RunSpec], plan: Climb, rungs: list[Rung]) -> None:
    """Run the points at each length of the plan and append a rung for each, until one has no success."""
    for T in range(plan.start, plan.max + 1, plan.step):
        at_T = [spec.replace({"task.T": T}) for spec in specs]
        rungs.append(Rung(T, run_all(at_T, first_solved=plan.rung == "first_solved")))
        if not rungs[-1].solved:
            return


def summary(rungs: Sequence[Rung], plan: Climb, keys: Sequence[str]) -> str:
    """A markdown table of the rungs, and a last line with t_max and the parameters that reached it."""
    rows = []
    for rung in rungs:
        fastest = rung.solved[0] if rung.solved else None
        rows.append(
            {
                "T": rung.T,
                "solved": f"{len(rung.solved)}/{len(rung.outcomes)}",
                "fastest": fastest.spec.folder_name if fastest else "–",
                "iterations": fastest.result["iterations"] if fastest and fastest.result else "–",
                "parameters": describe(fastest.spec, keys) if fastest else "–",
            }
            | ({"left": rung.left} if any(rung.left for rung in rungs) else {})
        )
    climbed = [rung for rung in rungs if rung.solved]
    table = tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)
    if not climbed:
        return f"{table}\n\nt_max: none, T = {rungs[-1].T} is not solved"
    top = climbed[-1]
    ended = top is rungs[-1]
    note = " (depth.max reached: no failure yet)" if ended and top.T + plan.step > plan.max else ""
    return f"{table}\n\nt_max {'≥' if ended else '='} {top.T}{note} with {describe(top.solved[0].spec, keys)}"


def prices(specs: Sequence[RunSpec], plan: Climb) -> str:
    """What the first rung and the whole climb cost, every run to its last iteration."""
    rungs = [
        [cost.Part(spec.replace({"task.T": T})) for spec in specs] for T in range(plan.start, plan.max + 1, plan.step)
    ]
    first, whole = (cost.describe(cost.estimate(*some)) for some in (rungs[:1], rungs))
    return f"T = {plan.start}:\n{first}\n\nT = {plan.start} to {plan.max}:\n{whole}\n\nnothing was trained"


def main(argv: Sequence[str]) -> int:
    """`tprnn depth ...`: 0, or 1 if any run failed. Raises UserError before anything is run."""
    if {"-h", "--help"} & set(argv):
        print(USAGE, end="")
        return 0
    plan, overrides = parse([word for word in argv if word != "--dry-run"])
    specs = points([*overrides, f"task.T={plan.start}"])
    if "--dry-run" in argv:
        print(prices(specs, plan))
        return 0
    keys = shown_keys(specs)
    rungs: list[Rung] = []
    try:
        climb(specs, plan, rungs)
    finally:  # an interrupted climb still says how far it came
        if rungs:
            print(summary(rungs, plan, keys))
    return exit_code([outcome for rung in rungs for outcome in rung.outcomes])
