"""Training curves: the files, the data beside them, and what is drawn."""

from __future__ import annotations

import csv
import math
import statistics
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from conftest import Make, make_spec
from matplotlib.lines import Line2D

from tprnn.errors import UserError
from tprnn.report.cli import plot_main
from tprnn.report.figures.runs import COLOURS, Curve, draw, median_curve, read_curves
from tprnn.report.rows.frame import read_rows
from tprnn.store import RunFolder, Store


@pytest.fixture
def make(outputs: str) -> Make:
    """Writes a run folder with hand-made metrics, `count` checks."""
    store = Store(outputs)

    def write(
        changes: dict[str, Any] | None = None,
        *,
        trainer: str = "bptt",
        count: int = 5,
        status: str = "solved",
        **row: Any,
    ) -> RunFolder:
        spec = make_spec(changes, trainer=trainer)
        folder = store.folder(spec)
        folder.open(spec)
        folder.append_metrics(
            [
                {"iteration": 100 * n, "loss": 1 / (n + spec.config["seed"]), "accuracy": n / count, "validated": 1000}
                | {"seconds": n / 7, "rho_W_hh": 1 + n / 1000, "rho_V_hh": 2.0}
                | row
                for n in range(1, count + 1)
            ]
        )
        shared = {"iterations": 100 * count, "signature": spec.signature, "accuracy": 1.0, "seconds": 1.0}
        folder.write_result({"status": status, **shared})
        return folder

    return write


def curves_of(outputs: str) -> list[Curve]:
    curves, damaged = read_curves(read_rows(outputs)[0])
    assert damaged == []
    return curves


def lines_of(outputs: str, panel: int) -> list[Line2D]:
    return [line for line in draw(curves_of(outputs)).axes[panel].lines if len(line.get_xdata()) > 2]


def legend_of(outputs: str) -> list[str]:
    return [text.get_text() for legend in draw(curves_of(outputs)).legends for text in legend.get_texts()]


# ---- files


def test_plot_makes_png_and_svg_and_the_data(make: Make, outputs: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make()
    assert plot_main([str(folder.path), "--outputs", outputs]) == 0
    files = sorted((Path(outputs) / "plots").iterdir())
    assert [file.suffix for file in files] == [".csv", ".png", ".svg"]
    assert len({file.stem for file in files}) == 1
    assert files[1].read_bytes().startswith(b"\x89PNG\r\n")
    assert ET.parse(files[2]).getroot().tag.endswith("svg")
    out = capsys.readouterr().out
    assert all(str(file) in out for file in files)


def test_the_data_beside_a_figure_are_the_metrics_to_the_last_digit(make: Make, outputs: str, tmp_path: Path) -> None:
    folders = [make({"seed": 0}), make({"seed": 1}, loss=math.nan), make(trainer="tptt", count=3)]
    assert plot_main(["--outputs", outputs, "--output", str(tmp_path / "figures" / "a.svg")]) == 0
    with (tmp_path / "figures" / "a.csv").open() as file:
        lines = list(csv.DictReader(file))
    for folder in folders:
        mine = [line for line in lines if line["run"] == folder.name]
        metrics = folder.read_metrics()
        assert len(mine) == len(metrics)
        for line, row in zip(mine, metrics, strict=True):
            assert {key: line[key] for key in row} == {key: repr(value) for key, value in row.items()}
            assert line["trainer"] == folder.read_spec().config["trainer"]["name"]
            assert line["seed"] == str(folder.read_spec().config["seed"])


def test_the_same_runs_give_the_same_files_byte_for_byte(make: Make, outputs: str) -> None:
    make({"seed": 0})
    make({"seed": 1})
    plots = Path(outputs) / "plots"
    plot_main(["--outputs", outputs])
    before = {file: file.read_bytes() for file in plots.iterdir()}
    plot_main(["*", "--outputs", outputs, "--where", "task=temporal_order"])
    assert {file: file.read_bytes() for file in plots.iterdir()} == before


def test_other_runs_get_another_default_name(make: Make, outputs: str) -> None:
    make({"seed": 0})
    make({"seed": 1})
    plot_main(["--outputs", outputs])
    plot_main(["--outputs", outputs, "--where", "seed=1"])
    assert len(list((Path(outputs) / "plots").glob("*.png"))) == 2


def test_a_folder_of_runs_may_be_named_and_keeps_its_figures(make: Make, outputs: str) -> None:
    make({"seed": 0})
    run = make({"seed": 1})
    assert plot_main([outputs]) == plot_main([str(run.path)]) == 0
    assert len(list((Path(outputs) / "plots").glob("*.png"))) == 2


def test_a_pdf_can_be_asked_for(make: Make, outputs: str, tmp_path: Path) -> None:
    make()
    assert plot_main(["--outputs", outputs, "--output", str(tmp_path / "a.pdf")]) == 0
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "a.png").exists()


# ---- what is drawn


def test_a_run_alone_is_one_line_of_its_finite_values(make: Make, outputs: str) -> None:
    folder = make(count=4)
    with (folder.path / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 500, "loss": "nan", "accuracy": 0.5}\n')
    loss, accuracy, rho = (lines_of(outputs, panel) for panel in range(3))
    assert [len(lines) for lines in (loss, accuracy, rho)] == [1, 1, 1]
    assert list(loss[0].get_xdata()) == [100, 200, 300, 400]
    assert list(accuracy[0].get_ydata()) == [25.0, 50.0, 75.0, 100.0, 50.0]
    assert list(rho[0].get_ydata()) == [1 + n / 1000 for n in range(1, 5)]
    assert legend_of(outputs) == ["solved"]


def test_seeds_share_a_colour_with_thin_lines_and_a_bold_median(make: Make, outputs: str) -> None:
    for seed in range(3):
        make({"seed": seed})
        make({"seed": seed}, trainer="tptt")
    for panel in range(3):
        lines = lines_of(outputs, panel)
        assert len(lines) == 2 * (3 + 1)
        for colour in COLOURS[:2]:
            mine = sorted((line for line in lines if line.get_color() == colour), key=Line2D.get_linewidth)
            assert len(mine) == 4
            assert mine[2].get_linewidth() < 1 < mine[3].get_linewidth()
    rates = ["alpha = 0.001", "alpha_i = 0.1, alpha_f = 0.01, alpha_g = 0.001"]
    assert legend_of(outputs) == [f"bptt, {rates[0]}", f"tptt, {rates[1]}", "solved"]


def test_no_two_of_twenty_eight_groups_look_alike(make: Make, outputs: str) -> None:
    for T in range(10, 38):
        make({"task.T": T}, count=3)
    looks = {(line.get_color(), line.get_linestyle()) for line in lines_of(outputs, 0)}
    assert len(looks) == 28
    assert legend_of(outputs)[:28] == [f"T = {T}" for T in range(10, 38)]


def test_more_groups_than_looks_are_counted_in_the_legend(make: Make, outputs: str) -> None:
    for T in range(10, 50):
        make({"task.T": T}, count=3)
    texts = legend_of(outputs)
    assert len(texts) == 28 + 1
    assert "13 more" in texts[27]


def test_the_legend_says_only_what_differs(make: Make, outputs: str) -> None:
    make({"trainer.alpha": 0.1, "seed": 0})
    make({"trainer.alpha": 0.01, "seed": 0})
    make({"trainer.alpha": 0.01, "seed": 1})
    assert legend_of(outputs)[:2] == ["alpha = 0.01 (2 seeds)", "alpha = 0.1 (seed 0)"]
    title = draw(curves_of(outputs)).get_suptitle()
    assert title == "temporal_order, T = 10, bptt, H = 100"


def test_a_rate_that_all_curves_have_is_in_the_title_and_in_the_data(make: Make, outputs: str, tmp_path: Path) -> None:
    for seed in (0, 1):
        make({"trainer.alpha": 0.02, "seed": seed})
    assert draw(curves_of(outputs)).get_suptitle() == "temporal_order, T = 10, bptt, H = 100, alpha = 0.02 (2 seeds)"
    plot_main(["--outputs", outputs, "--output", str(tmp_path / "a.png")])
    with (tmp_path / "a.csv").open() as file:
        assert {line["alpha"] for line in csv.DictReader(file)} == {"0.02"}


def test_the_median_keeps_the_last_value_of_runs_that_have_ended(make: Make, outputs: str) -> None:
    for seed, count in enumerate([2, 4, 6]):
        make({"seed": seed}, count=count)
    values = {curve.row["seed"]: curve.points("loss") for curve in curves_of(outputs)}
    expected = {
        iteration: statistics.median(points.get(iteration, points[max(points)]) for points in values.values())
        for iteration in (100, 200, 300, 400)  # beyond, fewer than half of the runs go on
    }
    assert median_curve(curves_of(outputs), "loss") == expected


def test_loss_is_logarithmic_and_the_others_are_not(make: Make, outputs: str) -> None:
    make()
    assert [panel.get_yscale() for panel in draw(curves_of(outputs)).axes] == ["log", "linear", "linear"]


def test_what_was_not_recorded_is_said(make: Make, outputs: str, tmp_path: Path) -> None:
    make(rho_W_hh=None, loss=0.0)
    figure = draw(curves_of(outputs))
    assert "probe.spectral_radius=true" in figure.axes[2].texts[0].get_text()
    assert plot_main(["--outputs", outputs]) == 0  # a loss of 0 has no place on a logarithmic axis


@pytest.mark.parametrize(("status", "marker"), [("solved", "o"), ("diverged", "X"), ("not_solved", None)])
def test_the_end_of_a_run_is_marked_by_how_it_ended(make: Make, outputs: str, status: str, marker: str | None) -> None:
    make(status=status)
    marks = [line for line in draw(curves_of(outputs)).axes[0].lines if line.get_marker() not in ("None", "")]
    assert [line.get_marker() for line in marks] == ([marker] if marker else [])
    assert legend_of(outputs) == ([status] if marker else [])


# ---- bad input


def test_damaged_metrics_are_named_and_the_others_drawn(
    make: Make, outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make({"seed": 0})
    bad = make({"seed": 1}).path / "metrics.jsonl"
    bad.write_text("{\n{}\n")
    assert plot_main(["--outputs", outputs]) == 2
    out, err = capsys.readouterr()
    assert out.startswith("1 run drawn: ")
    assert len(err.splitlines()) == 1
    assert str(bad) in err
    assert bad.read_text() == "{\n{}\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nothing-*"], "no run 'nothing-\\*'"),
        (["--output", "a.gif"], "choices: .png, .svg, .pdf"),
        (["--where", "T=99"], "none of the chosen runs has metrics"),
        (["--where", "S=99"], "--where: no run has a key 'S'"),
        (["--colour"], "unrecognized arguments: --colour"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    make: Make, outputs: str, tmp_path: Path, arguments: list[str], told: str
) -> None:
    make()
    with pytest.raises(UserError, match=told) as caught:
        plot_main([*arguments, "--outputs", outputs])
    assert "\n" not in str(caught.value)
    assert not (Path(outputs) / "plots").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]


def test_plots_that_cannot_be_written_are_one_line(make: Make, outputs: str, tmp_path: Path) -> None:
    make()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        plot_main(["--outputs", outputs, "--output", str(tmp_path / "file" / "a.png")])
