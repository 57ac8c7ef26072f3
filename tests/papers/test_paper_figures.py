"""Figures of papers: their recipes, their runs, what is said of missing runs, the command and pages."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import yaml
from figure_trials import (
    CURVES,
    LAYERS,
    LIKE,
    SCORES,
    Change,
    layers,
    record,
)

from tprnn.cli import main
from tprnn.errors import UserError
from tprnn.listing import conf_folder
from tprnn.papers.recipes import figure_names, names, recipe
from tprnn.protocols import reproduce
from tprnn.report.figures import paper as paper_figures
from tprnn.report.figures.paper import draw_paper_figure, kind_of, kinds

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
        module = __import__(f"tprnn.report.figures.draw_{kind}", fromlist=["draw"])
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
    assert last.endswith(f"the figure: tprnn plot {LAYERS} budget=laptop outputs={outputs}")


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
    Path(outputs).mkdir()
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
