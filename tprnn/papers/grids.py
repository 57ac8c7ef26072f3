"""Grids of a cell: named axes over settings of its trainer, and their points as runs.

A name with a dot is a key of the whole run, `train.patience: [null]`: no axis, but what all points of that budget have.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from tprnn.config import RunSpec
from tprnn.errors import UserError, nearest
from tprnn.listing import files
from tprnn.plugins import while_unchanged

# (setting of the trainer or dotted key, its values), in order; the last changes fastest
Axes = tuple[tuple[str, tuple[Any, ...]], ...]


def inline(record: Mapping[str, Sequence[Any]]) -> Axes:
    """The axes `{alpha: [0.1, 0.01], gamma: [1.0]}` of a recipe.

    Raises ValueError for an axis without values, or a key of the whole run with more than one.
    """
    axes = tuple((str(key), tuple(values)) for key, values in record.items())
    for key, values in axes:
        if not values:
            raise ValueError(f"the axis '{key}' has no values")
        if is_key(key) and len(values) > 1:
            raise ValueError(f"'{key}' is no axis: expected one value, got {len(values)}")
    return axes


def is_key(name: str) -> bool:
    """Whether a name of a grid is a key of the whole run, not a setting of the trainer."""
    return "." in name


@while_unchanged
def named(grid: str, params: tuple[str, ...]) -> Axes:
    """The axes of conf/grid/<grid>.yaml for the trainer's `params`, which all must be among them. Raises UserError."""
    if grid not in (known := files("grid")):
        raise UserError(f"grid: no '{grid}'; {nearest(grid, known)}")
    axes = yaml.safe_load(known[grid].read_text(encoding="utf-8"))["axes"]
    for name in params:
        if f"trainer.{name}" not in axes:
            raise UserError(f"grid {grid}: no axis 'trainer.{name}'; {nearest(f'trainer.{name}', axes)}")
    return tuple((name, tuple(axes[f"trainer.{name}"])) for name in params)


@while_unchanged  # one table is asked for its points by every command that a process runs on it
def points(overrides: tuple[str, ...], grids: tuple[Axes, ...], own: bool) -> tuple[RunSpec, ...]:
    """The points of grids put on the run of override lines, with `own` after that run itself. Raises UserError."""
    from tprnn.compose import compose  # imports hydra

    base = compose(overrides)
    found = [base] if own and not grids else []
    for axes in grids:
        if own:
            found.append(base.replace({name: value for name, (value, *_) in axes if is_key(name)}))
        keys = [name if is_key(name) else f"trainer.{name}" for name, _ in axes]
        values = itertools.product(*(each for _, each in axes))
        found += [base.replace(dict(zip(keys, point, strict=True))) for point in values]
    return tuple({spec.signature: spec for spec in found}.values())
