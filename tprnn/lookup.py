"""Which folder is a run's: by the signature in its name, or in the config of one that was named by an old signature."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable

from tprnn.config import OLD_SIGNATURE_DIGITS, SIGNATURE_DIGITS
from tprnn.errors import DamagedFile


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
