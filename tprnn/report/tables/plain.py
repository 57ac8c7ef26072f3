"""A tidy table of any set of runs: one line per group of runs that differ in their seeds only."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from tprnn.budgets import ending
from tprnn.errors import UserError, nearest
from tprnn.report.rows.frame import Group, Row, at_default, common, extras, group_rows, rates_of, show
from tprnn.scores import ACCURACY

FORMATS = ("md", "latex", "csv")
ENDS = {
    "diverged": "a number was not finite, or a spectral radius over its limit",
    "out_of_patience": "given up after so many checks without a better one",
    "cut": "by its budget, of iterations or of seconds",
    "left": "by a climb, of which another run had solved the length by then; it has no accuracy",
}
"""How runs that count end, beside solved (`tprnn.budgets.ending`)."""
UNFINISHED = {
    "interrupted": "stopped by a signal; it goes on when it is started again",
    "failed": "ended by an error, which its failure.txt tells",
    "running": "a process works on it now",
    "started": "broken off; it goes on when it is started again",
    "short": "cut by fewer iterations than these; it goes on when it is given more",
}
BOUND_NOTE = "A run that was not solved counts as longer than any that was; > marks a number that rests on such a run."
NEVER_NOTE = "A run that diverged counts as never solved, however few its iterations."
NEVER = math.inf


@dataclass(frozen=True)
class Spread:
    """Median and range over the seeds of a group; a bound says that the true number is larger. `NEVER` is a number."""

    median: float
    low: float
    high: float
    median_is_bound: bool = False
    low_is_bound: bool = False
    high_is_bound: bool = False


@dataclass(frozen=True)
class Summary:
    """What came out of one group. Shares are 0..1; None where no run counts."""

    group: Group
    seeds: int
    solved: int
    ends: dict[str, int]
    """How many of the seeds ended in each way of `ENDS`."""
    iterations: Spread | None
    score: Spread | None
    """Of the score at the runs' ends."""
    seconds: float | None
    unfinished: dict[str, int]

    @property
    def score_name(self) -> str:
        """Of the score of its runs; one that was killed before it had a result does not say which."""
        return str((self.group.counted or self.group.rows)[0]["score"])


def summarise(group: Group) -> Summary:
    """Count and summarise one group; only runs that count (solved, not solved, diverged, left) enter the numbers."""
    counted = group.counted
    scores = sorted(one for row in counted if (one := row["last_score"]) is not None and not math.isnan(one))
    seconds = [row["seconds"] for row in counted if row["seconds"] is not None]
    ends = [ending(row) for row in counted]
    counts = {status: sum(row["status"] == status for row in group.rows) for status in UNFINISHED}
    return Summary(
        group=group,
        seeds=len(counted),
        solved=ends.count("solved"),
        ends={end: ends.count(end) for end in ENDS},
        iterations=iterations_to_solve(counted),
        score=Spread(median(scores), scores[0], scores[-1]) if scores else None,
        seconds=median(seconds) if seconds else None,
        unfinished={status: count for status, count in counts.items() if count},
    )


def iterations_to_solve(counted: Sequence[Row]) -> Spread | None:
    """Median and range of the iterations to a solution, where a run that found none counts as longer than any that did.

    Leaving such runs out would make a rule look quicker the more often it fails. The iterations of a run that was cut,
    given up or left are a bound. Those of a run that diverged are none: it would not have solved with any number.
    """
    ranked = sorted(_rank(row) for row in counted if row["iterations"] is not None)
    if not ranked:
        return None
    low, high = ranked[(len(ranked) - 1) // 2], ranked[len(ranked) // 2]
    # between a solved run and one that was not, all that is known of the mean of the two is that it is no less
    middle, is_bound = (low[1], high[0] and low[1] < NEVER) if high[0] else ((low[1] + high[1]) / 2, False)
    least, most = ranked[0], ranked[-1]
    return Spread(middle, least[1], most[1], is_bound, least[0] and least[1] < NEVER, most[0] and most[1] < NEVER)


def _rank(row: Row) -> tuple[bool, float]:
    """(whether it was not solved, iterations): an order of runs by how long they take to be solved."""
    return row["status"] != "solved", NEVER if row["status"] == "diverged" else row["iterations"]


# ---- as text


def render(header: Sequence[str], body: Sequence[Sequence[object]], fmt: str, numeric: Sequence[bool] = ()) -> str:
    """A table of any cells as markdown, LaTeX (booktabs) or CSV, without a line break at its end.

    `numeric` tells which columns stand at the right; all others, and those left out, at the left.
    Raises UserError for an unknown format.
    """
    if fmt not in FORMATS:
        raise UserError(f"--format: no format '{fmt}'; {nearest(fmt, FORMATS)}")
    cells = [["" if cell is None else str(cell) for cell in line] for line in (header, *body)]
    right = [*numeric, *[False] * len(header)][: len(header)]
    if fmt == "csv":
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(cells)
        return out.getvalue().rstrip("\n")
    if fmt == "latex":
        return _latex(cells, right)
    from tabulate import tabulate

    safe = [[cell.replace("|", "\\|") for cell in line] for line in cells]
    align = ["right" if flag else "left" for flag in right]
    return str(tabulate(safe[1:], safe[0], tablefmt="pipe", disable_numparse=True, colalign=align if body else None))


_SYMBOLS = {"α": "alpha", "γ": "gamma", "ε": "epsilon", "λ": "lambda", "ρ": "rho", "Ω": "Omega"}
_SYMBOLS |= {"≥": "geq", "≤": "leq", "×": "times", "±": "pm", "…": "ldots", "∞": "infty", "→": "to"}
_LATEX = {character: f"\\{character}" for character in "_%&#${}"} | {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "–": "--",
    **{symbol: f"$\\{name}$" for symbol, name in _SYMBOLS.items()},  # letters that pdflatex has in formulas only
}


def _latex(cells: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    escaped = [["".join(_LATEX.get(character, character) for character in cell) for cell in line] for line in cells]
    # braces: a line that begins with [ would be read as the length that the \\ before it may take
    lines = [" & ".join("{" + cell + "}" if cell.startswith("[") else cell for cell in line) for line in escaped]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            "\\begin{tabular}{" + "".join("r" if flag else "l" for flag in right) + "}",
            "\\toprule",
            f"{lines[0]} \\\\",
            "\\midrule",
            *(f"{line} \\\\" for line in lines[1:]),
            "\\bottomrule",
            "\\end{tabular}",
        ]
    )


def make_table(rows: Sequence[Row], fmt: str = "md") -> str:
    """The table of `rows`, one line per group: for people as markdown or LaTeX, with every number in full as CSV.

    Raises UserError for an unknown format.
    """
    summaries = [summarise(group) for group in group_rows(rows)]
    labels = list(summaries[0].group.labels) if summaries else []
    numeric = [all(isinstance(s.group.labels[label], (int, float, type(None))) for s in summaries) for label in labels]
    if fmt == "csv":  # has no caption for what all groups share
        shared = [show(value) for value in extras(rows).values()]
        body = [_full(summary, shared) for summary in summaries]
        return render([*labels, *extras(rows), *CSV_COLUMNS], body, fmt)
    ends = [end for end in ENDS if any(summary.ends[end] for summary in summaries)]
    unfinished = any(summary.unfinished for summary in summaries)
    shown = [end.replace("_", " ") for end in ends]
    header = [
        *labels,
        "seeds",
        "solved",
        *shown,
        "iterations",
        _heading(summaries),
        "seconds",
        *["unfinished"] * unfinished,
    ]
    lines = [_short(summary, ends)[: len(header)] for summary in summaries]
    table = render(header, lines, fmt, [*numeric, *[True] * (5 + len(ends))])
    before, after = _caption(summaries, rows), " ".join(_notes(summaries))
    if fmt == "latex":
        return "\n".join([f"% {before}", *([f"% {after}"] if after else []), table])
    return "\n\n".join(part for part in (before, table, after) if part)


def _caption(summaries: Sequence[Summary], rows: Sequence[Row]) -> str:
    shared = ", ".join(f"{name} = {show(value)}" for name, value in common(rows).items())
    count = len({row["path"] for row in rows})  # a run may be seen as of several budgets
    runs = "1 run" if count == 1 else f"{count} runs"
    groups = "" if len(summaries) == 1 else f" in {len(summaries)} groups"
    return f"{runs}{groups}" + (f"; all with {shared}." if shared else ".")


def _notes(summaries: Sequence[Summary]) -> list[str]:
    """Footnotes for what the table shows."""
    notes = ["Median [least–most] over seeds."] if any(summary.seeds > 1 for summary in summaries) else []
    spreads = [summary.iterations for summary in summaries if summary.iterations]
    if any(spread.median_is_bound or spread.high_is_bound for spread in spreads):
        notes.append(BOUND_NOTE)
    if any(spread.high == NEVER for spread in spreads):
        notes.append(NEVER_NOTE)
    ends = [
        f"{end.replace('_', ' ')}: {told}"
        for end, told in ENDS.items()
        if any(summary.ends[end] for summary in summaries)
    ]
    if ends:
        notes.append(f"Not solved, by kind ({'; '.join(ends)}).")
    seen = [status for status in UNFINISHED if any(status in summary.unfinished for summary in summaries)]
    if seen:
        told = "; ".join(f"{status}: {UNFINISHED[status]}" for status in seen)
        notes.append(f"Unfinished runs are in no number ({told}).")
    if any(row.get("device", "cpu") != "cpu" for summary in summaries for row in summary.group.counted):
        notes.append("Seconds on a GPU are a run's share of those of the stack that it was computed in.")
    return [*notes, *_untuned(summaries)]


def _untuned(summaries: Sequence[Summary]) -> list[str]:
    """What a comparison of trainers at the rates of their YAMLs does not show."""
    runs = [summary.group.rows[0] for summary in summaries]
    trainers = {row.get("trainer.name") for row in runs}
    if len(trainers) < 2:
        return []
    default = {
        row["trainer.name"] for row in runs if rates_of(row) and all(at_default(row, key) for key in rates_of(row))
    }
    if not default:
        return []
    names = ", ".join(sorted(default))
    return [f"Rates of {names}: defaults, which are not tuned against each other or for this task; they rank no rules."]


def _heading(summaries: Sequence[Summary]) -> str:
    """What stands above the scores: the name of the one that all groups with a number were judged by."""
    names = {summary.score_name for summary in summaries if summary.score} or {ACCURACY.name}
    return "score" if len(names) > 1 else f"{names.pop()}" if names - {ACCURACY.name} else ACCURACY.heading


def _number(summary: Summary) -> Callable[[float], str]:
    return ACCURACY.number if summary.score_name == ACCURACY.name else lambda value: f"{value:.4g}"


def _short(summary: Summary, ends: Sequence[str]) -> list[str]:
    """One line for people."""
    cells = ["–" if value is None else show(value) for value in summary.group.labels.values()]
    return [
        *cells,
        str(summary.seeds),
        f"{summary.solved}/{summary.seeds}",
        *(str(summary.ends[end]) for end in ends),
        _spread(summary.iterations, _count),
        _spread(summary.score, _number(summary)),
        "–" if summary.seconds is None else _seconds(summary.seconds),
        ", ".join(f"{count} {status}" for status, count in summary.unfinished.items()) or "–",
    ]


def _count(iterations: float) -> str:
    if iterations == NEVER:
        return "never"
    return str(int(iterations)) if iterations == int(iterations) else str(iterations)


def _spread(spread: Spread | None, number: Callable[[float], str]) -> str:
    if spread is None:
        return "–"
    middle = ">" * spread.median_is_bound + number(spread.median)
    low = ">" * spread.low_is_bound + number(spread.low)
    high = ">" * spread.high_is_bound + number(spread.high)
    return middle if low == high == middle else f"{middle} [{low}–{high}]"


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f}" if seconds >= 100 else f"{seconds:.3g}"


CSV_COLUMNS = (
    *("seeds", "solved", *ENDS, "iterations_median", "iterations_min", "iterations_max"),
    *("iterations_median_is_bound", "iterations_min_is_bound", "iterations_max_is_bound"),
    *("score", "score_median", "score_min", "score_max", "seconds_median", *UNFINISHED),
)


def _full(summary: Summary, shared: Sequence[str]) -> list[object]:
    """One line of labels, `shared` and `CSV_COLUMNS`; shares stay 0..1. Where a number is a bound, the true is larger.

    Iterations to a solution that is never found are inf.
    """
    count, score = summary.iterations, summary.score
    bounds = (count.median_is_bound, count.low_is_bound, count.high_is_bound) if count else ()
    return [
        *(None if value is None else show(value) for value in summary.group.labels.values()),
        *shared,
        *(summary.seeds, summary.solved, *summary.ends.values()),
        *((count.median, count.low, count.high, *map(show, bounds)) if count else [None] * 6),
        summary.score_name,
        *((score.median, score.low, score.high) if score else [None] * 3),
        summary.seconds,
        *(summary.unfinished.get(status, 0) for status in UNFINISHED),
    ]
