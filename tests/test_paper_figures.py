"""Figures of papers: their recipes, their runs, what is drawn, and what is said of missing runs."""

from __future__ import annotations

import csv
import io
import math
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tprnn.cli import main
from tprnn.errors import UserError
from tprnn.listing import conf_folder
from tprnn.papers import recipes
from tprnn.papers.recipes import figure_names, names, recipe
from tprnn.protocols import reproduce
from tprnn.report import paper_figures
from tprnn.report.paper_figures import as_csv, draw_paper_figure, find_runs, kind_of, kinds
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


@pytest.fixture
def change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Change]:
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
    """Writes the runs of a figure, laptop budget: metrics of `line(spec, iteration)` at iterations 10, 20, 30, 40."""
    folders = []
    budget = recipe(name).budget(chosen.pop("budget", "laptop"))
    for cell in recipe(name).cells:
        for spec in cell.runs(budget):
            if any(spec.config[key] != value for key, value in chosen.items()):
                continue
            folder = Store(outputs).folder(spec)
            folder.open(spec)
            rows = [{"iteration": n} | line(spec, n) for n in (10, 20, 30, 40)]
            folder.append_metrics(rows)
            shared = {"status": "not_solved", "stopped_by": "max_iterations", "iterations": 40}
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


# ---- recipes


@pytest.mark.parametrize("name", figure_names())
def test_every_figure_is_made_of_valid_runs_and_of_a_kind_there_is(name: str) -> None:
    plan = recipe(name)
    kind_of(plan)
    for budget in plan.budgets:
        assert reproduce.parse([name, f"budget={budget}"]).cells
    for row in plan.rows:
        cells = [cell for cell in plan.cells if cell.row == row]
        signatures = [spec.signature for cell in cells for spec in cell.candidates(None)]
        assert len(set(signatures)) == len(signatures)  # every line is another run


def test_tables_and_figures_are_told_apart_and_are_all_recipes() -> None:
    root = conf_folder() / "paper"
    drawn = set(figure_names())
    assert drawn
    assert not drawn & set(names())
    assert drawn | set(names()) == {path.relative_to(root).with_suffix("").as_posix() for path in root.glob("*/*.yaml")}
    for name in drawn:
        record = yaml.safe_load((root / f"{name}.yaml").read_text())
        assert "figure" in record or "like" in record
        assert "table" not in record


def test_kinds_are_the_files_beside_the_drawing_and_hold_to_the_contract() -> None:
    folder = Path(paper_figures.__file__).parent
    assert kinds() == sorted(path.stem[5:] for path in folder.glob("draw_*.py"))
    assert {recipe(name).figure["kind"] for name in figure_names()} <= set(kinds())
    for kind in kinds():
        module = __import__(f"tprnn.report.draw_{kind}", fromlist=["draw"])
        assert callable(module.points)
        assert callable(module.draw)
        assert module.Options.__dataclass_fields__


def test_a_figure_like_another_has_its_keys_and_puts_its_own_overrides_last(change: Change) -> None:
    like, other = recipe(LIKE), recipe(LAYERS)
    assert (like.title, like.figure, like.rows) == ("Like it", other.figure, other.rows)
    assert [cell.spec().config["trainer"]["alpha"] for cell in like.cells] == [0.5, 0.5]
    assert [cell.spec().config["probe"]["layers"] for cell in like.cells] == [True, True]


def test_figures_that_differ_in_their_drawing_alone_share_their_runs() -> None:
    for name in figure_names():
        record = yaml.safe_load((conf_folder() / "paper" / f"{name}.yaml").read_text())
        if "like" in record and "overrides" not in record:
            mine, theirs = ([cell.spec().signature for cell in recipe(n).cells] for n in (name, record["like"]))
            assert mine == theirs


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        (CURVES, "kind: curves", "kind: curve", "figure.kind: no kind 'curve'; nearest: curves"),
        (CURVES, "mark_label", "mark_lable", "unknown key 'figure.mark_lable'; nearest: figure.mark_label"),
        (
            CURVES,
            "percent: true",
            "precent: true",
            "unknown key 'figure.panels.precent'; nearest: figure.panels.percent",
        ),
        (CURVES, "key: loss, ", "", "figure.panels.key: missing"),
        (CURVES, "line: 50", "line: half", "figure.panels.line: expected a number"),
        (CURVES, "task: copy_memory, T: 5", "task: copy_memory", "a figure's rows have a length each"),
        (CURVES, "title:", "metric: los\ntitle:", "metric 'los'; nearest: loss"),
        (LIKE, LAYERS, "manchev2025/trial_layer", "like: no figure 'manchev2025/trial_layer'"),
        (LIKE, LAYERS, LIKE, "like: no figure"),
        (
            SCORES,
            "x: trainer.omega",
            "x: trainer.omeg",
            "no number 'trainer.omeg' in its config; nearest: trainer.omega",
        ),
        (SCORES, "metric: accuracy_pct", "metric: t_max", "metric 't_max' cannot be drawn as scores"),
        (LAYERS, "rows: [", "rows: [{task: adding, T: 10}, ", "a figure of kind 'layers' has one row"),
        (LAYERS, "key: layers_b", "key: layers_c", "have recorded none of layers_a, layers_c"),
        (
            CURVES,
            "parameters: {default: {alpha: 0.001}}",
            "grid: {smoke: {alpha: [1, 2]}, laptop: {alpha: [1, 2]}}",
            "column slow: a line of kind 'curves' is one point; give parameters, no grid",
        ),
    ],
)
def test_mistakes_in_a_recipe_are_one_line(
    change: Change, outputs: str, name: str, old: str, new: str, says: str
) -> None:
    change(name, old, new)

    def draw() -> None:
        record(outputs, name, lambda spec, n: {"loss": 1.0})
        draw_paper_figure(name, "laptop", outputs, None)

    with pytest.raises(UserError) as caught:
        draw()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- runs


def test_without_runs_the_command_that_makes_them_is_told(change: Change, outputs: str) -> None:
    with pytest.raises(UserError) as caught:
        draw_paper_figure(LAYERS, "laptop", outputs, None)
    told = str(caught.value)
    assert told == (
        f"{LAYERS}: none of its 6 runs with budget=laptop is in {outputs}; "
        f"make them: tprnn reproduce {LAYERS} budget=laptop outputs={outputs}"
    )
    request = reproduce.parse(shlex.split(told.partition("make them: ")[2])[2:])
    assert {climber.spec.signature for climber in reproduce.climbers(request)} == {
        spec.signature for cell in recipe(LAYERS).cells for spec in cell.runs(recipe(LAYERS).budget("laptop"))
    }
    assert not (Path(outputs) / "plots").exists()


def test_runs_of_another_budget_are_pointed_to(change: Change, outputs: str) -> None:
    record(outputs, LAYERS, layers, budget="smoke")
    with pytest.raises(UserError, match=f"there are some with budget=smoke: tprnn plot {LAYERS} budget=smoke"):
        draw_paper_figure(LAYERS, "laptop", outputs, None)


def test_what_is_there_is_drawn_and_what_is_missing_told(
    change: Change, outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    record(outputs, LAYERS, layers, dtype="float64")
    (broken_off, *_) = record(outputs, LAYERS, layers, dtype="float32", seed=1)
    (broken_off.path / "result.json").unlink()
    assert main(["plot", LAYERS, "--outputs", outputs]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{LAYERS}, budget laptop: 4 of 6 runs drawn: {outputs}/plots/manchev2025-trial_layers.png ")
    assert err == (
        "tprnn plot: 3 of 6 runs are not finished: float32 (3); "
        f"make them: tprnn reproduce {LAYERS} budget=laptop outputs={outputs}\n"
    )
    files = sorted(file.name for file in (Path(outputs) / "plots").iterdir())
    assert files == [f"manchev2025-trial_layers.{suffix}" for suffix in ("csv", "png", "svg")]


def test_damaged_runs_are_named_and_the_others_drawn(
    change: Change, outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, *_ = record(outputs, LAYERS, layers)
    (bad.path / "metrics.jsonl").write_text("{\n")
    assert main(["plot", LAYERS, "--outputs", outputs]) == 2
    out, err = capsys.readouterr()
    assert "5 of 6 runs drawn" in out
    assert err.startswith(f"tprnn plot: {bad.path / 'metrics.jsonl'}: ")
    assert len(err.splitlines()) == 1  # to train it again would change nothing: it is finished


def test_the_same_runs_give_the_same_files_wherever_they_are_asked_for(
    change: Change, outputs: str, tmp_path: Path
) -> None:
    record(outputs, LAYERS, layers)
    assert main(["plot", LAYERS, "--outputs", outputs]) == 0
    assert main(["plot", LAYERS, "budget=laptop", "--outputs", outputs, "--output", str(tmp_path / "f" / "a.png")]) == 0
    for suffix in ("png", "svg", "csv"):
        first = Path(outputs) / "plots" / f"manchev2025-trial_layers.{suffix}"
        assert first.read_bytes() == (tmp_path / "f" / f"a.{suffix}").read_bytes()


def test_the_last_line_of_a_reproduction_names_the_command_that_draws(
    change: Change, outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    record(outputs, LAYERS, layers)
    assert main(["reproduce", LAYERS, f"outputs={outputs}", "quiet=true"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(f"the figure: tprnn plot {LAYERS} budget=laptop --outputs {outputs}")


# ---- what is drawn


def test_the_csv_holds_the_medians_that_are_drawn(change: Change, outputs: str) -> None:
    record(outputs, LAYERS, layers)
    figure, lines = drawn(outputs, LAYERS)
    for panel, (key, layer) in enumerate([("layers_a", 1), ("layers_a", 2), ("layers_a", 3), ("loss", 4)]):
        for number, label in enumerate(("float32", "float64")):
            written = {
                float(line["iteration"]): float(line["value"])
                for line in lines
                if (line["key"], line["layer"], line["line"]) == (key, str(layer), label)
            }
            assert set(written) == {10, 20, 30, 40}
            seen = values_of(long_lines(figure, panel)[number])
            assert seen == {x: value for x, value in written.items() if value > 0}
    middle = [float(line["value"]) for line in lines if line["key"] == "loss" and line["line"] == "float64"]
    assert middle == [1 / n + 1 for n in (10, 20, 30, 40)]  # of seeds 0, 1, 2
    assert {line["key"] for line in lines} == {"layers_a", "layers_b", "loss"}


def test_what_is_exactly_zero_is_a_tick_at_the_lower_edge_and_in_the_legend(change: Change, outputs: str) -> None:
    record(outputs, LAYERS, layers)
    figure, _ = drawn(outputs, LAYERS)
    for panel in range(8):
        ticks = [line for line in figure.axes[panel].lines if line.get_marker() == "|" and len(line.get_xdata())]
        assert len(ticks) == (1 if panel < 2 else 0)
        for tick in ticks:
            assert list(tick.get_xdata()) == [10, 20, 30, 40]
            assert tick.get_transform() == figure.axes[panel].get_xaxis_transform()
            assert set(tick.get_ydata()) == {0.03}
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "float32",
        "float64",
        "exactly 0 (ticks at the lower edge)",
    ]


def test_a_line_ends_where_its_values_become_zero(change: Change, outputs: str) -> None:
    record(outputs, LAYERS, lambda spec, n: layers(spec, n) | {"layers_a": [0.0 if n == 20 else 1.0] * 4})
    figure, _ = drawn(outputs, LAYERS)
    drawn_values = list(long_lines(figure, 0)[0].get_ydata())
    assert math.isnan(drawn_values[1])  # a gap, not a bridge over the zero
    assert [drawn_values[0], *drawn_values[2:]] == [1.0] * 3


def test_the_panels_of_a_quantity_share_their_axis_and_the_last_has_its_own(change: Change, outputs: str) -> None:
    record(outputs, LAYERS, layers)
    figure, _ = drawn(outputs, LAYERS)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["t = 1", "t = 2", "t = 3", "E", "", "", "", "t = 4"]
    assert {axes.get_yscale() for axes in figure.axes} == {"log"}
    assert len({axes.get_ylim() for axes in figure.axes[:3]}) == 1
    assert figure.axes[3].get_ylim() != figure.axes[0].get_ylim()
    for axes in figure.axes:
        low, high = axes.get_ylim()
        assert math.floor(math.log10(high) + 1e-9) - math.ceil(math.log10(low) - 1e-9) >= 1  # two numbers to read


def test_curves_are_thin_seeds_and_a_bold_median_all_in_the_csv(change: Change, outputs: str) -> None:
    record(outputs, CURVES, curves)
    figure, lines = drawn(outputs, CURVES)
    assert len(figure.axes) == 4  # two tasks, two panels
    for panel, (task, key) in enumerate((f"copy_memory-T{T}", key) for T in (5, 10) for key in ("loss", "accuracy")):
        found = long_lines(figure, panel)
        assert len(found) == 2 * 4
        wanted = [("slow", seed) for seed in ("0", "1", "2", "median")] + [
            ("many", s) for s in ("0", "1", "2", "median")
        ]
        for line, (label, seed) in zip(found, wanted, strict=True):
            assert values_of(line) == {
                float(row["iteration"]): float(row["value"])
                for row in lines
                if (row["task"], row["key"], row["line"], row["seed"]) == (task, key, label, seed)
            }
            assert (line.get_linewidth() > 1) == (seed == "median")
    assert values_of(long_lines(figure, 1)[0]) == {10: 25.0, 20: 50.0, 30: 75.0, 40: 100.0}


def test_the_loss_without_memory_and_the_end_of_the_first_phase_are_marked(change: Change, outputs: str) -> None:
    record(outputs, CURVES, curves)
    figure, lines = drawn(outputs, CURVES)
    for panel, T in ((0, 5), (2, 10)):
        loss = 10 * math.log(8) / (T + 20)
        (level,) = [float(r["value"]) for r in lines if r["line"] == "without memory" and r["task"].endswith(f"T{T}")]
        assert level == pytest.approx(loss, abs=1e-12)
        across = [list(line.get_ydata()) for line in figure.axes[panel].lines if list(line.get_xdata()) == [0, 1]]
        assert across == [[level, level]]
        assert [line.get_xdata()[0] for line in figure.axes[panel].lines if list(line.get_ydata()) == [0, 1]] == [10]
    (legend,) = figure.legends
    assert "G alone" in [text.get_text() for text in legend.get_texts()]


def test_scores_are_those_of_the_best_point_of_each_seed_and_changes_their_slopes(change: Change, outputs: str) -> None:
    def best(spec: Any, n: int) -> dict[str, Any]:
        trainer = spec.config["trainer"]
        seeds = spec.config["seed"] / 100
        return {"best_accuracy": 0.9 - 0.1 * trainer["omega"] - trainer["alpha"] - seeds}

    record(outputs, SCORES, best)
    figure, lines = drawn(outputs, SCORES)
    for task in ("temporal_order-T10", "random_permutation-T10"):
        mine = [line for line in lines if line["task"] == task]
        scores = {float(row["x"]): float(row["value"]) for row in mine if row["panel"] == "score"}
        # alpha = 0.01 is better, and the middle of seeds 0, 1, 2 loses one more point
        assert scores == {x: pytest.approx(100 * (0.9 - 0.1 * x - 0.02)) for x in (0.1, 1.0, 2.0)}
        spans = {(float(r["x"]), float(r["x_to"])): float(r["value"]) for r in mine if r["panel"] == "change"}
        assert spans == {(0.1, 1.0): pytest.approx(-10.0), (1.0, 2.0): pytest.approx(-10.0)}
        bars = [float(row["most"]) - float(row["least"]) for row in mine if row["panel"] == "score"]
        assert bars == pytest.approx([2.0] * 3)
    left, right = figure.axes
    assert [list(line.get_xdata()) for line in right.lines if line.get_linewidth() > 1] == [[0.1, 1.0], [1.0, 2.0]] * 2
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "temporal_order, T = 10",
        "random_permutation, T = 10",
    ]
    assert left.get_ylabel() == "best accuracy (%)"


def test_scores_of_a_budget_leave_runs_of_others_out(change: Change, outputs: str) -> None:
    record(outputs, SCORES, lambda spec, n: {"best_accuracy": 0.9}, budget="laptop")
    record(outputs, SCORES, lambda spec, n: {"best_accuracy": 0.5}, budget="smoke")
    _, lines = drawn(outputs, SCORES, "smoke")
    assert {row["value"] for row in lines if row["panel"] == "score"} == {"50.0"}


# ---- the command line


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["manchev2025/fg2"], "no figure 'manchev2025/fg2'; nearest: manchev2025/fig2"),
        (["manchev2052/fig2"], "no figure 'manchev2052/fig2'; nearest: manchev2025/fig2"),
        (["manchev2025"], "no figure 'manchev2025'; nearest: manchev2025/fig"),
        (
            ["manchev2025/table1"],
            "manchev2025/table1 is a table, not a figure: tprnn report --paper manchev2025/table1",
        ),
        (["manchev2025/fig2", "budget=laptob"], "budget: no budget 'laptob' in manchev2025/fig2; nearest: laptop"),
        (["manchev2025/fig2", "manchev2025/fig3"], "expected one PAPER/FIGURE"),
        (["manchev2025/fig2", "budget=smoke", "budget=laptop"], "at most one budget=NAME"),
        (["budget=smoke"], "expected one PAPER/FIGURE"),
        (["manchev2025/fig2", "--where", "seed=1"], "--where: cannot be combined"),
        (["manchev2025/fig2", "--output", "a.gif"], "none of its 3 runs"),
        (["manchev2025/fig2", "--into", "page.md"], "needs PAPER/FIGURE and --output FILE"),
    ],
)
def test_bad_words_are_one_line(outputs: str, capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    assert main(["plot", *words, "--outputs", outputs]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert len(err.splitlines()) == 1


def test_a_figure_is_no_table_for_the_report(outputs: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", outputs, "--paper", "manchev2025/fig2"]) == 2
    assert "manchev2025/fig2 is a figure" in capsys.readouterr().err


# ---- pages


def test_a_figure_is_drawn_and_linked_in_a_page(change: Change, outputs: str, tmp_path: Path) -> None:
    record(outputs, LAYERS, layers)
    page, image = tmp_path / "docs" / "page.md", tmp_path / "figures" / "a.png"
    page.parent.mkdir()
    page.write_text("# Words\n")
    words = ["plot", LAYERS, "--outputs", outputs, "--output", str(image)]
    assert main([*words, "--into", str(page)]) == 0
    text = page.read_text()
    assert text.startswith(f"# Words\n\n<!-- tprnn plot {LAYERS} --outputs {outputs} --output {image} -->\n")
    assert "\n![Layers](../figures/a.png)\n" in text
    assert image.exists()
    image.unlink()
    assert main(["report", "--into", str(page)]) == 0  # all blocks of a page, of either command
    assert page.read_text() == text
    assert image.exists()


def test_a_page_keeps_a_figure_whose_runs_are_elsewhere(change: Change, outputs: str, tmp_path: Path) -> None:
    page, image = tmp_path / "page.md", tmp_path / "a.png"
    words = ["plot", LAYERS, "--outputs", outputs, "--output", str(image), "--into", str(page)]
    assert main(words) == 0
    made_by = f"tprnn reproduce {LAYERS} budget=laptop outputs={outputs}"
    assert f"\nNot drawn yet; `{made_by}` makes its runs.\n" in page.read_text()
    image.write_bytes(b"drawn before")
    assert main(words) == 0
    assert "![Layers](a.png)" in page.read_text()
    assert image.read_bytes() == b"drawn before"
