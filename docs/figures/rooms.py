"""Draws rooms.svg: the rooms of tprnn from top to bottom, and one number's way through them.

python docs/figures/rooms.py, after a change of rooms.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

matplotlib.rcParams |= {"svg.hashsalt": "rooms", "svg.fonttype": "none", "font.size": 10, "font.family": "sans-serif"}
BLUE, GREY, RED = "#0072B2", "#777777", "#D55E00"

# left edge, width, title, what it does, what our number is there
ROWS = [
    [
        (0.0, 3.1, "conf/", "defaults and meanings", "alpha_i: 1.0"),
        (3.5, 6.5, "train_command · points · compose", "override lines → points → configs", "trainer.alpha_i=0.5"),
    ],
    [
        (
            0.0,
            10.0,
            "config · members · settings",
            "RunSpec: checked by the rule's Settings, signed",
            "RunSpec, 12 digits",
        )
    ],
    [
        (0.0, 3.1, "protocols/", "which runs: depth, search, reproduce", "at T = 10, 20, …"),
        (3.5, 3.1, "sweep/", "plan → executor → outcomes", "finished before?"),
        (6.9, 3.1, "executors: here · local · slurm · ray", "who carries the rest out", "in a queue"),
    ],
    [(0.0, 10.0, "engine/", "queue → loop → ensemble: blocks, checks, checkpoints", "alpha_i [R] = [0.5, 1.0, …]")],
    [
        (0.0, 2.2, "tasks/", "sequences, scores", ""),
        (2.6, 2.2, "models/ readouts/", "states, loss, derivatives", "∂E/∂h_T"),
        (5.2, 2.2, "trainers/", "the learning rule", "δ_T = −α_i ∂E/∂h_T"),
        (7.8, 2.2, "optimizers/", "the step", "w ← w − …"),
    ],
    [
        (0.0, 4.8, "store", "run folders, written whole", "config.yaml, result.json"),
        (5.2, 4.8, "report/: rows → tables, figures", "reads, never trains", "a column, a line"),
    ],
    [(0.0, 10.0, "core/", "what members are made of: streams · activations · products · compiled recurrences", "")],
]
# (row, box) -> (row, box), in the order of the number's way
WAY = [(0, 0), (0, 1), (1, 0), (2, 1), (2, 2), (3, 0), (4, 2), (5, 0), (5, 1)]
HEIGHT, GAP = 1.0, 0.45


def place(row: int, box: int) -> tuple[float, float, float]:
    """Left, width and bottom of a box."""
    left, width, *_ = ROWS[row][box]
    return left, width, -row * (HEIGHT + GAP)


def main() -> None:
    """Write the picture beside this file."""
    figure = Figure(figsize=(9.4, 8.6))
    panel = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    for number, row in enumerate(ROWS):
        for box, (_, _, title, does, value) in enumerate(row):
            left, width, bottom = place(number, box)
            on_way = (number, box) in WAY
            fill, edge = ("#F4F8FB", BLUE) if on_way else ("#FAFAFA", GREY)
            round_ = "round,pad=0.03,rounding_size=0.1"
            outline = {"boxstyle": round_, "facecolor": fill, "edgecolor": edge, "linewidth": 1.2}
            panel.add_patch(FancyBboxPatch((left, bottom), width, HEIGHT, **outline))
            middle = left + width / 2
            panel.text(middle, bottom + 0.76, title, ha="center", va="center", weight="bold", fontsize=9.5)
            panel.text(middle, bottom + 0.46, does, ha="center", va="center", fontsize=8, color="#333333")
            panel.text(
                middle, bottom + 0.17, value, ha="center", va="center", fontsize=8.5, color=RED, family="monospace"
            )
    for (row, box), (to_row, to_box) in pairwise(WAY):
        left, width, bottom = place(row, box)
        to_left, to_width, to_bottom = place(to_row, to_box)
        if row == to_row:
            start, end = (left + width + 0.03, bottom + HEIGHT / 2), (to_left - 0.03, to_bottom + HEIGHT / 2)
        else:
            low, high = max(left, to_left), min(left + width, to_left + to_width)
            x, to_x = ((low + high) / 2,) * 2 if low < high else (left + 0.5, to_left + to_width - 0.5)
            start, end = (x, bottom - 0.03), (to_x, to_bottom + HEIGHT + 0.03)
        panel.add_patch(
            FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, color=RED, linewidth=1.3, zorder=4)
        )
    panel.set_xlim(-0.15, 10.15)
    panel.set_ylim(-(len(ROWS) - 1) * (HEIGHT + GAP) - 0.15, HEIGHT + 0.15)
    panel.axis("off")
    figure.savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
