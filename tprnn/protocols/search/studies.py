"""From one command line to its searches: what each holds, what it looks over, and the runs of its trials."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hydra.core.override_parser.types import Override

from tprnn.compose import Composer, composer_for
from tprnn.config import EXECUTION_KEYS, MEMBER_KINDS, SEED_KEYS, RunSpec, flatten
from tprnn.errors import UnknownKey, UserError
from tprnn.overrides import for_hydra
from tprnn.points import POINTS, Point, lines_of
from tprnn.protocols.search.spaces import Choice, Dimension, Space, dimension, first_value, is_looked_over, rates

LOW, HIGH = 1e-5, 1.0  # of rates that nobody gave a range (dai2021)

# What runs are judged by is the same for all trials of a search.
JUDGE = ("validation", "validation_size", "check_every", "full_check_every")

_COMBINATIONS = 64  # that are composed beforehand, at a few milliseconds each


@dataclass(frozen=True)
class Arm:
    """What a search holds with certain members of the groups that it looks over."""

    lines: Point
    spec: RunSpec
    """With the first value of each dimension."""
    names: Mapping[str, str]
    """Settings that are looked over -> their dimensions: trainer.alpha_i -> trainer.tptt.alpha_i."""


@dataclass(frozen=True)
class Search:
    """One search: its space, and what is held beside it."""

    composer: Composer
    arms: Mapping[tuple[str, ...], Arm]
    """By the members of the groups; one arm where it looks over none."""
    space: Space

    @property
    def spec(self) -> RunSpec:
        """Of the first arm; its seed is that of the search, its execution that of all trials."""
        return next(iter(self.arms.values())).spec

    @property
    def seed(self) -> int:
        return int(self.spec.config["seed"])

    def settings(self, values: Mapping[str, str]) -> dict[str, str]:
        """What the values of a trial are given to: `{"optimizer": "adam", "trainer.alpha": "0.01"}`."""
        names = self.arms[self.space.members(values)].names
        return dict(zip(self.space.groups, self.space.members(values), strict=True)) | {
            key: values[name] for key, name in names.items()
        }

    def lines(self, values: Mapping[str, str]) -> list[str]:
        """The settings of a trial as override lines."""
        return [f"{key}={text}" for key, text in self.settings(values).items()]

    def run(self, values: Mapping[str, str], seed: int | None = None) -> RunSpec:
        """The run of a trial, with a seed of its own where there is one. Raises UserError."""
        lines = self.arms[self.space.members(values)].lines
        spec = self.composer.spec(Point([*lines, *for_hydra(self.lines(values))], lines.entry))
        return spec if seed is None else spec.replace({"seed": seed})

    def edges(self) -> list[RunSpec]:
        """Runs with the ends of each range and each value of a choice, as far as these are few in all combinations.

        Raises UserError for values that a setting does not take, alone or beside others.
        """
        found = {}
        for members, arm in self.arms.items():
            chosen = dict(zip(self.space.groups, members, strict=True))
            axes = [[(name, text) for text in self.space.dimensions[name].edges] for name in arm.names.values()]
            points: Iterable[Sequence[tuple[str, str]]] = itertools.product(*axes)
            if math.prod(map(len, axes)) > _COMBINATIONS:
                first = [axis[0] for axis in axes]
                points = ([*first, edge] for axis in axes for edge in axis)
            for point in points:
                spec = self.run(chosen | dict(point))
                found[spec.signature] = spec
        return list(found.values())

    def study_name(self, seeds: str) -> str:
        """`<task>-T<T>-<trainer>-s<seed>-<hash>`: of all that is held fixed, of the space and of the kind of seeds."""
        held = [
            # with the budget: a sampler that was told of other budgets would ask for other points
            {key: value for key, value in flatten(arm.spec.identity_with_budget).items() if key not in arm.names}
            for arm in self.arms.values()
        ]
        space = {name: dataclasses.asdict(one) for name, one in self.space.dimensions.items()}  # type: ignore[call-overload]
        names = [[list(members), dict(arm.names)] for members, arm in self.arms.items()]
        text = json.dumps([held, space, names, seeds], sort_keys=True, separators=(",", ":"))
        return f"{self.spec.short_name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def searches(overrides: Sequence[str], low: float | None = None, high: float | None = None) -> list[Search]:
    """The searches of a line: one for each point that its sweeps (`a,b`), points and grid make of what is held.

    `choice()`, `range()`, `interval()` and `glob()` are looked over; where none is given, all rates of the trainer that
    are not given either, log-uniformly from `low` to `high`. Raises UserError.
    """
    composer, lines = composer_for(overrides)
    parsed = [composer.parse(line) for line in lines]
    ranges = {override.key_or_group: override for override in parsed if is_looked_over(override)}
    held = [override for override in parsed if not is_looked_over(override)]
    if not ranges:
        low, high = LOW if low is None else low, HIGH if high is None else high
        if high <= low:
            raise UserError(f"search.high: expected more than search.low = {low:g}, got {high:g}")
        return [_of_rates(composer, point, low, high) for point in composer.expand(lines)]
    if low is not None or high is not None:
        bound = "high" if low is None else "low"
        raise UserError(f"search.{bound} is for a search of all rates; the ranges of this one are on the line")
    _refuse(ranges, held, len(parsed))
    return _Ranges(composer, ranges, held).searches()


def _of_rates(composer: Composer, point: Point, low: float, high: float) -> Search:
    """A search for the rates that the lines of a point (but for its grid) do not give."""
    spec = composer.spec(point)
    given = {line.partition("=")[0].lstrip("+") for line in point} - point.grid
    keys = [key for key in spec.rates if key not in given]
    if not keys:
        name = spec.config["trainer"]["name"]
        told = f"all of them ({', '.join(spec.rates)}) are given" if spec.rates else "it has none"
        raise UserError(f"search: no learning rate of trainer={name} is left to look for; {told}")
    arm = Arm(point, spec.replace(dict.fromkeys(keys, low)), {key: key for key in keys})
    return Search(composer, {(): arm}, rates(keys, low, high))


def _refuse(ranges: Mapping[str, Override], held: Sequence[Override], count: int) -> None:
    """Raise UserError for a range of what is the same for all trials, and for a key that is given twice."""
    given = {override.key_or_group for override in held}
    for key, override in ranges.items():
        line = override.input_line
        if key in SEED_KEYS:
            raise UserError(f"'{line}': a seed is nothing to look for; search.seeds=fresh gives each trial its own")
        if key in EXECUTION_KEYS or key == POINTS:
            raise UserError(f"'{line}': {key} is the same for all trials of a search; for a search of each: {key}=a,b")
        if key.partition(".")[0] == "train" and key.partition(".")[2] in JUDGE:
            raise UserError(f"'{line}': trials are judged by {key}, so that it is the same for all of them")
        if key in given:
            raise UserError(f"'{line}': {key} is given twice")
    if len(ranges) + len(held) < count:
        raise UserError("search: a setting is given two ranges; leave one of both out")


class _Ranges:
    """The searches of lines with ranges."""

    def __init__(self, composer: Composer, ranges: Mapping[str, Override], held: Sequence[Override]) -> None:
        self.composer, self.held = composer, held
        self.firsts = {key: first_value(override) for key, override in ranges.items()}
        self.groups = {key: self._members(override) for key, override in ranges.items() if composer.members_of(key)}
        self.ranges = {key: override for key, override in ranges.items() if key not in self.groups}
        for key in [*self.ranges, *(override.key_or_group for override in held)]:
            kind, name = composer.member_of(key) or ("", "")
            if kind in self.groups and name not in self.groups[kind]:
                raise UserError(f"'{key}': no trial has {kind}={name}; choices: {', '.join(self.groups[kind])}")

    def _members(self, override: Override) -> list[str]:
        if not override.is_choice_sweep():
            raise UserError(f"'{override.input_line}': expected choice() of members of {override.key_or_group}")
        return [line.partition("=")[2] for line in lines_of(override)]

    def searches(self) -> list[Search]:
        """One for each point of what is held; of the points of all combinations of members, the first belong together,
        and so on."""
        found: list[dict[tuple[str, ...], Arm]] = []
        dimensions: dict[str, Dimension] = {group: Choice(tuple(names)) for group, names in self.groups.items()}
        for members in itertools.product(*self.groups.values()):
            points = self._points(dict(zip(self.groups, members, strict=True)))
            found = found or [{} for _ in points]
            if len(points) != len(found):
                raise UserError("search: sweeps of one member's settings do not go with a choice of members")
            for arms, point in zip(found, points, strict=True):
                arms[members] = self._arm(point, dimensions)
        return [self._search(arms, dimensions) for arms in found]

    def _search(self, arms: Mapping[tuple[str, ...], Arm], dimensions: Mapping[str, Dimension]) -> Search:
        inner = {members: list(arm.names.values()) for members, arm in arms.items()}
        used = dict.fromkeys([*self.groups, *itertools.chain.from_iterable(inner.values())])
        if not used:
            chosen = next(iter(arms.values())).spec.config
            told = " ".join(f"{kind}={chosen[kind]['name']}" for kind in MEMBER_KINDS)
            raise UserError(f"search: nothing is left to look for with {told}; ranges: {', '.join(self.ranges)}")
        return Search(self.composer, arms, Space({name: dimensions[name] for name in used}, list(self.groups), inner))

    def _points(self, chosen: Mapping[str, str]) -> list[Point]:
        """The points of what is held, with members of the groups and a value of each range."""
        lines = [str(override.input_line) for override in self.held if self._meant(override.key_or_group, chosen)]
        lines += [f"{group}={name}" for group, name in chosen.items()]
        for key, override in self.ranges.items():
            if self._meant(key, chosen):
                lines.append(f"{override.get_key_element()}={self.firsts[key]}")
        try:
            return self.composer.expand(lines)
        except UnknownKey as error:
            raise UserError(self._advice(error)) from error

    def _meant(self, key: str, chosen: Mapping[str, str]) -> bool:
        """Whether a setting is not that of another member of a group that is looked over."""
        kind, name = self.composer.member_of(key) or ("", "")
        return chosen.get(kind, name) == name

    def _advice(self, error: UnknownKey) -> str:
        """An error about a setting that not all members have, with how to give its range to one alone."""
        if error.key not in self.ranges:
            return str(error)
        text = str(self.ranges[error.key].input_line).partition("=")[2]
        kind, _, setting = error.key.partition(".")
        for name in self.groups.get(kind, ()):
            if self.composer.has((f"{kind}={name}",), error.key):
                return f"{error}; for {name} alone: {kind}.{name}.{setting}={text}"
        first = f"{setting}={self.firsts[error.key]}"
        return str(error).replace(first, f"{setting}={text}")

    def _arm(self, point: Point, dimensions: dict[str, Dimension]) -> Arm:
        """What is held at a point, and what is looked over; the dimensions are added. Raises UserError."""
        spec = self.composer.spec(point)
        chosen = self.composer.chosen(self.composer.choices(point))
        own = {override.key_or_group for override in self.held}
        names: dict[str, str] = {}
        for key in self.ranges:
            kind, _, setting = key.partition(".")
            member = self.composer.member_of(key)
            if member is None and f"{kind}.{chosen.get(kind)}.{setting}" not in own:
                names.setdefault(key, key)
            elif member is not None and chosen[kind] == member[1]:
                names[f"{kind}.{setting.partition('.')[2]}"] = key
        settings = flatten(spec.config)
        for setting, name in names.items():
            if name not in dimensions:
                dimensions[name] = dimension(self.ranges[name], type(settings.get(setting)) is int)
        return Arm(point, spec, names)
