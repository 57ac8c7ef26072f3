"""What the YAMLs say of members: `tprnn list` with their names and first comments, and the defaults of settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tprnn.arguments import Parser, take_outputs
from tprnn.errors import UserError, nearest
from tprnn.plugins import PLACES, Folder, conf_folder, folders, while_unchanged

# what `tprnn list` shows -> (folder of conf/, how the names are used)
SECTIONS = {
    "tasks": ("task", "task=NAME"),
    "models": ("model", "model=NAME"),
    "readouts": ("readout", "model.readout=NAME"),
    "trainers": ("trainer", "trainer=NAME"),
    "optimizers": ("optimizer", "optimizer=NAME"),
    "probes": ("probe", "probe=NAME"),
    "grids": ("grid", "grid=NAME, with -m"),
    "points": ("points", "points=NAME, with -m"),
    "papers": ("paper", "tprnn reproduce NAME; a figure is drawn by tprnn plot NAME"),
    "budgets": ("paper", "tprnn reproduce NAME budget=NAME"),
}


def files(group: str) -> dict[str, Path]:
    """The YAMLs of a group by name, ours first; those of sub-folders as `folder/name`.

    Of papers those alone: what lies beside them is no recipe.
    """
    pattern = "*/*.yaml" if group == "paper" else "**/*.yaml"
    roots = [folder / group for folder in (conf_folder(), *(one.path for one in folders()))]
    return {
        path.relative_to(root).with_suffix("").as_posix(): path for root in roots for path in sorted(root.glob(pattern))
    }


def origin(path: Path) -> str:
    """Where a YAML comes from: "tprnn", name and version of an installed package, or its path."""
    found: list[Folder] = [folder for folder in folders() if path.is_relative_to(folder.path)]
    return found[0].origin(path) if found else "tprnn"


def first_comment(path: Path) -> str:
    """The first line of a YAML without its `# `; empty where that line is no comment."""
    with path.open(encoding="utf-8") as file:
        line = file.readline().strip()
    return line.lstrip("# ") if line.startswith("#") else ""


def members(group: str) -> list[tuple[str, str]]:
    """(name, one sentence) of every YAML of a group, sub-folders as `folder/name`."""
    return [(name, first_comment(path)) for name, path in files(group).items()]


@while_unchanged
def defaults(group: str, name: str) -> Mapping[str, Any]:
    """The settings of <group>/<name>.yaml; empty where there is no such file."""
    import yaml

    path = files(group).get(name)
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path else {}


@cache
def main_config() -> Mapping[str, Any]:
    """conf/config.yaml as it stands."""
    import yaml

    found: Mapping[str, Any] = yaml.safe_load((conf_folder() / "config.yaml").read_text(encoding="utf-8"))
    return found


def default(config: Mapping[str, Any], key: str) -> Any:
    """The default of a dotted key beside a flat config (of the member chosen there); None where none is known.

    >>> default({"optimizer.name": "nesterov"}, "optimizer.momentum"), default({}, "optimizer.name")
    (0.9, 'nesterov')
    """
    group, _, setting = key.partition(".")
    if setting in ("name", "rule"):
        chosen = [line[group] for line in main_config()["defaults"] if isinstance(line, dict) and group in line]
        return chosen[0] if chosen else None
    if name := config.get(f"{group}.name"):
        return defaults(group, str(name)).get(setting)
    found = main_config().get(group)
    return found.get(setting) if isinstance(found, dict) else found


def budgets(group: str) -> list[tuple[str, str]]:
    """(name, what it costs) of every budget of the published tables."""
    import yaml

    found: dict[str, dict[str, set[int]]] = {}
    for path in files(group).values():
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
        for name, budget in table.get("budgets", {}).items():
            for key in ("seeds", "max_iterations"):
                found.setdefault(name, {}).setdefault(key, set()).add(int(budget[key]))
    return [
        (name, f"seeds a cell: {_span(sizes['seeds'])}; iterations a run: at most {_span(sizes['max_iterations'])}")
        for name, sizes in found.items()
    ]


def _span(numbers: set[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def section(kind: str) -> str:
    """The heading and the lines of one kind."""
    group, use = SECTIONS[kind]
    heading = f"{kind} ({use})"
    if kind == "budgets":
        return "\n".join([heading, *_columns([[*row] for row in budgets(group)])])
    found = [(name, origin(path), first_comment(path)) for name, path in files(group).items()]
    told = any(place != "tprnn" for _, place, _ in found)  # else they are all ours
    return "\n".join([heading, *_columns([[name, *[place] * told, text] for name, place, text in found])])


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, their columns below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def main(argv: Sequence[str]) -> int:
    """`tprnn list [KIND ...]`. Raises UserError for an unknown kind."""
    told = "Names that commands and configs take; of members that are not all ours, where each comes from."
    parser = Parser("tprnn list", f"{told}\n\n{PLACES}")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"one or more of {', '.join(SECTIONS)}; default: all")
    _, words = take_outputs(argv)  # as all commands take it; names do not depend on it
    kinds = parser.parse_args(words).kinds
    for kind in kinds:
        if kind not in SECTIONS:
            raise UserError(f"unknown kind '{kind}'; {nearest(kind, SECTIONS)}")
    print("\n\n".join(section(kind) for kind in kinds or SECTIONS))
    return 0
