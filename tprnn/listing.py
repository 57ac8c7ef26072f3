"""What the YAMLs say of members: `tprnn list` with their names and first comments, and the defaults of settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from tprnn.arguments import Parser, take_outputs
from tprnn.errors import UserError, nearest

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


def conf_folder() -> Path:
    """The folder of the config tree: conf/ of a checkout, tprnn/conf/ of an installed wheel."""
    return Path(str(resources.files("tprnn.conf")))


def _files(group: str) -> list[Path]:
    """The YAMLs of a group, those of its sub-folders too; of papers those alone: what lies beside them is no recipe."""
    return sorted((conf_folder() / group).glob("*/*.yaml" if group == "paper" else "**/*.yaml"))


def first_comment(path: Path) -> str:
    """The first line of a YAML without its `# `; empty where that line is no comment."""
    with path.open(encoding="utf-8") as file:
        line = file.readline().strip()
    return line.lstrip("# ") if line.startswith("#") else ""


def members(group: str) -> list[tuple[str, str]]:
    """(name, one sentence) of every YAML of a group, sub-folders as `folder/name`."""
    root = conf_folder() / group
    return [(path.relative_to(root).with_suffix("").as_posix(), first_comment(path)) for path in _files(group)]


@cache
def defaults(group: str, name: str) -> Mapping[str, Any]:
    """The settings of conf/<group>/<name>.yaml; empty where there is no such file (a member of another folder)."""
    import yaml

    path = conf_folder() / group / f"{name}.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}


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
    for path in _files(group):
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
    read: Callable[[str], list[tuple[str, str]]] = budgets if kind == "budgets" else members
    rows = read(group)
    width = max((len(name) for name, _ in rows), default=0)
    lines = [f"  {name:<{width}}  {text}".rstrip() for name, text in rows]
    return "\n".join([f"{kind} ({use})", *lines])


def main(argv: Sequence[str]) -> int:
    """`tprnn list [KIND ...]`. Raises UserError for an unknown kind."""
    parser = Parser("tprnn list", "Names that commands and configs take.")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"one or more of {', '.join(SECTIONS)}; default: all")
    _, words = take_outputs(argv)  # as all commands take it; names do not depend on it
    kinds = parser.parse_args(words).kinds
    for kind in kinds:
        if kind not in SECTIONS:
            raise UserError(f"unknown kind '{kind}'; {nearest(kind, SECTIONS)}")
    print("\n\n".join(section(kind) for kind in kinds or SECTIONS))
    return 0
