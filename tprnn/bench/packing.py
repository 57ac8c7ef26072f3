"""How evenly a queue shares runs among workers, by simulation with made-up lengths of runs.

A run's length is not known before it ends. Simulated are grids in which some rates solve within hundreds of iterations,
some give up after 30,000 (patience), and some go on to 100,000; a neighbouring point of the grid does alike. Workers
ask the queue of `tprnn.engine` as they do when they train, and give runs back where others have none.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Mapping, Sequence

from tabulate import tabulate

from tprnn.compose import compose
from tprnn.config import RunSpec
from tprnn.cost.modelled import iteration_seconds, machines, shape_of
from tprnn.engine.queue import Queue

RATES = [10.0**-k for k in range(1, 7)]
SEEDS = (1, 5)  # 216 and 1080 runs
WORKERS = (2, 8, 64)
ROUND = 1000  # iterations between two looks at the queue


def grid(seeds: int) -> list[RunSpec]:
    """216 points of TPTT, each with its seeds, in the order of a sweep."""
    base = compose(["task=temporal_order", "trainer=tptt", "task.T=100"])
    found = []
    for alpha_i in RATES:
        for alpha_f in RATES:
            for alpha_g in RATES:
                rates = {"trainer.alpha_i": alpha_i, "trainer.alpha_f": alpha_f, "trainer.alpha_g": alpha_g}
                found += [base.replace({**rates, "seed": seed}) for seed in range(seeds)]
    return found


def made_up_iterations(spec: RunSpec) -> int:
    """Iterations of a run: few where both rates are large, all where they are small."""
    trainer = spec.config["trainer"]
    draw = random.Random(f"{trainer['alpha_i']} {trainer['alpha_f']} {trainer['alpha_g']} {spec.config['seed']}")
    slow = trainer["alpha_i"] * trainer["alpha_f"]
    if slow >= 1e-5:
        return 100 * round(draw.lognormvariate(2.5, 1.0) + 1)
    return 30_000 if draw.random() < 0.7 else 100_000


class _Worker:
    """What a process does between two blocks, with iterations that are only counted."""

    def __init__(self, queue: Queue, left: dict[str, int], each: Mapping[int, float]) -> None:
        self.queue, self.left, self.each = queue, left, each
        self.runs: list[RunSpec] = []

    def round(self) -> float:
        """Seconds of a round of all runs under way; 0 with nothing to do."""
        if not self.runs:
            self.runs = self.queue.take_stack()
            if not self.runs:
                return 0.0
        key, places = self.runs[0].stack_key, self.queue.places(self.runs[0])
        if self.queue.news().idle and len(self.runs) > 1:
            given = len(self.runs) // 2
            self.queue.give_back(self.runs[:given])
            self.runs = self.runs[given:]
        else:
            self.runs += self.queue.take(key, places - len(self.runs))
        steps = {run.signature: min(ROUND, self.left[run.signature]) for run in self.runs}
        for signature, count in steps.items():
            self.left[signature] -= count
        seconds = sum(steps.values()) * self.each[len(self.runs)]
        self.runs = [run for run in self.runs if self.left[run.signature]]
        if not self.runs:
            self.queue.leave()
        return seconds


def simulate(specs: Sequence[RunSpec], workers: int) -> tuple[float, float]:
    """(seconds until the last worker ends, that time beside an even share of the work)."""
    cpu, shape = machines()["cpu"], shape_of(specs[0])
    each = {R: iteration_seconds(shape, cpu, R, R) for R in range(1, 9)}
    queue = Queue(specs, workers)
    left = {spec.signature: made_up_iterations(spec) for spec in specs}
    even = sum(left.values()) * each[8] / workers
    ready = [(0.0, number, _Worker(queue, left, each)) for number in range(workers)]
    last = 0.0
    while not queue.over() or last == 0.0:
        now, number, worker = heapq.heappop(ready)
        seconds = worker.round()
        last = max(last, now + seconds)
        # with nothing to do it looks again when the next of the others may give something back
        heapq.heappush(ready, (now + seconds if seconds else max(now, ready[0][0]) + 0.1, number, worker))
    return last, last / even


def packing_block() -> str:
    """A table over numbers of runs and workers."""
    rows = []
    for seeds in SEEDS:
        specs = grid(seeds)
        for workers in WORKERS:
            last, ratio = simulate(specs, workers)
            rows.append([f"{len(specs):,}", workers, f"{last / 3600:.2f}", f"{ratio:.2f}"])
    headers = ["runs", "workers", "hours", "beside an even share"]
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)
