"""What a search looks over: ranges of settings in Hydra's grammar, as Hydra's sweepers read it.

A value is the text that stands in an override line, so that numbers, names, lists and members are all alike.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep, Sweep, ValueType

from tprnn.errors import UserError, nearest
from tprnn.points import lines_of

if TYPE_CHECKING:
    from optuna.trial import Trial

TAGS = ("log",)


class Dimension(ABC):
    """The values of one setting."""

    @abstractmethod
    def at(self, share: float) -> str:
        """The value below which `share` (in [0, 1)) of all draws lie."""

    @abstractmethod
    def suggest(self, trial: Trial, name: str) -> str:
        """Optuna's value for a trial of its own."""

    @abstractmethod
    def text(self, value: Any) -> str:
        """Optuna's value as it stands in an override."""

    @property
    @abstractmethod
    def edges(self) -> Sequence[str]:
        """Values of which a setting that takes them all takes the others too."""


@dataclass(frozen=True)
class Numbers(Dimension):
    """Numbers from `low` to `high`, both included, all of them or in steps; uniform, or uniform in their logarithm."""

    low: float
    high: float
    step: float | None = None
    whole: bool = False
    log: bool = False

    def at(self, share: float) -> str:
        half = 0.0 if self.step is None else self.step / 2  # each number has the same share, also the first and last
        low, high = self.low - half, self.high + half
        return self.text(low * (high / low) ** share if self.log else low + (high - low) * share)

    def suggest(self, trial: Trial, name: str) -> str:
        if self.whole:
            step = int(self.step or 1)
            return self.text(trial.suggest_int(name, int(self.low), int(self.high), step=step, log=self.log))
        return self.text(trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log))

    def text(self, value: Any) -> str:
        """Digits that tell a thousand values apart, of a logarithm three at least: configs stay readable."""
        if self.step is not None:
            steps = round((self.high - self.low) / self.step)
            value = self.low + min(max(round((value - self.low) / self.step), 0), steps) * self.step
            return str(int(value)) if self.whole else f"{value:.12g}"
        if self.log:
            width = math.log(self.high) - math.log(self.low)
            value = float(f"{value:.{max(3, 3 - math.floor(math.log10(width)))}g}")
        else:
            value = round(value, 3 - math.floor(math.log10(self.high - self.low)))
        return f"{min(max(value, self.low), self.high):.12g}"

    @property
    def edges(self) -> Sequence[str]:
        return self.text(self.low), self.text(self.high)


@dataclass(frozen=True)
class Choice(Dimension):
    """Values without an order."""

    texts: tuple[str, ...]

    def at(self, share: float) -> str:
        return self.texts[int(share * len(self.texts))]

    def suggest(self, trial: Trial, name: str) -> str:
        return str(trial.suggest_categorical(name, self.texts))

    def text(self, value: Any) -> str:
        return str(value)

    @property
    def edges(self) -> Sequence[str]:
        return self.texts


@dataclass(frozen=True)
class Space:
    """Dimensions by the keys of their lines. Some are there for some members of the groups that are looked over."""

    dimensions: Mapping[str, Dimension]
    groups: Sequence[str] = ()
    """Keys of the dimensions that are groups (`optimizer`)."""
    inner: Mapping[tuple[str, ...], Sequence[str]] = field(default_factory=dict)
    """Members of the groups -> the other dimensions that a trial with them has."""

    def members(self, values: Mapping[str, str]) -> tuple[str, ...]:
        """The members that are chosen in the values of a trial."""
        return tuple(values[group] for group in self.groups)

    def names(self, values: Mapping[str, str]) -> list[str]:
        """All dimensions of a trial that has these members."""
        return [*self.groups, *self.inner[self.members(values)]]


def rates(keys: Sequence[str], low: float, high: float) -> Space:
    """Learning rates, log-uniformly between two bounds."""
    return Space({key: Numbers(low, high, log=True) for key in keys}, inner={(): keys})


def is_looked_over(override: Override) -> bool:
    """Whether a line has a range of one search; values with commas, `a,b`, make a search of each."""
    return override.is_sweep_override() and override.value_type is not ValueType.SIMPLE_CHOICE_SWEEP


def first_value(override: Override) -> str:
    """A value of a range, for a first composition. Raises UserError where it has none, or is none for a search."""
    value, line = override.value(), override.input_line
    tags = sorted(value.tags) if isinstance(value, Sweep) else []
    if isinstance(value, (ChoiceSweep, RangeSweep)) and value.shuffle:
        raise UserError(f"'{line}': what is looked over has no order; leave shuffle() out")
    if tags and not isinstance(value, IntervalSweep):
        raise UserError(f"'{line}': a tag is for interval(), e.g. tag(log, interval(1e-5, 1))")
    if unknown := [tag for tag in tags if tag not in TAGS]:
        raise UserError(f"'{line}': no tag '{unknown[0]}'; {nearest(unknown[0], TAGS)}")
    if isinstance(value, IntervalSweep):
        low, high = _bounds(value)
        if not low < high < math.inf or low == -math.inf:
            raise UserError(f"'{line}': expected interval(START,END) with START below END, both finite")
        if tags and low <= 0:
            raise UserError(f"'{line}': a logarithm needs a START above 0, got {low:g}")
        return f"{low:.12g}"
    if isinstance(value, RangeSweep):
        return _range(override, value).edges[0]
    return _choice(override).texts[0]


def dimension(override: Override, whole: bool) -> Dimension:
    """The dimension of a line that `first_value` has passed; `whole`: the setting takes whole numbers only.

    Raises UserError for ends that are none.
    """
    value = override.value()
    if isinstance(value, IntervalSweep):
        low, high = _bounds(value)
        whole |= isinstance(value.start, int)  # int(interval(1, 9))
        if whole and not (low.is_integer() and high.is_integer()):
            raise UserError(f"'{override.input_line}': expected whole numbers at both ends")
        return Numbers(low, high, 1.0 if whole else None, whole, "log" in value.tags)
    if not isinstance(value, RangeSweep):
        return _choice(override)
    numbers = _range(override, value)
    if whole and not numbers.whole:
        if not (numbers.low.is_integer() and (numbers.step or 1.0).is_integer()):
            raise UserError(f"'{override.input_line}': expected whole numbers")
        return replace(numbers, whole=True)
    return numbers


def _bounds(value: IntervalSweep) -> tuple[float, float]:
    assert value.start is not None
    assert value.end is not None
    return float(value.start), float(value.end)


def _range(override: Override, value: RangeSweep) -> Numbers:
    """Its numbers are those of a sweep: STOP is none of them."""
    ends = (value.start, value.stop, value.step)
    start, stop, step = (float(end) for end in ends if end is not None)
    if not all(map(math.isfinite, (start, stop, step))) or step == 0:
        raise UserError(f"'{override.input_line}': expected a finite range(START,STOP,STEP) whose STEP is not 0")
    # as Hydra counts, which adds in decimals what binary fractions stand for: range(0.1, 1, 0.3) has four values
    span = value.range()
    count = (
        len(span)
        if isinstance(span, range)
        else math.ceil((Decimal(span.stop) - Decimal(span.start)) / Decimal(span.step))
    )
    if count < 1:
        raise UserError(f"'{override.input_line}' has no values")
    low, high = sorted(float(f"{number:.12g}") for number in (start, start + (count - 1) * step))
    return Numbers(low, high, float(f"{abs(step):.12g}"), isinstance(span, range))


def _choice(override: Override) -> Choice:
    return Choice(tuple(dict.fromkeys(line.partition("=")[2] for line in lines_of(override))))
