"""Depth protocol of manchev2020: at each length T all points and seeds; T grows while any of them solves it.

Each combination of members and fixed settings is a climb of its own.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tabulate import tabulate

from tprnn.compose import sweep
from tprnn.config import MEMBER_KINDS, SEED_KEYS, RunSpec, flatten
from tprnn.cost import estimate as cost
from tprnn.cost.recorded import History
from tprnn.errors import UserError
from tprnn.overrides import as_override, choice, own_keys
from tprnn.points import Point
from tprnn.store import Store
from tprnn.sweep.plan import Plan as SweepPlan
from tprnn.sweep.run import Outcome, exit_code, run_all

USAGE = """usage: tprnn depth task=NAME trainer=NAME [KEY=VALUE ...] [depth.start=10] [depth.step=10] [depth.max=1000]
                   [depth.rung=first_solved] [--dry-run]

Trains all points (sweeps such as seed=0,1,2 or trainer.alpha=0.1,0.01, and grid=NAME) at T = depth.start;
T grows by depth.step as long as any of them solves it, and ends at the first failure or at depth.max.
Rates, seeds and what a grid gives are points of one climb. Of everything else with several values (trainer=tptt,bptt,
model.H=50,100) each has a climb of its own, side by side in one table; trainer.tptt.alpha_i=1,10 is for tptt alone,
and points=NAME or 'points=[{...}, {...}]' holds sets of settings as in 'tprnn train --help'.
Finished runs are taken as of train.max_iterations and broken-off ones go on, so that a climb may be stopped and taken
up at any time.

  depth.rung=first_solved  a rung ends where its first run is solved: all have had as many iterations by then, and
                           those that are not solved stay as they are ("left"); rung=all goes on with them later
  depth.rung=all           every run goes to its own end
  --dry-run                says what the first rung and the whole climb cost, at most (a climb that ends at depth.max
                           alone) and as recorded runs like these lead to expect; trains nothing

A climb's last line says its "best T": the longest length up to which ANY of its runs (points and seeds) solved each
length. That is more than a typical run reaches, and the more so the more points and seeds there are. The t_max of
'tprnn report --paper' is another number: each point and seed climbs by itself there, and the median over seeds counts.

  tprnn depth task=random_permutation trainer=tptt seed=0,1,2 depth.rung=all
  tprnn depth task=temporal_order trainer=tptt,bptt trainer.bptt.alpha=0.01,0.001 seed=0,1
  tprnn depth task=temporal_order trainer=tptt grid=manchev2020 depth.start=50
"""

RUNGS = ("first_solved", "all")


@dataclass(frozen=True)
class Plan:
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

    @property
    def diverged(self) -> int:
        """Runs that no more iterations would have helped."""
        return sum(outcome.status == "diverged" for outcome in self.outcomes)


@dataclass
class Climb:
    """Points that one length is solved for together, and how far they came."""

    label: Mapping[str, Any]
    """What tells it from the climbs beside it."""
    specs: Sequence[RunSpec]
    keys: Sequence[str]
    """What tells its points apart."""
    rungs: list[Rung] = field(default_factory=list)

    @property
    def goes_on(self) -> bool:
        """Whether its last length was solved, or none was tried yet."""
        return not self.rungs or bool(self.rungs[-1].solved)

    def describe(self, spec: RunSpec) -> str:
        """Which of its points a run is; empty where there is but one."""
        flat = flatten(spec.config)
        return told({key: flat.get(key) for key in self.keys})


def parse(argv: Sequence[str]) -> tuple[Plan, list[str]]:
    """The plan and the overrides of the runs. Raises UserError."""
    keys = [word.partition("=")[0].lstrip("+").split(".") for word in argv]
    if any((key[0], key[-1]) == ("task", "T") for key in keys):
        raise UserError("task.T: the climb sets it; give depth.start, depth.step, depth.max")
    own, overrides = own_keys(argv, "depth", [entry.name for entry in dataclasses.fields(Plan)])
    values: dict[str, Any] = {}
    for name, text in own.items():
        key = f"depth.{name}"
        if name == "rung":
            values[name] = choice(key, text, RUNGS)
        elif not text.isascii() or not text.isdigit() or int(text) < 1:
            raise UserError(f"{key}: expected a whole number above 0, got {text!r}")
        else:
            values[name] = int(text)
    plan = Plan(**values)
    if plan.max < plan.start:
        raise UserError(f"depth.max: expected at least depth.start = {plan.start}, got {plan.max}")
    return plan, overrides


def climbs_of(points: Sequence[tuple[Point, RunSpec]]) -> list[Climb]:
    """The climbs of a sweep: points that differ in nothing but rates, seeds and what the grid gave are of one climb."""
    found: dict[tuple[tuple[str, str], ...], list[RunSpec]] = {}
    configs: list[dict[str, Any]] = []
    for point, spec in points:
        of_point = {*SEED_KEYS, "task.T", *spec.rates, *point.grid}
        flat = flatten(spec.config)
        config = {key: value for key, value in flat.items() if key not in of_point and value != {}}
        identity = tuple((key, repr(value)) for key, value in config.items())
        if identity not in found:
            configs.append(config)
        found.setdefault(identity, []).append(spec)
    return [
        Climb(label, specs, differing([flatten(spec.config) for spec in specs]))
        for label, specs in zip(labels(configs), found.values(), strict=True)
    ]


def require_criterion(specs: Sequence[RunSpec]) -> None:
    """Raise UserError where no run could count as solved, so that no climb would ever begin."""
    for spec in specs:
        name = spec.config["task"]["name"]
        if not spec.score.counted:
            raise UserError(
                f"task={name} has no criterion of success (it measures {spec.score.name}); no length is solved"
            )
        if spec.train.success_error is None:
            raise UserError("train.success_error: a climb needs one; null leaves every length unsolved")


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys in which some of the configs differ, the seeds last."""
    keys = dict.fromkeys(key for config in configs for key in config)
    found = [key for key in keys if any(config.get(key) != configs[0].get(key) for config in configs)]
    return sorted(found, key=lambda key: key in SEED_KEYS)


def labels(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What tells each config from the others: names of members; other settings from those of the same names alone.

    Members of other names have other settings, too; the name says so already.
    """
    names = [key for kind in MEMBER_KINDS if (key := f"{kind}.name") in differing(configs)]
    alike: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for config in configs:
        alike.setdefault(tuple(config[key] for key in names), []).append(config)
    keys = {same: [*names, *differing(group)] for same, group in alike.items()}
    return [
        {key.removesuffix(".name"): config[key] for key in keys[tuple(config[name] for name in names)] if key in config}
        for config in configs
    ]


def told(values: Mapping[str, Any]) -> str:
    """`trainer.alpha=0.01 seed=2`."""
    return " ".join(f"{key}={shown(value)}" for key, value in values.items())


def shown(value: Any) -> str:
    """A value as an override line has it, names without quotes."""
    return value if isinstance(value, str) else as_override(value)


def go_up(climbs: Sequence[Climb], plan: Plan) -> None:
    """Run the points of all climbs at each length of the plan; a climb ends with its first rung without success.

    A rung that ends with its first success is one call for each climb, so that no other climb decides it.
    """
    for T in range(plan.start, plan.max + 1, plan.step):
        going = [climb for climb in climbs if climb.goes_on]
        for together in calls(going, plan):
            outcomes = iter(run_all(together_at(together, T), first_solved=plan.rung == "first_solved"))
            for climb in together:
                climb.rungs.append(Rung(T, list(itertools.islice(outcomes, len(climb.specs)))))


def calls(climbs: Sequence[Climb], plan: Plan) -> list[list[Climb]]:
    """Which climbs are run by one call at one length."""
    return [list(climbs)] if plan.rung == "all" and climbs else [[climb] for climb in climbs]


def together_at(climbs: Sequence[Climb], T: int) -> list[RunSpec]:
    """All points of some climbs at one length."""
    return [spec.replace({"task.T": T}) for climb in climbs for spec in climb.specs]


def summary(climbs: Sequence[Climb], plan: Plan) -> str:
    """A markdown table of the rungs, those of one length together, and for each climb a line with its best T."""
    climbed = [climb for climb in climbs if climb.rungs]
    rungs = [(rung, climb) for climb in climbed for rung in climb.rungs]
    pointed = any(climb.keys for climb in climbed)
    left, diverged = any(rung.left for rung, _ in rungs), any(rung.diverged for rung, _ in rungs)
    columns = dict.fromkeys(key for climb in climbed for key in climb.label)
    rows = []
    for rung, climb in sorted(rungs, key=lambda pair: pair[0].T):
        fastest = rung.solved[0] if rung.solved else None
        rows.append(
            {"T": rung.T}
            | {key: shown(climb.label[key]) if key in climb.label else "–" for key in columns}
            | {
                "solved": f"{len(rung.solved)}/{len(rung.outcomes)}",
                "fastest": fastest.spec.folder_name if fastest else "–",
                "iterations": fastest.result["iterations"] if fastest and fastest.result else "–",
            }
            | ({"parameters": climb.describe(fastest.spec) if fastest else "–"} if pointed else {})
            | ({"diverged": rung.diverged} if diverged else {})
            | ({"left": rung.left} if left else {})
        )
    table = tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)
    return "\n".join([table, "", *(_best(climb, plan) for climb in climbed)])


def _best(climb: Climb, plan: Plan) -> str:
    """`trainer=tptt: best T = 40 with trainer.alpha_i=0.1`: of any of its runs, so not a paper's t_max."""
    of = f"{told(climb.label)}: " if climb.label else ""
    last = climb.rungs[-1]
    tops = [rung for rung in climb.rungs if rung.solved]
    if not tops:
        return f"{of}best T: none, T = {last.T} is not solved"
    top = tops[-1]
    ended = top is last
    note = " (depth.max reached: no failure yet)" if ended and top.T + plan.step > plan.max else ""
    parameters = climb.describe(top.solved[0].spec)
    return f"{of}best T {'≥' if ended else '='} {top.T}{note}" + (f" with {parameters}" if parameters else "")


def prices(climbs: Sequence[Climb], plan: Plan) -> str:
    """What the first rung and the whole climb cost, at most and as recorded runs lead to expect. Reads the store only.

    At most every run goes to its last iteration and every length is solved. Runs that are finished cost nothing.
    """
    store = Store(climbs[0].specs[0].execution["outputs"])
    history = History(store)
    reached = [1.0] * len(climbs)  # how likely a climb comes to a length
    over, known = set[int](), set[int]()
    lengths: list[list[list[cost.Part]]] = []
    for T in range(plan.start, plan.max + 1, plan.step):
        rungs: list[list[cost.Part]] = [[]]
        for place, climb in enumerate(climbs):
            if place in over:
                continue
            specs, limit = together_at([climb], T), climb.specs[0].train.max_iterations
            rung = SweepPlan(specs, store, first_solved=plan.rung != "all")
            signatures = [spec.signature for spec in rung.asked]
            likely = 1.0
            each: dict[str, float] = {}
            if expected := history.rung([spec.family for spec in specs], T, limit, race=plan.rung != "all"):
                known.add(place)
                iterations, likely = expected
                each = {key: reached[place] * one for key, one in zip(signatures, iterations, strict=True)}
            rungs.append([cost.Part(spec, 1, each.get(spec.signature)) for spec in rung.waiting])
            if not rung.waiting and all(outcome.status != "solved" for outcome in rung.done.values()):
                over.add(place)
            reached[place] *= likely
        # climbs that are one call share the workers, others wait for each other
        lengths.append(rungs if plan.rung != "all" else [list(itertools.chain(*rungs))])
    basis = "recorded runs like these" + (f" for {len(known)} of {len(climbs)} climbs" * (len(known) < len(climbs)))
    first, whole = (
        cost.describe(cost.estimate(*itertools.chain(*some)), basis) or "nothing to do"
        for some in (lengths[:1], lengths)
    )
    return f"T = {plan.start}:\n{first}\n\nT = {plan.start} to {plan.max}:\n{whole}\n\nnothing was trained"


def main(argv: Sequence[str]) -> int:
    """`tprnn depth ...`: 0, or 1 if any run failed. Raises UserError before anything is run."""
    if {"-h", "--help"} & set(argv):
        print(USAGE, end="")
        return 0
    plan, overrides = parse([word for word in argv if word != "--dry-run"])
    climbs = climbs_of(sweep([*overrides, f"task.T={plan.start}"]))
    require_criterion([spec for climb in climbs for spec in climb.specs])
    if "--dry-run" in argv:
        print(prices(climbs, plan))
        return 0
    try:
        go_up(climbs, plan)
    finally:  # an interrupted climb still says how far it came
        if any(climb.rungs for climb in climbs):
            print(summary(climbs, plan))
    return exit_code([outcome for climb in climbs for rung in climb.rungs for outcome in rung.outcomes])
