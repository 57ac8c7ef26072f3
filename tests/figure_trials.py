"""Small figures of papers for tests: their recipes, made-up runs of them, and what is drawn."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tprnn.papers import recipes
from tprnn.papers.recipes import recipe
from tprnn.report.figures.paper import as_csv, find_runs, kind_of
from tprnn.store import RunFolder, Store

CURVES, LAYERS, SCORES, LIKE = (f"manchev2025/trial_{name}" for name in ("curves", "layers", "scores", "like"))
SHARED = """
budgets: {smoke: {seeds: 1, max_iterations: 20}, laptop: {seeds: 3, max_iterations: 40}}
overrides: [trainer=bptt, probe.layers=true]
"""
TRIALS = {
    CURVES: f"""\
# A figure for tests.
title: Loss
figure:
  kind: curves
  panels:
    - {{key: loss, label: loss, log: true, baseline: true}}
    - {{key: accuracy, label: "%", percent: true, line: 50}}
  mark: trainer.g_first
  mark_label: G alone
{SHARED}
rows: [{{task: copy_memory, T: 5}}, {{task: copy_memory, T: 10}}]
columns:
  - {{key: slow, label: slow, overrides: [], parameters: {{default: {{alpha: 0.001}}}}}}
  - {{key: many, label: many, overrides: [trainer=tptt_many, trainer.g_first=10]}}
""",
    LAYERS: f"""\
# A figure for tests.
title: Layers
figure:
  kind: layers
  quantities: [{{key: layers_a, label: a, last: loss, last_label: E}}, {{key: layers_b, label: b}}]
{SHARED}
rows: [{{task: random_permutation, T: 4}}]
columns:
  - {{key: f32, label: float32, overrides: [dtype=float32]}}
  - {{key: f64, label: float64, overrides: [dtype=float64]}}
""",
    SCORES: f"""\
# A figure for tests.
title: Scores
metric: accuracy_pct
figure: {{kind: scores, x: trainer.omega, x_label: λ}}
{SHARED}
grid: {{smoke: {{alpha: [0.1]}}, laptop: {{alpha: [0.1, 0.01]}}}}
rows: [{{task: temporal_order, T: 10}}, {{task: random_permutation, T: 10}}]
columns:
  - {{key: two, label: λ = 2, overrides: [trainer.omega=2.0]}}
  - {{key: one, label: λ = 1, overrides: [trainer.omega=1.0]}}
  - {{key: tenth, label: λ = 0.1, overrides: [trainer.omega=0.1]}}
""",
    LIKE: f"# A figure for tests.\ntitle: Like it\nlike: {LAYERS}\noverrides: [trainer.alpha=0.5]\n",
}
Change = Callable[[str, str, str], None]


def trial_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Change]:
    """A folder that stands for conf/paper, with the figures of `TRIALS`; replaces text in one of them."""
    folder = tmp_path / "conf"

    def clear() -> None:
        for cached in (recipes.names, recipes.figure_names, recipes.recipe):
            cached.cache_clear()

    def write(name: str, old: str, new: str) -> None:
        path = folder / "paper" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert old in TRIALS[name]
        path.write_text(TRIALS[name].replace(old, new))
        clear()

    monkeypatch.setattr(recipes, "conf_folder", lambda: folder)
    for name in TRIALS:
        write(name, "", "")
    yield write
    clear()


def record(outputs: str, name: str, line: Callable[..., dict[str, Any]], **chosen: Any) -> list[RunFolder]:
    """Writes the runs of a figure as a budget cuts them: metrics of `line(spec, iteration)` every 10 iterations."""
    folders = []
    budget = recipe(name).budget(chosen.pop("budget", "laptop"))
    for cell in recipe(name).cells:
        for spec in cell.runs(budget):
            if any(spec.config[key] != value for key, value in chosen.items()):
                continue
            folder = Store(outputs).folder(spec)
            folder.open(spec)
            folder.set_budget(spec.train)
            rows = [{"iteration": n} | line(spec, n) for n in range(10, budget.max_iterations + 1, 10)]
            folder.append_metrics(rows[len(folder.read_metrics()) :])
            shared = {"status": "not_solved", "stopped_by": "max_iterations", "iterations": budget.max_iterations}
            best = {key: rows[-1].get(key, 0.0) for key in ("best_accuracy", "best_validation_loss")}
            folder.write_result(shared | best | {"signature": spec.signature})
            folders.append(folder)
    return folders


def layers(spec: Any, n: int) -> dict[str, Any]:
    """a falls tenfold with each step back, and is 0 at the first two of float32; b is 2."""
    a = [10.0 ** (t - n - spec.config["seed"]) for t in range(4)]
    if spec.config["dtype"] == "float32":
        a[:2] = [0.0] * 2
    return {"loss": 1 / n + spec.config["seed"], "layers_a": a, "layers_b": [2.0] * 4}


def curves(spec: Any, n: int) -> dict[str, Any]:
    return {"loss": 1 / n + spec.config["seed"], "accuracy": n / 40}


def drawn(outputs: str, name: str, budget: str = "laptop") -> tuple[Figure, list[dict[str, str]]]:
    """A figure, and the lines of the CSV beside it."""
    plan = recipe(name)
    module, options = kind_of(plan)
    found = find_runs(plan, plan.budget(budget), outputs)
    points = module.points(found, options)
    return module.draw(found, points, options), list(csv.DictReader(io.StringIO(as_csv(points))))


def values_of(line: Line2D) -> dict[float, float]:
    """{x: y} of what is seen of a line."""
    pairs = zip(line.get_xdata(), line.get_ydata(), strict=True)
    return {float(x): float(y) for x, y in pairs if not math.isnan(y)}


def long_lines(figure: Figure, panel: int) -> list[Line2D]:
    return [
        line for line in figure.axes[panel].lines if line.get_marker() in ("None", "") and len(line.get_xdata()) > 2
    ]
