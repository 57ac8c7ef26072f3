"""The words of verdicts, and what they mean: shown under tables and by --help, so nothing heavy is imported here."""

from __future__ import annotations

# Of the interval for one new run.
LEVEL = 0.95
# Seeds without which there is no verdict. Of two, equal counts on the grid of checks are called another number with up
# to 11 % (tests/report/test_error_rates.py: from three on it is the level).
FEWEST = 3
# A verdict is `consistent` only if the interval is no wider, to either side, than
POINTS = 1.0  # percentage points of accuracy,
FACTOR = 1.5  # as a factor, for losses, iterations and lengths.
# From so many percentage points on another accuracy is called another outcome.
FAR = 10.0
# What a compiled loss in float32 can tell from 0.
LOSS_LIMIT = 1e-7

MEANINGS = {
    "consistent": "the interval for one new run holds the printed number (to its rounding), and neither it nor that "
    f"rounding is wider than {POINTS:g} percentage point or a factor of {FACTOR:g} to either side",
    "higher, lower": "ours is, on the number's own scale: the printed number is outside the interval",
    "does not replicate (higher | lower)": "another outcome: one solves and the other does not, or the accuracies are "
    f"{FAR:g} points apart and more",
    "inconclusive": f"anything else, with the reason; always so for fewer than {FEWEST} seeds, and below the paper's "
    "iterations unless solved; with fewer points of the grid than in the budget paper unless ours is better already, "
    "and with more iterations than the paper's unless ours is worse all the same",
}

METHOD = (
    f"Interval: where one new run lies with {100 * LEVEL:.0f} %, a t interval over seeds on logit accuracy, log loss, "
    "log iterations, log length, widened by what one test set, float32 or the grid of checks leaves open."
)

MARKS = (
    "A printed mark is one run that was or was not solved. Ours predict that a new run solves if all did and the "
    "interval of their iterations ends within the paper's limit; that it does not if it begins beyond. Seven equal "
    "outcomes say either without it, and fewer that are not solved say nothing. Else inconclusive, with k of n."
)


def explained() -> list[str]:
    """The words and what they stand on, in a few lines of plain text."""
    return [*(f"{word}: {meaning}." for word, meaning in MEANINGS.items()), METHOD, MARKS]
