"""Which folder is a run's: by the signature in its name, or in the config of one that was named by an old signature."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from tprnn.budgets import is_made
from tprnn.config import OLD_SIGNATURE_DIGITS, SIGNATURE_DIGITS, TrainSettings
from tprnn.errors import DamagedFile

if TYPE_CHECKING:
    from tprnn.store import RunFolder


def by_signature(names: Iterable[str], signature_of: Callable[[str], str]) -> dict[str, list[str]]:
    """Names of run folders by the signatures of their runs; `signature_of` reads it from the config of an old one."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        told = name.rpartition("-")[2]
        if len(told) == SIGNATURE_DIGITS:
            found[told].append(name)
        elif len(told) == OLD_SIGNATURE_DIGITS:
            with contextlib.suppress(DamagedFile):  # `tprnn report` names it
                found[signature_of(name)].append(name)
    return dict(found)


def usefulness(folder: RunFolder, train: TrainSettings) -> tuple[int, int, int]:
    """Of what use a folder is for a budget: how well it answers, where its checkpoint stands, how far the run went."""
    answer, checkpoint, result = folder.finished(train), folder.load_checkpoint(), folder.result()
    stands = int(checkpoint[1].get("iteration", 0)) if checkpoint else 0
    known = 0 if answer is None else 1 if is_made(answer) else 2
    return known, stands, (result or {}).get("iterations") or 0
