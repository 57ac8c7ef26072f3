"""Reproduction of a published table or figure: the runs behind its cells, rung by rung, resumable."""

from __future__ import annotations

import dataclasses
import shlex
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tabulate import tabulate

from tprnn.arguments import DEFAULT
from tprnn.config import ExecutionSettings, RunSpec
from tprnn.cost.estimate import Part, describe, estimate
from tprnn.cost.published import BEYOND, bound, iterations
from tprnn.cost.recorded import History
from tprnn.engine.runs import REFUSED
from tprnn.errors import UserError, nearest
from tprnn.papers.recipes import Budget, Recipe, RecipeCell, figure_names, names, recipe
from tprnn.plugins import as_words
from tprnn.store import Store
from tprnn.sweep.plan import Plan
from tprnn.sweep.run import Outcome, exit_code, run_all

USAGE = """usage: tprnn reproduce PAPER/NAME [budget=laptop] [--dry-run] [rows=...] [columns=...] [seeds=...]
                       [trainers=...] [points=...] [T_max=N] [max_iterations=N] [outputs=DIR] [workers=N] ...

Trains the runs behind a published table or figure. Finished runs are skipped and broken-off ones continued, so the
same command may be given again at any time. 'tprnn report --paper' shows a table, 'tprnn plot' draws a figure.

  tprnn reproduce manchev2020/table1 budget=laptop
  tprnn reproduce manchev2025/fig2 budget=laptop

  budget          smoke (minutes), laptop (hours) or paper (the paper's own limits); laptop is the default
  rows, columns   a part of it, e.g. rows=adding columns=TPTT,BPTT
  trainers        rules of one's own beside those of a table (trainers=mine,other): each at its defaults and, where
                  the table searches rates, with the same values for its own; and with the table's controls
  seeds           how many (seeds=5: 0 to 4), or which ones (seeds=0,3,7)
  points          which points of the budget's grid, counted from 1 in the order of its axes, e.g. points=1,4
  T_max           the longest T, in place of the budget's
  max_iterations  iterations before a run counts as not solved, in place of the budget's; a run that had fewer goes on,
                  one that had more is judged as of these
  --dry-run       lists runs done and to do and what they will cost, at most and as expected; trains nothing. Climbs
                  are counted to two lengths beyond what is published for them (a control: for its row); one that goes
                  on from there costs more. Expected is what recorded runs like these took, or what is published

Any key of how runs are carried out may follow: outputs, workers, threads, device, stack_size, quiet, force, ...
"""

OWN_KEYS = ("budget", "rows", "columns", "trainers", "seeds", "points", "T_max", "max_iterations")


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    recipe: Recipe
    budget: Budget
    cells: Sequence[RecipeCell]
    # overrides of execution keys
    execution: Sequence[str]
    dry_run: bool


@dataclass(frozen=True)
class Climber:
    """One run that goes up a cell's lengths: a candidate of the cell with a seed."""

    cell: RecipeCell
    spec: RunSpec
    lengths: Sequence[int]

    def at(self, T: int) -> RunSpec:
        return self.spec if self.spec.config["task"]["T"] == T else self.spec.replace({"task.T": T})


def _count(key: str, value: str, low: int) -> int:
    if not value.isascii() or not value.isdigit() or int(value) < low:
        raise UserError(f"{key}: expected a whole number of at least {low}, got {value!r}")
    return int(value)


def _seeds(value: str) -> tuple[int, ...]:
    if "," in value or value.startswith("["):
        return tuple(_count("seeds", part.strip(), 0) for part in value.strip("[]").split(","))
    return tuple(range(_count("seeds", value, 1)))


def _words(value: str) -> list[str]:
    return [word.strip() for word in value.strip("[]").split(",")]


def parse(argv: Sequence[str]) -> Request:
    """Raises UserError for unknown tables, budgets, rows, columns and keys."""
    execution_keys = [entry.name for entry in dataclasses.fields(ExecutionSettings)]
    tables: list[str] = []
    own: dict[str, str] = {}
    execution: list[str] = []
    dry_run = False
    for word in argv:
        key, equals, value = word.partition("=")
        if word == "--dry-run":
            dry_run = True
        elif word.startswith("-"):
            raise UserError(f"unknown option '{word}'; choices: --dry-run, --help")
        elif not equals:
            tables.append(word)
        elif key in OWN_KEYS:
            own[key] = value
        elif key in execution_keys:
            execution.append(word)
        else:
            raise UserError(f"unknown key '{key}'; {nearest(key, [*OWN_KEYS, *execution_keys])}")
    if len(tables) != 1:
        choices = ", ".join((*names(), *figure_names()))
        raise UserError(f"expected one table or figure, got {len(tables)}; choices: {choices}")
    plan = recipe(tables[0], tuple(_words(own["trainers"])) if "trainers" in own else ())
    limit = _count("T_max", own["T_max"], 1) if "T_max" in own else None
    budget = plan.budget(
        own.get("budget", "laptop"),
        seeds=_seeds(own["seeds"]) if "seeds" in own else None,
        points=tuple(_count("points", word, 1) for word in _words(own["points"])) if "points" in own else None,
        max_iterations=_count("max_iterations", own["max_iterations"], 1) if "max_iterations" in own else None,
        T_max=None if limit is None else {row.task: limit for row in plan.rows},
    )
    selected = plan.select(*(_words(own[key]) if key in own else None for key in ("rows", "columns")))
    cells = [cell for cell in selected if len(plan.lengths(cell, budget))]
    if not cells:
        raise UserError(f"nothing to run: these rows of {plan.name} are not in budget={budget.name}")
    return Request(plan, budget, cells, execution, dry_run)


def climbers(request: Request) -> list[Climber]:
    """Every candidate of every cell with every seed. Raises UserError."""
    found = []
    for cell in request.cells:
        lengths = request.recipe.lengths(cell, request.budget)
        found += [Climber(cell, spec, lengths) for spec in cell.runs(request.budget, request.execution)]
    return found


def distinct(found: Sequence[Climber]) -> list[Climber]:
    """Each run once: two columns may read different numbers off one run, and a grid may hold another column's point."""
    first: dict[str, Climber] = {}
    for climber in found:
        first.setdefault(climber.spec.signature, climber)
    return list(first.values())


def run(found: Sequence[Climber]) -> list[Outcome]:
    """All outcomes. Rows at one length are one call; climbs go rung by rung, and leave at their first failure."""
    if all(len(climber.lengths) == 1 for climber in found):
        return run_all([climber.at(climber.lengths[0]) for climber in found])
    outcomes: list[Outcome] = []
    live = list(found)
    for T in sorted({T for climber in found for T in climber.lengths}):
        rung = [climber for climber in live if T in climber.lengths]
        if not rung:
            break
        if not rung[0].spec.execution["quiet"]:
            print(f"T = {T}: {len(rung)} of {len(found)} climbs go on", flush=True)
        results = run_all([climber.at(T) for climber in rung])
        outcomes += results
        live = [climber for climber, outcome in zip(rung, results, strict=True) if outcome.status == "solved"]
    return outcomes


@dataclass(frozen=True)
class Standing:
    """How far a climb is."""

    climber: Climber
    done: int = 0
    """Runs that are finished."""
    over: bool = False
    """Whether its end is known."""

    @property
    def left(self) -> Sequence[int]:
        """The lengths that it may still come to."""
        return () if self.over else self.climber.lengths[self.done :]


def standings(found: Sequence[Climber], store: Store) -> list[Standing]:
    """How far each climb is, rung by rung as `run` plans them. Reads the store only."""
    states = [Standing(climber) for climber in found]
    live = list(range(len(found)))
    while live:
        plan = Plan([found[place].at(states[place].left[0]) for place in live], store)
        ended = [
            (place, plan.done[spec.signature])
            for place, spec in zip(live, plan.asked, strict=True)
            if spec.signature in plan.done
        ]
        live = []
        for place, outcome in ended:
            done = states[place].done + 1
            over = outcome.status != "solved" or done == len(found[place].lengths)
            states[place] = Standing(found[place], done, over)
            live += [] if over else [place]
    return states


def counted(request: Request, standing: Standing) -> Sequence[int]:
    """The lengths to do at most, up to the bound of the cell; the next one always, where the end is not known."""
    climber = standing.climber
    last = bound(request.recipe, climber.cell, climber.lengths[-1])
    return [T for place, T in enumerate(standing.left) if place == 0 or last >= T]


def listing(request: Request, states: Sequence[Standing]) -> str:
    """What would run: a line for each cell, and the total."""
    numbers = request.budget.points
    chosen = "" if numbers is None else f"; of these points {', '.join(map(str, numbers))}"
    rows = []
    for cell in request.cells:
        mine = [one for one in states if one.climber.cell is cell]
        todo = sum(len(counted(request, one)) for one in mine)
        lengths = mine[0].climber.lengths
        last = bound(request.recipe, cell, lengths[-1])
        rows.append(
            {
                "row": cell.row.task,
                "column": cell.column.key,
                "T": str(lengths[0]) if len(lengths) == 1 else f"{lengths[0]} to {last}",
                "climbs": len(mine),
                "runs done": sum(one.done for one in mine),
                "to do": todo if len(lengths) == 1 or not todo else f"up to {todo}",
                "parameters": cell.described(request.budget.name) + chosen,
            }
        )
    total = sum(len(counted(request, one)) for one in _once(states))
    table = tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)
    upper = "up to " if total and any(len(one.climber.lengths) > 1 for one in states) else ""
    return f"{table}\n\n{upper}{total} runs to do; nothing was trained"


def _once(states: Sequence[Standing]) -> list[Standing]:
    """Of `distinct` climbers."""
    first = {id(climber) for climber in distinct([one.climber for one in states])}
    return [one for one in states if id(one.climber) in first]


def rungs(request: Request, states: Sequence[Standing], store: Store) -> tuple[list[list[Part]], str]:
    """The runs that are to do at most, in the rungs of `run`, with what is expected of them; and what that rests on.

    Expected are the iterations of recorded runs of the family, else those that follow from what is published.
    """
    history = History(store)
    todo: dict[tuple[int, str], list[float]] = defaultdict(list)
    first: dict[str, Climber] = {}
    recorded: list[bool] = []
    for standing in _once(states):
        climber, lengths = standing.climber, counted(request, standing)
        limit = climber.spec.train.max_iterations
        expected = history.climb(climber.spec.family, lengths, limit)
        first.setdefault(climber.spec.stack_key, climber)
        recorded += [bool(expected)] if lengths else []
        for T in lengths:
            if not expected:
                expected = {T: iterations(request.recipe, climber.cell, T, limit) for T in lengths}
            todo[T, climber.spec.stack_key].append(expected[T])
    parts: dict[int, list[Part]] = defaultdict(list)
    climbs = any(len(one.climber.lengths) > 1 for one in states)
    for (T, key), each in todo.items():
        parts[T if climbs else 0].append(Part(first[key].at(T), len(each), sum(each)))
    return list(parts.values()), _basis(recorded, "climbs" if climbs else "runs")


def _basis(recorded: Sequence[bool], kind: str) -> str:
    """What an expectation rests on, in words."""
    known, others = sum(recorded), len(recorded) - sum(recorded)
    of_paper = (
        "what the paper prints (of a solved run without printed iterations, a tenth of the limit; "
        "of what it does not have, the limit)"
    )
    if not known:
        return of_paper
    told = "recorded runs like these"
    return told if not others else f"{told} for {known} {kind}, for {others} from {of_paper}"


def _bounded(request: Request, found: Sequence[Climber]) -> str:
    """That climbs are counted to less than they may reach; empty where none is."""
    short = any(bound(request.recipe, one.cell, one.lengths[-1]) < one.lengths[-1] for one in found)
    if not short:
        return ""
    return (
        f"climbs to {BEYOND} lengths beyond the published ones: one that goes on from there costs more, T_max=N ends it"
    )


def report_command(request: Request, outputs: str) -> str:
    """The command that shows what was run."""
    place = [] if outputs == DEFAULT else [f"outputs={outputs}"]
    place += as_words()
    if request.recipe.figure:
        return shlex.join(["tprnn", "plot", request.recipe.name, f"budget={request.budget.name}", *place])
    added = ["--trainers", ",".join(request.recipe.trainers)] if request.recipe.trainers else []
    return shlex.join(["tprnn", "report", *place, "--paper", request.recipe.name, *added])


def main(argv: Sequence[str]) -> int:
    """`tprnn reproduce ...`: 0, or 1 if any run failed. Raises UserError before anything is run."""
    if {"-h", "--help"} & set(argv):
        print(USAGE, end="")
        print("Tables: " + ", ".join(names()))
        print("Figures: " + ", ".join(figure_names()))
        return 0
    request = parse(argv)
    found = climbers(request)
    execution = found[0].spec.execution
    if request.dry_run:
        store = Store(execution["outputs"])
        states = standings(found, store)
        print(listing(request, states))
        parts, basis = rungs(request, states, store)
        if cost := estimate(*parts):
            print(f"\n{describe(cost, basis, _bounded(request, found))}")
        return 0
    if not execution["quiet"]:
        budget = request.budget
        kind = "climbs" if "t_max" in request.recipe.metrics else "runs"
        print(
            f"{request.recipe.name}, budget {budget.name}: {request.recipe.title}; {len(request.cells)} cells, "
            f"{len(distinct(found))} {kind}, seeds {', '.join(map(str, budget.seeds))}, "
            f"at most {budget.max_iterations:,} iterations a run",
            flush=True,
        )
    outcomes = run(distinct(found))
    counts = Counter(outcome.status for outcome in outcomes)
    before = sum(outcome.skipped for outcome in outcomes)
    too_large = f"{counts[REFUSED]} refused, " if counts[REFUSED] else ""
    print(
        f"{len(outcomes)} runs ({before} done before): {counts['solved']} solved, {counts['failed']} failed, "
        f"{too_large}{counts['locked']} locked by another process; "
        f"the {'figure' if request.recipe.figure else 'table'}: {report_command(request, execution['outputs'])}"
    )
    return exit_code(outcomes)
