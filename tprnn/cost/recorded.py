"""What recorded runs lead to expect of runs like them: how long they take to end, and how many of them solve."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from tprnn.budgets import is_cut, is_finished
from tprnn.errors import DamagedFile
from tprnn.store import Store


@dataclass(frozen=True)
class Record:
    """One finished run."""

    T: int | None
    iterations: int
    solved: bool
    cut: bool
    """Whether it would have gone on, had it been given more."""

    def of(self, limit: int) -> int:
        """Its iterations under another limit, as far as it tells."""
        return limit if self.cut else min(self.iterations, limit)


@dataclass(frozen=True)
class Expected:
    """Of runs of one family at one length."""

    iterations: float
    """Mean, of runs of any end."""
    solved: float
    """Share."""
    fastest: int | None
    """Iterations of the first to solve; None where none did."""


class History:
    """The finished runs of an outputs folder by family: all seeds and lengths of one question, as far as they went."""

    def __init__(self, store: Store) -> None:
        self.records: dict[str, list[Record]] = defaultdict(list)
        for folder in store.folders():
            try:
                spec, result = folder.read_spec(), folder.result()
            except DamagedFile:  # `tprnn report` names it
                continue
            if result and is_finished(result) and result["iterations"] is not None:
                T = spec.config["task"].get("T")
                record = Record(T, result["iterations"], result["status"] == "solved", is_cut(result))
                self.records[spec.family].append(record)

    def expect(self, family: str, T: int, limit: int) -> Expected | None:
        """From the family's runs at the recorded length nearest to T, none longer than `limit`; None without any."""
        found = self.records.get(family, [])
        if not found:
            return None
        nearest = min(_distance(record, T) for record in found)
        like = [record for record in found if _distance(record, T) == nearest]
        within = [record.iterations for record in like if record.solved and record.iterations <= limit]
        return Expected(fmean(record.of(limit) for record in like), len(within) / len(like), min(within, default=None))

    def climb(self, family: str, lengths: Iterable[int], limit: int) -> dict[int, float]:
        """Expected iterations at each length of a climb that ends at its first failure; empty without records."""
        found: dict[int, float] = {}
        reach = 1.0
        for T in lengths:
            expected = self.expect(family, T, limit)
            if expected is None:
                return {}
            found[T] = reach * expected.iterations
            reach *= expected.solved
        return found

    def rung(self, families: Sequence[str], T: int, limit: int, race: bool) -> tuple[list[float], float] | None:
        """Of runs of these families at one length: expected iterations of each, and how likely one of them solves.

        With `race` all of them end where the first is solved. None without records of any of the families.
        """
        known = [self.expect(family, T, limit) for family in families]
        if all(expected is None for expected in known):
            return None
        solved = 1.0 - math.prod(1.0 - expected.solved for expected in known if expected)
        alone = [float(limit) if expected is None else expected.iterations for expected in known]
        fastest = min((one.fastest for one in known if one and one.fastest is not None), default=limit)
        if race:
            alone = [solved * min(fastest, own) + (1.0 - solved) * own for own in alone]
        return alone, solved


def _distance(record: Record, T: int) -> int:
    return 0 if record.T is None else abs(record.T - T)
