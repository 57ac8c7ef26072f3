"""Controls: what every column of a recipe is run with once more, the same for every rule (conf/paper/controls.yaml).

A column `TPTT` of a recipe with `controls: [factor]` has a column `TPTT_factor` beside it: its own parameters and grid,
the control's overrides after all others, and no published counterpart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from tprnn.errors import UserError, nearest


@dataclass(frozen=True)
class Control:
    """One control of conf/paper/controls.yaml."""

    # its column's key is `<key of the column>_<this key>`
    key: str
    label: str
    overrides: tuple[str, ...]


@cache
def _every(path: Path) -> dict[str, Control]:
    records = yaml.safe_load(path.read_text(encoding="utf-8"))
    controls = (Control(record["key"], record["label"], tuple(record["overrides"])) for record in records)
    return {control.key: control for control in controls}


def named(folder: Path, keys: Iterable[str], where: str) -> tuple[Control, ...]:
    """Controls of the config tree `folder` by their keys, in that order.

    Raises UserError for a key that is not among them, and for a text in place of a list.
    """
    keys = keys if isinstance(keys, (list, tuple)) else [str(keys)]
    known = _every(folder / "paper" / "controls.yaml") if keys else {}
    for key in keys:
        if key not in known:
            raise UserError(f"{where}: controls: no control '{key}'; {nearest(str(key), known)}")
    return tuple(known[key] for key in keys)
