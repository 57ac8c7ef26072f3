"""What chance alone gives, for searches and for tables: arithmetic that knows nothing of runs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import stats


def highest_by_chance(looks: Mapping[float, int], sequences: int, level: float = 0.95) -> tuple[float, float]:
    """The expected highest accuracy of independent looks at `sequences` answers each, and its quantile `level`.

    `looks` are numbers of looks M_p by the chance p of one right answer. With N sequences and K_p ~ Bin(N, p)

        P(max <= k/N) = prod_p P(K_p <= k)^M_p,    E[max] = 1/N sum_{k=0}^{N-1} (1 - P(max <= k/N)).

    Looks at one and the same set (train.validation=fixed) are alike: their highest is lower.
    """
    right = np.arange(sequences + 1)
    below = np.exp(sum(count * stats.binom.logcdf(right, sequences, p) for p, count in looks.items()))
    return float(np.sum(1 - below[:-1]) / sequences), float(np.argmax(below >= level) / sequences)
