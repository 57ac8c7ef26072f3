"""The experiments of the five papers as jobs for the cost model: points x lengths x iterations, at most.

Numbers are the papers' own (lengths solved: tprnn/papers/tables.yaml) where they give them; `assumed` says what they do
not. Rules that tprnn has are counted as it computes them, all others by the products that their equations need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tprnn.papers.published import table
from tprnn.trainers.base import Costs
from tprnn.trainers.tptt import TPTT

BPTT = Costs()
TPTT_GRADIENT = TPTT.costs({"trainer": {"wxh": "gradient"}})
TPTT_LOCAL = TPTT.costs({"trainer": {"wxh": "local"}})
LSTM = BPTT.times(4)  # four gates
# M = 20 sampled forward passes, then one backward pass, or one pass of targets and the own forward pass of the G step
STE = Costs(dependent=21, activated=20, outer=1, buffers=3)
STPTT = Costs(dependent=22, activated=22, rows=2, outer=2, buffers=6)
FORWARD = Costs(dependent=1, activated=1, outer=0, buffers=2)


def lra(K: int, regularised: bool = False) -> Costs:
    """K inner steps at each t, each of them back through W_hh and forward again; the regulariser does it twice."""
    return Costs(dependent=1 + (4 if regularised else 2) * K, activated=1 + K, outer=1, buffers=4)


@dataclass(frozen=True)
class Job:
    """Runs of one rule on one problem, at each of some lengths."""

    paper: str
    table: str
    costs: Costs
    lengths: Sequence[int]
    """T of each rung; in a climb each waits for the one before."""
    runs: int
    """Points of the grid x seeds, at each length."""
    iterations: int
    """Of each run, at most."""
    climb: bool = False
    B: int = 20
    H: int = 100
    judged: float = 14.5
    """Validation sequences for each iteration: of each check every 100 iterations 1000, of each 20th 10,000."""
    assumed: str = ""


def _climb(t_max: float | None) -> range:
    """T = 10, 20, ... up to the first failure."""
    return range(10, int(t_max or 0) + 11, 10)


def jobs() -> list[Job]:
    """All five papers."""
    return [*manchev2020(), *manchev2024(), *manchev2025(), *dai2021(), *bengio1993()]


def manchev2020() -> list[Job]:
    """Grids of 6 rates: 6 points for BPTT, 216 for TPTT; tuned for each T, one seed."""
    base = Job("manchev2020", "1, 2: climbs", BPTT, (), 6, 100_000, climb=True)
    found = []
    for cell in table("manchev2020/table1").cells:
        own = replace(base, lengths=_climb(cell.value))
        found.append(own if cell.trainer == "BPTT" else replace(own, costs=TPTT_GRADIENT, runs=216))
    for cell in table("manchev2020/tableA1").cells:
        if cell.trainer == "TPTT_hx":
            hx = replace(base, table="A1, A3: climbs, TPTT_hx", costs=TPTT_LOCAL, runs=216)
            found.append(replace(hx, lengths=_climb(cell.value)))
    fixed = replace(base, climb=False)
    noise = replace(fixed, table="3: noise", costs=TPTT_GRADIENT, runs=10, assumed="10 values of the noise")
    found.append(replace(noise, lengths=(70, 80, 90)))
    for costs, runs in ((BPTT, 1), (TPTT_GRADIENT, 1), (LSTM, 6)):
        found += [replace(fixed, table="4, 5: other lengths", costs=costs, lengths=(100,), runs=runs)] * 4
    digits = replace(fixed, lengths=(784,), B=16, assumed="all test images at every 125th iteration")
    judged = 10_000 / 125
    for costs in (TPTT_GRADIENT, TPTT_LOCAL):
        grid = replace(digits, table="6, A4: digits, grid", costs=costs, runs=512, iterations=375_000)
        found.append(replace(grid, judged=1000 / 125, assumed="1000 images at every 125th iteration"))
        final = replace(digits, table="6, A4: digits", costs=costs, runs=1, iterations=1_000_000, judged=judged)
        found.append(final)
    for cell in table("manchev2020/table7").cells:
        size = replace(digits, table="7: digits, 64 to 1024 units", costs=TPTT_GRADIENT, H=int(cell.fields["H"]))
        found.append(replace(size, runs=1, iterations=1_000_000, judged=judged))
    return found


def manchev2024() -> list[Job]:
    """Five values for each rate where a range is given."""
    told = "grid of 5 values a rate, batch 20"
    base = Job("manchev2024", "1: classes", STE, (2, 20), 5, 150_000, judged=3.0, assumed=told)
    found = [base, replace(base, costs=STPTT, runs=125)]
    told = "grid of 5 values a rate, 1000 sequences at every 100th iteration"
    mixture = replace(base, table="2: mixtures", lengths=(5, 30), B=3000, iterations=4000, judged=10.0, assumed=told)
    found += [replace(mixture, costs=BPTT), replace(mixture, costs=TPTT_GRADIENT, runs=125)]
    told = "grid of 5 values a rate for each of 4 optimizers, 50 epochs of 3356 batches"
    notes = replace(base, table="3: music, grid", lengths=(50,), runs=20, iterations=50 * 3356, assumed=told)
    found += [notes, replace(notes, costs=STPTT, runs=500)]
    told = "batch 20: 1,006,644 iterations"
    long = replace(base, table="4: music", lengths=(100,), H=300, runs=1, iterations=1_006_644, assumed=told)
    return [*found, replace(long, costs=BPTT), long, replace(long, costs=STPTT)]


def manchev2025() -> list[Job]:
    """3 rates x 5 gammas for each K."""
    found = []
    for K in (10, 20, 30):
        base = Job("manchev2025", "I: K", lra(K), (10, 20, 30), 15, 100_000)
        found += [base] * 3
        found += [replace(base, table="II: local losses", runs=30)] * 3
        found += [replace(base, table="III: normalisation", runs=30)] * 3
        found.append(replace(base, table="IV: constants c", lengths=(20,), runs=15 * 16))
    for cell in table("manchev2025/tableV").cells:
        reg = cell.trainer == "LRA_diff_reg"
        if cell.trainer.startswith("LRA"):
            told = "K = 10; three weights of the regulariser"
            base = Job("manchev2025", "V: climbs", lra(10, reg), _climb(cell.value), 45 if reg else 15, 100_000, True)
            found.append(replace(base, assumed=told))
    return found


def dai2021() -> list[Job]:
    """50 trials of a search for each length and method."""
    told = "50 trials of the search, as in the program"
    base = Job("dai2021", "1: copy memory", BPTT, (25, 30, 35, 40, 45), 50, 25_000, H=128, judged=20.0, assumed=told)
    expansion = replace(base, table="2: sequence expansion", lengths=(10, 20, 30, 40))
    return [replace(one, costs=costs) for one in (base, expansion) for costs in (BPTT, TPTT_LOCAL)]


def bengio1993() -> list[Job]:
    """7 methods, 20 trials."""
    told = "100,000 sequences a trial, one at a time; forward passes alone for 2 of the 7 methods"
    base = Job("bengio1993", "1, 2: two sequences", BPTT, (5, 10, 20, 50, 100), 20, 100_000, B=1, H=5, judged=0.0)
    base = replace(base, assumed=told)
    parity = replace(base, table="3, 4: parity", lengths=(3, 5, 10, 20, 50, 100, 500))
    return [replace(one, costs=p) for one in (base, parity) for p in (*[BPTT] * 5, *[FORWARD] * 2)]
