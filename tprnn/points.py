"""From one command line to the points it stands for.

    trainer=tptt,bptt trainer.tptt.alpha_i=1,10 trainer.bptt.clip_norm=1 task.T=20 seed=0,1

has four points with tptt and two with bptt. A value such as ``task.T=20`` is for all points; one with the name of a
member, ``trainer.tptt.alpha_i=1``, for those that chose it, where it takes the place of the value for all.
``points=NAME`` (conf/points) and ``'points=[{trainer: tptt, trainer.alpha_i: 1}, ...]'`` are one axis: each of their
sets of overrides is combined with every point of the other axes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Transformer
from omegaconf import DictConfig, OmegaConf

from tprnn.errors import UnknownKey, UserError
from tprnn.override_errors import COMPOSITION_ERRORS, is_readable, one_line
from tprnn.overrides import as_override, for_hydra, is_hydra_line

POINTS = "points"
_NULL = "${oc.decode:null}"  # choice(null) is no Hydra
_EXAMPLE = "{trainer: tptt, trainer.alpha_f: 0.01}"

Lines = tuple[str, ...]
Member = tuple[str, str]
"""(group, name), e.g. ("trainer", "tptt")."""


def at_points(overrides: Sequence[str]) -> list[str]:
    """Lines of a multirun as Hydra gets them: with values of groups, and sets of points, as sweeps of one value.

    Before its sweeper runs, Hydra composes a config of its own from all lines but sweeps. No member is chosen in it
    where the line has several, so that it would refuse ``trainer=tptt,tptt_hx trainer.alpha_i=1``. Written as
    ``trainer.alpha_i=choice(1)`` a value reaches the points alone, where members are chosen, whatever the sweeper.
    """
    parser = OverridesParser.create()
    found = []
    for line in overrides:
        try:
            override = parser.parse_override(line)
        except COMPOSITION_ERRORS:  # the composition will say so
            found.append(line)
            continue
        key, _, value = line.partition("=")
        of_group = "." in key or isinstance(override.value(), (dict, list))
        if is_hydra_line(line) or override.is_sweep_override() or override.is_delete() or not (of_group and value):
            found.append(line)
        else:
            found.append(f"{key}=choice({_NULL if override.value() is None else value})")
    return found


def _written(value: Any) -> str:
    """A value of a sweep as Hydra writes it, with its escapes; choice('ä') loses the quotes that 'ä' needs."""
    text = str(Transformer.str(value))
    return text if is_readable(text) else as_override(value)


def lines_of(override: Override) -> list[str]:
    """A line for each value of an override. Raises UserError where its values cannot be counted, or are none."""
    if not override.is_sweep_override():
        return [str(override.input_line)]
    if not override.is_discrete_sweep():
        advice = "use range(), choice() or a,b; tprnn search looks over intervals"
        raise UserError(f"'{override.input_line}' has no countable values; {advice}")
    try:
        values = list(map(_written, override.sweep_iterator()))
    except COMPOSITION_ERRORS as error:
        raise UserError(f"'{override.input_line}': {one_line(error)}") from error
    if not values:
        raise UserError(f"the grid has no points: '{override.input_line}' has no values")
    name = override.get_key_element()
    return [f"{name}=" + ("null" if value.replace("\\", "") == _NULL else value) for value in values]


class Composer(Protocol):
    """What a sweep asks of `compose.Composer`, which says what each of these is."""

    def parse(self, line: str) -> Override: ...
    def members_of(self, group: str) -> list[str]: ...
    def member_of(self, key: str) -> Member | None: ...
    def is_choice(self, override: Override) -> bool: ...
    def choices(self, lines: Iterable[str]) -> Lines: ...
    def check_choices(self, choices: Iterable[str]) -> None: ...
    def chosen(self, choices: Lines) -> dict[str, str]: ...
    def base(self, choices: Lines) -> DictConfig: ...
    def has(self, choices: Lines, key: str) -> bool: ...
    def config(self, lines: Sequence[str]) -> dict[str, Any]: ...
    def grid_axes(self, choices: Lines, given: set[str]) -> dict[str, list[str]]: ...


class Point(list[str]):
    """The override lines of one run of a sweep, none of which has several values."""

    def __init__(self, lines: Sequence[str], entry: str = "", grid: frozenset[str] = frozenset()) -> None:
        super().__init__(lines)
        self.entry = entry
        """Which set of `points` is in it, for errors; empty for none."""
        self.grid = grid
        """The keys whose values are the grid's."""


@dataclass(frozen=True)
class _Place:
    """One value of an axis: its lines, and which set of `points` it is."""

    lines: Lines
    entry: str = ""


@dataclass
class _Case:
    """What all points with the same members (and the same set of `points`) have beside the lines for all."""

    own: set[str] = field(default_factory=set)
    """Keys of the values that are meant for one of these members."""
    rows: list[Lines] = field(default_factory=list)
    """The lines of those values and of the grid, once for each of their combinations."""
    grid: frozenset[str] = frozenset()
    before: set[Lines] = field(default_factory=set)
    """Points of the other axes that are in the sweep already, where a value for all was left out of them."""


class Sweep:
    """The axes of a command line. Raises UserError for lines that give none."""

    def __init__(self, composer: Composer, lines: Sequence[str]) -> None:
        self.composer = composer
        self.axes: dict[tuple[str, bool], list[_Place]] = {}
        """(key with its prefix, whether it chooses) -> values; ``trainer={alpha: 1}`` is a value."""
        self.own: dict[Member, dict[str, tuple[str, list[str]]]] = {}
        """Values that are meant for one member: axis -> (key, lines)."""
        self.values: set[str] = set()
        self.given: set[str] = set()
        for override in map(composer.parse, lines):
            self._add(override)

    def _add(self, override: Override) -> None:
        name = override.get_key_element()
        if override.key_or_group == POINTS:
            self.axes[name, True] = list(self._sets(override))
            return
        lines = lines_of(override)
        if member := self.composer.member_of(override.key_or_group):
            kind = member[0]
            lines = for_hydra(line.replace(f"{kind}.{member[1]}.", f"{kind}.", 1) for line in lines)
            key = self.composer.parse(lines[0]).key_or_group
            self.own.setdefault(member, {})[name] = key, lines
            return
        self.given.add(override.key_or_group)
        chooses = self.composer.is_choice(self.composer.parse(lines[0]))
        if not chooses:
            self.values.add(override.key_or_group)
        self.axes[name, chooses] = [_Place((line,)) for line in lines]

    # -- points

    def _sets(self, override: Override) -> Iterator[_Place]:
        """The sets of overrides that `points=NAME` or `points=[{...}, {...}]` holds."""
        for line in lines_of(override):
            value = self.composer.parse(line).value()
            told = ""
            sets: Any = value if isinstance(value, list) else [value]
            if isinstance(value, str):
                told = f" of {POINTS}={value}"
                found = OmegaConf.to_container(self.composer.base((line,))[POINTS], resolve=False)
                sets = found.get(POINTS) if isinstance(found, dict) else found
            if not isinstance(sets, list) or not sets:
                raise UserError(f"{line}: expected a list of sets of overrides such as {_EXAMPLE}, got {sets!r}")
            for number, one in enumerate(sets, start=1):
                entry = f"point {number}{told}"
                if not isinstance(one, Mapping) or not one or POINTS in one:
                    raise UserError(f"{entry}: expected a set of overrides such as {_EXAMPLE}, got {one!r}")
                for key in map(str, one):
                    if member := self.composer.member_of(key):
                        plain = key.replace(f"{member[1]}.", "", 1)
                        raise UserError(f"{entry}: {key}: write {plain}; a set of {POINTS} has members of its own")
                lines = tuple(self._line(str(key), each) for key, each in one.items())
                entry += f" ({' '.join(lines)})"
                try:
                    self.composer.check_choices(self.composer.choices(lines))
                except UserError as error:
                    raise UserError(f"{entry}: {error}") from error
                yield _Place(lines, entry)

    def _line(self, key: str, value: Any) -> str:
        chosen = isinstance(value, str) and value in self.composer.members_of(key)
        return for_hydra([f"{key}={value if chosen else as_override(value)}"])[0]

    # -- the product

    def points(self) -> list[Point]:
        """All points; the last axis of the line changes fastest, and those of one member or of the grid within it."""
        cases: dict[tuple[Lines, str], _Case] = {}
        for lines, entry in self._combinations():
            choices = self.composer.choices(lines)
            case = cases[choices, entry] = self._case(choices, entry)
            self._check(Point([*self._kept(lines, case), *case.rows[0]], entry))
        self._refuse_unused([choices for choices, _ in cases])
        found: list[Point] = []
        for places in itertools.product(*self.axes.values()):
            lines, entry = _joined(places)
            case = cases[self.composer.choices(lines), entry]
            kept = self._kept(lines, case)
            if len(kept) < len(lines):  # points that differ in what was left out of them are one
                if kept in case.before:
                    continue
                case.before.add(kept)
            found.extend(Point([*kept, *row], entry, case.grid) for row in case.rows)
        return found

    def _combinations(self) -> Iterator[tuple[Lines, str]]:
        """All combinations of members and sets of points, each with the first values of all other axes."""
        axes = (places if chooses else places[:1] for (_, chooses), places in self.axes.items())
        return map(_joined, itertools.product(*axes))

    def _kept(self, lines: Lines, case: _Case) -> Lines:
        """The lines but for values in whose place the case has its own."""
        return tuple(line for line in lines if self.composer.parse(line).key_or_group not in case.own)

    def _case(self, choices: Lines, entry: str) -> _Case:
        axes: dict[str, list[str]] = {}
        own: set[str] = set()
        for member in self.composer.chosen(choices).items():
            for key, lines in self.own.get(member, {}).values():
                own.add(key)
                axes[key] = lines
        places = [place for place in self.axes.get((POINTS, True), []) if place.entry == entry]
        of_entry = [self.composer.parse(line) for place in places for line in place.lines]
        if twice := (self.given | own) & {override.key_or_group for override in of_entry}:
            raise UserError(f"{entry}: {min(twice)} is given on the line too; leave one of both out")
        values = {override.key_or_group for override in of_entry if not self.composer.is_choice(override)}
        grid = self.composer.grid_axes(choices, self.values | own | values)
        rows = list(itertools.product(*axes.values(), *grid.values()))
        return _Case(own, rows, frozenset(grid))

    def _check(self, point: Point) -> None:
        """Compose a point. Raises UserError, for a setting that its members lack with what to write in its place."""
        try:
            self.composer.config(point)
        except UnknownKey as error:
            if advice := self._meant_for(error.key):
                raise UnknownKey(f"{error}; {advice}", error.key) from error
            raise

    def _meant_for(self, key: str) -> str:
        """How to give a value to those members of the sweep alone that have such a setting; empty for none."""
        kind, _, setting = key.partition(".")
        values = [line.partition("=")[2] for place in self.axes.get((key, False), []) for line in place.lines]
        for lines, _ in self._combinations():
            choices = self.composer.choices(lines)
            if values and self.composer.has(choices, key):
                name = self.composer.chosen(choices)[kind]
                return f"for {name} alone: {kind}.{name}.{setting}={','.join(values)}"
        return ""

    def _refuse_unused(self, cases: Sequence[Lines]) -> None:
        """Raise UserError for a value that is meant for a member which no point has."""
        chosen = [self.composer.chosen(choices) for choices in cases]
        for (kind, name), axes in self.own.items():
            names = dict.fromkeys(members.get(kind, "???") for members in chosen)
            if name not in names:
                raise UserError(f"'{next(iter(axes))}': no point has {kind}={name}; choices: {', '.join(names)}")


def _joined(places: Sequence[_Place]) -> tuple[Lines, str]:
    """The lines of one value of each axis, and which set of `points` is among them."""
    return tuple(line for place in places for line in place.lines), "".join(place.entry for place in places)
