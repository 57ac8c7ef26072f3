"""Run folders as rows: what came out of each run beside its config, and how to choose and group them.

A row is a plain dict: the `FIXED` columns, then every config value by its dotted key (``task.T``, ``trainer.alpha``),
then what the run was made on (``machine.cpu``), where its result tells. No torch, and pandas only for `to_frame`: ten
thousand folders take seconds.
"""

from __future__ import annotations

import difflib
import os
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from tprnn.budgets import FINISHED, ending
from tprnn.config import EXECUTION_KEYS, MEMBER_KINDS, SEED_KEYS, flatten, seeds_of
from tprnn.errors import DamagedFile, UserError
from tprnn.listing import default
from tprnn.report.rows.rates import rates
from tprnn.scores import best_of, last_of, score_of, test_of
from tprnn.store import CONFIG, NUMBERS, RESULT, RunFolder, Store, stored_spec

if TYPE_CHECKING:
    from pandas import DataFrame

Row = dict[str, Any]

WHOLE = ("iterations", "sequences", "test_sequences", "test_right")
SCORES = ("last_score", "best_score", "test_score")
"""Of the score that a run was judged by, whichever it is: at its end, over full validation sets, on the test set."""
FIXED = ("run", "path", "signature", "family", "status", "stopped_by", *NUMBERS, "score", *SCORES)


def numbers_of(result: Mapping[str, Any]) -> Row:
    """The columns of a row that hold what a result says."""
    scores = last_of(result), best_of(result), test_of(result)
    numbers = {key: result.get(key) for key in NUMBERS}
    return {**numbers, "score": score_of(result).name, **dict(zip(SCORES, scores, strict=True))}


def read_row(folder: RunFolder) -> Row:
    """One run as a row, as of the budget it was trained for last. Raises DamagedFile.

    `status` is the result's, or "left" where another run of a climb had decided its length, or "running" where a
    process works on the run now, or "started" where it was broken off without a word; the numbers of a run that is
    running or started are None. `init_seed` and `data_seed` are numbers for every run.
    """
    config = folder.shared_config()
    spec = stored_spec(folder.path / CONFIG, config)
    result = folder.result() or {}
    told = result.get("signature", spec.signature)
    if told != spec.signature and told != spec.old_signature:
        raise DamagedFile(
            f"{folder.path / RESULT}: belongs to the run {told}, "
            f"but {CONFIG} beside it describes {spec.signature}; both are left as they are"
        )
    given = spec.config["train"]["max_iterations"]
    if result.get("stopped_by") == "max_iterations" and (result.get("iterations") or 0) < given:
        result = {}  # it went on with a larger budget since, and was broken off
    status = result.get("status", "started")
    if status not in FINISHED and folder.is_locked():
        status, result = "running", {}
    elif status not in FINISHED and result:
        status = ending(result)
    row: Row = {
        "run": folder.name,
        "path": str(folder.path),
        "signature": spec.signature,
        "family": spec.family,
        "status": status,
        "stopped_by": result.get("stopped_by"),
        **numbers_of(result),
    }
    row.update((key, value) for key, value in flatten(config).items() if key not in row)
    if made_on := result.get("machine"):  # results of before have none
        row.update(flatten({"machine": made_on}))
    init, data = row["init_seed"], row["data_seed"] = seeds_of(config)
    if init == data:
        row["seed"] = init  # nothing is drawn from another
    return row


def rows_of(folders: Iterable[RunFolder]) -> tuple[list[Row], list[DamagedFile]]:
    """Rows of all sound folders, and what is wrong with the others."""
    rows, damaged = [], []
    for folder in folders:
        try:
            rows.append(read_row(folder))
        except DamagedFile as error:
            damaged.append(error)
    return rows, damaged


def read_rows(outputs: str | os.PathLike[str]) -> tuple[list[Row], list[DamagedFile]]:
    """Rows of all runs of an outputs folder by name, and what is damaged. Raises UserError if it cannot be listed."""
    return rows_of(Store(outputs).folders())


def to_frame(rows: Sequence[Row]) -> DataFrame:
    """Rows as a pandas table. Lists become tuples, which pandas can group by."""
    from pandas import DataFrame

    plain = [{key: tuple(v) if isinstance(v, list) else v for key, v in row.items()} for row in rows]
    frame = DataFrame(plain) if plain else DataFrame(columns=list(FIXED))
    for key in (*NUMBERS, *SCORES):
        frame[key] = frame[key].astype("Int64" if key in WHOLE else "float64")
    return frame


def run_frame(outputs: str | os.PathLike[str]) -> DataFrame:
    """All runs of an outputs folder as a pandas table; warns of damaged files and leaves them out."""
    rows, damaged = read_rows(outputs)
    for error in damaged:
        warnings.warn(str(error), stacklevel=3)
    return to_frame(rows)


# ---- choosing


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """A short name for every config key, different for each: `task.T` -> `T`, `task.name` -> `task`.

    >>> short_names(["task.name", "task.T", "task.reading", "trainer.reading"])
    {'task.name': 'task', 'task.T': 'T', 'task.reading': 'task.reading', 'trainer.reading': 'trainer.reading'}
    """
    keys = list(keys)
    short = {key: key.removesuffix(".name") if key.count(".") == 1 else key for key in keys}
    short = {key: name.partition(".")[2] or name for key, name in short.items()}
    count: dict[str, int] = {}
    for name in short.values():
        count[name] = count.get(name, 0) + 1
    return {key: name if count[name] == 1 else key for key, name in short.items()}


def parse_where(conditions: Iterable[str]) -> dict[str, list[Any]]:
    """`["T=10,20", "trainer=tptt"]` as {key: allowed values}. Raises UserError."""
    where: dict[str, list[Any]] = {}
    for condition in conditions:
        key, equals, text = condition.partition("=")
        try:
            values = yaml.safe_load(f"[{text}]")  # commas between values, but not those inside [a, b]
        except (yaml.YAMLError, ValueError):
            values = None
        if not (key and equals and isinstance(values, list) and values):
            raise UserError(f"--where: expected key=value or key=value,value, got '{condition}'")
        where.setdefault(key.strip(), []).extend(values)
    return where


def _equal(value: Any, wanted: Any) -> bool:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(value) == float(wanted)  # YAML reads 1e-3 as text
        except (TypeError, ValueError):
            return False
    return bool(value == wanted or str(value) == str(wanted))


def select(rows: Sequence[Row], where: Mapping[str, Sequence[Any]]) -> list[Row]:
    """The rows in which every key has one of its values. Keys may be dotted, or short where that is unambiguous.

    Raises UserError for a key that no run has, or one that could mean several.
    """
    if not rows:
        return []
    keys = keys_of(rows)
    chosen = list(rows)
    for key, values in where.items():
        full = resolve(key, keys)
        chosen = [row for row in chosen if full in row and any(_equal(row[full], value) for value in values)]
    return chosen


def keys_of(rows: Iterable[Row]) -> list[str]:
    """Every key of some rows, once."""
    return list(dict.fromkeys(key for row in rows for key in row))


def resolve(key: str, keys: Sequence[str]) -> str:
    """The dotted key that is meant. Raises UserError for a key that is not there, or one that could mean several."""
    if key in keys:
        return key
    if f"{key}.name" in keys:
        return f"{key}.name"
    found = [full for full in keys if full.endswith(f".{key}")]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"--where: '{key}' could be {' or '.join(found)}")
    close = difflib.get_close_matches(key, [*keys, *short_names(keys).values()], cutoff=0.5)
    told = "nearest: " + ", ".join(dict.fromkeys(close)) if close else "choose one of their config.yaml, or status"
    raise UserError(f"--where: no run has a key '{key}'; {told}")


# ---- grouping

TELLING = (
    *("task.name", "task.T", "model.name", "model.H", "trainer.name", "optimizer.name"),
    *("dtype", "train.batch_size", "train.max_iterations"),
)


@dataclass
class Group:
    """Runs that differ in their seeds only: in `seed`, or in `init_seed` and `data_seed`."""

    labels: dict[str, Any]
    """What sets it apart from the other groups: short name -> value, None where the member has no such setting."""
    rows: list[Row] = field(default_factory=list)

    @property
    def counted(self) -> list[Row]:
        """Runs that count: solved, not solved, diverged, or left unsolved."""
        return [row for row in self.rows if row["status"] in (*FINISHED, "left")]

    @property
    def seeds(self) -> str:
        """`5 seeds`, or `seed 0` where there is one run (`init_seed 0, data_seed 1` where they differ)."""
        if len(self.rows) > 1:
            return f"{len(self.rows)} seeds"
        init, data = seeds_of(self.rows[0])
        return f"seed {init}" if init == data else f"init_seed {init}, data_seed {data}"

    @property
    def title(self) -> str:
        """The labels in one line, `tptt, T = 30`; members by their name alone."""
        shown = {key: value for key, value in self.labels.items() if value is not None}
        members = ("task", "model", "trainer", "optimizer")
        return ", ".join(show(v) if k in members else f"{k} = {show(v)}" for k, v in shown.items())


def show(value: Any) -> str:
    """A config value as people write it: 1e-05, [W_hh, b_h], true."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(show(entry) for entry in value) + "]"
    return str(value)


MACHINE = ("machine.cpu", "machine.instructions", "machine.blas", "machine.compiled_blas")
"""What decides the last bits of a result beside its config."""


def _config(row: Row) -> Row:
    """What makes the run what it is, but for its seeds. An empty mapping is the same as none."""
    return {
        key: value
        for key, value in row.items()
        if key not in FIXED
        and key not in EXECUTION_KEYS
        and key not in SEED_KEYS
        and not key.startswith("machine.")
        and value != {}
    }


def _machine(row: Row) -> Row:
    return {key: row[key] for key in MACHINE if key in row}


def group_rows(rows: Sequence[Row]) -> list[Group]:
    """Rows in groups that differ in their seeds only, labelled by what sets them apart, in the order of the labels.

    Runs of different machines are different groups; those that do not tell theirs are another, where there are several.
    """
    groups: dict[tuple[tuple[str, str], ...], Group] = {}
    configs: list[Row] = []
    rows = _with_later_settings(rows)
    told = [machine for row in rows if (machine := _machine(row))]
    several = any(machine != told[0] for machine in told)
    for row in rows:
        config = _config(row) | (_machine(row) if several else {})
        # a name is not part of what a run is: `tptt` with wxh=local is `tptt_hx`
        identity = tuple(sorted((k, repr(v)) for k, v in config.items() if not k.endswith(".name")))
        if identity not in groups:
            groups[identity] = Group({})
            configs.append(config)
        groups[identity].rows.append(row)
    names = short_names(dict.fromkeys(key for config in configs for key in config))
    keys = _differing(configs)
    for group, config in zip(groups.values(), configs, strict=True):
        group.labels = {names[key]: config.get(key) for key in keys}
    return sorted(groups.values(), key=lambda group: [_order(value) for value in group.labels.values()])


def _with_later_settings(rows: Sequence[Row]) -> list[Row]:
    """Rows of runs from before a setting came, with the value that says what was done then, where another row has it.

    Such values are no part of a signature (`unsigned`), and runs with and without are of one group.
    """
    before: dict[tuple[str, Any], Row] = defaultdict(dict)
    for row in rows:
        for key in row.get("unsigned") or ():
            rule = f"{key.partition('.')[0]}.rule"
            before[rule, row.get(rule)][key] = row.get(key)

    def later(row: Row) -> Row:
        known = [values for (rule, of), values in before.items() if row.get(rule) == of]
        return {key: value for values in known for key, value in values.items() if key not in row}

    return [row | later(row) for row in rows]


def common(rows: Sequence[Row]) -> dict[str, Any]:
    """What all rows share of the settings that say most about them, by short names: `TELLING`, then `extras`."""
    config = _config(rows[0]) if rows else {}
    names = short_names(config)
    told = {names[key]: config[key] for key in TELLING if key in config and _agree(rows, key)}
    return told | extras(rows)


def extras(rows: Sequence[Row]) -> dict[str, Any]:
    """Rates, and settings that are not at their defaults, that all rows share; by short names, as `Group.labels`."""
    shared = {key: value for key, value in _config(rows[0]).items() if _agree(rows, key)} if rows else {}
    # what a default is depends on the members: tptt and tptt_hx have two
    members = {tuple(row.get(f"{kind}.name") for kind in MEMBER_KINDS): row for row in rows}.values()
    names = short_names(keys_of(map(_config, members)))
    return {names[key]: shared[key] for key in _extras([_config(row) for row in members]) if key in shared}


def _agree(rows: Sequence[Row], key: str) -> bool:
    return all(key in row and row[key] == rows[0][key] for row in rows)


def rates_of(row: Row) -> list[str]:
    """Dotted keys of the learning rates of the run's rule; a run of a rule that is not ours says them itself."""
    if "rates" in row:
        return list(row["rates"])
    return [f"trainer.{name}" for name in rates(str(row.get("trainer.rule") or row.get("trainer.name")))]


def at_default(row: Row, key: str) -> bool:
    """Whether a setting has the value of its YAML; an empty list is taken for it where that file is not here."""
    if key not in row:
        return False
    value, usual = row[key], default(row, key)
    return _equal(value, usual) or (value == [] and usual is None)


def _extras(configs: Sequence[Row]) -> list[str]:
    """Keys that say something of the rows that have them: rates of their rules, and what is not at its default."""
    found = dict.fromkeys(key for config in configs for key in rates_of(config) if key in config)
    settings = [key for key in keys_of(configs) if key.partition(".")[0] in (*MEMBER_KINDS, "train")]
    for key in settings:
        told = key in TELLING or key.endswith((".name", ".rule", ".code"))
        if not told and any(key in config and not at_default(config, key) for config in configs):
            found.setdefault(key)
    return list(found)


def _differing(configs: Sequence[Row]) -> list[str]:
    """Keys that tell the configs apart, in the order of `order`.

    A key that is missing because the member is another one (bptt has no alpha_i) is a difference where it says
    something: a rate always, any other setting where it is not at its default.
    """
    order = ("task", "model", "trainer", "optimizer", "dtype", "train")
    keys = []
    telling = set(_extras(configs))
    for key in dict.fromkeys(key for config in configs for key in config):
        member, _, last = key.partition(".")
        seen: dict[Any, set[str]] = {}  # the values among configs of one rule, then of all
        for config in configs:
            seen.setdefault(config.get(f"{member}.rule"), set()).add(repr(config[key]) if key in config else "missing")
        values = set().union(*seen.values())
        if last == "rule":
            by_name: dict[str, set[str]] = {}
            for config in configs:
                by_name.setdefault(str(config.get(f"{member}.name")), set()).add(str(config.get(key)))
            differs = any(len(rules) > 1 for rules in by_name.values())  # else the name says it
        else:
            differs = any(len(of_rule) > 1 for of_rule in seen.values())
            differs = differs or len(values - {"missing"}) > 1 or (len(values) > 1 and key in telling)
        if differs:
            keys.append(key)
    return sorted(keys, key=lambda key: [*order, key.partition(".")[0]].index(key.partition(".")[0]))


def _order(value: Any) -> tuple[int, float, str]:
    if value is None:
        return (0, 0.0, "")
    if isinstance(value, (int, float)):
        return (1, float(value), "")
    return (2, 0.0, show(value))
