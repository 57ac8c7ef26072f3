"""Rows of runs as of a budget of iterations: what `--where train.max_iterations=N` and a paper's budget ask for."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tprnn.budgets import CUT, FINISHED, is_cut
from tprnn.config import TrainSettings
from tprnn.errors import DamagedFile, UserError
from tprnn.report.rows.frame import FIXED, SCORES, Row, keys_of, numbers_of, resolve, select
from tprnn.store import NUMBERS, RunFolder

LIMIT = "train.max_iterations"
_TRAIN = {f"train.{entry.name}" for entry in dataclasses.fields(TrainSettings)}
SHORT = "short"
"""The status of a run that was cut by a smaller budget than it is looked at with."""


def at_budget(row: Row, iterations: int) -> Row:
    """The row of a run as of so many iterations (`tprnn.budgets.view`). Raises DamagedFile.

    Of a run that went further its metrics are read. One that was cut before is "short", without numbers.
    """
    given, seen = row[LIMIT], row | {LIMIT: iterations}
    own_end = row["status"] in FINISHED and row["stopped_by"] not in CUT
    if iterations == given or (own_end and (row["iterations"] or 0) <= iterations):
        return seen
    if iterations > given:
        cut = row["status"] in FINISHED and row["stopped_by"] == "max_iterations"
        return seen | dict.fromkeys((*NUMBERS, *SCORES)) | {"status": SHORT} if cut else seen
    settings: dict[str, Any] = {key.removeprefix("train."): seen[key] for key in seen if key in _TRAIN}
    train = TrainSettings(**settings)
    result = RunFolder(Path(row["path"])).finished(train)
    if result is None:
        return seen
    return seen | {key: result.get(key) for key in ("status", "stopped_by")} | numbers_of(result)


def had(row: Row) -> int:
    """The largest budget that a run came to the end of; where there is none, what it is under way to.

    Raises DamagedFile.
    """
    if row["status"] in FINISHED:
        return int(row[LIMIT])
    cuts = [result["iterations"] for result in RunFolder(Path(row["path"])).results() if is_cut(result)]
    return max(cuts, default=int(row[LIMIT]))


def as_of(rows: Sequence[Row], iterations: int) -> tuple[list[Row], list[DamagedFile]]:
    """Rows as of so many iterations without those that were cut before, and what is damaged."""
    found, damaged = _each(rows, lambda row: at_budget(row, iterations))
    return [row for row in found if row["status"] != SHORT], damaged


def as_far_as(rows: Sequence[Row], most: int | None) -> tuple[list[Row], list[DamagedFile]]:
    """Rows as of what each run had, but at most as of so many iterations; and what is damaged."""
    return _each(rows, lambda row: at_budget(row, had(row) if most is None else min(had(row), most)))


def _each(rows: Sequence[Row], change: Callable[[Row], Row]) -> tuple[list[Row], list[DamagedFile]]:
    found, damaged = [], []
    for row in rows:
        try:
            found.append(change(row))
        except DamagedFile as error:
            damaged.append(error)
    return found, damaged


def choose(
    rows: Sequence[Row], where: Mapping[str, Sequence[Any]], split: bool = True
) -> tuple[list[Row], list[DamagedFile]]:
    """Rows in which every key has one of its values, each run as of the budgets it is to be seen with; and damage.

    A value of train.max_iterations is such a budget: every run that had as many iterations, or came to its own end
    before, is seen as of then. Without one, runs that differ in seed and budget alone are seen at each budget by which
    one of them was cut, and at the largest where one went beyond those or none was cut; without `split` each is seen
    as of its own. Raises UserError as `select` does, and for a budget that is no whole number of at least 1.
    """
    if not rows:
        return [], []
    known = keys_of(rows)
    keys = {key: resolve(key, known) for key in where}
    limits = [_limit(value) for key, full in keys.items() if full == LIMIT for value in where[key]]
    settings = {key: where[key] for key, full in keys.items() if full not in (*FIXED, LIMIT)}
    alike: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in select(rows, settings):
        alike[row["family"], row.get("task.T"), row.get("train.max_seconds")].append(row)
    found: list[Row] = []
    damaged: list[DamagedFile] = []
    for group in alike.values():
        if not limits and not split:
            found += group
            continue
        for limit in limits or _budgets(group, damaged):
            seen = _seen(group, limit, damaged)
            if any(row["status"] in FINISHED or given[LIMIT] >= limit for given, row in seen):
                found += [row for _, row in seen]
    return select(found, where), list({str(error): error for error in damaged}.values())


def _limit(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise UserError(f"--where: {LIMIT}: expected a whole number of at least 1, got {value!r}")
    return value


def _budgets(group: Sequence[Row], damaged: list[DamagedFile]) -> list[int]:
    """The budgets that tell something of runs which differ in seed and budget alone."""
    ended = [row for row in group if row["status"] in FINISHED and row["stopped_by"] not in CUT]
    going = [row for row in group if row not in ended]
    budgets = {row[LIMIT] for row in going}
    for row in going:
        try:
            budgets.add(had(row))
        except DamagedFile as error:
            damaged.append(error)
    if not budgets or max((row["iterations"] or 0 for row in ended), default=0) > max(budgets):
        budgets.add(max(row[LIMIT] for row in group))
    return sorted(budgets)


def _seen(group: Sequence[Row], limit: int, damaged: list[DamagedFile]) -> list[tuple[Row, Row]]:
    """(row, row as of `limit`) of each run; of one with several folders from the folder that knows most."""
    best: dict[str, tuple[Row, Row]] = {}
    for row in group:
        try:
            seen = at_budget(row, limit)
        except DamagedFile as error:
            damaged.append(error)
            continue
        known = best.setdefault(row["signature"], (row, seen))
        if _knows(row, seen) > _knows(*known):
            best[row["signature"]] = row, seen
    return list(best.values())


def _knows(row: Row, seen: Row) -> tuple[bool, bool, int]:
    """How much a folder's row says as of a budget: an end, what was recorded there, how far it went."""
    return seen["status"] in FINISHED, row[LIMIT] == seen[LIMIT], seen["iterations"] or 0
