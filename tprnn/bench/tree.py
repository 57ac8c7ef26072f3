"""python -m tprnn.bench.tree FOLDER [--runs 10000]: made-up runs in the real format, to try reports at scale.

Configs are real ones (tasks, rules, lengths, seeds, rates); results, metrics and networks are made up from the run's
number. Nothing is trained. Everything is written by tprnn.store, as the engine does it.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tprnn.budgets import FINISHED
from tprnn.compose import compose
from tprnn.config import RunSpec
from tprnn.store import RunFolder, Store

TASKS = ("temporal_order", "temporal_order_3bit", "adding", "random_permutation")
RULES = {
    "bptt": [{"trainer.alpha": 10.0**-k} for k in range(1, 7)],
    "tptt": [{"trainer.alpha_i": 10.0**-k, "trainer.alpha_f": 10.0**-j} for k in range(1, 4) for j in range(1, 4)],
    "tptt_hx": [{"trainer.alpha_g": 10.0**-k} for k in range(1, 7)],
}
SEEDS, STEP, LIMIT, LINES = 5, 10, 20_000, 20


def specs(outputs: str | os.PathLike[str]) -> Iterator[RunSpec]:
    """Configs without end, one unlike the other: tasks and rules in turn, then rates, seeds and lengths."""
    bases = [
        (compose([f"task={task}", f"trainer={rule}", f"outputs={outputs}", f"train.max_iterations={LIMIT}"]), points)
        for task, (rule, points) in itertools.product(TASKS, RULES.items())
    ]
    most = max(len(points) for points in RULES.values())
    for T in itertools.count(STEP, STEP):
        for point, seed in itertools.product(range(most), range(SEEDS)):
            for base, points in bases:
                if point < len(points):
                    yield base.replace({"task.T": T, "seed": seed, **points[point]})


def write_run(folder: RunFolder, spec: RunSpec, number: int, model: bool) -> str:
    """One run as if it had been trained; its status. Every 50th is broken off, which leaves no result."""
    draw = random.Random(number)
    status = "started" if number % 50 == 49 else draw.choices(FINISHED, (6, 3, 1))[0]
    end = draw.randrange(LINES, LIMIT // spec.train.check_every) * spec.train.check_every
    iterations = LIMIT if status == "not_solved" else end
    accuracy = {"solved": 1.0, "diverged": 0.25}.get(status, round(draw.uniform(0.3, 0.99), 4))
    folder.open(spec)
    folder.clear()
    folder.append_metrics([_line(iterations * k // LINES, k / LINES, accuracy) for k in range(1, LINES + 1)])
    if status == "started":
        return status
    if model:
        folder.save_model(_parameters(spec), {"signature": spec.signature})
    folder.write_result(
        {
            "status": status,
            "stopped_by": {"solved": "solved", "diverged": "not_finite"}.get(status, "max_iterations"),
            "iterations": iterations,
            "accuracy": accuracy,
            "loss": round(draw.uniform(0.0, 1.5), 6),
            "best_accuracy": accuracy,
            "seconds": round(iterations * 0.005, 3),
            "signature": spec.signature,
            "versions": {"python": "3.11.7", "torch": "2.13.0", "tprnn": "0.1.0"},
            "commit": None,
            "device": "cpu",
            "threads": 1,
            "stack": 8,
        }
    )
    return status


def _line(iteration: int, share: float, accuracy: float) -> dict[str, Any]:
    radii = {"rho_W_hh": 1.0 + 0.01 * share, "rho_V_hh": 1.0 - 0.01 * share}
    return {
        "iteration": iteration,
        "loss": 1.4 - share * accuracy,
        "accuracy": accuracy * share,
        "validated": 1000,
        "seconds": iteration * 0.005,
        **radii,
    }


def _parameters(spec: RunSpec) -> dict[str, Any]:
    import torch

    H = spec.config["model"]["H"]
    return {"W_hh": torch.zeros(H, H), "b_h": torch.zeros(H)}


def make(outputs: str | os.PathLike[str], runs: int, models: int = 0) -> dict[str, int]:
    """Write `runs` run folders, every `models`-th with a network (0: none); how many have each status."""
    store = Store(outputs)
    store.check_writable()
    count: dict[str, int] = {}
    for number, spec in enumerate(itertools.islice(specs(outputs), runs)):
        folder = RunFolder(store.runs / spec.folder_name)
        status = write_run(folder, spec, number, bool(models) and number % models == 0)
        count[status] = count.get(status, 0) + 1
    return count


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tprnn.bench.tree", description=__doc__)
    parser.add_argument("folder", type=Path, help="where to write; the same runs are written anew")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--models", type=int, default=10, help="every how many-th run has a network; 0: none")
    args = parser.parse_args(argv)
    count = make(args.folder, args.runs, args.models)
    told = ", ".join(f"{number} {status}" for status, number in sorted(count.items()))
    print(f"{sum(count.values())} runs in {args.folder}: {told}")


if __name__ == "__main__":
    main()
