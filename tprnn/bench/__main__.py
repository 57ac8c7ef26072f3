"""python -m tprnn.bench [--out FILE]: measures, prints tables, writes outputs/bench/iteration.json."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from tprnn.bench.floors import floor, trainers
from tprnn.bench.pages import write_blocks
from tprnn.compose import compose
from tprnn.core.work import Workspace
from tprnn.cost.modelled import shape_of
from tprnn.engine.ensemble import DTYPES, Ensemble, prepare_process
from tprnn.engine.queue import ensemble_size

BLOCK = 2  # iterations of one ensemble before the next
LENGTHS, STACKS = (20, 50, 100, 300), (1, 8, 64)
FLOPS = 5.5e10  # rows above take too long
# (T, ms) of the authors' programs, one thread: manchev2020's and manchev2025's (K = 10)
RELEASED = {"tptt": (100, 45.0), "lra": (50, 197.0)}


@dataclass(frozen=True)
class Times:
    """Some rounds of one part."""

    median: float
    """ms."""
    spread: float
    """Most less least, as a share of the median."""


def rounds(parts: Sequence[Callable[[], None]], seconds: float, repeats: int = 5) -> list[Times]:
    """Times of each part, the parts taking turns so that a busy moment hits all alike."""
    for part in parts:
        part()
    counts = []
    for part in parts:
        start = time.perf_counter()
        part()
        counts.append(max(1, int(seconds / repeats / max(time.perf_counter() - start, 1e-6))))
    times: list[list[float]] = [[] for _ in parts]
    for _ in range(repeats):
        for part, count, found in zip(parts, counts, times, strict=True):
            start = time.perf_counter()
            for _ in range(count):
                part()
            found.append((time.perf_counter() - start) / count * 1e3)
    return [Times(statistics.median(found), (max(found) - min(found)) / statistics.median(found)) for found in times]


class Stack:
    """R runs of temporal order, computed ensemble by ensemble as the engine does."""

    @torch.inference_mode()
    def __init__(self, trainer: str, T: int, R: int) -> None:
        specs = [compose(["task=temporal_order", f"trainer={trainer}", f"task.T={T}", f"seed={r}"]) for r in range(R)]
        size, work = ensemble_size(specs[0]), Workspace(DTYPES[specs[0].config["dtype"]])
        self.ensembles = [Ensemble(specs[i : i + size], work=work) for i in range(0, R, size)]
        shape = shape_of(specs[0])
        p = shape.costs
        self.flops = 2.0 * R * T * shape.B * shape.H**2 * (p.dependent + p.rows + p.outer)
        """Of one iteration of all runs."""

    @torch.inference_mode()
    def iterate(self) -> None:
        """A block of iterations of every run; the engine's blocks are `check_every` long."""
        for ensemble in self.ensembles:
            for _ in range(BLOCK):
                ensemble.advance()

    @torch.inference_mode()
    def floor(self, T: int) -> Callable[[], None]:
        """The floor of a block of iterations of every run, at the ensembles' shapes."""
        first = self.ensembles[0]
        costs = first.trainer.costs(first.specs[0].config).times(first.model.products)
        kernel = floor(costs, len(first.specs), T, first.train.batch_size, first.model.H, first.dtype)

        @torch.inference_mode()
        def iterate() -> None:
            for _ in range(BLOCK * len(self.ensembles)):
                kernel()

        return iterate


def iteration_rows(lengths: Sequence[int], stacks: Sequence[int], seconds: float) -> list[dict[str, Any]]:
    """ms per run-iteration and its floor for every trainer, T and R."""
    rows: list[dict[str, Any]] = []
    for trainer in trainers():
        for T in lengths:
            for R in stacks:
                stack = Stack(trainer, T, R)
                if stack.flops > FLOPS:
                    continue
                ours, floor = rounds([stack.iterate, stack.floor(T)], seconds)
                row = {"trainer": trainer, "T": T, "R": R}
                row |= {"ms_per_iteration": ours.median / R / BLOCK, "floor_ms": floor.median / R / BLOCK}
                rows.append(row | {"ratio": ours.median / floor.median, "spread": max(ours.spread, floor.spread)})
    return rows


def torch_rnn(T: int) -> Callable[[], None]:
    """The same task and sizes by torch.nn.RNN and autograd, with torch's own SGD (Nesterov momentum)."""
    spec = compose(["task=temporal_order", "trainer=bptt", f"task.T={T}"])
    ensemble = Ensemble([spec])
    network = torch.nn.RNN(ensemble.task.inputs, ensemble.model.H)
    readout = torch.nn.Linear(ensemble.model.H, ensemble.task.outputs)
    parameters = [*network.parameters(), *readout.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, nesterov=True)
    position = 0

    def iterate() -> None:
        nonlocal position
        batch = ensemble.batch(position)
        position += 1
        x = torch.nn.functional.one_hot(batch.inputs[0], ensemble.task.inputs).float()
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(readout(network(x)[0][-1]), batch.targets[0, 0])
        loss.backward()
        optimizer.step()

    return iterate


def comparisons(seconds: float) -> list[dict[str, Any]]:
    """The aims of the project beside what is measured, at R = 1 and T = 100, or where a released program was timed."""
    rows = []
    for trainer in trainers():
        T, released = RELEASED.get(trainer, (100, None))
        stack = Stack(trainer, T, 1)
        ensemble = stack.ensembles[0]

        @torch.inference_mode()
        def validate(ensemble: Ensemble = ensemble) -> None:
            ensemble.validate([0], [False])

        @torch.inference_mode()
        def validate_full(ensemble: Ensemble = ensemble) -> None:
            ensemble.validate([0], [True])

        parts = [stack.iterate, torch_rnn(T), validate, validate_full]
        block, rnn, first, full = (found.median for found in rounds(parts, seconds))
        step = block / BLOCK
        train = ensemble.train
        every = train.full_check_every
        validation = ((every - 1) * first + full) / every
        row: dict[str, Any] = {"trainer": trainer, "T": T, "ms": step, "torch.nn.RNN / ours": rnn / step}
        row["released / ours"] = released / step if released else None
        rows.append(row | {"validation / training": validation / (train.check_every * step)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tprnn.bench", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("outputs/bench/iteration.json"))
    parser.add_argument(
        "--into", type=Path, metavar="FILE", help="write into the blocks of a page: docs/performance.md"
    )
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--stacks", type=int, nargs="+", default=STACKS)
    parser.add_argument("--seconds", type=float, default=0.6, help="time for each side of a comparison")
    args = parser.parse_args()
    prepare_process(threads=1)
    print(f"torch {torch.__version__}, {platform.machine()}, 1 thread; medians; H = 100, B = 20, float32\n")
    rows = iteration_rows(args.lengths, args.stacks, args.seconds)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(rows, indent=1) + "\n")
    blocks = {
        "bench: iterations": tabulate(
            rows, headers="keys", tablefmt="github", floatfmt=("", "", "", ".3f", ".3f", ".2f", ".0%")
        ),
        "bench: comparisons": tabulate(comparisons(args.seconds), headers="keys", tablefmt="github", floatfmt=".2f"),
    }
    print("\n\n".join(blocks.values()))
    print(f"\nwritten: {args.out}")
    if args.into is not None:
        write_blocks(args.into, blocks)
        print(f"written: {args.into}")


if __name__ == "__main__":
    main()
