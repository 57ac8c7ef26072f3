"""The command that makes a cell: all of its runs, and no other."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tprnn.papers.recipes import Budget, Recipe, RecipeCell
from tprnn.plugins import as_words
from tprnn.report.rows.scores import Answer, Tried


@dataclass(frozen=True)
class _Need:
    """What a command must say to make the runs of one point and seed."""

    family: str
    seed: int
    iterations: int
    # Longest T of a climb, exactly where nothing ended it before; None of a row at one length.
    T: int | None
    exact: bool


def _needs(tried: Sequence[Tried], climbs: bool) -> list[_Need]:
    """A cut run needs the iterations it had; any other the most of those that reach its end, to be in one command."""
    cuts = [one.score.cut for one in tried if one.score.cut is not None]
    found = []
    for one in tried:
        records = one.score.records
        least = max(record.iterations for record in records)
        shared = [cut for cut in cuts if cut >= least]
        given = max(shared, default=max(record.max_iterations for record in records))
        T = records[-1].T if climbs else None
        found.append(_Need(one.family, one.seed, one.score.cut or given, T, climbs and one.score.bound))
    return found


def command(plan: Recipe, cell: RecipeCell, found: Answer | None, outputs: str = "outputs") -> str:
    """The command that makes the cell's runs, several joined by && where one cannot say it; its dry run has none to do.

    For a cell not run: with the budget laptop where that has it, else paper.
    """
    if found is None:
        return shlex.join(_words(plan, cell, outputs, f"budget={budget_to_run(plan, cell)}"))
    climbs = cell.row.T is None
    groups: dict[tuple[int, int | None], list[_Need]] = {}
    needs = _needs(found.tried, climbs)
    tops = sorted({need.T for need in needs if need.exact and need.T is not None})
    for need in needs:
        # a climb that ended by itself stops in time whatever the longest T is
        reach = next((T for T in tops if T >= (need.T or 0)), None)
        groups.setdefault((need.iterations, need.T if need.exact else reach), []).append(need)
    commands = []
    for (iterations, top), mine in sorted(groups.items(), key=lambda item: (item[0][0], item[0][1] or 0)):
        seeds: dict[frozenset[str], list[int]] = {}
        for seed in sorted({need.seed for need in mine}):
            seeds.setdefault(frozenset(need.family for need in mine if need.seed == seed), []).append(seed)
        least = max((need.T for need in mine if need.T is not None), default=None)
        for families, each in seeds.items():
            commands += _commands(plan, cell, outputs, families, each, iterations, top, least)
    return " && ".join(shlex.join(words) for words in commands)


def _words(plan: Recipe, cell: RecipeCell, outputs: str, *words: str) -> list[str]:
    place = [] if outputs == "outputs" else [f"outputs={outputs}"]
    row, column = f"rows={cell.row.key}", f"columns={cell.column.key}"
    added = [f"trainers={','.join(plan.trainers)}", *as_words()] if plan.trainers else []
    return ["tprnn", "reproduce", plan.name, row, column, *words, *place, *added]


def _commands(
    plan: Recipe,
    cell: RecipeCell,
    outputs: str,
    families: Iterable[str],
    seeds: Sequence[int],
    iterations: int,
    top: int | None,
    least: int | None,
) -> list[list[str]]:
    """Commands for some points, each with all of some seeds; one for each budget whose grid it takes to name them."""
    left, found = set(families), []
    points = {name: [spec.family for spec in cell.candidates(name)] for name in plan.budgets}

    def fits(budget: Budget, wanted: set[str]) -> tuple[object, ...]:
        """How many of the points a budget names, then how few words are needed beside it."""
        named = set(points[budget.name])
        lengths = plan.lengths(cell, budget)
        long_enough = len(lengths) > 0 and (top is None or lengths[-1] == top) and lengths[-1] >= (least or 0)
        alike = (budget.max_iterations == iterations, budget.seeds == tuple(seeds), named == wanted)
        return len(wanted & named), sum(alike), alike, long_enough

    while left:
        ranked = [(fits(budget, left), budget) for budget in plan.budgets.values()]
        budget = max(ranked, key=lambda pair: pair[0])[1]
        named = points[budget.name]
        words = [f"budget={budget.name}"]
        if tuple(seeds) != budget.seeds:
            counted = list(seeds) == list(range(len(seeds)))
            words.append(f"seeds={len(seeds)}" if counted else f"seeds=[{','.join(map(str, seeds))}]")
        if not set(named) <= left:
            words.append(f"points={','.join(str(n) for n, family in enumerate(named, 1) if family in left)}")
        lengths = plan.lengths(cell, budget)
        longest = cell.row.T or top or least or 0
        if not len(lengths) or lengths[-1] < longest or (top is not None and lengths[-1] != top):
            words.append(f"T_max={longest}")
        if iterations != budget.max_iterations:
            words.append(f"max_iterations={iterations}")
        found.append(_words(plan, cell, outputs, *words))
        left -= set(named)
    return found


def budget_to_run(plan: Recipe, cell: RecipeCell) -> str:
    """laptop where it has the cell, else paper."""
    return next(
        name for name in ("laptop", "paper") if name in plan.budgets and len(plan.lengths(cell, plan.budgets[name]))
    )
